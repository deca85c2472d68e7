"""The transparency codec: networks that hide alpha in latents and read it back, tiling for large pictures."""
