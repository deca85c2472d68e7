"""What a job sets on a WebUI's object for its own time, and gives back at its end."""

from __future__ import annotations

import weakref
from typing import Any

ABSENT = object()  # in the place of an attribute that the object itself did not have


class Changes:
    """Attributes of one object that were set, with what they were before; what others set since then stays."""

    def __init__(self, owner: Any):
        self._owner = weakref.ref(owner)
        self._former: dict[str, Any] = {}
        self._ours: dict[str, Any] = {}

    def remember(self, name: str) -> None:
        """What an attribute is now is what `undo` gives back, whoever sets it before we do."""
        self._former.setdefault(name, vars(self._owner()).get(name, ABSENT))

    def set(self, name: str, value: Any) -> None:
        """Set an attribute until `undo`."""
        self.remember(name)
        self._ours[name] = value
        setattr(self._owner(), name, value)

    def undo(self) -> None:
        """Give back what is still ours; safe to call again."""
        owner = self._owner()
        for name, ours in self._ours.items():
            former = self._former[name]
            if vars(owner).get(name, ABSENT) is not ours:
                continue
            if former is ABSENT:
                delattr(owner, name)
            else:
                setattr(owner, name, former)
        self._former.clear()
        self._ours.clear()
