"""Scores of a dictionary: on held-out rows, against known features, by SAEBench."""
