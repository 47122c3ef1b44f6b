"""The "Pools" tab of the panel: plan, start, stop and watch local models. ipywidgets over `%infer pool`; knows no device."""

from __future__ import annotations

import asyncio
import html

import ipywidgets as w

from holynb.errors import HolynbError
from holynb.ui.cell import candidates
from holynb.ui.commands import pool
from holynb.ui.live import timer
from holynb.ui.panel import pooltable

__all__ = ["PoolForm"]

FIELD_OPTIONS = ("name", "devices", "dp", "tp", "pp", "micro_batches", "dtype", "max_len", "memory", "port", "restart", "gpus")
LABEL_STYLE = {"description_width": "100px"}
#: For text in columns.
_MONOSPACE_CSS = "font-family:var(--jp-code-font-family,monospace);"
REFRESH_INTERVAL_S = 2.0


class PoolForm:
    """Display `box`. Pools start and stop in a thread, so that the kernel stays free; messages appear under the buttons."""

    def __init__(self) -> None:
        full = w.Layout(width="100%")
        self.model = w.Combobox(
            value="smollm2-135m",
            options=("smollm2-135m",),
            placeholder="a folder, a hub id, a GGUF file",
            description="Model",
            style=LABEL_STYLE,
            layout=full,
            continuous_update=False,
        )
        self.fields = {
            o.name: w.Text(
                description=o.name.replace("_", "-"),
                placeholder=o.metavar or "",
                tooltip=o.help,
                style=LABEL_STYLE,
                layout=w.Layout(width="auto"),
            )
            for o in dict.fromkeys((*pool.START_OPTIONS, *pool.PLAN_OPTIONS))
            if o.name in FIELD_OPTIONS
        }
        self.chosen = w.Dropdown(options=candidates.pools(), description="Pool", style=LABEL_STYLE, layout=w.Layout(width="320px"))
        self.buttons = {
            word: w.Button(description=word, button_style="primary" if word == "Start" else "", layout=w.Layout(width="auto"))
            for word in ("Plan", "Start", "Stop")
        }
        self.message = w.HTML(layout=w.Layout(width="100%"))
        self.pools = w.HTML(layout=w.Layout(width="100%"))
        grid = w.GridBox(
            [*self.fields.values()], layout=w.Layout(grid_template_columns="repeat(auto-fill, minmax(220px, 1fr))", grid_gap="2px 12px")
        )
        starting = w.HBox([b for word, b in self.buttons.items() if word != "Stop"], layout=w.Layout(margin="4px 0"))
        stopping = w.HBox([self.chosen, self.buttons["Stop"]])
        self.box = w.VBox(
            [self.model, grid, starting, stopping, self.message, self.pools], layout=w.Layout(width="100%", padding="4px 8px 4px 0")
        )
        for word, button in self.buttons.items():
            button.on_click(lambda _, word=word: self.run(word.lower()))

    def args(self, verb: str) -> list[str]:
        """The arguments of `%infer pool` for the values of the fields."""
        if verb == "stop":
            return ["stop", str(self.chosen.value)] if self.chosen.value else ["stop"]
        options = {o.name for o in (pool.PLAN_OPTIONS if verb == "plan" else pool.START_OPTIONS)}
        filled = {name: field.value.strip() for name, field in self.fields.items() if field.value.strip() and name in options}
        flags = [(f"--{name.replace('_', '-')}", value) for name, value in filled.items()]
        return [verb, self.model.value.strip() or "smollm2-135m", *(word for pair in flags for word in pair)]

    def run(self, verb: str) -> None:
        """Run a command of `%infer pool` in a thread; its messages arrive through the kernel's event loop."""
        loop = asyncio.get_running_loop()
        args = self.args(verb)
        self._set_busy(True)
        self._show_message(f"%infer pool {' '.join(args)} …")

        def notice(text: str) -> None:
            loop.call_soon_threadsafe(self._show_message, text)

        async def work() -> None:
            try:
                text, _ = await asyncio.to_thread(pool.run, args, notice)
                self._show_message(text)
            except HolynbError as exc:
                self._show_message(str(exc), error=True)
            finally:
                self._set_busy(False)
                await self._refresh()

        timer.start(work())

    def watch(self) -> None:
        """Start refreshing the table of pools, until the panel is closed."""
        timer.start(self._watch())

    async def _watch(self) -> None:
        while self.box.comm is not None:
            await self._refresh()
            await asyncio.sleep(REFRESH_INTERVAL_S)

    async def _refresh(self) -> None:
        from holynb import pools

        infos = await asyncio.to_thread(pools.listing)
        self.pools.value = pooltable.table(infos)
        names = [i.name for i in infos]
        if tuple(names) != tuple(self.chosen.options):
            self.chosen.options = names

    def _set_busy(self, busy: bool) -> None:
        for button in self.buttons.values():
            button.disabled = busy

    def _show_message(self, text: str, *, error: bool = False) -> None:
        colour = "var(--jp-error-color1,#d32f2f)" if error else "inherit"
        self.message.value = (
            f'<div role="status" style="white-space:pre-wrap;line-height:1.5;{_MONOSPACE_CSS if chr(10) in text else ""}color:{colour}">'
            f"{html.escape(text)}</div>"
        )
