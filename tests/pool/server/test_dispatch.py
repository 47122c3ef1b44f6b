"""Fewest tokens first; rows of one beginning together while that costs less than one row."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from holynb.pool.server import dispatch
from holynb.pool.server.api import ApiRequest
from holynb.pool.server.dispatch import PrefixDispatcher
from holynb.pool.server.generation import GenerationDefaults
from holynb.pool.server.service import Identity, Service

HEAD = list(range(40))


@dataclass(eq=False)
class Place:
    outstanding: int = 0


def test_the_one_with_the_fewest_tokens() -> None:
    places = [Place(50), Place(10), Place(30)]
    assert PrefixDispatcher[Place]().choose(places, [1], 5) is places[1]


def test_one_beginning_stays_until_it_would_wait_longer_than_a_row_takes() -> None:
    places, chooser = [Place(), Place()], PrefixDispatcher[Place]()
    first = chooser.choose(places, [*HEAD, 1], 100)
    other = places[1 - places.index(first)]
    first.outstanding = 100
    assert chooser.choose(places, [*HEAD, 2], 100) is first
    first.outstanding = 101
    assert chooser.choose(places, [*HEAD, 3], 100) is other
    other.outstanding = 150
    assert chooser.choose(places, [*HEAD, 4], 100) is first, "both know it now: the one with fewer"


def test_another_beginning_goes_where_there_is_room() -> None:
    places, chooser = [Place(), Place()], PrefixDispatcher[Place]()
    first = chooser.choose(places, [*HEAD, 1], 100)
    first.outstanding = 10
    assert chooser.choose(places, [9, *HEAD], 100) is not first


def test_a_dead_place_is_forgotten() -> None:
    places, chooser = [Place(), Place()], PrefixDispatcher[Place]()
    first = chooser.choose(places, HEAD, 100)
    left = [p for p in places if p is not first]
    left[0].outstanding = 10**6
    assert chooser.choose(left, HEAD, 1) is left[0]
    assert chooser.choose([*left, Place(2 * 10**6)], HEAD, 1) is left[0]


def test_what_is_remembered_is_bounded(monkeypatch: object) -> None:
    chooser, places = PrefixDispatcher[Place](), [Place(), Place()]
    for i in range(dispatch._MAX_PREFIXES + 10):
        chooser.choose(places, [i], 1)
    assert len(chooser._replicas) == dispatch._MAX_PREFIXES


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 200)), min_size=20, max_size=200), st.integers(2, 4))
def test_no_replica_is_ever_more_than_one_row_behind(rows: list[tuple[int, int]], count: int) -> None:
    places, chooser = [Place() for _ in range(count)], PrefixDispatcher[Place]()
    for head, cost in rows:
        chooser.choose(places, [head] * 32, cost).outstanding += cost
        spread = max(p.outstanding for p in places) - min(p.outstanding for p in places)
        assert spread <= 2 * 200


def test_choices_of_one_request_have_seeds_of_64_bits() -> None:
    """The largest is followed by the smallest: a rank takes no more than 64 bits, and ends with all its rows where it is given more."""
    service, added = Service(Identity("n", "m")), []
    replica = SimpleNamespace(outstanding=0, stats={}, add=added.append)
    service.add_replica(replica)  # type: ignore[arg-type]
    service.max_len = 10
    text: Any = SimpleNamespace(size=9, sampling={}, eos=(), defaults=GenerationDefaults())
    jobs = service.jobs(ApiRequest(chat=False, model="m", n=4, seed=2**63 - 2), [(1,)], text)
    service.submit(jobs)
    assert [g.job for g in added] == jobs
    assert len({job.id for job in jobs}) == 4
    assert [job.seed for job in jobs] == [2**63 - 2, 2**63 - 1, -(2**63), -(2**63) + 1]
