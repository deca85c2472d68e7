"""The WebUIs: AUTOMATIC1111, Forge, reForge, Classic and Neo, behind one small interface."""
