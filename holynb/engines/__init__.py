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

#: Wire → its engine, as `module:Class`.
WIRES = {
    "openai": "holynb.engines.protocols:OpenAI",
    "responses": "holynb.engines.responses:Responses",
    "azure": "holynb.engines.azure:Azure",
    "azure-responses": "holynb.engines.azure:AzureResponses",
    "anthropic": "holynb.engines.anthropic:Anthropic",
    "gemini": "holynb.engines.gemini:Gemini",
    "vertex": "holynb.engines.vertex:Vertex",
    "sagemaker": "holynb.engines.sagemaker:SageMaker",
    "bedrock": "holynb.engines.bedrock:Bedrock",
    "pool": "holynb.engines.pool:Pool",
    "sim": "holynb.engines.sim:Sim",
}


def connect(endpoint: Endpoint, key: Callable[[], Secret | None]) -> Engine:
    """An engine for `endpoint`; no socket is opened. `key` is called for each request.

    Raises BadRoute for a wire without an engine, and for a route that its engine refuses.
    """
    target = WIRES.get(endpoint.wire)
    if target is None:
        plugins = {e.name: e.value for e in entry_points(group=GROUP)}
        target = plugins.get(endpoint.wire)
        if target is None:
            names = [*WIRES, *plugins]
            near = closest(endpoint.wire, names)
            raise BadRoute(f"No engine speaks the wire that is set for {endpoint.route}.{near} Known: {', '.join(names)}.")
    module, _, name = target.partition(":")
    engine: Engine = getattr(import_module(module), name)(endpoint, key)
    return engine
