"""Generative models whose features are known: they make activations, and say what is found."""
