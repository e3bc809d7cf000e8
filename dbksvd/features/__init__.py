"""What the atoms of dictionaries stand for: where they fire, what they write, what is near."""
