"""Latent transparency for diffusion models: RGBA images and layers painted natively (arXiv 2402.17113)."""

__version__ = "0.1.0"
