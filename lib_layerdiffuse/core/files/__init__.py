"""Weight files: reading them safely, their layouts, and what a file is for."""
