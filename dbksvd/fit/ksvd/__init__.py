"""DB-KSVD and K-SVD."""
