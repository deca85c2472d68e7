"""`python -m lib_layerdiffuse`: the command line."""

from __future__ import annotations

import signal
import sys

from .cli.interrupts import INTERRUPTED
from .cli.main import main

if __name__ == "__main__":
    code = main()
    if code == INTERRUPTED:  # all is said and done: another Ctrl-C must not end in a traceback of Python's own farewell
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.exit(code)
