"""Kinds of text sources: one module each."""
