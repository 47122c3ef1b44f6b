"""The "Pools" tab of the panel: plan, start, stop and watch local models. ipywidgets over `%infer pool`; knows no device."""

from __future__ import annotations

import asyncio
import html
from collections.abc import Callable

import ipywidgets as w

from holynb.errors import HolynbError
from holynb.pools import PoolInfo
from holynb.translation import say
from holynb.ui.cell.bridge import Bridge
from holynb.ui.commands import pool
from holynb.ui.live import timer
from holynb.ui.panel import pooltable
from holynb.ui.panel.poolfields import PoolFields
from holynb.ui.panel.poolfit import PoolFit

__all__ = ["PoolForm"]

#: For text in columns.
_MONOSPACE_CSS = "font-family:var(--jp-code-font-family,monospace);"
REFRESH_INTERVAL_S = 2.0


class PoolForm:
    """Display `box`. Pools start and stop in a thread, so that the kernel stays free; messages appear beside the button."""

    def __init__(self) -> None:
        self.fit = PoolFit()
        self.bridge = Bridge()
        self.section = PoolFields(self._on_change)
        self.model, self.fields = self.section.model, self.section.fields
        self.start = w.Button(
            description="Start", tooltip="Load the model and serve it", button_style="primary", layout=w.Layout(width="auto")
        )
        self.message = w.HTML(layout=w.Layout(flex="1 1 0", width="auto", min_width="0"))
        self.pools = w.VBox(layout=w.Layout(width="100%"))
        self._running: dict[str, tuple[w.VBox, w.HTML]] = {}
        self._watching = False
        row = w.HBox([self.start, self.message], layout=w.Layout(flex_flow="row wrap", margin="4px 0")).add_class("holynb-actions")
        self.box = w.VBox(
            [self.section.box, row, self.fit.box, _heading("Your pools on this machine"), self.pools, self.bridge],
            layout=w.Layout(width="100%", padding="4px 8px 4px 0"),
        ).add_class("holynb-form")
        self.start.on_click(lambda _: self.bridge.after_typing(self._start))

    def args(self, verb: str) -> list[str]:
        """The arguments of `%infer pool` for the values of the fields."""
        return self.section.args(verb)

    def watch(self) -> None:
        """Say what fits, and start refreshing the table of pools, until the panel is closed."""
        self._watching = True
        self._on_change()
        timer.start(self._watch())

    def _on_change(self) -> None:
        if getattr(self, "_watching", False):
            self.fit.check(self.section)

    def _start(self) -> None:
        """Start the pool. A mistake appears at its field."""
        self.section.clear()
        self._run(self.args("start"), self.start, "Starting …", self._show_mistake)

    def _stop(self, name: str, button: w.Button) -> None:
        self._run(["stop", name], button, "Stopping …", lambda text: self._show_message(text, error=True))

    def _show_mistake(self, text: str) -> None:
        self._show_message("")
        self.section.show_mistake(text)

    def _run(self, args: list[str], button: w.Button, busy: str, on_error: Callable[[str], None]) -> None:
        """Run a command of `%infer pool` in a thread; its messages arrive through the kernel's event loop."""
        loop = asyncio.get_running_loop()
        word, button.description, button.disabled, button.icon = button.description, say(busy), True, "spinner"
        self._show_message(f"%infer pool {' '.join(args)} …")

        def notice(text: str) -> None:
            loop.call_soon_threadsafe(self._show_message, text)

        async def work() -> None:
            try:
                text, _ = await asyncio.to_thread(pool.run, args, notice)
                self._show_message(text)
            except HolynbError as exc:
                on_error(str(exc))
            finally:
                button.description, button.disabled, button.icon = word, False, ""
                await self._refresh()

        timer.start(work())

    async def _watch(self) -> None:
        while self.box.comm is not None:
            await self._refresh()
            await asyncio.sleep(REFRESH_INTERVAL_S)

    async def _refresh(self) -> None:
        from holynb import pools

        self._show_pools(await asyncio.to_thread(pools.listing))

    def _show_pools(self, infos: list[PoolInfo]) -> None:
        """Each pool with its Stop. What stands there stays the same widget: a key that is about to press it must not lose it."""
        before = [*self._running]
        self._running = {i.name: self._running.get(i.name) or self._entry(i.name) for i in infos}
        for info in infos:
            page = self._running[info.name][1]
            if page.value != (now := pooltable.table([info])):
                page.value = now
        if before != [*self._running] or not self.pools.children:
            self.pools.children = [box for box, _ in self._running.values()] or [w.HTML(pooltable.table([]))]

    def _entry(self, name: str) -> tuple[w.VBox, w.HTML]:
        stop = w.Button(description=f"{say('Stop')} pool/{name}", layout=w.Layout(width="auto", align_self="flex-start"))
        stop.on_click(lambda button: self._stop(name, button))
        page = w.HTML(layout=w.Layout(width="100%"))
        return w.VBox([page, stop], layout=w.Layout(width="100%", margin="0 0 8px")), page

    def _show_message(self, text: str, *, error: bool = False) -> None:
        looks = 'role="alert" class="holynb-wrong" ' if error else 'role="status" '
        mono = _MONOSPACE_CSS if "\n" in text else ""
        self.message.value = f'<div {looks}style="white-space:pre-wrap;line-height:1.5;{mono}">{html.escape(text)}</div>' if text else ""


def _heading(text: str) -> w.HTML:
    return w.HTML(f'<div role="heading" aria-level="4">{html.escape(say(text))}</div>').add_class("holynb-section")
