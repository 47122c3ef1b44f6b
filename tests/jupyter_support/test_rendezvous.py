"""Only what truly runs is found; what is stale is cleaned away with what it left, and said; strangers are left alone."""

from __future__ import annotations

import errno
import json
import os
import socket
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from kernels_support.jupyter import rendezvous, socketdir
from kernels_support.jupyter.process import Process
from kernels_support.jupyter.rendezvous import Record

DEAD = Process(pid=2**22 - 1, start=1)


def test_a_record_comes_back_whole_and_private(tmp_path: Path) -> None:
    record = Record("smol", Process.mine(), "/tmp/x/s", 8000, "secret", (DEAD,), {"model": "org/name"})
    path = rendezvous.write(tmp_path / "run", record)
    assert rendezvous.find(tmp_path / "run", "smol") == record
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert "secret" not in repr(record)


def test_a_name_with_a_slash_is_one_file(tmp_path: Path) -> None:
    rendezvous.write(tmp_path, Record("org/../name", Process.mine()))
    assert [p.parent for p in tmp_path.rglob("*.json")] == [tmp_path]
    assert rendezvous.find(tmp_path, "org/../name") is not None


def test_names_that_a_file_cannot_have_are_told_apart(tmp_path: Path) -> None:
    names = ["a/b", "a:b", "a_b", "모델", "한글"]
    for name in names:
        rendezvous.write(tmp_path, Record(name, Process.mine()))
    assert sorted(r.name for r in rendezvous.listing(tmp_path)[0]) == names
    for name in names:
        found = rendezvous.find(tmp_path, name)
        assert found is not None
        assert found.name == name
    assert (tmp_path / "한글.json").exists(), "what completes a line looks at the files' names"


@pytest.mark.parametrize("change", [{"process": DEAD}, {"boot": "another"}])
def test_the_stale_is_cleaned_and_said(tmp_path: Path, change: dict[str, object]) -> None:
    place = socketdir.make()
    (place / "s").touch()
    record = replace(Record("old", Process.mine(), str(place / "s")), **change)  # type: ignore[arg-type]
    rendezvous.write(tmp_path, record)
    assert rendezvous.find(tmp_path, "old") is None
    found, notes = rendezvous.listing(tmp_path)
    assert found == []
    assert len(notes) == 1
    assert "old" in notes[0]
    assert not place.exists()
    assert list(tmp_path.glob("*.json")) == []


def test_ranks_of_a_dead_owner_are_killed(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
    rank = Process.of(child.pid)
    assert rank is not None
    rendezvous.write(tmp_path, Record("old", DEAD, ranks=(rank,)))
    rendezvous.listing(tmp_path)
    assert child.wait(30) < 0


def test_another_hosts_record_is_listed_and_left(tmp_path: Path) -> None:
    rendezvous.write(tmp_path, replace(Record("there", DEAD), host="elsewhere"))
    found, notes = rendezvous.listing(tmp_path)
    assert [r.here for r in found] == [False]
    assert notes == []
    assert rendezvous.find(tmp_path, "there") is None


def test_two_hosts_that_share_a_home_have_a_pool_of_the_same_name_each(tmp_path: Path) -> None:
    theirs = replace(Record("smol", DEAD), host="elsewhere", boot="theirs")
    rendezvous.write(tmp_path, theirs)
    mine = Record("smol", Process.mine())
    rendezvous.write(tmp_path, mine)
    assert rendezvous.find(tmp_path, "smol") == mine
    assert sorted(r.host for r in rendezvous.listing(tmp_path)[0]) == sorted(["elsewhere", mine.host])
    assert rendezvous.lock(tmp_path, "smol").path.name != "smol.lock", "a lock may reach over hosts, too"
    (tmp_path / "smol.json").unlink()  # theirs has ended
    assert rendezvous.find(tmp_path, "smol") == mine
    rendezvous.write(tmp_path, replace(mine, port=1))
    assert rendezvous.find(tmp_path, "smol") == replace(mine, port=1)
    rendezvous.write(tmp_path, theirs)
    rendezvous.remove(tmp_path, "smol")
    assert [r.host for r in rendezvous.listing(tmp_path)[0]] == ["elsewhere"]


def test_a_copy_of_a_record_takes_no_living_one_along(tmp_path: Path) -> None:
    place = socketdir.make()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.bind(str(place / "s"))
        sock.listen()
        leaves_the_living(tmp_path, str(place / "s"))
        assert (place / "s").exists()
    socketdir.remove(place)


def leaves_the_living(tmp_path: Path, sock: str) -> None:
    rendezvous.write(tmp_path, Record("a", Process.mine(), sock))
    (tmp_path / "copy.json").write_text(json.dumps({**json.loads((tmp_path / "a.json").read_text()), "boot": "before"}))
    assert [r.name for r in rendezvous.listing(tmp_path)[0]] == ["a"]
    assert [p.name for p in tmp_path.glob("*.json")] == ["a.json"]


def test_a_folder_that_is_not_ours_is_never_removed(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    rendezvous.write(tmp_path / "run", Record("old", DEAD, str(precious / "s")))
    rendezvous.listing(tmp_path / "run")
    assert precious.exists()


def test_rubbish_is_removed_and_said(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{")
    (tmp_path / "y.json").write_text(json.dumps({"name": "y"}))
    found, notes = rendezvous.listing(tmp_path)
    assert found == []
    assert len(notes) == 2
    assert rendezvous.listing(tmp_path / "nowhere") == ([], [])


@pytest.mark.parametrize(
    "wrong",
    [
        {"process": {"pid": "1", "start": 1}},
        {"ranks": [{"pid": 1, "start": None}]},
        {"socket": 5},
        {"facts": []},
        {"port": "80"},
        {"host": None},
    ],
)
def test_what_is_of_another_kind_is_rubbish_too(tmp_path: Path, wrong: dict[str, object]) -> None:
    path = rendezvous.write(tmp_path, Record("a", Process.mine(), "/tmp/x/s"))
    path.write_text(json.dumps({**json.loads(path.read_text()), **wrong}))
    assert rendezvous.find(tmp_path, "a") is None
    found, notes = rendezvous.listing(tmp_path)
    assert found == []
    assert "was not a readable record" in notes[0]
    assert not path.exists()


def test_only_the_owner_removes(tmp_path: Path) -> None:
    rendezvous.write(tmp_path, Record("a", Process.mine()))
    rendezvous.remove(tmp_path, "a", owner=DEAD)
    assert rendezvous.find(tmp_path, "a") is not None
    rendezvous.remove(tmp_path, "a", owner=Process.mine())
    assert rendezvous.find(tmp_path, "a") is None


def test_another_users_record_is_neither_found_nor_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = rendezvous.write(tmp_path, Record("theirs", Process.mine(), "/tmp/holynb-theirs/s"))
    assert rendezvous.find(tmp_path, "theirs") is not None
    me = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: me + 1)
    assert rendezvous.find(tmp_path, "theirs") is None
    assert rendezvous.listing(tmp_path) == ([], [])
    path.write_text("{")
    assert rendezvous.listing(tmp_path) == ([], [])
    assert path.exists()


@pytest.mark.parametrize("number", [errno.ESTALE, errno.ETIMEDOUT, errno.EIO])
def test_a_network_disk_that_does_not_answer_costs_no_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    path = rendezvous.write(tmp_path, Record("a", Process.mine()))

    def fails(*_: object, **__: object) -> str:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patched:
        patched.setattr(Path, "read_text", fails)
        with pytest.raises(OSError, match=os.strerror(number)):
            rendezvous.listing(tmp_path)
    assert path.exists()
    assert rendezvous.find(tmp_path, "a") is not None


def test_where_no_file_can_be_opened_nothing_is_taken_for_dead(tmp_path: Path) -> None:
    """A kernel that is out of files would else clean a living pool away."""
    code = (
        "import resource, sys; from pathlib import Path; from kernels_support.jupyter import rendezvous\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[2]), 64))\n"
        "try:\n    print(len(rendezvous.listing(Path(sys.argv[1]))[0]))\nexcept OSError as exc:\n    print(exc.errno)"
    )
    record = Record("alive", Process.mine(), str(tmp_path / "holynb-x" / "s"))
    (tmp_path / "holynb-x").mkdir()
    path = rendezvous.write(tmp_path / "run", record)
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    said = [
        subprocess.run(
            [sys.executable, "-c", code, str(path.parent), str(most)], capture_output=True, text=True, check=True, env=env
        ).stdout.strip()
        for most in range(3, 7)
    ]
    assert said[-1] == "1", "enough files"
    assert said[0] == str(errno.EMFILE)
    assert set(said) <= {"1", str(errno.EMFILE)}
    assert rendezvous.find(path.parent, "alive") == record
    assert (tmp_path / "holynb-x").is_dir()
