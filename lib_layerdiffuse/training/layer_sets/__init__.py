"""Sets of layers to learn from: composed, read from files, painted scenes; figures of a set."""
