"""The values of the panel's fields, as options and as a `%%infer` cell. Pure; knows no widget."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from holynb.config import BY_NAME

__all__ = ["Draft"]

#: Words that need no quotes.
_UNQUOTED = re.compile(r"[^\s\"'=<>-][^\s\"']*")


@dataclass(frozen=True, slots=True)
class Draft:
    """A job as filled in. `options`: option name → value as typed. `name`: the variable for the result, None for none."""

    body: str
    route: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    name: str | None = None

    def line(self) -> str:
        """The words after `%%infer`."""
        words = [f"{self.name} <<"] if self.name else []
        words += [self.route] if self.route else []
        for name, value in self.options.items():
            option = BY_NAME[name]
            flag = option.flags[-1]
            if option.metavar is None:
                words.append(flag)
            elif isinstance(value, list | tuple):
                words += [f"{flag} {quoted(str(v))}" for v in value]
            else:
                words.append(f"{flag} {quoted(str(value))}")
        return " ".join(words)

    def cell(self) -> str:
        """The whole cell."""
        line = self.line()
        return f"%%infer {line}\n{self.body}" if line else f"%%infer\n{self.body}"


def quoted(value: str) -> str:
    """A value as one word of the line; line breaks become spaces."""
    value = " ".join(value.split("\n"))
    if _UNQUOTED.fullmatch(value):
        return value
    return f"'{value}'" if "'" not in value else '"' + value.replace('"', '\\"') + '"'
