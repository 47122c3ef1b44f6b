"""How a call of `infer` is written that somebody wrote another way: the prompt first, then the route, the rows as `df=`. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["corrected"]

#: What others call the prompt, the rows and the route, or what a person guesses.
PROMPTS = ("prompt", "template", "text", "texts", "message", "messages", "question", "questions", "input", "inputs", "query", "instruction")
FRAMES = ("data", "dataframe", "data_frame", "frame", "table", "rows", "dataset", "pdf")
ROUTES = ("model", "model_name", "model_id", "engine", "llm", "provider")
#: Characters of a prompt that a message repeats.
MAX_SHOWN = 60

_ROUTE = re.compile(r"[\w.-]+/[^\s{}]+")


def corrected(prompts: Any, route: Any, more: Sequence[Any], options: Mapping[str, Any], *, has_rows: bool) -> str | None:
    """The call as it is written; None where nothing is in another's place. `has_rows`: `df=` is given."""
    placed = [prompts, route, *more]
    named = [name for name in options if name in (*PROMPTS, *FRAMES, *ROUTES)]
    nothing = prompts is None and not options.get("use")
    if not (nothing or more or named or any(map(_is_frame, placed)) or _is_prompt(route)):
        return None
    rows = has_rows or any(map(_is_frame, placed)) or any(name in FRAMES for name in named)
    texts = [value for value in placed if isinstance(value, str)]
    routes = [options[name] for name in named if name in ROUTES and isinstance(options[name], str)]
    routes += [text for text in reversed(texts) if _ROUTE.fullmatch(text)]
    routes += [route] if isinstance(route, str) and not _is_prompt(route) else []
    target = routes[0] if routes else None
    questions = [options[name] for name in named if name in PROMPTS]
    questions += [value for value in placed if isinstance(value, str | list) and value != target]
    nameless = '"… {{ column }} …"' if rows else '"the prompt"'
    parts = [_shown(questions[0], nameless) if questions else nameless]
    parts += [json.dumps(target, ensure_ascii=False)] if target else []
    parts += ["df=df"] if rows else []
    return f"holynb.infer({', '.join(parts)})"


def _is_frame(value: Any) -> bool:
    """Whether it is a table of any library."""
    return hasattr(value, "columns") and not isinstance(value, type)


def _is_prompt(value: Any) -> bool:
    """Whether a text can be no route."""
    return isinstance(value, str) and (len(value.split()) > 1 or "{{" in value)


def _shown(prompt: Any, otherwise: str) -> str:
    """The prompt as it is written, its beginning where it is long; `otherwise` where it is no text."""
    if isinstance(prompt, str):
        return json.dumps(prompt if len(prompt) <= MAX_SHOWN else prompt[:MAX_SHOWN] + "…", ensure_ascii=False)
    if isinstance(prompt, list) and prompt and isinstance(prompt[0], Mapping) and "role" in prompt[0]:
        return '[{"messages": messages}]'
    return otherwise
