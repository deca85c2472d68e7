"""Layers that fit together: units that share attention, offsets that see other frames, their report."""
