"""Local pools as an HTML table: state, requests, KV cache, and a bar of memory per device. Knows what a pool says of itself; no widget."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

from holynb.ui.commands import pool
from holynb.ui.output import count
from holynb.units import memory

if TYPE_CHECKING:
    from holynb.pools import PoolInfo

__all__ = ["bar", "table"]

#: As the cells of `dash`: names break anywhere where there is little room.
CELL_STYLE = "padding:2px 10px 2px 0;text-align:left;vertical-align:top"
NAME_STYLE = ";overflow-wrap:anywhere;min-width:4em"


def table(infos: list[PoolInfo]) -> str:
    """The pools as an HTML table: state, requests, and a bar of memory per device, the pool's beside that of others."""
    if not infos:
        return '<div style="color:var(--jp-ui-font-color2,#808080)">No pool runs. pool/smollm2-135m starts itself on first use.</div>'
    rows = [
        [f"pool/{i.name}", i.model, _state(i), count(i.requests), f"{count(i.tokens_in)} + {count(i.tokens_out)}", _kv(i)] for i in infos
    ]
    lines = [
        "".join(_cell(text, name=column < 2) for column, text in enumerate(row))
        + f'<td style="width:240px;min-width:110px;vertical-align:top">{_memory(i)}</td>'
        for row, i in zip(rows, infos, strict=True)
    ]
    head = "".join(f'<th style="{CELL_STYLE}">{h}</th>' for h in ("Pool", "Model", "State", "Under way", "Tokens", "KV cache", "Memory"))
    return f'<table style="border-collapse:collapse;line-height:1.5"><tr>{head}</tr>{"".join(f"<tr>{line}</tr>" for line in lines)}</table>'


def _cell(text: str, *, name: bool) -> str:
    return f'<td style="{CELL_STYLE}{NAME_STYLE if name else ""}">{html.escape(text)}</td>'


def _state(info: PoolInfo) -> str:
    stage = f": {info.stage}" if info.stage not in ("", info.state) else ""
    share = f" {info.share:.0%}" if info.share is not None and info.state == "starting" else ""
    return "; ".join([f"{info.state}{stage}{share}", *pool.stages(info)])


def _kv(info: PoolInfo) -> str:
    """How full the KV cache is: a full one delays requests."""
    if info.kv_used is None or not info.kv_total:
        return "?"
    return f"{info.kv_used / info.kv_total:.0%} of {info.kv_total:,} tokens"


def _memory(info: PoolInfo) -> str:
    """A bar per device: the pool's weights, KV cache and remainder, then other processes."""
    return "".join(bar(g.device, g.used, g.total, g.ours, dict(g.parts)) for g in info.memory) or "?"


def bar(device: str, used: int, total: int, ours: int | None, parts: dict[str, float]) -> str:
    """One device's memory as a bar with a caption. Sizes in bytes; `ours`: of the pool, None if unknown."""
    pool_used = used if ours is None else min(ours, total)
    split = [(n, parts[n]) for n in ("weights", "kv", "rest") if parts.get(n)] or [("ours", float(pool_used))]
    colours = {
        "weights": "var(--jp-brand-color1,#1976d2)",
        "kv": "var(--jp-success-color1,#388e3c)",
        "rest": "var(--jp-brand-color3,#90caf9)",
        "ours": "var(--jp-brand-color1,#1976d2)",
    }
    segments = [(colours[n], value / total) for n, value in split] + [
        ("var(--jp-border-color1,#bdbdbd)", max(0.0, used - pool_used) / total)
    ]
    bars = "".join(
        f'<span style="display:inline-block;height:100%;width:{100 * share:.2f}%;background:{colour}"></span>' for colour, share in segments
    )
    caption = (
        f"{device}: "
        + ", ".join(f"{'KV cache' if n == 'kv' else n} {memory(v)}" for n, v in split)
        + f" · {memory(used)} of {memory(total)} used"
    )
    return (
        f'<div role="img" aria-label="{html.escape(caption)}" style="margin:2px 0">'
        f'<div style="height:8px;white-space:nowrap;font-size:0;overflow:hidden;'
        f'border-radius:2px;background:var(--jp-layout-color3,#e0e0e0)">{bars}</div><small>{html.escape(caption)}</small></div>'
    )
