"""A rank over its socket: it loads, emits one frame a step, refuses what cannot fit, obeys, says why it fails, and dies with its server."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kernels_support.jupyter import wire
from kernels_support.jupyter.supervisor import Child, Command, spawn

HERE = Path(__file__).parent.parent


class Rank:
    """A worker process with the fake runner."""

    def __init__(self, log: Path, *more: str, **env: str) -> None:
        paths = {"PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parent)]), **env}
        argv = [sys.executable, "-m", "holynb.pool.worker", "--tag", "holynb-pool:test", "--runner", "fake_runner:Runner"]
        self.child: Child = spawn(Command([*argv, *more], env=paths, log=log), bound=True)
        control = self.child.control
        assert isinstance(control, socket.socket)
        self.control = control
        if "--handed" in more:
            self.hand()
        else:
            self.speak(control)

    def hand(self) -> None:
        """Be the next server that it speaks with."""
        ours, theirs = socket.socketpair()
        with theirs:
            socket.send_fds(self.control, [b"s"], [theirs.fileno()])
        self.speak(ours)

    def speak(self, sock: socket.socket) -> None:
        sock.settimeout(20)
        self.sock = sock
        self.frames = wire.frames(sock)
        self.send({"t": "load", "folder": "/somewhere/m", "device": "cpu", "dtype": None, "max_len": 99, "memory": 0.9})

    def send(self, frame: dict[str, Any]) -> None:
        self.sock.sendall(wire.encode(frame))

    def add(self, number: int, ids: list[int], max_new: int = 100) -> None:
        job = {
            "id": number,
            "ids": ids,
            "max_new": max_new,
            "temperature": 0.0,
            "top_p": 1.0,
            "top_k": 0,
            "seed": None,
            "eos": [],
            "ignore_eos": False,
        }
        self.send({"t": "add", "job": job})

    def next(self, kind: str) -> dict[str, Any]:
        return next(f for f in self.frames if f["t"] == kind)

    def steps(self, number: int) -> tuple[list[int], str | None]:
        """The tokens of one job, and how it ended."""
        tokens: list[int] = []
        while True:
            for who, new, finish, _ in self.next("step")["e"]:
                if who == number:
                    tokens += new
                    if finish:
                        return tokens, finish


@pytest.fixture
def rank(tmp_path: Path) -> Iterator[Rank]:
    rank = Rank(tmp_path / "log")
    yield rank
    rank.child.stop(1.0)


def test_ready_then_one_frame_a_step_for_all_rows(rank: Rank) -> None:
    assert rank.next("ready")["stats"]["max_len"] == 99
    rank.add(1, [1, 2, 3])
    assert rank.steps(1) == ([1, 2, 3], "stop")
    rank.add(2, [5] * 10, max_new=4)
    assert rank.steps(2) == ([5] * 4, "length")


def test_what_can_never_fit_is_refused_with_the_sizes(rank: Rank) -> None:
    rank.add(1, [1] * 5000)
    refused = rank.next("refused")
    assert refused["id"] == 1
    assert "5000" in refused["message"]


def test_a_cancelled_row_is_heard_of_no_more(tmp_path: Path) -> None:
    rank = Rank(tmp_path / "log", HOLYNB_FAKE_STEP="0.01")
    rank.add(1, [1] * 3000)
    rank.next("step")
    rank.send({"t": "cancel", "id": 1})
    rank.add(2, [9])
    tokens, finish = rank.steps(2)
    assert (tokens, finish) == ([9], "stop")
    stats = rank.next("stats")["stats"]
    assert stats["running"] == 0
    rank.child.stop(1.0)


def test_a_failing_step_says_why_and_ends(rank: Rank, tmp_path: Path) -> None:
    rank.add(1, list(b"!boom"))
    assert "illegal memory access" in rank.next("failed")["message"]
    assert rank.child.wait(30)
    assert rank.child.code == 1
    assert any("Traceback" in line for line in rank.child.tail(20))


def test_told_to_stop_it_ends_cleanly_and_without_a_server_at_once(tmp_path: Path) -> None:
    rank = Rank(tmp_path / "a")
    rank.next("ready")
    rank.send({"t": "stop"})
    assert rank.child.wait(30)
    assert rank.child.code == 0
    busy = Rank(tmp_path / "b", HOLYNB_FAKE_STEP="0.01")
    busy.add(1, [1] * 3000)
    busy.next("step")
    busy.sock.close()
    assert busy.child.wait(30), "it outlived its server"
    rank.child.stop(1.0)


def test_a_rank_whose_server_is_gone_keeps_its_weights_for_the_next_one(tmp_path: Path) -> None:
    rank = Rank(tmp_path / "log", "--handed", HOLYNB_FAKE_STEP="0.01")
    rank.next("ready")
    for how in ("ended", "hangs"):
        rank.add(1, [1] * 3000)
        rank.next("step")
        last = rank.sock
        if how == "ended":
            last.close()
        rank.hand()
        assert rank.next("ready")["stats"]["running"] == 0, "what the last server asked for is dropped"
        rank.add(1, [7, 8])
        assert rank.steps(1) == ([7, 8], "stop"), "and its numbers come again"
        last.close()
    assert len([line for line in rank.child.tail(9) if line.startswith("loaded")]) == 1
    rank.control.close()
    assert rank.child.wait(30), "it outlived who handed it over"
    rank.sock.close()
