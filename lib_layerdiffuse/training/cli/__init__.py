"""The commands of the training: their arguments, and what they call."""
