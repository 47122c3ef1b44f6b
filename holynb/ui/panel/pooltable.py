"""Local pools as an HTML table: state, requests, KV cache, and a bar of memory per device. Knows what a pool says of itself; no widget."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

from holynb.translation import say
from holynb.ui.commands import own_servers, pool_nodes, pool_state, pool_token
from holynb.ui.output import clean, count, listing
from holynb.ui.output.listing import Listing, Markup
from holynb.units import memory

if TYPE_CHECKING:
    from holynb.pools import PoolInfo

__all__ = ["bar", "table"]

#: A class of thirty is longer than a notebook's page.
_SCROLLED = "max-height:15em;overflow:auto;margin-top:2px;padding:0 8px;max-width:44em;border:1px solid var(--jp-border-color2,#9e9e9e60)"


def table(infos: list[PoolInfo]) -> str:
    """The pools as an HTML table: state, requests, and a bar of memory per device, the pool's beside that of others; below it who asks."""
    if not infos:
        none = [*own_servers.lines(), "No pool of yours runs. pool/smollm2-135m starts itself on first use."]
        return f'<div style="color:var(--jp-ui-font-color2,#6b6b6b)">{"<br>".join(html.escape(say(line)) for line in none)}</div>'
    head = ("Pool", "State", "Model", "In flight", "Tokens", "KV cache", "Memory")
    rows = [
        [
            f"pool/{i.name}",
            _with_nodes(i) if i.nodes else _state(i),
            i.model,
            count(i.requests),
            f"{count(i.tokens_in)} + {count(i.tokens_out)}",
            _kv(i),
            Markup(_memory(i)),
        ]
        for i in infos
    ]
    return listing.as_html([Listing(head, rows, {3, 4}, prose={1, 6}, wide={6})]) + _clients(infos)


def _clients(infos: list[PoolInfo]) -> str:
    """What each named token has used today, the most first; it scrolls. All pools of this machine count together, so it is one table."""
    rows = pool_token.client_rows(next((i for i in infos if i.clients), None))
    if not rows:
        return ""
    page = listing.as_html([Listing(pool_token.CLIENT_HEAD, rows, {1, 2, 3})])
    label = html.escape(say(f"Named tokens: {len(rows):,}"))
    # Whoever has no mouse scrolls it by its focus.
    return f'<div style="margin-top:8px">{label}</div><div tabindex="0" role="group" aria-label="{label}" style="{_SCROLLED}">{page}</div>'


def _state(info: PoolInfo) -> str:
    stage = f": {info.stage}" if info.stage not in ("", info.state) else ""
    share = f" {info.share:.0%}" if info.share is not None and info.state == "starting" else ""
    remedy = [r] if (r := pool_state.remedy(info)) else []
    return "; ".join([f"{pool_state.state(info)}{stage}{share}", *remedy, *pool_state.stages(info)])


def _with_nodes(info: PoolInfo) -> Markup:
    """The state, and each node of a pool on Ray; one that is gone is red."""
    lines = [html.escape(clean(_state(info)))]
    for line, node in zip(pool_nodes.nodes(info), info.nodes, strict=True):
        red = "" if node["alive"] else ' style="color:var(--jp-error-color1,#c62828)"'
        lines.append(f"<span{red}>{html.escape(clean(line))}</span>")
    return Markup("<br>".join(lines))


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
        f'<div role="img" aria-label="{html.escape(caption)}" style="margin:2px 0;min-width:170px">'
        f'<div style="height:8px;white-space:nowrap;font-size:0;overflow:hidden;'
        f'border-radius:2px;background:var(--jp-layout-color3,#e0e0e0)">{bars}</div><small>{html.escape(caption)}</small></div>'
    )
