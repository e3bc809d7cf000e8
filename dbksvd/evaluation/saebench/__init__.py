"""SAEBench as a library: a dictionary in, its own evals in the middle, its own JSON out."""
