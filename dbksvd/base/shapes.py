"""Array aliases and the legend of sizes used in every signature.

Legend
------
n : samples (token activations)
d : width of an activation
m : atoms in the dictionary
k : non-zero coefficients a sample may have

A dictionary explains activations as ``X (n, d) ≈ Z (n, m) @ D (m, d) + b (d,)``.
Atoms are the rows of D and have unit Euclidean norm.
"""

from jaxtyping import Float, Int
from torch import Tensor

Activations = Float[Tensor, "n d"]
Atoms = Float[Tensor, "m d"]
Gram = Float[Tensor, "m m"]
Products = Float[Tensor, "n m"]
Bias = Float[Tensor, " d"]
CodeIndices = Int[Tensor, "n k"]
CodeValues = Float[Tensor, "n k"]
DenseCodes = Float[Tensor, "n m"]

__all__ = [
    "Activations",
    "Atoms",
    "Bias",
    "CodeIndices",
    "CodeValues",
    "DenseCodes",
    "Gram",
    "Products",
]
