"""Fields that `-p`, or columns, add to a request: refused before anything is sent where the server would drop or refuse them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from holynb import poolfields, pools
from holynb.errors import BadOption, BadRoute
from holynb.types import Route

__all__ = ["check_extra"]


def check_extra(extra: Mapping[str, Any], route: Route, *, schema: bool) -> None:
    """Raises BadOption for a field that this route cannot do. `schema`: the cell has one."""
    n = extra.get("n")
    if isinstance(n, int) and not isinstance(n, bool) and n != 1:
        raise BadOption(f"-p n={n} asks for {n} answers to one row, which has room for one. For several answers a prompt: --samples {n}")
    if route.provider != "pool":
        return
    try:
        poolfields.check_cell(extra, schema=schema)
    except poolfields.FieldError as exc:
        if _runs_vllm(route.model):  # it has fields of its own, and refuses by itself what it does not know
            return
        raise BadOption(f"{route}: {exc}") from exc


def _runs_vllm(name: str) -> bool:
    try:
        record = pools.find(name)
    except BadRoute:
        return False
    return record is not None and record.facts.get("engine") == "vllm"
