"""Diffusion models on latents: ordinary, transparent, Flux, ControlNet; the demo model as files."""
