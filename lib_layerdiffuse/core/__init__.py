"""What all else stands on: torch, numpy, Pillow, safetensors and the standard library alone."""
