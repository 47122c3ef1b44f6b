"""Whether a model's folder is complete, by the headers of its files; before a process is started for it. No torch."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

__all__ = ["BrokenModel", "check"]

#: The limit of safetensors' own reader.
_MAX_HEADER_BYTES = 100_000_000
_AGAIN = "Fetch the model again"


class BrokenModel(Exception):
    """A file is missing, cut off or unreadable; one line that names it and says what to do."""


def check(folder: Path) -> None:
    """Raises BrokenModel where the folder cannot be a model's, or a file of it is not whole."""
    missing = [name for name in ("config.json", "tokenizer.json") if not (folder / name).is_file()]
    files = sorted(folder.glob("*.safetensors"))
    if not missing and not files:
        missing = ["*.safetensors"]
    if missing:
        raise BrokenModel(f"{folder} lacks {' and '.join(missing)}; a model folder holds safetensors, config.json and tokenizer.json.")
    _read_object(folder / "config.json")
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        named = _read_object(index).get("weight_map")
        shards = sorted(set(named.values())) if isinstance(named, dict) else []
        if gone := [name for name in shards if not (folder / str(name)).is_file()]:
            more = f" and {len(gone) - 1} more" if len(gone) > 1 else ""
            raise BrokenModel(f"{folder} lacks {gone[0]}{more} of the {len(shards)} files that its index names. {_AGAIN}.")
    for path in files:
        _check_safetensors(path)


def _read_object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as exc:
        raise BrokenModel(f"{path} is no readable JSON ({exc}). {_AGAIN}, or mend the file.") from exc
    if not isinstance(value, dict):
        raise BrokenModel(f"{path} holds no JSON object. {_AGAIN}, or mend the file.")
    return value


def _check_safetensors(path: Path) -> None:
    """Raises BrokenModel if the file ends before the last tensor of its header does."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(8)
        if head == b"version ":
            raise BrokenModel(f"{path} is a pointer of Git LFS and not the weights. Run git lfs pull in {path.parent}.")
        length = struct.unpack("<Q", head)[0] if len(head) == 8 else size
        if length > min(size - 8, _MAX_HEADER_BYTES):
            raise BrokenModel(f"{path} is cut off or no safetensors file ({size:,} bytes). {_AGAIN}.")
        try:
            header = json.loads(file.read(length))
            end = 8 + length + max((t["data_offsets"][1] for name, t in header.items() if name != "__metadata__"), default=0)
        except (ValueError, TypeError, KeyError, AttributeError) as exc:
            raise BrokenModel(f"{path} has no readable header. {_AGAIN}.") from exc
    if size < end:
        raise BrokenModel(f"{path} is cut off: {size:,} of {end:,} bytes are there. {_AGAIN}.")
