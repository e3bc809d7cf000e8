"""What the command ``dbksvd`` does with the workflow."""
