"""Characters that no log and no message may hold."""

from __future__ import annotations

import unicodedata

ACTING = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""Unicode's categories: control, format (bidirectional, zero width), surrogate, line and paragraph separator."""


def acting(text: str, allowed: str = "") -> list[str]:
    """Return the characters of a text that act and are not seen, except those that are allowed."""
    return [
        ascii(character) for character in text if unicodedata.category(character) in ACTING and character not in allowed
    ]
