"""A name's place in an address's path. Knows no wire."""

from __future__ import annotations

from urllib.parse import quote

from holynb.errors import Fault

__all__ = ["in_path"]


def in_path(name: str, safe: str = "") -> str:
    """A name, percent-encoded but for `safe`. Raises Fault where it would lead elsewhere: `..` is a folder up, encoded or not."""
    if {".", ".."}.isdisjoint(name.split("/") if "/" in safe else (name,)):
        try:
            return quote(name, safe=safe)
        except UnicodeEncodeError:  # half a character
            pass
    raise Fault("bad_request", f"{name[:60]!a} cannot be a model's name in an address", retry=False, stops=True)
