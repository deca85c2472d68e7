"""The command line; every command is a module with `add_parser(subparsers)` that sets `run` on its arguments."""
