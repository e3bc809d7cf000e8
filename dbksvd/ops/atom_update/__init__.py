"""Rank-1 updates of atoms and coefficients."""
