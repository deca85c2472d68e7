"""Of any type: an optional package that the checks run without."""

from typing import Any

def __getattr__(name: str) -> Any: ...
