"""Which models are asked through Google Vertex, and where the others are. Pure."""

from __future__ import annotations

import re
from urllib.parse import quote

from holynb.errors import BadRoute
from holynb.types import Route

__all__ = ["path"]

#: Where others' models are asked, which Vertex serves over wires of their own; a part of their names → routes.
ELSEWHERE = {
    "claude": "anthropic/{model} or bedrock/MODEL",
    "llama": "openrouter/MODEL or bedrock/MODEL",
    "mistral": "openrouter/MODEL",
    "deepseek": "deepseek/{model}",
}


def path(route: Route) -> str:
    """The model's place in its project; an endpoint of a tuned model is `endpoints/ID`. Raises BadRoute for what is not Gemini."""
    name = route.model.removeprefix("publishers/google/models/").removeprefix("google/").removeprefix("models/")
    if re.fullmatch(r"endpoints/\w+", name):
        return name
    if re.fullmatch(r"gemini-[\w.@-]+", name):
        return f"publishers/google/models/{quote(name, safe='@')}"
    near = next((routes for family, routes in ELSEWHERE.items() if family in name.lower()), "another provider")
    use = near.format(model=name.rpartition("/")[2].partition("@")[0])
    raise BadRoute(f"{route.provider}/… serves Gemini models only, and {route.model} is not one: use {use}.")
