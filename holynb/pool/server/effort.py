"""What a request says of thinking → what the model's chat template gets and the rank holds, the nearest to it. Pure; knows no streams."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from holynb.pool.server.api import ApiRequest
from holynb.pool.server.model_thinking import ModelThinking
from holynb.pool.server.tokenizer import ChatTokenizer

__all__ = ["with_thinking"]


def with_thinking(request: ApiRequest, tokenizer: ChatTokenizer) -> ApiRequest:
    """The request with the template's own variables for `reasoning_effort`, `enable_thinking` and `thinking_budget`.

    What the model cannot do becomes the nearest that it can, with a note: see `poolwire`, which has the words.
    """
    effort, budget, switch = request.effort, request.budget, request.template.get("enable_thinking")
    if not request.chat or (effort is None and budget is None and switch is None):
        return request
    off = switch is False or (switch is None and effort == "none")
    on = switch is True or effort not in (None, "none") or bool(budget)
    model = tokenizer.thinking
    if model is None:
        return replace(request, budget=None, notes=("thinks_not",) if on and not off else ())
    if off:
        return _without(request, model)
    given: dict[str, Any] = dict.fromkeys(model.switches, True) if on else {}
    notes = []
    if effort is not None and model.efforts:
        given["reasoning_effort"] = model.nearest(effort)
    elif effort not in (None, "none"):
        notes.append("no_levels")
    if budget is not None and not model.ends:
        budget = None
        notes.append("no_budget")
    return replace(request, template={**given, **request.template}, budget=budget, notes=tuple(notes))


def _without(request: ApiRequest, model: ModelThinking) -> ApiRequest:
    """With no thinking: by the template, or by a thought that is closed at once, or else with as little as there is."""
    if model.switches:
        return replace(request, template={**dict.fromkeys(model.switches, False), **request.template}, budget=None)
    least = model.nearest("none") if model.efforts else None
    if least is not None:
        template = {"reasoning_effort": least, **request.template}
        return replace(request, template=template, budget=None, notes=() if least == "none" else ("thinks_little",))
    if model.ends:
        return replace(request, budget=0, notes=("closed_at_once",))
    return replace(request, budget=None, notes=("thinks_always",))
