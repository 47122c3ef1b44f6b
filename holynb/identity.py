"""What is hashed to tell whether two requests are the same: JSON, of which all but the messages is known from the row before."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from json.encoder import encode_basestring
from typing import Any

__all__ = ["Around", "around", "hashed", "keep", "text_of", "turn"]

#: What stands before and after the messages; and what it was made of, so that no other object has its id meanwhile.
Around = tuple[str, str, object]

_known: dict[tuple[object, ...], Around] = {}
#: Kinds of requests that are known at once: all rows of a run are of one, or of a few.
KINDS_KEPT = 64

#: Made once: `json.dumps` would make one for each row.
text_of = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=str).encode


def turn(role: str, content: str) -> str:
    """The JSON of a message without attachments."""
    return f"[{encode_basestring(role)},{encode_basestring(content)}]"


def around(kind: tuple[object, ...]) -> Around | None:
    """What is known of this kind: all that is equal in requests of the same kind, or the ids of it."""
    return _known.get(kind)


def keep(kind: tuple[object, ...], parts: tuple[list[Any], list[Any]], of: object) -> Around:
    """Know a kind from now on: what stands in the list before its messages, and after them. of: the objects whose ids are in `kind`."""
    if len(_known) >= KINDS_KEPT:
        _known.clear()
    before, after = map(text_of, parts)
    known = _known[kind] = f"{before[:-1]},[", f"],{after[1:]}", of
    return known


def hashed(around: Around, turns: Iterable[str]) -> str:
    """The hash, as hex SHA-256."""
    return hashlib.sha256(f"{around[0]}{','.join(turns)}{around[1]}".encode("utf-8", "surrogatepass")).hexdigest()
