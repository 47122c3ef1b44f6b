"""The nearest `.env`, a file of the project, and settings that stand in it or in the environment. Never changes the environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from holynb.errors import BadSetting

__all__ = ["path", "read_variable", "values"]


def path() -> Path | None:
    """The nearest `.env`, from the working directory up."""
    try:
        here = Path.cwd()
    except FileNotFoundError:  # the working directory was removed
        return None
    return next((p for folder in (here, *here.parents) if (p := folder / ".env").is_file()), None)


def values() -> Mapping[str, str | None]:
    """What stands in it. Raises BadSetting where it is unreadable."""
    file = path()
    if file is None:
        return {}
    from dotenv import dotenv_values

    try:
        return dotenv_values(file, encoding="utf-8-sig")
    except UnicodeDecodeError:
        reason = "it is not UTF-8 text"
    except OSError as exc:
        reason = str(exc.strerror)
    # Outside the handler: a UnicodeDecodeError carries the file, keys and all.
    raise BadSetting(f"{file} cannot be read: {reason}.")


def read_variable(name: str) -> tuple[str | None, str | None]:
    """A setting (an address, not a key) from the environment, else from the nearest `.env`, and that file where the value stands in it.

    Both places, because a gateway's key and its address stand in the same `.env`, and one without the other sends a key elsewhere. An
    editor may have put the `.env` into the environment already: what stands in both comes from the file.
    """
    value, listed = (os.environ.get(name) or "").strip(), ""
    try:
        listed = (values().get(name) or "").strip()
    except BadSetting:
        if not value:
            raise
    value = value or listed
    return value or None, str(path()) if value and value == listed else None
