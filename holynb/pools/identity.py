"""What an answer of a pool depends on beside the request: its model, the model's files, and what they are computed in. Reads no weights.

A pool's name says none of it: the next training run's `checkpoint-500` has the name of the last one's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from holynb.errors import BadRoute
from holynb.pools import client, logfiles
from holynb.pools.options import EMBEDDED

__all__ = ["identity"]

#: Endings of the files that a model is made of: weights, shapes, words.
MODEL_FILES = (".safetensors", ".gguf", ".bin", ".json", ".jinja", ".model", ".txt")
#: Facts of a start that change what is computed.
PRECISION = ("dtype", "kv")


def identity(name_or_model: str) -> str:
    """What answers as the pool of this name or model, now or at its last start; empty for the embedded one, and where nobody knows."""
    facts = _facts(name_or_model)
    model = str(facts.get("model") or "")
    precision = [f"{fact}={facts[fact]}" for fact in PRECISION if facts.get(fact)]
    if not model or (model == name_or_model == EMBEDDED and not precision):
        return ""
    path = Path(model)
    return " ".join(["pool", str(path.resolve() if path.exists() else model), *precision, *_files(path)])


def _facts(name_or_model: str) -> Mapping[str, Any]:
    try:
        record = client.find(name_or_model)
    except BadRoute:  # it cannot be read now
        record = None
    return record.facts if record is not None else logfiles.started(client.home(), name_or_model)


def _files(path: Path) -> Iterator[str]:
    """A mark of the files at a path, by their names, sizes and times; nothing where there are none, as of a model of a hub.

    Not of folders in it: a training run's has its checkpoints there, which are other models.
    """
    try:
        files = sorted(p for p in path.iterdir() if p.suffix in MODEL_FILES) if path.is_dir() else [path] if path.is_file() else []
        stats = [(str(p.relative_to(path)), p.stat().st_size, p.stat().st_mtime_ns) for p in files]
    except OSError:  # another user's, or on a disk that does not answer
        return
    if stats:
        yield hashlib.sha256(repr(stats).encode()).hexdigest()[:32]
