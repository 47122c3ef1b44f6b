"""The options under "More": in sections, each with its field, its unit, and a sentence that becomes the mistake made there."""

from __future__ import annotations

import html
from typing import Any

import ipywidgets as w

from holynb.config import BY_NAME, Option
from holynb.translation import say
from holynb.types import SERVICE_TIERS, THINK_LEVELS
from holynb.ui.panel.note import Note, sentence

__all__ = ["MORE_OPTIONS", "More"]

SECTIONS = {
    "Sampling": ("max_tokens", "temperature", "top_p", "seed", "stop", "think", "samples"),
    "Limits": ("limit", "where", "concurrency", "rpm", "tpm", "retries", "timeout", "deadline"),
    "Money": ("budget", "price_as", "tier", "batch", "prompt_cache"),
    "Routes": ("fallback", "spread", "compare", "router"),
    "Input": ("attach", "attach_max", "attach_urls"),
    "Quality": ("label", "exact", "judge", "rubric"),
    "Output": ("format", "out", "schema", "embed", "dimensions", "chunk", "stream", "cache", "refresh"),
}
MORE_OPTIONS = frozenset(name for names in SECTIONS.values() for name in names)
#: What these options offer, where others may be typed too; and what stands in the empty field.
CHOICES: dict[str, tuple[tuple[str, ...], str]] = {
    "think": (THINK_LEVELS, f"{THINK_LEVELS[0]} to {THINK_LEVELS[-1]}, or tokens"),
    "tier": ((*SERVICE_TIERS, ",".join(SERVICE_TIERS[:2])), "flex, standard or priority"),
    "format": (("text", "markdown", "code", "json"), "text"),
}
LABEL_STYLE = {"description_width": "120px"}


class More:
    """Display `box`. `fields` and `notes` are by the option's name."""

    def __init__(self) -> None:
        self.fields: dict[str, Any] = {}
        self.notes: dict[str, Note] = {}
        sections: list[Any] = []
        for title, names in SECTIONS.items():
            cells = []
            for option in map(BY_NAME.__getitem__, names):
                self.fields[option.name] = _field(option)
                self.notes[option.name] = Note(sentence(option.help))
                cells.append(w.VBox([self.fields[option.name], self.notes[option.name].box]))
            grid = w.GridBox(
                cells, layout=w.Layout(grid_template_columns="repeat(auto-fill, minmax(min(290px, 100%), 1fr))", grid_gap="2px 12px")
            )
            sections += [w.HTML(f'<div role="heading" aria-level="4">{html.escape(say(title))}</div>').add_class("holynb-section"), grid]
        self.box = w.VBox(sections, layout=w.Layout(width="100%")).add_class("holynb-more")

    def values(self) -> dict[str, Any]:
        """Option → what was typed or ticked."""
        chosen: dict[str, Any] = {}
        for name, control in self.fields.items():
            if isinstance(control, w.Checkbox):
                if control.value:
                    chosen[name] = not BY_NAME[name].on_by_default
            elif control.value.strip():
                chosen[name] = control.value.strip()
        return chosen


def _field(option: Option) -> Any:
    label = option.flags[-1].removeprefix("--")
    looks = {"description": label, "tooltip": option.help, "style": LABEL_STYLE, "layout": w.Layout(width="auto")}
    if option.metavar is None:
        return w.Checkbox(value=False, indent=False, **looks)
    offered, example = CHOICES.get(option.name, ((), option.unit))
    if offered:
        return w.Combobox(options=offered, placeholder=example, continuous_update=False, **looks)
    return w.Text(placeholder=example, continuous_update=False, **looks)
