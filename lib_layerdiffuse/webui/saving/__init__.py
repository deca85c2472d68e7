"""How layers leave a WebUI: saved, in the gallery and in sets, past other extensions, with alpha to the last file."""
