"""Training: set-up, step and loop."""
