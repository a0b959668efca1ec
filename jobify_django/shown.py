"""Stored text as people may see it: whatever it holds, it can be printed, and it is not endless."""

from __future__ import annotations

import json

LONGEST = 2_000
"""Characters that are shown of a text that cannot be read."""


def printable(text: str) -> str:
    """Return a text without the halves of characters that no encoding can write (lone surrogates)."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace").decode()
    return text


def brief(text: str) -> str:
    """Return a text's beginning, and how much more of it there is."""
    if len(text) <= LONGEST:
        return printable(text)
    return f"{printable(text[:LONGEST])}… ({len(text):,} characters in all)"


def document(text: str) -> str | None:
    """Return JSON text with its parts on lines of their own; ``None`` if it cannot be read."""
    try:
        return printable(json.dumps(json.loads(text), indent=2, ensure_ascii=False))
    except (ValueError, TypeError, RecursionError):
        return None
