"""Dictionaries coded by other encoders than their own, at equal L0."""
