"""One module for each figure; what several share is in modules of its own."""
