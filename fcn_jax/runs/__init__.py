"""A run directory: configuration, metrics and checkpoints."""
