"""Fewest tokens first; rows of one beginning together while that costs less than one row."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holynb.pool.protocol import Emit, Job, JobRefused, StepOutput
from holynb.pool.server import dispatch
from holynb.pool.server.api import ApiRequest
from holynb.pool.server.dispatch import Outstanding, PrefixDispatcher
from holynb.pool.server.generation import GenerationDefaults
from holynb.pool.server.replica import Generation, Replica
from holynb.pool.server.service import Identity, Service

HEAD = list(range(40))


class Place:
    def __init__(self, outstanding: int = 0) -> None:
        self.load = Outstanding()
        self.outstanding = outstanding

    @property
    def outstanding(self) -> int:
        return self.load.tokens

    @outstanding.setter
    def outstanding(self, tokens: int) -> None:
        self.load.add(tokens - self.load.tokens)


def over(*places: Place) -> PrefixDispatcher[Place]:
    chooser = PrefixDispatcher[Place]()
    for place in places:
        chooser.add(place)
    return chooser


def test_the_one_with_the_fewest_tokens() -> None:
    places = [Place(50), Place(10), Place(30)]
    assert over(*places).choose([1], 5) is places[1]


def test_one_beginning_stays_until_it_would_wait_longer_than_a_row_takes() -> None:
    places = [Place(), Place()]
    chooser = over(*places)
    first = chooser.choose([*HEAD, 1], 100)
    other = places[1 - places.index(first)]
    first.outstanding = 100
    assert chooser.choose([*HEAD, 2], 100) is first
    first.outstanding = 101
    assert chooser.choose([*HEAD, 3], 100) is other
    other.outstanding = 150
    assert chooser.choose([*HEAD, 4], 100) is first, "both know it now: the one with fewer"


def test_another_beginning_goes_where_there_is_room() -> None:
    chooser = over(Place(), Place())
    first = chooser.choose([*HEAD, 1], 100)
    first.outstanding = 10
    assert chooser.choose([9, *HEAD], 100) is not first


def test_a_dead_place_is_forgotten_and_who_takes_its_place_knows_nothing() -> None:
    places = [Place(), Place(), Place(5)]
    chooser = over(*places)
    first = chooser.choose(HEAD, 100)
    chooser.remove(first)
    chooser.remove(first)
    places.remove(first)
    places[0].outstanding = places[1].outstanding = 10**6
    assert chooser.choose(HEAD, 1) is places[0]
    chooser.add(new := Place(10**6 - 1))
    assert chooser.choose(HEAD, 1) is places[0], "it has the beginning, and the new one does not"
    new.outstanding = 0
    assert chooser.choose(HEAD, 1) is new


def test_where_nobody_is_left_nobody_is_chosen() -> None:
    chooser = over(place := Place())
    chooser.remove(place)
    with pytest.raises(LookupError):
        chooser.choose(HEAD, 1)


def test_what_is_remembered_is_bounded() -> None:
    chooser = over(Place(), Place())
    for i in range(dispatch._MAX_PREFIXES + 10):
        chooser.choose([i], 1)
    assert len(chooser._warm) == dispatch._MAX_PREFIXES


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 200)), min_size=20, max_size=200), st.integers(2, 4))
def test_no_replica_is_ever_more_than_one_row_behind(rows: list[tuple[int, int]], count: int) -> None:
    places = [Place() for _ in range(count)]
    chooser = over(*places)
    for head, cost in rows:
        chooser.choose([head] * 32, cost).outstanding += cost
        spread = max(p.outstanding for p in places) - min(p.outstanding for p in places)
        assert spread <= 2 * 200


def test_choices_of_one_request_have_seeds_of_64_bits() -> None:
    """The largest is followed by the smallest: a rank takes no more than 64 bits, and ends with all its rows where it is given more."""
    service, added = Service(Identity("n", "m")), []
    replica = SimpleNamespace(load=Outstanding(), stats={}, add=added.append)
    service.add_replica(replica)  # type: ignore[arg-type]
    service.max_len = 10
    text: Any = SimpleNamespace(size=9, sampling={}, eos=(), defaults=GenerationDefaults())
    jobs = service.jobs(ApiRequest(chat=False, model="m", n=4, seed=2**63 - 2), [(1,)], text)
    service.submit(jobs)
    assert [g.job for g in added] == jobs
    assert {g.job.client for g in service.submit(jobs, "ann")} == {"ann"}, "by which the ranks give turns"
    del added[4:]
    assert len({job.id for job in jobs}) == 4
    assert [job.seed for job in jobs] == [2**63 - 2, 2**63 - 1, -(2**63), -(2**63) + 1]


STEPS = st.lists(st.tuples(st.integers(0, 5), st.sampled_from(["add", "tokens", "finish", "error", "refused", "cancel"])), max_size=60)


@given(STEPS)
def test_what_a_replica_has_outstanding_is_the_sum_of_its_rows(steps: list[tuple[int, str]]) -> None:
    replica = Replica([], lambda *_: None)
    rank: Any = SimpleNamespace(send=lambda frame: None)
    replica.ranks = [rank]
    chooser: PrefixDispatcher[Replica] = PrefixDispatcher()
    chooser.add(replica)
    for number, step in steps:
        row = replica.generations.get(number)
        if step == "add":
            if row is None:
                replica.add(Generation(Job(number, (1,) * (number + 1), 40)))
        elif step == "refused":
            replica._on_frame(rank, JobRefused(number, "too long"))
        elif step == "cancel":
            if row is not None:
                replica.cancel(row)
        else:
            finish = {"finish": "stop", "error": "error"}.get(step)
            replica._on_frame(rank, StepOutput((Emit(number, (7,) * number, finish),)))
        assert replica.load.tokens == sum(
            g.job.max_new - len(g.tokens) + (0 if g.tokens else len(g.job.ids)) for g in replica.generations.values()
        )
