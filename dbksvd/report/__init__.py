"""Tables, figures and their texts."""
