"""One dictionary out of the fits of several seeds."""
