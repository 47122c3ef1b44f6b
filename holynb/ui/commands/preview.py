"""`--dry-run`: what a cell would send, and what that might cost, without sending any of it. Reads a plan and the run log; knows no engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holynb.config import keys
from holynb.run import quote
from holynb.ui.commands import routing
from holynb.ui.output import clean, clip, seconds
from holynb.words import counted

if TYPE_CHECKING:
    from holynb.run import Plan, Quote
    from holynb.types import Endpoint

__all__ = ["text"]

SAMPLE, MOST_TEXT = 3, 600


def text(plan: Plan) -> str:
    """The whole answer of a dry run."""
    asked = [r for r in plan.rows.requests if r is not None]
    skipped = len(plan.rows.requests) - len(asked)
    made = quote.quote(plan)
    lines = [
        f"Dry run: nothing was sent. {counted(made.rows, 'row')} would go {_where(plan)}.",
        f"{counted(made.answered, 'row')} answered at no cost: by the run log, or by an equal row." if made.answered else "",
        f"{counted(skipped, 'row')} empty after rendering, and would be skipped." if skipped else "",
        *(
            f"Key{f' of {e.route.provider}' if len(plan.targets.endpoints) > 1 else ''}: {keys.describe_source(e)}."
            for e in _providers(plan)
        ),
        *_estimate(made, plan),
        *routing.lines(plan),
        f"Answers are held to {plan.schema.name}, in columns: {', '.join(c.name for c in plan.schema.columns)}." if plan.schema else "",
        *plan.notes,
    ]
    for request in asked[:SAMPLE]:
        lines.append(f"\n--- row {request.row}")
        lines += [f"{m.role}: {clip(clean(m.content), MOST_TEXT)}" for m in request.messages]
    if len(asked) > SAMPLE:
        lines.append(f"\n… and {len(asked) - SAMPLE:,} more.")
    return "\n".join(line for line in lines if line)


def _where(plan: Plan) -> str:
    if plan.targets.decisions:
        return "where their task sends them"
    address = plan.targets.endpoints[0].base_url
    return f"to {plan.route}" + (f" at {address}" if address else "")


def _providers(plan: Plan) -> list[Endpoint]:
    """One endpoint for each provider: that is how many keys there are."""
    return list({e.route.provider: e for e in reversed(plan.targets.endpoints)}.values())[::-1]


def _estimate(made: Quote, plan: Plan) -> list[str]:
    """Tokens, dollars and, at the user's own limits, time."""
    guess = made.estimate
    (low_in, high_in), (low_out, high_out) = guess.tokens_in, guess.tokens_out
    out = f"{low_out:,} to {high_out:,} out" if guess.measured else f"at most {high_out:,} out"
    learned = f" from {counted(guess.measured, 'answer')} of the same kind" if guess.measured else ""
    spent = "none: your own devices" if made.free and made.rows else f"{made.says()}, retries not counted" if made.range else made.says()
    limits = plan.options.rpm, plan.options.tpm
    took = guess.seconds(*limits)
    return [
        f"Tokens, estimated{learned}: {low_in:,} to {high_in:,} in; {out}.",
        f"Cost{', estimated' if made.range and not made.free else ''}: {spent}.",
        f"Time, at --rpm and --tpm: {seconds(took)} or more." if took else "",
        ""
        if guess.measured or made.rows < 50 or made.free
        else "A few rows sent first (-n 20) make this narrow: they are kept, and teach the rest.",
    ]
