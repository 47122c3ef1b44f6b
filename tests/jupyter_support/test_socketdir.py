"""Folders for sockets are short and private; what dead processes left is removed, and nothing that anybody uses or that is not ours."""

from __future__ import annotations

import os
import shutil
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from kernels_support.jupyter import socketdir


@pytest.fixture(autouse=True)
def short() -> Iterator[Path]:
    """A temporary folder of this test's own, short enough for a socket's path."""
    place = Path("/tmp") / f"hs{os.getpid()}"
    place.mkdir()
    yield place
    shutil.rmtree(place)


@pytest.fixture(autouse=True)
def tmpdir_is_short(short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socketdir, "_places", lambda: [short])


def old(folder: Path) -> Path:
    os.utime(folder, (1, 1))
    return folder


def bound(folder: Path, *, listens: bool) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.bind(str(folder / "s"))
    if listens:
        sock.listen(1)
    return sock


def test_they_are_short_and_private(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, short: Path) -> None:
    long = tmp_path / ("x" * 120)
    long.mkdir()
    monkeypatch.setattr(socketdir, "_places", lambda: [long, short])
    place = socketdir.make()
    assert place.parent == short
    assert stat.S_IMODE(place.stat().st_mode) == 0o700
    monkeypatch.setattr(socketdir, "_places", lambda: [long])
    with pytest.raises(OSError, match="set TMPDIR=/tmp"):
        socketdir.make()


def test_what_the_dead_left_is_removed() -> None:
    empty, silent = socketdir.make(), socketdir.make()
    bound(silent, listens=False).close()
    (silent / "meet1").touch()
    assert socketdir.sweep() == 0, "who has just made one does not listen yet"
    old(empty)
    old(silent)
    assert socketdir.sweep() == 2
    assert not empty.exists()
    assert not silent.exists()


def test_where_somebody_listens_it_stays_also_where_his_queue_is_full() -> None:
    place = socketdir.make()
    with bound(place, listens=True) as sock:
        clients = [socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) for _ in range(4)]
        for client in clients:
            client.setblocking(False)
            client.connect_ex(str(place / "s"))
        old(place)
        assert socketdir.sweep() == 0
        assert sock.fileno() > 0
        for client in clients:
            client.close()
    old(place)
    assert socketdir.sweep() == 1


def test_what_is_not_ours_stays(short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("holynb-notebook", "holynb-project1", "somebody"):
        (short / name).mkdir()
        (short / name / "work.ipynb").touch()
        old(short / name)
    (short / "holynb-12345678").symlink_to(short / "somebody")
    theirs = old(socketdir.make())
    me = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: me + 1)
    assert socketdir.sweep() == 0
    monkeypatch.undo()
    monkeypatch.setattr(socketdir, "_places", lambda: [short])
    assert socketdir.sweep() == 1
    assert not theirs.exists()
    assert sorted(p.name for p in short.iterdir()) == ["holynb-12345678", "holynb-notebook", "holynb-project1", "somebody"]
    socketdir.remove(short / "holynb-12345678")
    socketdir.remove(short / "somebody")
    assert (short / "somebody" / "work.ipynb").exists()
