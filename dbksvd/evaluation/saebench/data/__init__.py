"""Texts that the evals of SAEBench read."""
