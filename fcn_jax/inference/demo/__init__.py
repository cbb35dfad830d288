"""A local page to drop photographs on: `fcn-jax demo`."""
