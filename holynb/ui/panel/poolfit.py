"""What fits, said while the fields of a pool change: the plan of `%infer pool plan`, made in a thread by a process of its own."""

from __future__ import annotations

import asyncio
from typing import Any

import ipywidgets as w

from holynb.errors import HolynbError
from holynb.translation import say
from holynb.ui.commands import pool
from holynb.ui.live import timer
from holynb.ui.output import listing
from holynb.ui.output.listing import Markup, Part
from holynb.ui.panel.poolfields import PoolFields

__all__ = ["PoolFit"]

#: So long after the last key a plan is made.
PAUSE_S = 0.4
#: What a plan is asked without where it does not fit: the ways that would.
DIVISION = ("dp", "tp", "pp", "dtype")


class PoolFit:
    """Display `box`. Says nothing before the first `check`."""

    def __init__(self) -> None:
        self.box = w.HTML(layout=w.Layout(width="100%"))
        self._checks = 0

    def check(self, fields: PoolFields) -> None:
        """Say what fits once the fields have been at rest. Only the latest check is shown. Needs a running loop."""
        self._checks += 1
        timer.start(self._check(fields, self._checks))

    async def _check(self, fields: PoolFields, number: int) -> None:
        await asyncio.sleep(PAUSE_S)
        if number != self._checks:
            return
        args, open_args = fields.args("plan"), fields.args("plan", DIVISION)
        try:
            parts, plan = await asyncio.to_thread(_planned, args, open_args)
        except HolynbError as exc:
            if number == self._checks:
                fields.clear()
                fields.show_mistake(str(exc))
                self.box.value = ""
            return
        if number == self._checks:
            fields.clear()
            fields.offer_devices(plan["devices"])
            if fields.fields["engine"].value == "vllm":
                parts = [*parts, "Figures of holynb's own engine; vLLM's differ a little."]
            self.box.value = listing.as_html(
                [Markup('<div role="status">'), *(say(p) if type(p) is str else p for p in parts), Markup("</div>")]
            )


def _planned(args: list[str], open_args: list[str]) -> tuple[list[Part], Any]:
    """The plan; where nothing fits as asked, also what would fit if it were divided in another way. Raises UserError."""
    try:
        parts, plan = _plan(args)
        if plan["ways"] or args == open_args:
            return parts, plan
    except HolynbError as exc:  # it cannot be divided so: what could be is said with the mistake
        if args == open_args:
            raise
        _, open_plan = _plan(open_args)
        best = open_plan["best"]
        raise type(exc)(f"{exc} {_suggestion(best)}" if best else str(exc)) from exc
    open_parts, open_plan = _plan(open_args)
    return ([*parts, "As these it would fit:", *open_parts[2:]], plan) if open_plan["ways"] else (parts, plan)


def _suggestion(best: dict[str, Any]) -> str:
    return f"What fits: {best['flags'] or 'one replica'}{' in ' if best['flags'] else ', '}{best['dtype']}."


def _plan(args: list[str]) -> tuple[list[Part], Any]:
    """Without the line that starts it: there is a button."""
    parts, plan = pool.answer(args, lambda _: None)
    return [p for p in parts if not (isinstance(p, str) and (not p.strip() or p.startswith("Start it:")))], plan
