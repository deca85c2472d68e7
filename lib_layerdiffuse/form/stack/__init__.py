"""The Layers tab of every user interface: a stack of layers, painted one after the other."""
