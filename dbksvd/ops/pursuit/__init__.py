"""Sparse coding by greedy pursuit."""
