"""Runs in plain text: safe strings, short numbers, the progress line, the final text. Pure; prints nothing.

Model output is data: escape sequences, control characters and lone surrogates never reach a terminal or a page.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping, Sequence
from os.path import commonprefix
from typing import TYPE_CHECKING, Any

from holynb.results import Summary, captioned, cost_text
from holynb.translation import brief
from holynb.units import seconds, three_digits
from holynb.words import clean, plain

if TYPE_CHECKING:
    from holynb.types import Outcome

__all__ = [
    "ago",
    "bar",
    "clean",
    "clip",
    "clip_columns",
    "columns",
    "count",
    "grid",
    "one_line",
    "percentile",
    "price",
    "progress",
    "seconds",
    "shared_prefix",
    "status",
    "thinking",
    "thought",
    "value_text",
    "verdict",
]

_BLOCKS = " ▏▎▍▌▋▊▉█"


def one_line(text: str | None) -> str:
    """`text` cleaned, on one line, without characters that would turn what stands beside it around."""
    return " ".join(plain(text or "").split())


def clip(text: str, width: int) -> str:
    """At most `width` characters, the last of them … where something was cut."""
    return text if len(text) <= width else text[: width - 1].rstrip() + "…"


def count(value: int | None) -> str:
    """`1,234`; `?` where unknown."""
    return "?" if value is None else f"{value:,}"


def thinking(chars: int, tokens: int | None) -> str:
    """`thinking … 412 tokens` of a row that does; characters where the server does not count while it thinks."""
    return brief("thinking …" + (f" {tokens:,} tokens" if tokens else f" {chars:,} characters" if chars else ""))


def thought(outcome: Outcome) -> str:
    """`thought · 412 tokens` of a row that has; characters of what was said of it where the tokens are not known."""
    tokens, chars = outcome.usage.tokens_reasoning, len(outcome.reasoning or "")
    return brief("thought" + (f" · {tokens:,} tokens" if tokens else f" · {chars:,} characters" if chars else ""))


def ago(then: float, now: float) -> str:
    """`5 min ago`, roughly."""
    elapsed = max(0.0, now - then)
    for unit, size in (("day", 86400), ("h", 3600), ("min", 60)):
        if elapsed >= size:
            n = int(elapsed // size)
            return f"{n} {unit}{'s' if unit == 'day' and n > 1 else ''} ago"
    return "just now"


def bar(share: float, width: int = 20) -> str:
    """A bar of `width` characters, `share` of it full."""
    full = max(0.0, min(1.0, share)) * width
    whole = int(full)
    part = _BLOCKS[int((full - whole) * 8)] if whole < width else ""
    return ("█" * whole + part).ljust(width)


def percentile(values: Sequence[float], q: float) -> float | None:
    """The `q` quantile of `values` (0 to 1, linear between neighbours); None where there are none."""
    if not values:
        return None
    ordered = sorted(values)
    position = q * (len(ordered) - 1)
    low = math.floor(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (position - low)


def progress(summary: Summary, rate: float | None, tokens: float | None, note: str = "") -> str:
    """The progress line of a run: rows done, time left, speed, cost.

    rate: rows a second. tokens: answered tokens a second. None: not known yet.
    """
    done = summary.n - summary.running
    parts = [f"{bar(done / summary.n if summary.n else 1.0)} {done:,} of {summary.n:,}"]
    if rate and summary.running:
        parts.append(f"{seconds(summary.running / rate)} left")
    if rate:
        parts.append(f"{three_digits(rate)} rows/s")
    if tokens:
        parts.append(f"{three_digits(tokens)} tokens/s")
    if summary.cost is not None or summary.unknown_cost or summary.ok:
        parts.append(captioned(summary.money()))
    if summary.error:
        parts.append(f"{summary.error:,} failed")
    parts += [f"{seconds(summary.elapsed)} so far" if not rate else "", "stopping" if summary.stopped else "", one_line(note)]
    return " · ".join(p for p in parts if p)


def grid(
    head: Sequence[str], lines: Sequence[Sequence[str]], widths: Mapping[int, int] | None = None, numbers: Collection[int] = ()
) -> str:
    """Columns under their heads, padded to terminal columns; `numbers` at their ends. `widths` caps columns by index."""
    cells = [[clip_columns(one_line(c), (widths or {}).get(i, 40)) for i, c in enumerate(line)] for line in [head, *lines]]
    wide = [max(columns(line[i]) for line in cells) for i in range(len(head))]

    def padded(i: int, text: str) -> str:
        space = " " * (wide[i] - columns(text))
        return space + text if i in numbers else text + space

    return "\n".join("  ".join(padded(i, c) for i, c in enumerate(line)).rstrip() for line in cells)


def columns(text: str) -> int:
    """Columns that `text` takes in a terminal: two for a wide character, one for an emoji's parts together and none for an accent."""
    if text.isascii():
        return len(text)
    from wcwidth import wcswidth

    return max(0, wcswidth(clean(text).replace("\n", " ").replace("\t", " ")))


def clip_columns(text: str, width: int) -> str:
    """As `clip`, by columns of a terminal."""
    if columns(text) <= width:
        return text
    end = min(len(text), width)
    while end and columns(text[:end]) > width - 1:
        end -= 1
    return text[:end].rstrip() + "…"


def verdict(outcome: Outcome | None, scale: str) -> str:
    """A row's score in short: `4`, or `pass`; `?` of an answer without one. scale: the judge's, "" without a judge."""
    if not scale or outcome is None or outcome.status != "ok":
        return ""
    if outcome.score is None:
        return "?"
    return ("fail", "pass")[outcome.score > 0] if scale == "pass/fail" else str(outcome.score)


def status(outcome: Outcome | None, *, pending: bool = False) -> str:
    """A row's status, by the frame's word; before it ends, whether it is `pending` in a batch."""
    return outcome.status if outcome is not None else "pending" if pending else "running"


def price(outcome: Outcome | None) -> str:
    """What a row cost, in a column whose caption tells simulated dollars; nothing where nothing was sent."""
    if outcome is None or outcome.status == "skipped" or not (outcome.attempts or outcome.cached):
        return ""
    return cost_text(outcome.cost, outcome.route, mark=False)


def shared_prefix(prompts: Sequence[str], min_chars: int = 12) -> int:
    """How many characters all prompts begin with, up to a word's end. A template's beginning would fill the column and tell nothing."""
    low, high = getattr(prompts, "bounds", None) or (min(prompts, default=""), max(prompts, default=""))
    if low == high:
        return 0
    prefix = commonprefix([low, high])  # noqa: RUF071 - of characters, not of paths
    end = max(prefix.rfind(" "), prefix.rfind("\n")) + 1
    return end if end >= min_chars else 0


def value_text(value: Any) -> str:
    """A cell of a schema's column."""
    return "" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
