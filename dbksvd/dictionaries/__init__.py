"""A dictionary and every SAE architecture: encode, decode, load, save."""
