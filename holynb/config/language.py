"""The language that a person reads: HOLYNB_LANGUAGE, else `[ui] language` of their config.toml, else the locale's. English or Korean."""

from __future__ import annotations

import os

from holynb.config import settings
from holynb.errors import BadSetting

__all__ = ["chosen"]

#: The first of these that is set is the locale of messages, as POSIX has it.
LOCALE = ("LC_ALL", "LC_MESSAGES", "LANG")


def chosen() -> str:
    """`ko` or `en`. Never raises: it is asked where an error is shown."""
    named = os.environ.get("HOLYNB_LANGUAGE") or _configured() or next(filter(None, map(os.environ.get, LOCALE)), "")
    return "ko" if named.replace("-", "_").partition("_")[0].lower() == "ko" else "en"


def _configured() -> str:
    try:
        return settings.current().ui.get("language", "")
    except BadSetting:
        return ""
