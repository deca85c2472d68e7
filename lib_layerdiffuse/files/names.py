"""Names for files that are made from texts of users."""

from __future__ import annotations

import unicodedata

SLUG_LENGTH, SLUG_BYTES = 60, 120
SLUG_SEEN = 1000  # characters that are looked at: a prompt may be a book


def slug(text: str) -> str:
    """Lower-case words of any script, joined by hyphens, at most 60 characters and 120 bytes; "picture" for none."""
    # marks are parts of letters in many scripts, and no letters to regular expressions
    plain = unicodedata.normalize("NFC", text[:SLUG_SEEN].lower())
    kept = "".join(letter if unicodedata.category(letter)[0] in "LNM" else " " for letter in plain)
    words = "-".join(kept.split())[:SLUG_LENGTH].encode()[:SLUG_BYTES].decode(errors="ignore")
    return words.strip("-") or "picture"
