"""The standalone Gradio page: prompt, accordion, gallery on a checkerboard, downloads of the real RGBA files."""
