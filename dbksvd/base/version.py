"""The version of the package, told here only."""

__version__ = "0.2.0"
