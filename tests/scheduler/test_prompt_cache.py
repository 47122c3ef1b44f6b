"""Prompt caches against a server with Anthropic's rules, in virtual time: what a run pays at worst, whatever happens to its rows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from servers import virtual
from servers.prompt_caches import PromptCaching, bill, tokens, uncached

from holynb.engines import anthropic
from holynb.errors import Fault
from holynb.journal import Journal
from holynb.scheduler import CacheHead, CacheTerms, EndpointState, Limiter, Money, Policy, PromptCache, Scheduler, Tier, WorkItem
from holynb.types import Completion, Delta, Done, Endpoint, Message, Request, Route, Timeouts

ROUTE = Route("anthropic", "claude-sonnet-4-6")
POLICY = Policy(Timeouts(silence=600.0), retries=3)


@dataclass(frozen=True)
class Fate:
    """Of one attempt: seconds until its answer begins, and then until it ends; how it fails instead, if it does."""

    begins: float = 1.0
    lasts: float = 2.0
    fails: str | None = None


@dataclass
class Claude:
    """An engine whose server has a prompt cache. `fates`: of the attempts in the order in which they come, the last of all others."""

    fates: list[Fate]
    minimum: int = 1024
    endpoint: Endpoint = field(default_factory=lambda: Endpoint(ROUTE, "anthropic"))
    usages: list[dict[str, int]] = field(default_factory=list)
    came: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.cache = PromptCaching(self.minimum)

    async def send(self, request: Request, timeouts: Timeouts) -> AsyncIterator[Delta | Done]:
        now = asyncio.get_running_loop().time
        fate = self.fates[min(len(self.came), len(self.fates) - 1)]
        self.came.append(now())
        if fate.fails == "rate_limit":
            raise Fault("rate_limit", "slow down", wait=fate.begins, status=429)
        usage, writes = self.cache.arrives(anthropic.body(request), now())
        await asyncio.sleep(fate.begins)
        if fate.fails == "overloaded":
            raise Fault("server", "overloaded", status=529)
        self.cache.begins(writes, now())
        self.usages.append(usage)
        if fate.fails == "timeout":
            raise Fault("timeout", "nothing came")
        counted = anthropic.usage({**usage, "output_tokens": 1})
        if request.stream:
            yield Delta("o")
        if fate.fails == "cut":
            raise Fault("truncated", "cut", usage=counted)
        await asyncio.sleep(fate.lasts)
        yield Done(Completion("ok", "stop", "claude", counted))

    async def ready(self, notice: Callable[[str], None]) -> None: ...

    async def aclose(self) -> None: ...

    @property
    def dearer(self) -> float:
        """What was paid above the same without a cache, in tokens of input."""
        return sum(map(bill, self.usages)) - sum(map(uncached, self.usages))


@dataclass(frozen=True)
class Scene:
    """A run: rows behind a beginning of so many tokens. `error`: how far our own count of it is off. `stop`: seconds until it is stopped."""

    rows: int = 8
    head: int = 2000
    cap: int = 8
    error: float = 1.0
    hour: bool = True
    gap: float = 0.0
    stop: float | None = None
    streams_first: bool = True
    marked: bool = True


def played(engine: Claude, scene: Scene) -> list[str]:
    """The statuses of the rows."""
    words = "word " * (4 * scene.head // 5)
    terms = CacheTerms(
        CacheHead((), "user", words.rstrip()),
        round(tokens(words) * scene.error),
        read=0.1,
        write=1.25 if scene.marked else 1.0,
        write_1h=2.0,
        marked=scene.marked,
        hour=scene.hour,
        gap=scene.gap,
        streams_first=scene.streams_first and scene.marked,
    )

    async def main() -> list[str]:
        journal, clock = Journal(scene.rows), asyncio.get_running_loop().time
        endpoint = EndpointState(ROUTE, engine, Limiter(cap=scene.cap, start=scene.cap, self_hosted=True, clock=clock))
        if scene.head * scene.error >= engine.minimum:
            endpoint.cache = PromptCache(terms)
        items = [WorkItem(Request(i, (Message("user", f"{words}row {i}"),), ROUTE), ("t",)) for i in range(scene.rows)]
        scheduler = Scheduler([Tier("t", [endpoint])], POLICY, journal, Money(lambda route, model, usage, tier: Decimal(0)))
        if scene.stop is not None:
            asyncio.get_running_loop().call_later(scene.stop, scheduler.stop)
        async with asyncio.timeout(400_000):
            await scheduler.run(items)
        return [o.status for o in journal.rows if o is not None]

    return virtual.run(main)


fates = st.builds(
    Fate,
    st.sampled_from([0.2, 2.0, 20.0, 45.0, 290.0]),
    st.sampled_from([0.1, 5.0, 120.0, 400.0]),
    st.sampled_from([None] * 4 + ["rate_limit", "overloaded", "timeout", "cut"]),
)
scenes = st.builds(
    Scene,
    st.integers(1, 24),
    st.sampled_from([900, 1030, 2000]),
    st.sampled_from([1, 2, 16]),
    st.sampled_from([0.8, 1.0, 1.25]),
    st.booleans(),
    st.sampled_from([0.0, 200.0, 400.0, 4000.0]),
    st.sampled_from([None, None, 0.1, 3.0, 50.0, 500.0]),
    st.booleans(),
)


@given(st.lists(fates, min_size=1, max_size=12), scenes)
def test_the_worst_is_one_write(attempts: list[Fate], scene: Scene):
    engine = Claude([*attempts, Fate()])
    played(engine, scene)
    for_an_hour = any(u["cache_creation"]["ephemeral_1h_input_tokens"] for u in engine.usages)  # type: ignore[index]
    assert engine.dearer <= (1.0 if for_an_hour else 0.25) * scene.head * 1.01


@given(st.sampled_from([0.2, 5.0, 25.0]), st.sampled_from([0.1, 5.0, 100.0]), scenes)
def test_a_run_that_goes_as_it_should_is_never_dearer(begins: float, lasts: float, scene: Scene):
    engine = Claude([Fate(begins, lasts)])
    statuses = played(engine, replace(scene, stop=None, gap=0.0, streams_first=True))
    assert statuses == ["ok"] * scene.rows
    assert engine.dearer <= 0
    if scene.rows > 2 and scene.head > 2 * engine.minimum * 0.9:
        assert engine.dearer < -0.5 * scene.head * (scene.rows - 2)


def test_a_first_row_that_is_slow_stalls_nobody():
    """After half a minute the others are sent as they would be without a cache; what comes after it is there reads it."""
    played(engine := Claude([Fate(100.0, 1.0), *[Fate(1.0, 40.0)] * 8, Fate()]), Scene(rows=40, cap=4))
    assert engine.came[1] - engine.came[0] == pytest.approx(30.0)
    assert engine.came[3] - engine.came[0] == pytest.approx(30.0)
    assert sum(u["cache_creation_input_tokens"] > 0 for u in engine.usages) == 1
    assert sum(u["cache_read_input_tokens"] > 0 for u in engine.usages) > 20


def test_where_keeping_costs_nothing_the_wait_is_short():
    scene = Scene(rows=6, cap=6, marked=False)
    played(engine := Claude([Fate(100.0, 1.0)]), scene)
    assert [round(t - engine.came[0], 1) for t in engine.came] == [0.0, *[5.0] * 5]
    played(engine := Claude([Fate(1.0, 1.0)]), scene)
    assert [round(t - engine.came[0], 1) for t in engine.came] == [0.0, *[2.0] * 5]


def test_an_hour_is_asked_for_where_requests_are_minutes_apart():
    played(engine := Claude([Fate()]), Scene(gap=400.0))
    assert engine.usages[0]["cache_creation"]["ephemeral_1h_input_tokens"] > 0  # type: ignore[index]
    played(engine := Claude([Fate()]), Scene(gap=400.0, hour=False))
    assert not any(u["cache_creation_input_tokens"] for u in engine.usages)


def test_a_gap_that_outlasts_the_entry_is_bridged_for_an_hour_once_what_was_read_has_paid_for_it():
    """One row at a time, each of which takes six minutes: the entry is gone before the next comes, and nothing has paid for another."""
    played(engine := Claude([Fate(1.0, 360.0)]), Scene(rows=6, cap=1))
    assert sum(u["cache_creation_input_tokens"] > 0 for u in engine.usages) == 1
    assert engine.dearer == pytest.approx(0.25 * 2000, rel=0.01)
    quick = Fate(1.0, 2.0)
    played(engine := Claude([quick, quick, quick, Fate(1.0, 360.0), quick]), Scene(rows=8, cap=1))
    written = [u["cache_creation"] for u in engine.usages if u["cache_creation_input_tokens"]]
    assert [bool(w["ephemeral_1h_input_tokens"]) for w in written] == [False, True]  # type: ignore[index]
    assert engine.dearer < 0


def test_a_server_that_keeps_nothing_is_found_out_by_the_first_answer():
    played(engine := Claude([Fate()], minimum=5000), Scene(error=2.6))
    assert not any(u["cache_creation_input_tokens"] for u in engine.usages)
