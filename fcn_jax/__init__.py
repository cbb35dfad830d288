"""Fully Convolutional Networks in JAX and Flax."""
