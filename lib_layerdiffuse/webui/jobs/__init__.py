"""One job of a WebUI, from what was asked for to pictures with alpha."""
