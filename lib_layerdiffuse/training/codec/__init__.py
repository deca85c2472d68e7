"""A small VAE, the transparency codec for a frozen one, and what it harms."""
