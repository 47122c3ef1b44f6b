"""What could be typed now: routes, frames and their columns, runs, pools, saved prompts. For completion and for the panel; asks no server."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from holynb.config import TABLE, Option

__all__ = ["columns", "frames", "keys", "options", "pools", "prompts", "providers", "routers", "routes", "runs", "texts"]


def options() -> list[Option]:
    """The options that this version takes."""
    return list(TABLE)


def routes() -> dict[str, str]:
    """Route or alias → what it is: aliases, pools, routes used before, models of the providers. The likeliest first."""
    from holynb.config import settings
    from holynb.run import session

    found: dict[str, str] = {alias: f"alias of {route}" for alias, route in settings.current().alias.items()}
    found.update({f"pool/{name}": "local pool" for name in pools()})
    found.update({str(run.route): "used before" for run in reversed(session.runs())})
    for provider, said in settings.providers().items():
        found.update({route: provider for model in said.models if (route := f"{provider}/{model}") not in found})
    return found


def providers() -> list[str]:
    """Names of the providers, one's own among them."""
    from holynb.config import settings

    return sorted(settings.providers())


def pools() -> list[str]:
    """Names of the pools that have a rendezvous file. Looks at files alone: a pool that hangs must not hold up a key press."""
    from holynb.config import settings

    return sorted(f.stem for f in (settings.home() / "run").glob("*.json"))


def runs() -> dict[str, str]:
    """Name, or id where it has none → route, of the session's runs and the log's, the newest first."""
    from holynb import runlog
    from holynb.run import session

    found = {r.name or r.id: str(r.route) for r in reversed(session.runs())}
    for record in runlog.log().runs(20):
        found.setdefault(record.name or record.id, record.route)
    return found


def prompts() -> list[str]:
    """Names of saved prompts."""
    from holynb.prompts import saved

    return [s.name for s in saved.listing()]


def routers() -> list[str]:
    """Named sets of rules."""
    from holynb.config import settings

    return sorted(settings.current().router)


def frames(variables: Mapping[str, Any]) -> dict[str, Any]:
    """Name → DataFrame, of a notebook's variables."""
    from holynb.results import is_frame

    return {k: v for k, v in variables.items() if not k.startswith("_") and is_frame(v)}


def columns(variables: Mapping[str, Any], name: str | None) -> list[str]:
    """The columns of the frame called `name`."""
    found = frames(variables).get(name or "")
    return [] if found is None else [str(c) for c in found.columns]


def texts(variables: Mapping[str, Any]) -> list[str]:
    """Names of variables that hold text."""
    return [k for k, v in variables.items() if isinstance(v, str) and not k.startswith("_")]


def keys() -> list[str]:
    """Names of environment variables that look like keys; their values are not read."""
    return sorted(k for k in os.environ if k.endswith(("_KEY", "_TOKEN")))


def files() -> list[str]:
    """Files beside the notebook that rows can be read from."""
    from holynb.results import READERS

    return sorted(p.name for p in Path().iterdir() if p.suffix in READERS or p.suffix in (".txt", ".jsonl", ".ndjson"))
