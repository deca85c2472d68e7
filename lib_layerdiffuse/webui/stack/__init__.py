"""The Layers tab in a WebUI: its own jobs from text paint the layers, with this extension's methods."""
