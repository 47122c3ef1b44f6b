"""`--dry-run`: what a cell would send, and what that might cost, without sending any of it. Reads a plan; knows no engine."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import TYPE_CHECKING

from holynb import keys, prices
from holynb.summary import dollars
from holynb.types import Usage
from holynb.ui.text import clean, clip

if TYPE_CHECKING:
    from holynb.plan import Plan
    from holynb.types import Request

__all__ = ["text", "tokens"]

SAMPLE, MOST_TEXT = 3, 600

#: UTF-8 bytes a token holds, in the texts that tokenizers like most and least (English prose; code, Hangul, digits), and what a
#: chat template adds around a message (some bring a system prompt of their own). An estimate, and said to be one: no tokenizer is loaded for it.
MOST_BYTES, LEAST_BYTES = 6, 2
AROUND = (4, 40)


def text(plan: Plan) -> str:
    """The whole answer of a dry run."""
    asked = [r for r in plan.requests if r is not None]
    skipped = len(plan.requests) - len(asked)
    endpoint = plan.endpoints[0]
    lines = [
        f"Dry run: nothing was sent. {len(asked):,} rows would go to {plan.route}"
        + (f" at {endpoint.base_url}" if endpoint.base_url else "")
        + ".",
        f"{skipped:,} rows are empty after rendering and would be skipped." if skipped else "",
        f"Key: {keys.source(endpoint)}.",
        _tokens_line(asked),
        _cost_line(asked),
    ]
    for request in asked[:SAMPLE]:
        lines.append(f"\n--- row {request.row}")
        lines += [f"{m.role}: {clip(clean(m.content), MOST_TEXT)}" for m in request.messages]
    if len(asked) > SAMPLE:
        lines.append(f"\n… and {len(asked) - SAMPLE:,} more.")
    return "\n".join(line for line in lines if line)


def tokens(request: Request) -> tuple[int, int]:
    """How many tokens a prompt has, at least and at most."""
    size = sum(len(m.content.encode("utf-8", "surrogatepass")) for m in request.messages)
    least, most = (n * len(request.messages) for n in AROUND)
    return size // MOST_BYTES + least, size // LEAST_BYTES + most


def _tokens_line(asked: Sequence[Request]) -> str:
    ranges = [tokens(r) for r in asked]
    out = sum(r.sampling.max_tokens or 0 for r in asked)
    return f"Tokens, estimated: {sum(a for a, _ in ranges):,} to {sum(b for _, b in ranges):,} in; at most {out:,} out."


def _cost_line(asked: Sequence[Request]) -> str:
    low, high = Decimal(0), Decimal(0)
    for request in asked:
        least, most = tokens(request)
        cheap = prices.price(request.route, None, Usage(least, 1))
        dear = prices.price(request.route, None, Usage(most, request.sampling.max_tokens or 0))
        if cheap is None or dear is None:
            return f"Cost: ? (no price per token is known for {request.route})."
        low, high = low + cheap, high + dear
    return f"Cost, estimated: {dollars(low)} to {dollars(high)}, retries not counted."
