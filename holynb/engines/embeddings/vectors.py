"""Vectors as servers send them, as bytes of float32: lists of numbers, or base64. Knows no wire."""

from __future__ import annotations

import binascii
import math
import sys
from array import array
from collections.abc import Sequence
from typing import Any

from holynb.engines import codec
from holynb.engines.classify import malformed
from holynb.errors import Fault
from holynb.types import Completion, Usage

__all__ = ["completion", "in_order", "packed"]


def completion(vectors: Sequence[Any], model: Any, tokens: int | None) -> Completion:
    """The answer of these vectors. `tokens`: as the server counted them; a vector has none of output. Raises Fault."""
    usage = Usage() if tokens is None else Usage(tokens, 0)
    return Completion("", "stop", model if isinstance(model, str) and model else None, usage, vectors=packed(vectors))


def in_order(data: Any) -> list[Any]:
    """The vectors of OpenAI's `data`, by their index; by their place where none has one. Raises Fault."""
    if not isinstance(data, list) or not all(isinstance(d, dict) for d in data):
        raise malformed(codec.excerpt(data), "200, but the answer has no vectors")
    indexes = [d.get("index") for d in data]
    if any(i is not None for i in indexes):
        if sorted(i for i in indexes if type(i) is int) != list(range(len(data))):
            raise malformed(codec.excerpt(indexes), "200, but its vectors are numbered otherwise than the texts")
        data = sorted(data, key=lambda d: d["index"])
    return [d.get("embedding") for d in data]


def packed(vectors: Sequence[Any]) -> tuple[bytes, ...]:
    """The bytes of each. Raises Fault: no numbers, or not finite."""
    parts = tuple([_bytes(v) for v in vectors])
    if any(len(p) % 4 for p in parts) or not _finite(b"".join(parts)):
        raise malformed(b"", "200, but with vectors that hold something else than finite numbers")
    return parts


def _bytes(vector: Any) -> bytes:
    if not isinstance(vector, str | list):
        raise _no_vector(vector)
    try:
        if isinstance(vector, str):
            return binascii.a2b_base64(vector, strict_mode=True)
        numbers = array("f", vector)
    except (TypeError, ValueError, OverflowError, binascii.Error):
        raise _no_vector(vector) from None
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers.tobytes()


def _no_vector(value: Any) -> Fault:
    return malformed(codec.excerpt(value)[:200], "200, but with something that is no vector")


def _finite(whole: bytes) -> bool:
    """Whether every number is one: a sum is not finite where one of its parts is not. Nothing of float32 overflows it."""
    import numpy as np

    with np.errstate(invalid="ignore"):  # one infinity less another is no number, and no reason to warn
        return math.isfinite(float(np.frombuffer(whole, "<f4").sum(dtype=np.float64)))
