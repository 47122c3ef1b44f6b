"""A stage's place in a step: what comes in, what goes out, who hears the tokens, and how long it waited. The transport is played."""

from __future__ import annotations

import time
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from holynb.pool.engine.pipeline import PipelineStage, SingleStage  # noqa: E402
from holynb.pool.fit.mesh import Mesh  # noqa: E402

WAIT = 0.05


class Group:
    """Ranks that answer after a while."""

    def __init__(self, mesh: Mesh) -> None:
        self.mesh = mesh
        self.passed: list[Any] = []

    def receive_hidden(self, into: Any) -> Any:
        time.sleep(WAIT)
        return into.fill_(7)

    def send_hidden(self, hidden: Any) -> None:
        self.passed.append(hidden)

    def send_tokens(self, tokens: Any) -> None:
        self.passed.append(tokens)

    def receive_tokens(self, tokens: Any) -> None:
        time.sleep(WAIT)
        tokens.fill_(5)


def stage(rank: int, **more: int) -> tuple[PipelineStage, Group]:
    group = Group(Mesh(1, 3, rank, **more))
    return PipelineStage(group, 8, torch.zeros(1, dtype=torch.float64)), group  # type: ignore[arg-type]


def test_the_first_makes_the_middle_carries_and_the_last_samples() -> None:
    hidden = torch.ones(4, 8)
    first, sent = stage(0)
    assert (first.first, first.last) == (True, False)
    assert first.receive_hidden(4) is None
    first.send_hidden(hidden[::2])
    assert sent.passed[0].is_contiguous()

    middle, sent = stage(1)
    assert (middle.first, middle.last) == (False, False)
    came = middle.receive_hidden(4)
    assert came is not None
    assert (came.shape, came.dtype, float(came.sum())) == ((4, 8), torch.float64, 224.0)
    middle.send_hidden(hidden)
    assert len(sent.passed) == 1

    last, sent = stage(2)
    assert (last.first, last.last) == (False, True)
    last.send_hidden(hidden)
    assert sent.passed == []


def test_tokens_go_home_from_device_to_device_and_what_is_sent_stays_as_it_was() -> None:
    last, sent = stage(2)
    tokens = torch.arange(4)
    last.broadcast_tokens(tokens)
    tokens.fill_(9)
    assert sent.passed[0].tolist() == [0, 1, 2, 3], "the next step writes its own over them"
    for rank in (0, 1):
        other, _ = stage(rank)
        other.broadcast_tokens(tokens)
        assert tokens.tolist() == [5] * 4
    into = torch.zeros(3, 8)
    middle, _ = stage(1)
    assert middle.receive_hidden(3, into) is into


def test_its_own_work_counts_waits_do_not_and_rest_is_nobodys() -> None:
    first, _ = stage(0)
    assert first.busy is None, "no work yet"
    with first.timed():
        time.sleep(2 * WAIT)
    first.broadcast_tokens(torch.zeros(1))
    busy = first.busy
    assert busy is not None
    assert 0.3 < busy < 0.95
    first.pause_clock()
    before = first.busy
    time.sleep(2 * WAIT)
    assert first.busy == before, "while there is nothing to do, nothing changes"
    with first.timed():
        pass
    for _ in range(6):
        first.broadcast_tokens(torch.zeros(1))
    busy = first.busy
    assert busy is not None
    assert busy < 0.5


def test_what_was_long_ago_counts_half(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PipelineStage, "DECAY_S", WAIT)
    first, _ = stage(0)
    with first.timed():
        time.sleep(2 * WAIT)
    assert first.busy == pytest.approx(1.0, abs=0.2)
    for _ in range(6):
        first.broadcast_tokens(torch.zeros(1))
        busy = first.busy
    assert busy is not None
    assert busy < 0.1, "six waits of which each halves the past"


def test_as_many_steps_ahead_as_there_are_batches_in_flight() -> None:
    assert stage(0)[0].lookahead == Mesh(1, 3, 0).lanes - 1 == 2
    assert stage(0, micro=5)[0].lookahead == 4


def test_alone_nothing_comes_in_and_nothing_goes_out() -> None:
    alone = SingleStage()
    assert (alone.first, alone.last, alone.lookahead, alone.busy) == (True, True, 0, None)
    assert alone.receive_hidden(9) is None
    alone.send_hidden(torch.ones(1))
    tokens = torch.tensor([1, 2])
    alone.broadcast_tokens(tokens)
    assert tokens.tolist() == [1, 2]
