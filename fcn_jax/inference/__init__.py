"""Segmentation of images with a trained network, and its scores."""
