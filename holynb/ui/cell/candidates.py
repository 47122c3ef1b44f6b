"""Candidates for completion and the panel: routes, frames and their columns, runs, pools, saved prompts. Sends no request."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from itertools import islice
from typing import Any

from holynb import typed_path
from holynb.config import TABLE, Option
from holynb.types import Route
from holynb.words import clean

__all__ = [
    "columns",
    "frames",
    "hosts",
    "in_template",
    "keys",
    "options",
    "pools",
    "prompts",
    "providers",
    "routers",
    "routes",
    "runs",
    "schemas",
    "texts",
]

#: Of a folder, of a frame, of a column's name: a key press must not wait.
MAX_FILES, MAX_COLUMNS, MAX_NAME_CHARS = 2_000, 1_000, 120
#: What a template reads as something else than a name.
TEMPLATE_WORDS = frozenset(["and", "else", "false", "False", "if", "in", "is", "none", "None", "not", "or", "true", "True", "loop"])


def options() -> list[Option]:
    """The options that this version takes."""
    return list(TABLE)


def routes() -> dict[str, str]:
    """Route or alias → its kind, and when it ends: aliases, pools, routes used before, the providers' models; the likeliest first."""
    from holynb.config import models, settings
    from holynb.run import session

    kinds: dict[str, str] = {alias: f"alias of {route}" for alias, route in settings.current().alias.items()}
    kinds.update({f"pool/{name}": "local pool" for name in pools()})
    kinds.update({str(run.route): "used before" for run in reversed(session.runs())})
    for name, provider in settings.providers().items():
        kinds.update({route: name for model in provider.models if (route := f"{name}/{model}") not in kinds})
    for text in kinds:
        if end := models.lifecycle(Route.parse(text)) if "/" in text else "":
            kinds[text] += f", {end}"
    return kinds


def providers() -> list[str]:
    """Names of the providers, including those in config.toml."""
    from holynb.config import settings

    return sorted(settings.providers())


def pools() -> list[str]:
    """Names of the pools that have a rendezvous file. Reads only file names: a pool that hangs must not delay a key press."""
    from holynb.config import settings

    return sorted(f.stem for f in (settings.home() / "run").glob("*.json"))


def runs() -> dict[str, str]:
    """Name (id for a run without one) → route, of the session's and the log's runs; the newest first."""
    from holynb import runlog
    from holynb.run import session

    by_name = {r.name or r.id: str(r.route) for r in reversed(session.runs())}
    for record in runlog.log().runs(20):
        by_name.setdefault(record.name or record.id, record.route)
    return by_name


def prompts() -> list[str]:
    """Names of saved prompts."""
    from holynb.prompts import saved

    return [s.name for s in saved.listing()]


def routers() -> list[str]:
    """Names of the routers."""
    from holynb.config import settings

    return sorted(settings.current().router)


def frames(variables: Mapping[str, Any]) -> dict[str, Any]:
    """Name → DataFrame or another library's table, of the notebook's public variables."""
    from holynb.files import is_table
    from holynb.results import is_frame

    return {k: v for k, v in variables.items() if not k.startswith("_") and (is_frame(v) or is_table(v))}


def columns(variables: Mapping[str, Any], name: str | None) -> list[str]:
    """The columns of the frame called `name`."""
    from holynb.files import column_names

    frame = frames(variables).get(name or "")
    return [] if frame is None else column_names(frame)


def schemas(variables: Mapping[str, Any], typed: str) -> list[str]:
    """What `--schema` takes: variables that hold a JSON Schema or a pydantic model, and the .json files and folders where `typed` is."""
    held = [k for k, v in _own(variables).items() if isinstance(v, dict) or (isinstance(v, type) and hasattr(v, "model_json_schema"))]
    folder = typed[: typed.rfind("/") + 1]
    try:
        with os.scandir(typed_path.typed(folder or ".")) as found:
            entries = sorted((e.name, e.is_dir()) for e in islice(found, MAX_FILES) if not e.name.startswith("."))
    except OSError:
        entries = []
    return [*held, *(f"{folder}{name}{'/' * is_folder}" for name, is_folder in entries if is_folder or name.endswith(".json"))]


def in_template(variables: Mapping[str, Any], frame: str | None) -> list[tuple[str, str]]:
    """What a template may name → its kind: the frame's columns, as each has to be written, then variables that are no frames."""
    names = [c for c in columns(variables, frame)[:MAX_COLUMNS] if len(c) <= MAX_NAME_CHARS]
    found = [(name if _is_plain(name) else f"row[{json.dumps(name, ensure_ascii=False)}]", "column") for name in names]
    held = [k for k, v in _own(variables).items() if isinstance(v, str | int | float | list | tuple | dict)]
    return [*found, *((k, "variable") for k in held if k not in names)]


def _own(variables: Mapping[str, Any]) -> dict[str, Any]:
    """Those that a person made, and not IPython."""
    return {k: v for k, v in variables.items() if not k.startswith("_") and k not in ("In", "Out")}


def _is_plain(name: str) -> bool:
    """Whether a template reads it as a name."""
    return name.isidentifier() and name not in TEMPLATE_WORDS and name == clean(name)


def texts(variables: Mapping[str, Any]) -> list[str]:
    """Names of variables that hold text."""
    return [k for k, v in variables.items() if isinstance(v, str) and not k.startswith("_")]


def hosts() -> list[str]:
    """Hosts that `%infer trust` takes: those that files of the project name, then those that are trusted."""
    from holynb.config import settings, trust

    return list(dict.fromkeys(g.host.removesuffix(":443") for g in (*settings.steered(), *trust.grants(settings.own_home()))))


def keys() -> list[str]:
    """Names of environment variables that look like keys; their values are not read."""
    return sorted(k for k in os.environ if k.endswith(("_KEY", "_TOKEN")))
