"""How a model's hidden states become one vector, as its folder says it for sentence-transformers. Knows files; no tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from holynb.pool.modelfiles import read_object, read_text, truth

__all__ = ["Pooling", "read_pooling"]

#: A module's class, as sentence-transformers names it in modules.json → whether the pool does what it does.
_MODULES = {"Transformer": True, "Pooling": True, "Normalize": True}
#: Its switch in 1_Pooling/config.json → our word; any other that is on is none that the pool does.
_MODES = {"pooling_mode_mean_tokens": "mean", "pooling_mode_lasttoken": "last"}


@dataclass(frozen=True, slots=True)
class Pooling:
    """`kind`: mean or last; `normalize`: to length 1; the mean as it is where nothing is said. `refusal`: why its own way cannot be."""

    kind: str = "mean"
    normalize: bool = False
    refusal: str = ""


def read_pooling(folder: Path) -> Pooling:
    """A folder's own way. A file that cannot be read refuses it, not the pool: answers do not need it."""
    try:
        modules = _modules(folder / "modules.json")
        pooled = folder / "1_Pooling" / "config.json"
        kind, refusal = _kind(read_object(pooled)) if pooled.is_file() else ("mean", "")
    except (ValueError, OSError) as exc:
        return Pooling(refusal=f"the files that say how cannot be read ({exc})")
    unknown = [name for name in modules if name not in _MODULES]
    return Pooling(kind, "Normalize" in modules, f"modules.json asks for {', '.join(unknown)}" if unknown else refusal)


def _modules(path: Path) -> list[str]:
    """The classes of modules.json, without where they are imported from."""
    if not path.is_file():
        return []
    import json

    try:
        listed = json.loads(read_text(path))
    except RecursionError:
        raise ValueError("modules.json is nested too deeply") from None
    if not isinstance(listed, list) or not all(isinstance(m, dict) and isinstance(m.get("type"), str) for m in listed):
        raise ValueError("modules.json is not a list of modules")
    return [m["type"].rpartition(".")[2][:40] for m in listed]


def _kind(data: Mapping[str, Any]) -> tuple[str, str]:
    """The word for what is on, and why it cannot be done."""
    on = [name for name in data if name.startswith("pooling_mode_") and truth(data, name)]
    if len(on) == 1 and on[0] in _MODES:
        return _MODES[on[0]], ""
    return "mean", f"1_Pooling/config.json asks for {' and '.join(n.removeprefix('pooling_mode_')[:30] for n in on) or 'nothing'}"
