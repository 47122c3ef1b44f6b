"""Engines: one module per wire, loaded when a run needs it. Imports no HTTP itself.

A third party adds a wire by an entry point of the group `holynb.engines`: its name is the wire, its value `module:Class`, where
`Class(endpoint, key)` is a `holynb.types.Engine`.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.metadata import entry_points

from holynb.errors import BadRoute, closest
from holynb.types import Endpoint, Engine, Secret

__all__ = ["GROUP", "WIRES", "connect"]

GROUP = "holynb.engines"

#: Wire → where its engine is.
WIRES = {
    "openai": "holynb.engines.openai:OpenAI",
    "azure": "holynb.engines.azure:Azure",
    "anthropic": "holynb.engines.anthropic:Anthropic",
    "gemini": "holynb.engines.gemini:Gemini",
    "sagemaker": "holynb.engines.sagemaker:SageMaker",
    "pool": "holynb.engines.pool:Pool",
    "sim": "holynb.engines.sim:Sim",
}


def connect(endpoint: Endpoint, key: Callable[[], Secret | None]) -> Engine:
    """An engine for `endpoint`; no socket is opened. `key` is asked each time a request goes out.

    Raises BadRoute for a wire that nobody speaks, and for a route that its engine refuses.
    """
    where = WIRES.get(endpoint.wire)
    if where is None:
        others = {e.name: e.value for e in entry_points(group=GROUP)}
        where = others.get(endpoint.wire)
        if where is None:
            known = [*WIRES, *others]
            near = closest(endpoint.wire, known)
            raise BadRoute(f"No engine speaks the wire {endpoint.wire!r} of {endpoint.route}.{near} Known: {', '.join(known)}.")
    module, _, name = where.partition(":")
    made: Engine = getattr(import_module(module), name)(endpoint, key)
    return made
