"""One attempt at one endpoint: listening with a silence clock, and what its end makes of the row. asyncio only; decides nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from decimal import Decimal
from typing import NamedTuple

from holynb.errors import Fault
from holynb.journal import Paid
from holynb.scheduler.budget import Money
from holynb.scheduler.failover import EndpointState, WorkItem
from holynb.scheduler.limiter import Permit
from holynb.scheduler.validation import ResponseValidator
from holynb.types import Completion, Done, Outcome, Request, Route, Timeouts, Usage

__all__ = ["Heard", "InFlight", "answer", "answered", "asked", "failure", "listen", "paid", "unsent", "within"]

#: An answer, with its latency and its time to first token (None where it was not streamed), seconds.
Heard = tuple[Done, tuple[float, float | None]]


class InFlight(NamedTuple):
    """What an attempt holds while it is on its way: its place in the limiter, and dollars set aside."""

    place: Permit
    worst: Decimal


def asked(job: WorkItem, station: EndpointState, judge: ResponseValidator | None) -> Request:
    """A job's request as this station gets it."""
    return job.request if judge is None else judge.asked(job.request, station.route, job.again)


async def answer(
    job: WorkItem, station: EndpointState, timeouts: Timeouts, say: Callable[[int, str], None], judge: ResponseValidator | None
) -> Heard:
    """One attempt: asked, heard out, and held to the schema where there is one. Raises Fault."""
    sent = asked(job, station, judge)
    if judge is None:
        return await listen(sent, station, timeouts, say)
    try:
        heard = await listen(sent, station, timeouts, say)
    except Fault as fault:
        raise judge.refused(job, station.route, sent, fault) from fault
    judge.hold(job, heard[0].completion)
    return heard


async def listen(request: Request, station: EndpointState, timeouts: Timeouts, say: Callable[[int, str], None]) -> Heard:
    """Send and hear the answer out. Content resets the silence clock; the engine's keep-alives do not reach it. Raises Fault."""
    silence, now = timeouts.silence, asyncio.get_running_loop().time
    done: Done | None = None
    first: float | None = None
    if request.route != station.route:
        request = replace(request, route=station.route)  # a row that moved: asked elsewhere, for the model that serves there
    sent = time.perf_counter()
    stream = station.engine.send(request, timeouts)
    try:
        async with asyncio.timeout(silence) as timer:
            async for item in stream:
                station.proof.set()
                if isinstance(item, Done):
                    done, ended = item, time.perf_counter()
                    continue
                timer.reschedule(now() + silence)
                if item.text:
                    first = first or time.perf_counter()
                    say(request.row, item.text)
    except TimeoutError:
        if done is None:
            raise Fault("timeout", f"no content from {station.route} for {silence:g} s (--timeout)") from None
    finally:
        await stream.aclose()  # type: ignore[attr-defined]
    if done is None:
        raise Fault("truncated", f"{station.route} ended its answer early")
    return done, (ended - sent, first - sent if first else None)


def paid(job: WorkItem, route: Route, money: Money, said: Completion | Fault) -> Paid:
    """What an attempt came to, answer or none: its tokens and dollars are added to the row's."""
    usage = said.usage or Usage()
    cost = money.price(route, said.model, usage)
    job.usage = job.usage + usage
    job.cost = cost if job.cost is None else job.cost if cost is None else job.cost + cost
    what = "attempt" if isinstance(said, Fault) else "answer"
    return Paid(job.request.row, time.time(), str(route), said.model, what, usage, cost)


def failure(job: WorkItem, station: EndpointState, fault: Fault) -> Outcome:
    return Outcome(
        "error", error_type=fault.kind, error=fault.message, route=str(station.route), attempts=job.attempts, usage=job.usage, cost=job.cost
    )


def unsent(job: WorkItem, station: EndpointState, money: Money) -> Outcome | None:
    """How a job ends that must not wait for a place: nobody wants it any more, or the budget can never hold it. None for any other."""
    if job.dropped is not None:
        return replace(job.dropped, attempts=job.attempts, usage=job.usage, cost=job.cost)
    fault = money.refuses(job.request, station.route)
    return failure(job, station, fault) if fault else None


def answered(job: WorkItem, route: Route, said: Completion, times: tuple[float, float | None]) -> Outcome:
    notes = [f"moved: {job.moved}"] if job.moved else []
    notes += [said.note] if said.note else []
    return Outcome(
        "ok",
        said.text,
        error="; ".join(notes) or None,
        route=str(route),
        model=said.model,
        attempts=job.attempts,
        usage=job.usage,
        cost=job.cost,
        latency_s=times[0],
        ttft_s=times[1],
        finish_reason=said.finish_reason,
    )


async def within(what: Awaitable[object], seconds: float) -> None:
    """Wait, but not longer than that. (`asyncio.wait_for` swallows a cancellation in Python 3.11 when both come in one tick.)"""
    try:
        async with asyncio.timeout(seconds):
            await what
    except TimeoutError:
        return
