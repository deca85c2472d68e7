"""The published and own files of layer methods in a WebUI: found, downloaded, listed."""
