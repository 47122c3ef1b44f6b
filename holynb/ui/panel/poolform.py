"""The panel's pool half: plan, start, stop and watch local models. ipywidgets over the words of `%infer pool`; knows no device."""

from __future__ import annotations

import asyncio
import html
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import ipywidgets as w

from holynb.errors import HolynbError
from holynb.ui.cell import candidates
from holynb.ui.commands import pool
from holynb.ui.live import timer
from holynb.ui.output import count

if TYPE_CHECKING:
    from holynb.pools import PoolInfo

__all__ = ["PoolForm", "table"]

FIELDS = ("name", "devices", "dp", "tp", "pp", "micro_batches", "dtype", "max_len", "memory", "port", "restart", "gpus")
LABEL = {"description_width": "100px"}
#: What is a table needs letters of one width.
_FONT = "font-family:var(--jp-code-font-family,monospace);"
#: Seconds between two looks at the pools.
EVERY = 2.0


class PoolForm:
    """`box` is shown. Starting and stopping happen in a thread, so that the notebook goes on; their words appear under the buttons."""

    def __init__(self) -> None:
        full = w.Layout(width="100%")
        self.model = w.Combobox(
            value="smollm2-135m",
            options=("smollm2-135m",),
            placeholder="a folder, a hub id, a GGUF file",
            description="Model",
            style=LABEL,
            layout=full,
            continuous_update=False,
        )
        self.fields = {
            o.name: w.Text(
                description=o.name.replace("_", "-"),
                placeholder=o.metavar or "",
                tooltip=o.help,
                style=LABEL,
                layout=w.Layout(width="auto"),
            )
            for o in dict.fromkeys((*pool.START_OPTIONS, *pool.PLAN_OPTIONS))
            if o.name in FIELDS
        }
        self.chosen = w.Dropdown(options=candidates.pools(), description="Pool", style=LABEL, layout=w.Layout(width="320px"))
        words = ("Plan", "Start", "Stop")
        self.buttons = {
            word: w.Button(description=word, button_style="primary" if word == "Start" else "", layout=w.Layout(width="auto"))
            for word in words
        }
        self.says = w.HTML(layout=w.Layout(width="100%"))
        self.pools = w.HTML(layout=w.Layout(width="100%"))
        grid = w.GridBox(
            [*self.fields.values()], layout=w.Layout(grid_template_columns="repeat(auto-fill, minmax(220px, 1fr))", grid_gap="2px 12px")
        )
        starting = w.HBox([b for word, b in self.buttons.items() if word != "Stop"], layout=w.Layout(margin="4px 0"))
        stopping = w.HBox([self.chosen, self.buttons["Stop"]])
        self.box = w.VBox(
            [self.model, grid, starting, stopping, self.says, self.pools], layout=w.Layout(width="100%", padding="4px 8px 4px 0")
        )
        for word, button in self.buttons.items():
            button.on_click(lambda _, word=word: self.do(word.lower()))

    def words(self, verb: str) -> list[str]:
        """The words of `%infer pool …` that the fields say."""
        if verb == "stop":
            return ["stop", str(self.chosen.value)] if self.chosen.value else ["stop"]
        options = {o.name for o in (pool.PLAN_OPTIONS if verb == "plan" else pool.START_OPTIONS)}
        filled = {name: field.value.strip() for name, field in self.fields.items() if field.value.strip() and name in options}
        said = [(f"--{name.replace('_', '-')}", value) for name, value in filled.items()]
        return [verb, self.model.value.strip() or "smollm2-135m", *(word for pair in said for word in pair)]

    def do(self, verb: str) -> None:
        """Do it in a thread; what it says comes here through the kernel's loop."""
        loop = asyncio.get_running_loop()
        words = self.words(verb)
        self._busy(True)
        self._say(f"%infer pool {' '.join(words)} …")

        def notice(text: str) -> None:
            loop.call_soon_threadsafe(self._say, text)

        async def work() -> None:
            try:
                text, _ = await asyncio.to_thread(pool.run, words, notice)
                self._say(text)
            except HolynbError as exc:
                self._say(str(exc), bad=True)
            finally:
                self._busy(False)
                await self._look()

        timer.start(work())

    def watch(self) -> None:
        """Look at the pools again and again while the panel is there."""
        timer.start(self._watch())

    async def _watch(self) -> None:
        while self.box.comm is not None:
            await self._look()
            await asyncio.sleep(EVERY)

    async def _look(self) -> None:
        from holynb import pools

        found = await asyncio.to_thread(pools.listing)
        self.pools.value = table(found)
        names = [i.name for i in found]
        if tuple(names) != tuple(self.chosen.options):
            self.chosen.options = names

    def _busy(self, busy: bool) -> None:
        for button in self.buttons.values():
            button.disabled = busy

    def _say(self, text: str, *, bad: bool = False) -> None:
        colour = "var(--jp-error-color1,#d32f2f)" if bad else "inherit"
        self.says.value = f'<div role="status" style="white-space:pre-wrap;line-height:1.5;{_FONT if chr(10) in text else ""}color:{colour}">{html.escape(text)}</div>'


def table(found: list[PoolInfo]) -> str:
    """The pools as HTML: state, requests, and memory per device as a bar of ours against others."""
    if not found:
        return '<div style="color:var(--jp-ui-font-color2,#808080)">No pool runs. pool/smollm2-135m starts itself on first use.</div>'
    rows = [
        [f"pool/{i.name}", i.model, _state(i), count(i.requests), f"{count(i.tokens_in)} + {count(i.tokens_out)}", _kv(i)] for i in found
    ]
    says: Callable[[Any], str] = lambda cell: f'<td style="padding:2px 12px 2px 0;text-align:left">{html.escape(str(cell))}</td>'  # noqa: E731
    lines = ["".join(says(c) for c in row) + f'<td style="min-width:240px">{_memory(i)}</td>' for row, i in zip(rows, found, strict=True)]
    head = "".join(
        f'<th style="padding:2px 12px 2px 0;text-align:left">{h}</th>'
        for h in ("Pool", "Model", "State", "Under way", "Tokens", "KV cache", "Memory")
    )
    return f'<table style="border-collapse:collapse;line-height:1.5"><tr>{head}</tr>{"".join(f"<tr>{line}</tr>" for line in lines)}</table>'


def _state(info: PoolInfo) -> str:
    stage = f": {info.stage}" if info.stage not in ("", info.state) else ""
    share = f" {info.share:.0%}" if info.share is not None and info.state == "starting" else ""
    return "; ".join([f"{info.state}{stage}{share}", *pool.stages(info)])


def _kv(info: PoolInfo) -> str:
    """How full the KV cache is: a full one makes requests wait."""
    if info.kv_used is None or not info.kv_total:
        return "?"
    return f"{info.kv_used / info.kv_total:.0%} of {info.kv_total:,} tokens"


def _memory(info: PoolInfo) -> str:
    """A bar per device: weights, KV cache and the rest of ours, then others."""
    return "".join(bar(g.device, g.used, g.total, g.ours, dict(g.parts)) for g in info.memory) or "?"


def bar(device: str, used: int, total: int, ours: int | None, parts: dict[str, float]) -> str:
    """One device's memory as a bar with its words."""
    gib = 2**30
    mine = used if ours is None else min(ours, total)
    split = [(n, parts[n]) for n in ("weights", "kv", "rest") if parts.get(n)] or [("ours", float(mine))]
    colours = {
        "weights": "var(--jp-brand-color1,#1976d2)",
        "kv": "var(--jp-success-color1,#388e3c)",
        "rest": "var(--jp-brand-color3,#90caf9)",
        "ours": "var(--jp-brand-color1,#1976d2)",
    }
    pieces = [(colours[n], value / total) for n, value in split] + [("var(--jp-border-color1,#bdbdbd)", max(0.0, used - mine) / total)]
    drawn = "".join(
        f'<span style="display:inline-block;height:100%;width:{100 * share:.2f}%;background:{colour}"></span>' for colour, share in pieces
    )
    words = (
        f"{device}: "
        + ", ".join(f"{'KV cache' if n == 'kv' else n} {v / gib:.1f}" for n, v in split)
        + f" · {used / gib:.1f} of {total / gib:.0f} GiB used"
    )
    return (
        f'<div role="img" aria-label="{html.escape(words)}" style="margin:2px 0"><div style="height:8px;white-space:nowrap;font-size:0;overflow:hidden;'
        f'border-radius:2px;background:var(--jp-layout-color3,#e0e0e0)">{drawn}</div><small>{html.escape(words)}</small></div>'
    )
