"""Segmenting images with a trained network, and scoring it."""
