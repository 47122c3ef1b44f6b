"""A base model has no chat template: what can be done with it is said when it is started, and in its status."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from pool_fake import byte_model

from holynb import pools
from holynb.ui.commands import pool, pool_state


@pytest.fixture(autouse=True)
def ended(fake_pools: None) -> Iterator[None]:
    yield
    pools.stop("all")


def started(folder: Path, *flags: str) -> str:
    return pool.run(["start", str(folder), *flags], lambda _: None)[0]


def test_a_start_says_what_a_base_model_is_for(tmp_path: Path) -> None:
    folder = byte_model(tmp_path / "base")
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<end>"}))
    text = started(folder)
    assert "Ask it with" not in text
    words = "Its model has no chat template, so that cells can ask its instruct version only. It makes vectors (%%infer pool/base --embed)"
    assert words in text
    assert text.endswith("at /v1/completions, once it is started with --port 0.")
    assert words in pool.run(["status", "base"], lambda _: None)[0]
    pools.stop("base")
    text = started(folder, "--port", "0")
    assert f"at {pools.status('base').base_url}/completions (its token: holynb pool status base --json)." in text


def test_of_any_other_there_is_nothing_to_say(tmp_path: Path) -> None:
    text = started(byte_model(tmp_path / "chat"))
    assert text.endswith("Ask it with %%infer pool/chat")
    info = pools.status("chat")
    assert info.chats
    assert pool_state.without_chat(info) == ""
    assert pool_state.without_chat(replace(info, chats=False))
