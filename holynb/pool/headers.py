"""Headers of safetensors files, held against the files' own size before anything is made of them. Knows the format; no models, no torch."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from holynb.pool.modelfiles import read_object

__all__ = ["BrokenModel", "TensorEntry", "decoder_name", "read_header", "read_headers", "same_bytes", "weight_files"]

#: Less than the limit of safetensors' own reader (100 MB), and some hundred thousand tensors.
_MAX_HEADER_BYTES = 32_000_000
_MAX_DIMENSIONS = 16
_PIECE_BYTES = 1 << 20
AGAIN = "Fetch the model again"

_BITS = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0"), 8),
    **dict.fromkeys(("I16", "U16", "F16", "BF16"), 16),
    **dict.fromkeys(("I32", "U32", "F32"), 32),
    **dict.fromkeys(("I64", "U64", "F64", "C64"), 64),
    "F4": 4,
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
}


class BrokenModel(Exception):
    """A file is missing, cut off or unreadable; one line that names it and says what to do."""


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """A tensor as a header describes it; its bytes are in the file."""

    dtype: str
    shape: tuple[int, ...]


#: What the decoder of a model of text and pictures is called in its files, and what stands for it in those of a decoder alone.
_INSIDE = {"language_model.model.": "model.", "language_model.": "", "model.language_model.": "model."}


def decoder_name(name: str) -> str:
    """What a tensor of a model's decoder is called in the files of a decoder alone."""
    inside = next((start for start in _INSIDE if name.startswith(start)), None)
    return name if inside is None else _INSIDE[inside] + name.removeprefix(inside)


def weight_files(folder: Path) -> list[Path]:
    """The safetensors that hold a model's weights: those that its index names, or all. Raises BrokenModel."""
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return sorted(folder.glob("*.safetensors"))
    try:
        named = read_object(index).get("weight_map")
    except (ValueError, OSError) as exc:
        raise BrokenModel(f"{index} is not readable JSON ({exc}). {AGAIN}, or fix the file.") from exc
    if not isinstance(named, dict) or not named:
        raise BrokenModel(f"{index} has no weight_map, an object that says which file holds which tensor. {AGAIN}.")
    if strange := next((n for n in named.values() if not isinstance(n, str) or n in {"", ".", ".."} or Path(n).name != n), None):
        raise BrokenModel(f"{index} names {json.dumps(strange):.60}, which is no file of this folder. {AGAIN}.")
    return [folder / name for name in sorted(set(named.values()))]


def read_headers(folder: Path) -> dict[str, TensorEntry]:
    """All tensors of a model. Raises BrokenModel, OSError."""
    tensors: dict[str, TensorEntry] = {}
    for path in weight_files(folder):
        tensors.update({decoder_name(name): entry for name, entry in read_header(path).items()})
    return tensors


def same_bytes(folder: Path, first: str, second: str) -> bool:
    """Whether two tensors of a model are alike, byte for byte and of one kind. Raises BrokenModel, OSError."""
    places = [(path, *span) for name in (first, second) for path in weight_files(folder) for span in [_spans(path).get(name)] if span]
    if len(places) < 2 or places[0][1] != places[1][1]:
        return False
    (one, _, start, stop), (other, _, begin, _) = places
    with one.open("rb") as left, other.open("rb") as right:
        left.seek(start)
        right.seek(begin)
        for at in range(start, stop, _PIECE_BYTES):
            count = min(_PIECE_BYTES, stop - at)
            if left.read(count) != right.read(count):
                return False
    return True


def read_header(path: Path) -> Mapping[str, TensorEntry]:
    """The tensors of a file, which together fill it. Raises BrokenModel, OSError."""
    return {name: entry for name, (entry, _, _) in _spans(path).items()}


def _spans(path: Path) -> dict[str, tuple[TensorEntry, int, int]]:
    """The tensors of a file, and where in it their bytes begin and end. Raises BrokenModel, OSError."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(8)
        if head == b"version ":
            raise BrokenModel(f"{path} is a pointer of Git LFS and not the weights. Run git lfs pull in {path.parent}.")
        length = struct.unpack("<Q", head)[0] if len(head) == 8 else size
        if length > min(size - 8, _MAX_HEADER_BYTES):
            raise BrokenModel(f"{path} is cut off or no safetensors file ({size:,} bytes). {AGAIN}.")
        raw = file.read(length)
    try:
        header = json.loads(raw)
        spans = {name: _span(entry) for name, entry in header.items() if name != "__metadata__"}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as exc:
        raise BrokenModel(f"{path} has no readable header. {AGAIN}.") from exc
    end = 0
    for name, (entry, start, stop) in sorted(spans.items(), key=lambda item: item[1][1:]):
        if start != end or (stop - start) * 8 != prod(entry.shape) * _BITS[entry.dtype]:
            raise BrokenModel(
                f"{path} has no readable header: the bytes of {name:.80} overlap others, or are not what its shape needs. {AGAIN}."
            )
        end = stop
    if size < 8 + length + end:
        raise BrokenModel(f"{path} is cut off: {size:,} of {8 + length + end:,} bytes are there. {AGAIN}.")
    return {name: (entry, 8 + length + start, 8 + length + stop) for name, (entry, start, stop) in spans.items()}


def _span(entry: Any) -> tuple[TensorEntry, int, int]:
    """A tensor, and where its bytes begin and end. Raises ValueError, KeyError, TypeError."""
    shape, (start, stop) = entry["shape"], entry["data_offsets"]
    if entry["dtype"] not in _BITS or not isinstance(shape, list) or len(shape) > _MAX_DIMENSIONS:
        raise ValueError("a tensor of an unknown kind")
    if any(not isinstance(n, int) or isinstance(n, bool) or not 0 <= n < 2**63 for n in (*shape, start, stop)):
        raise ValueError("a size that is none")
    return TensorEntry(entry["dtype"], tuple(shape)), start, stop
