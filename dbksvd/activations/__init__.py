"""Activations: extracted, stored, shuffled into shards, read."""
