"""JSON in and out of bytes: orjson where it is installed, the standard library else, with the same result. Knows no wire."""

from __future__ import annotations

import json
import mmap
import re
from typing import Any

try:
    import orjson
except ImportError:  # it is faster, and nothing else
    orjson = None  # type: ignore[assignment]

__all__ = ["Body", "NotUTF8", "dumps", "excerpt", "loads", "mend"]

#: What is sent: bytes, or pages of memory where it is large.
Body = bytes | mmap.mmap

_LONE = re.compile("[\ud800-\udfff]")
_BOM = b"\xef\xbb\xbf"


class NotUTF8(ValueError):
    """The bytes are no text in UTF-8, nor in UTF-16 or UTF-32 as JSON may be in."""


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


def excerpt(value: Any) -> bytes:
    """A value as JSON, for messages; empty for one that cannot be written, since it is nested too deeply."""
    try:
        return dumps(value)
    except (TypeError, ValueError, RecursionError):
        return b""


def loads(data: bytes, *, strict: bool = False) -> Any:
    """The value. Raises ValueError for what is no JSON, or nested too deeply.

    Bytes that are not UTF-8 are replaced; with `strict`, where they may be an answer's, they raise NotUTF8. An integer of more than 64 bits
    may come as a float, as it does in browsers (RFC 8259, section 6); no field of a wire is that large.
    """
    if orjson is not None:
        try:
            return orjson.loads(data)
        except ValueError:
            pass  # NaN, lone surrogates, a BOM, other encodings and broken UTF-8: read below; what is no JSON fails there too
    try:
        return json.loads(_text(data, strict=strict))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _text(data: bytes, *, strict: bool) -> str:
    data = data.removeprefix(_BOM)
    try:
        return data.decode(json.detect_encoding(data))
    except UnicodeDecodeError as exc:
        if strict:
            raise NotUTF8(str(exc)) from None
        return data.decode("utf-8", "replace")


def mend(text: str) -> str:
    """`text` with surrogate pairs joined and lone ones replaced, so that it can be written anywhere."""
    if text.isascii() or _LONE.search(text) is None:
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
