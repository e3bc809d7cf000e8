"""SAEs trained side by side that are drawn towards the features they share."""
