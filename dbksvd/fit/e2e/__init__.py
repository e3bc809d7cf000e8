"""Dictionaries trained on by what they cost the language model."""
