"""What every stage stands on: files, seals, shapes, codes, settings."""
