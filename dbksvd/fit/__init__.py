"""Methods that learn dictionaries."""
