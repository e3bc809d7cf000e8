"""Transformers models: loading, sizes, hooks."""
