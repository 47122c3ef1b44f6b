"""`--dry-run`: what a cell would send and what it may cost, without sending it. Reads a plan and the run log; knows no engine."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from holynb import attachments, pools
from holynb.config import keys, models, settings, suggest
from holynb.pricing import prices
from holynb.run import assembly, attaching, pack, prompt_cache, quote, reservation
from holynb.run.batch import marks
from holynb.translation import say
from holynb.ui.cell import said
from holynb.ui.commands import routing
from holynb.ui.output import clean, clip, seconds
from holynb.ui.output.listing import Verbatim
from holynb.words import counted

if TYPE_CHECKING:
    from holynb.run import Plan, Quote
    from holynb.types import Endpoint

__all__ = ["show", "text"]

SAMPLE_ROWS = 3
MAX_MESSAGE_CHARS = 600
#: Prices and what is known of models are said to be old after so many days.
MAX_DAYS = 60
#: From so many rows on, sending a few first is suggested: their answers narrow the estimate.
MIN_ROWS_FOR_TRIAL = 50


def show(shell: Any, plan: Plan) -> None:
    """Display or print it, in the language that is chosen."""
    said.show(shell, Verbatim(say(text(plan))))


def text(plan: Plan) -> str:
    """The whole output of a dry run."""
    requests = [r for r in plan.rows.requests if r is not None]
    skipped = len(plan.rows.requests) - len(requests)
    forecast = quote.quote(plan)
    lines = [
        f"Dry run: nothing was sent. {counted(forecast.rows, 'row')} would go {_destination(plan)}.",
        f"{counted(forecast.answered, 'row')} answered at no cost, from the run log or by an identical row." if forecast.answered else "",
        f"{counted(skipped, 'row')} empty after rendering, and would be skipped." if skipped else "",
        attaching.wrong_line(requests),
        *_address_lines(plan),
        *_unknown_models(plan, forecast),
        *(
            f"Key{f' of {e.route.provider}' if len(plan.targets.endpoints) > 1 else ''}: {keys.describe_source(e).removeprefix('key in ')}."
            for e in _endpoint_per_provider(plan)
        ),
        *_estimate_lines(forecast, plan),
        reservation.coverage(plan, forecast),
        reservation.line(plan, forecast.due),
        (marks if plan.options.batch else prompt_cache).line(plan, forecast.due, assembly.validator(plan)),
        *_ages(plan),
        *routing.lines(plan),
        f"Answers must match {plan.schema.name}; its columns: {', '.join(c.name for c in plan.schema.columns)}." if plan.schema else "",
        *plan.notes,
    ]
    for request in requests[:SAMPLE_ROWS]:
        lines.append(f"\n--- row {request.row}")
        lines += [f"{m.role}: {clip(clean(m.content), MAX_MESSAGE_CHARS)}" for m in request.messages]
        lines += [f"attached: {clean(attachments.described(a))}" for a in request.attachments]
    if len(requests) > SAMPLE_ROWS:
        lines.append(f"\n… and {len(requests) - SAMPLE_ROWS:,} more.")
    return "\n".join(line for line in lines if line)


def _destination(plan: Plan) -> str:
    by = "by batch " if plan.options.batch else ""
    if plan.targets.decisions:
        return f"{by}where their task sends them"
    address = plan.targets.endpoints[0].base_url
    return f"{by}to {plan.route}" + (f" at {address}" if address else "")


def _address_lines(plan: Plan) -> list[str]:
    """Where the requests of each route go, where there are several."""
    endpoints = plan.targets.endpoints
    return [f"{e.route} goes to {_address(e)}." for e in endpoints] if len(endpoints) > 1 else []


def _unknown_models(plan: Plan, forecast: Quote) -> list[str]:
    """Of models that may be misspelt, the nearest known one, where the price's line does not say it; and of pools that do not run."""
    known, lines = settings.providers(), []
    for endpoint in plan.targets.endpoints:
        route = endpoint.route
        if endpoint.wire == "pool":
            lines.append("" if route.model == pools.EMBEDDED or pools.find(route.model) else pools.not_running(route.model))
        elif route not in forecast.estimate.unpriced and (near := suggest.model(route, known)):
            lines.append(f"{route} is none of the known models of {route.provider}.{near}")
    return lines


def _address(endpoint: Endpoint) -> str:
    if endpoint.wire in ("pool", "sim"):
        return "this machine"
    return endpoint.base_url or "AWS, in the region of your settings"


def _endpoint_per_provider(plan: Plan) -> list[Endpoint]:
    """The first endpoint of each provider: endpoints of one provider share its key."""
    return list({e.route.provider: e for e in reversed(plan.targets.endpoints)}.values())[::-1]


def _ages(plan: Plan) -> list[str]:
    """How old the oldest of the tables is that this plan rests on, where it is old."""
    routes = [e.route for e in plan.targets.endpoints if e.wire not in ("pool", "sim")]
    priced = [(price.date, route) for route in routes if (price := prices.list_price(route)) is not None and price.date is not None]
    known = [
        model.reading.date for route in routes if (model := models.find(route.provider, route.model)) is not None and not model.article
    ]
    lines = []
    if priced and (days := (models.today() - min(priced)[0]).days) > MAX_DAYS:
        day, route = min(priced, key=lambda pair: pair[0])
        lines.append(f"The price of {route} was read {day}, {days} days ago: %infer prices update.")
    if known and (days := (models.today() - min(known)).days) > MAX_DAYS:
        lines.append(f"What is known of models was read {min(known)}, {days} days ago: %infer models update.")
    return lines


def _estimate_lines(forecast: Quote, plan: Plan) -> list[str]:
    """Lines on tokens, dollars and, at the limits of `--rpm` and `--tpm`, seconds."""
    estimate = forecast.estimate
    (low_in, high_in), (low_out, high_out) = estimate.tokens_in, estimate.tokens_out
    out = f" in; {low_out:,} to {high_out:,} out" if estimate.measured else f" in; at most {high_out:,} out"
    if plan.options.embed:
        n = pack.requests(plan, forecast.due)
        estimate, out = replace(estimate, rows=n), f", in {counted(n, 'request')}"
    basis = f" from {counted(estimate.measured, 'answer')} of the same kind" if estimate.measured else ""
    cost_text = (
        "none: your own devices"
        if forecast.free and forecast.rows
        else f"{forecast.says()}, retries not counted"
        if forecast.range
        else forecast.says()
    )
    limits = plan.options.rpm, plan.options.tpm
    duration_s = estimate.seconds(*limits)
    return [
        f"Tokens, estimated{basis}: {low_in:,} to {high_in:,}{out}.",
        f"Cost{', estimated' if forecast.range and not forecast.free else ''}: {cost_text}.",
        f"Time, at --rpm and --tpm: {seconds(duration_s)} or more." if duration_s else "",
        ""
        if estimate.measured or forecast.rows < MIN_ROWS_FOR_TRIAL or forecast.free
        else "To narrow this down, send a few rows first (-n 20): their answers are kept.",
    ]
