"""The plain Python that does what a cell does (`--show-code`). Pure."""

from __future__ import annotations

from typing import Any

from holynb.config import Options

__all__ = ["code"]


def code(plan_body: Any, route: str | None, options: Options) -> str:
    """The plain Python that does what the cell does (`--show-code`)."""
    default = Options()
    changed = {n: getattr(options, n) for n in Options.__slots__ if getattr(options, n) != getattr(default, n)}
    args = [repr(plan_body), *([repr(route)] if route else [])]
    for name, value in changed.items():
        if name not in ("show_code", "show", "quiet", "debug"):
            bare = isinstance(value, str) and (name == "df" or (name == "schema" and value.isidentifier()))
            args.append(f"{name}={value if bare else repr(value)}")
    joined = ",\n    ".join(args)
    return f"import holynb\n\nrun = holynb.infer(\n    {joined},\n)\nframe = run.wait().frame()\n"
