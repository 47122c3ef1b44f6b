"""One attempt at one endpoint: streaming with a silence timeout, and the outcome of the row. asyncio only; no policy."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from typing import NamedTuple

from holynb.errors import Fault
from holynb.events import Failed
from holynb.journal import Payment
from holynb.scheduler import empty_answers, service_order
from holynb.scheduler.budget import Money
from holynb.scheduler.failover import EndpointState, Tier, WorkItem
from holynb.scheduler.limiter import Permit
from holynb.scheduler.validation import ResponseValidator
from holynb.types import Completion, Done, Outcome, Request, Route, Timeouts, Usage

__all__ = [
    "InFlight",
    "Pieces",
    "TimedAnswer",
    "error_outcome",
    "failed_event",
    "ok_outcome",
    "receive",
    "record_usage",
    "request_for",
    "run",
    "take_mark",
    "total_tokens",
    "unsent_outcome",
]

#: An answer with its latency and its TTFT (None where it was not streamed), seconds.
TimedAnswer = tuple[Done, tuple[float, float | None]]


class InFlight(NamedTuple):
    """What an attempt holds while it is in flight: its permit, the dollars reserved for it, and whether it probes an open circuit."""

    permit: Permit
    reserved: Decimal
    probe: bool = False


class Pieces(NamedTuple):
    """Where the pieces of an answer go, with its row's number; of what is thought, also how many tokens it was so far (None: not told)."""

    text: Callable[[int, str], None]
    thoughts: Callable[[int, str, int | None], None]

    def after(self, first: Callable[[], None]) -> Pieces:
        """The same; `first` is called before each piece."""

        def text(row: int, text: str) -> None:
            first()
            self.text(row, text)

        def thoughts(row: int, text: str, tokens: int | None) -> None:
            first()
            self.thoughts(row, text, tokens)

        return Pieces(text, thoughts)


def request_for(item: WorkItem, endpoint: EndpointState, validator: ResponseValidator | None) -> Request:
    """An item's request as sent to this endpoint."""
    request = item.request
    if request.default_limit and request.route != endpoint.route:  # moved: what is the default there may be more than this one takes
        longest = endpoint.traits.longest(request.sampling.think)
        if longest != request.sampling.max_tokens:  # mostly they are the same, and a copy costs more than the question
            request = replace(request, sampling=replace(request.sampling, max_tokens=longest))
    if request.tiers:
        request = service_order.at_its_tier(request, item, endpoint)
    if validator is not None:
        request = validator.prepare(request, endpoint.route, item.repair_messages)
    if item.cache is not None and endpoint.cache is not None:
        leads = endpoint.cache.terms.streams_first and endpoint.cache.writes(request.row)
        request = replace(request, cache=item.cache, stream=request.stream or leads)
    return request


def take_mark(item: WorkItem, tier: Tier, endpoint: EndpointState, validator: ResponseValidator | None) -> None:
    """Settle what the item's next attempt says of the endpoint's prompt cache: it is sent now."""
    item.cache = None
    if endpoint.cache is not None:
        serving = sum(e.fatal is None and not e.breaker.is_open for e in tier.endpoints)
        item.cache = endpoint.cache.mark(request_for(item, endpoint, validator), len(tier.queue) / max(1, serving))


async def run(
    item: WorkItem, endpoint: EndpointState, timeouts: Timeouts, pieces: Pieces, validator: ResponseValidator | None
) -> TimedAnswer:
    """Send, receive and check. Raises Fault, also for an empty answer and one that does not fit the schema."""
    request = request_for(item, endpoint, validator)
    try:
        timed = await receive(request, endpoint, timeouts, pieces)
        empty_answers.check_empty(item, request, timed[0], endpoint.traits)
    except Fault as fault:
        if validator is None:
            raise
        raise validator.translate(item, endpoint.route, request, fault) from fault
    if validator is not None:
        validator.check(item, timed[0].completion)
    return timed


async def receive(request: Request, endpoint: EndpointState, timeouts: Timeouts, pieces: Pieces) -> TimedAnswer:
    """Send and receive the answer. Each Delta resets the silence timeout, also one that is thought; the engine's keep-alives do not reach
    it. The first token is the text's. Raises Fault.
    """
    silence, now = timeouts.longest_silence(request.tiers), asyncio.get_running_loop().time
    done: Done | None = None
    first: float | None = None
    if request.route != endpoint.route:
        request = replace(request, route=endpoint.route)  # failed over: this endpoint serves another model
    sent = time.perf_counter()
    stream = endpoint.engine.send(request, timeouts)
    try:
        async with asyncio.timeout(silence) as timer:
            async for item in stream:
                endpoint.verified.set()
                if endpoint.cache is not None:
                    endpoint.cache.begun(request.row)
                if isinstance(item, Done):
                    done, ended = item, time.perf_counter()
                    continue
                timer.reschedule(now() + silence)
                if item.text:
                    first = first or time.perf_counter()
                    pieces.text(request.row, item.text)
                if item.reasoning or item.tokens_reasoning:
                    pieces.thoughts(request.row, item.reasoning, item.tokens_reasoning)
    except TimeoutError:
        if done is None:
            raise Fault("timeout", f"no content from {endpoint.route} for {silence:g} s (--timeout)") from None
    finally:
        await stream.aclose()  # type: ignore[attr-defined]
    if done is None:
        raise Fault("truncated", f"{endpoint.route} ended its answer early")
    return done, (ended - sent, first - sent if first else None)


def record_usage(item: WorkItem, route: Route, money: Money, result: Completion | Fault) -> Payment:
    """Add the tokens and dollars of an attempt, answered or not, to the item's. Returns the payment."""
    usage = result.usage or Usage()
    cost = money.price(route, result.model, usage, result.tier)
    item.usage = item.usage + usage
    item.cost = cost if item.cost is None else item.cost if cost is None else item.cost + cost
    kind = "attempt" if isinstance(result, Fault) else "answer"
    return Payment(item.request.row, time.time(), str(route), result.model, kind, usage, cost)


def error_outcome(item: WorkItem, endpoint: EndpointState, fault: Fault) -> Outcome:
    return Outcome(
        "error",
        error_type=fault.kind,
        error=fault.message,
        route=str(endpoint.route),
        attempts=item.attempts,
        usage=item.usage,
        cost=item.cost,
        finish_reason=fault.finish_reason,
        reasoning=fault.reasoning,
    )


def failed_event(item: WorkItem, endpoint: EndpointState, fault: Fault, wait: float | None) -> Failed:
    """The event of a failed attempt that is retried after `wait` seconds; None: not retried at this tier."""
    row, route = item.request.row, str(endpoint.route)
    return Failed(row, item.attempts, route, fault.kind, fault.message, time.time(), wait, fault.usage, fault.raw)


def unsent_outcome(item: WorkItem, endpoint: EndpointState, money: Money) -> Outcome | None:
    """The outcome of an item that must not wait for a permit: dropped, or beyond the budget for good. None for any other."""
    if item.dropped is not None:
        return replace(item.dropped, attempts=item.attempts, usage=item.usage, cost=item.cost)
    fault = money.check(request_for(item, endpoint, None), endpoint.route) if money.budget is not None else None
    return error_outcome(item, endpoint, fault) if fault else None


def ok_outcome(item: WorkItem, route: Route, completion: Completion, times: tuple[float, float | None]) -> Outcome:
    notes = [f"moved: {item.failover_reason}"] if item.failover_reason else []
    notes += [f"{completion.tier} tier: the one asked first was refused"] if item.service_tier and completion.tier else []
    notes += [completion.note] if completion.note else []
    return Outcome(
        "ok",
        completion.text,
        error="; ".join(notes) or None,
        route=str(route),
        model=completion.model,
        attempts=item.attempts,
        usage=item.usage,
        cost=item.cost,
        latency_s=times[0],
        ttft_s=times[1],
        finish_reason=completion.finish_reason,
        reasoning=completion.reasoning,
        tier=completion.tier,
        vector=None if completion.vectors is None else b"".join(completion.vectors),
    )


def total_tokens(usage: Usage) -> int | None:
    """Tokens in and out; None where the server did not report both."""
    return None if usage.tokens_in is None or usage.tokens_out is None else usage.tokens_in + usage.tokens_out
