"""JSON in and out of bytes: orjson where it is installed, the standard library else, with the same result. Knows no wire."""

from __future__ import annotations

import json
import re
from typing import Any

try:
    import orjson
except ImportError:  # it is faster, and nothing else
    orjson = None  # type: ignore[assignment]

__all__ = ["dumps", "loads", "mend"]

_LONE = re.compile("[\ud800-\udfff]")


def dumps(value: Any) -> bytes:
    """UTF-8 JSON without spaces. Lone surrogates, which a notebook's string may hold, go out as escapes. Raises TypeError."""
    if orjson is not None:
        try:
            return orjson.dumps(value)
        except TypeError:
            pass  # lone surrogates and integers over 64 bits, which the standard library can write
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:
        return json.dumps(value, separators=(",", ":")).encode()


def loads(data: bytes) -> Any:
    """The value. Bytes that are not UTF-8 are replaced, not refused. Raises ValueError for what is no JSON.

    An integer of more than 64 bits may come as a float, as it does in browsers (RFC 8259, section 6); no field of a wire is that large.
    """
    if orjson is not None:
        try:
            return orjson.loads(data)
        except ValueError:
            pass  # NaN, lone surrogates and broken UTF-8 are read by the standard library; what is no JSON fails there too
    return json.loads(data.decode("utf-8", "replace"))


def mend(text: str) -> str:
    """`text` with surrogate pairs joined and lone ones replaced, so that it can be written anywhere."""
    if _LONE.search(text) is None:
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
