"""Sets of layers: what they are made of, their files, and how chains and stacks make them."""
