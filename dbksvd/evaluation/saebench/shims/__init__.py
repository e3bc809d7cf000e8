"""What SAEBench needs to run on a local model and local data."""
