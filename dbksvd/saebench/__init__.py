"""SAEBench as a library: a dictionary in, its own evals in the middle, its own JSON out.

An eval is one module and one line in :mod:`dbksvd.saebench.registry`: ``prepare`` writes what no
dictionary changes, once per model and layer, and ``run`` scores one dictionary with it. Faults of
SAEBench are handled in :mod:`dbksvd.saebench.shims`.
"""
