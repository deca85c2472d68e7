"""Sets of pictures with alpha: read from any source, captioned, drawn for training."""
