"""Sparse autoencoders, trained on the same shards."""
