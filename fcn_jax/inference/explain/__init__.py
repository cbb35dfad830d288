"""Figures that explain a network: streams, receptive field, upsampling kernels, heat maps."""
