"""The command ``dbksvd``."""
