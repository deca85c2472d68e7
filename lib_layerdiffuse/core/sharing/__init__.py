"""Attention sharing: frames of one picture see each other in the attention layers of a UNet."""
