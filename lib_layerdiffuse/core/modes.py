"""The modes as rows: what a user gives and gets; the methods of each are rows of their own."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Mode:
    """A mode: its id, what a page calls it, and what it gives."""

    id: str
    title: str
    gives: str


MODES = {
    mode.id: mode
    for mode in (
        Mode("single", "Single", "a transparent picture from a prompt"),
        Mode("from-foreground", "From foreground", "a background, or the blended picture, for a given foreground"),
        Mode("from-background", "From background", "a foreground, or the blended picture, for a given background"),
        Mode("joint", "Joint", "foreground, background and blended picture together"),
    )
}
