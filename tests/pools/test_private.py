"""What holynb writes is its user's alone, whatever the umask says."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import gguf_fake
import pytest

import holynb
from holynb import pools


@pytest.fixture
def open_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.skipif(os.name == "nt", reason="modes are of other systems")
def test_every_file_and_folder_is_the_users_alone(
    fake_pools: None, open_umask: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "above" / "home"
    monkeypatch.setenv("HOLYNB_HOME", str(home))
    gguf_fake.write(tmp_path / "tiny.gguf")
    try:
        pools.start(str(tmp_path / "tiny.gguf"), name="tiny")
        holynb.infer(["hi"], route="pool/tiny").wait()
        found = [home.parent, home, *home.rglob("*")]
    finally:
        pools.stop("all")
    names = {p.name for p in found}
    assert {"runs.sqlite", "model.safetensors", "tokenizer.json", "tiny.json", "pool-tiny.log", "pool-tiny.rank0.log"} <= names
    shared = {str(p.relative_to(tmp_path)): oct(stat.S_IMODE(p.lstat().st_mode)) for p in found if p.exists() and p.lstat().st_mode & 0o077}
    assert not shared
