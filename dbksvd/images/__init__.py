"""Images: files, tiles, their split."""
