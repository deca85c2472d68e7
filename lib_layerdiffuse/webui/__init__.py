"""The extension of a WebUI: the script in its tabs, its jobs, files and saving."""
