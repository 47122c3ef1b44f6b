"""An array of pixels as PNG, by zlib alone: no imaging library is needed for what a notebook computes. Knows arrays by what they can do."""

from __future__ import annotations

import hashlib
import struct
import zlib
from typing import Any

__all__ = ["encode", "fingerprint", "plane"]

#: Colour type of PNG by the number of channels.
_COLOURS = {1: 0, 2: 4, 3: 2, 4: 6}
#: Pixels that are encoded: more is a mistake, and would take minutes.
MAX_PIXELS = 100_000_000


def plane(array: Any) -> Any:
    """The array as height × width × channels of bytes. Raises ValueError, with what would be right.

    Floats are from 0 to 1, as matplotlib takes them.
    """
    import numpy as np

    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or array.shape[2] not in _COLOURS or not array.size:
        raise ValueError(f"is an array of shape {tuple(array.shape)}; a picture is height × width, or height × width × 1 to 4 channels")
    if array.shape[0] * array.shape[1] > MAX_PIXELS:
        raise ValueError(f"has {array.shape[0] * array.shape[1]:,} pixels; {MAX_PIXELS:,} can be sent at most")
    if array.dtype == np.uint8:
        return array
    if array.dtype == bool:
        return array.astype(np.uint8) * 255
    if array.dtype.kind == "f":
        if not (np.isfinite(array).all() and array.min() >= 0 and array.max() <= 1):
            raise ValueError("is an array of floats that are not all from 0 to 1: scale them, or give whole numbers from 0 to 255 (uint8)")
        return np.rint(array * 255).astype(np.uint8)
    if array.dtype.kind in "iu" and array.min() >= 0 and array.max() <= 255:
        return array.astype(np.uint8)
    raise ValueError(f"is an array of {array.dtype}; a picture has whole numbers from 0 to 255, floats from 0 to 1, or truth values")


def encode(array: Any) -> bytes:
    """An array that `plane` gave, as PNG."""
    import numpy as np

    height, width, channels = array.shape
    rows = np.zeros((height, 1 + width * channels), np.uint8)  # each row begins with its filter, none
    rows[:, 1:] = array.reshape(height, -1)
    header = struct.pack(">IIBBBBB", width, height, 8, _COLOURS[channels], 0, 0, 0)
    parts = (_part(b"IHDR", header), _part(b"IDAT", zlib.compress(rows.data, 6)), _part(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def fingerprint(array: Any) -> str:
    """SHA-256 of the pixels: the same array is the same picture, however it would be packed."""
    import numpy as np

    digest = hashlib.sha256(repr(array.shape).encode())
    digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _part(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
