"""Documents: sources, deduplication, split, tokens."""
