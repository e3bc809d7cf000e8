"""Controls and baselines: what a score must beat to mean something."""
