"""Fields of a request that its route cannot do: refused before anything is sent, where they would be dropped or refused later."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from holynb import poolfields, pools
from holynb.config import vertex_models
from holynb.config.providers import LACKING, RESPONSES
from holynb.errors import BadOption, BadRoute
from holynb.types import Endpoint, Request, Route

__all__ = ["check_extra", "check_wires"]


def check_wires(endpoints: Sequence[Endpoint], requests: Sequence[Request | None]) -> None:
    """Raises BadOption where a row asks for what OpenAI's Responses has no field for, and some endpoint is asked over it.

    Raises BadRoute for a model that its wire does not serve.
    """
    for vertex in (e.route for e in endpoints if e.wire == "vertex"):
        vertex_models.path(vertex)
    for simulated in (e.route for e in endpoints if e.wire == "sim"):
        from holynb.engines import sim

        sim.check(simulated)
    route = next((e.route for e in endpoints if e.wire in RESPONSES.values()), None)
    if route is None:
        return
    for name in LACKING:
        if any(r is not None and getattr(r.sampling, name) not in (None, ()) for r in requests):
            raise BadOption(f"--{name} cannot be sent to {route}: it uses OpenAI's Responses API, which has no field for it. Leave it out.")


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
