"""One module for each eval of SAEBench."""
