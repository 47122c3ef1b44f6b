"""Runs on models that end: it is said once with the run, and a refusal of one that has ended names what follows it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from pathlib import Path

import pytest
from servers.exact import Exact, reply

import holynb
from holynb.config import models, settings
from holynb.events import Noted

ENDS = "openai/gpt-4.1 is reported to end 2027-01-14; successor openai/gpt-6-luna."
ANSWER = reply(
    {"choices": [{"message": {"content": "hello"}, "finish_reason": "stop"}], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}
)


@pytest.fixture(autouse=True)
def day(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(models, "today", lambda: dt.date(2026, 11, 28))
    monkeypatch.setenv("OPENAI_API_KEY", "a-real-looking-key-0123456789")
    yield
    settings.reset()


def notes(run: holynb.Run) -> list[str]:
    return [e.text for e in run.journal.events_since(0)[0] if isinstance(e, Noted)]


def test_it_is_said_once_with_the_run_and_as_a_warning_in_a_script(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "is_own_address", lambda endpoint: True)
    with Exact([ANSWER]) as server:
        settings.override(provider={"openai": {"base": f"{server.base}/v1"}})
        with pytest.warns(UserWarning, match="is reported to end 2027-01-14"):
            run = holynb.infer(["a", "b"], "openai/gpt-4.1", stream=False).wait(30)
    assert run.frame()["text"].tolist() == ["hello", "hello"]
    assert notes(run).count(ENDS) == 1


def test_a_gateways_model_may_live_on() -> None:
    with Exact([ANSWER]) as server:
        run = holynb.infer("a", "openai/gpt-4.1", api_base=f"{server.base}/v1", stream=False).wait(30)
    assert not [text for text in notes(run) if "end" in text]


@pytest.mark.parametrize(
    ("route", "words"),
    [
        ("openai/o4-mini", "openai/o4-mini is reported to have ended 2026-10-23; successor openai/gpt-5.6-terra."),
        ("openai/gpt-6-lunna", "Did you mean openai/gpt-6-luna?"),
    ],
)
def test_a_refused_model_that_has_ended_names_its_successor(route: str, words: str) -> None:
    refusal = reply({"error": {"message": "The model does not exist", "type": "invalid_request_error", "code": "model_not_found"}}, 404)
    with Exact([refusal]) as server, pytest.raises(holynb.InferError, match="has no model") as raised:
        holynb.infer("a", route, api_base=f"{server.base}/v1", retries=0).wait(30)
    assert words in str(raised.value)
