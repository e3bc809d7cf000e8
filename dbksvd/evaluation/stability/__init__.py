"""How far dictionaries agree that differ in their seed only."""
