"""The demo: its rows, its score, and all of it through a pool (with the fake runner) and its port."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pool_fake import byte_model

from holynb import demo, pools
from holynb.config import keys, settings
from holynb.demo import LABELS, SHORT_TURNS, TOPIC_TURNS, Distribution, score


def test_rows_are_the_distributions_of_this_machine() -> None:
    rows = demo.rows(10_000)
    assert len(rows) >= 40
    assert "pandas" in [r.name for r in rows]
    assert len({r.name.lower() for r in rows}) == len(rows)
    assert all(r.summary and "\n" not in r.summary and len(r.summary) <= demo.MAX_SUMMARY_CHARS for r in rows)
    has_topic = [bool(r.topics) for r in rows]
    assert has_topic == sorted(has_topic, reverse=True), "those that can be scored come first"
    assert len(demo.rows()) == min(demo.DEFAULT_ROWS, len(rows))
    assert len(demo.rows(5)) == 5


def test_no_example_gives_an_answer_away() -> None:
    installed = {r.summary.strip(" .").lower() for r in demo.rows(10_000)}
    assert not installed & {question.lower() for question, _ in (*TOPIC_TURNS, *SHORT_TURNS)}
    assert {answer for _, answer in TOPIC_TURNS} == set(LABELS.values())


def test_the_score_stands_beside_the_commonest_topic() -> None:
    sources = [
        Distribution("a", "s", ("web",)),
        Distribution("b", "s", ("web", "text")),
        Distribution("c", "s", ("science",)),
        Distribution("d", "s", ()),
    ]
    result = score(sources, ["web", " Text ", "web", "web"])
    assert (result.correct, result.labelled, result.baseline, result.commonest) == (2, 3, 2, "web")
    assert "2 of 3" in result.line()
    assert "67 %" in result.line()
    assert "'web' would match 2" in result.line()


def test_missing_answers_are_wrong_and_nothing_known_is_no_division() -> None:
    import pandas as pd

    assert score([Distribution("a", "s", ("web",))], [pd.NA]).correct == 0
    assert "0 of 0" in score([Distribution("a", "s", ())], ["web"]).line()


def test_prompts_are_turns_that_end_in_the_summary() -> None:
    source = Distribution("x", "Reads {braces} and 100 %.", ())
    (topic,) = demo.topic_prompts([source])
    roles = [m["role"] for m in topic["messages"]]
    assert roles == ["system", *["user", "assistant"] * len(TOPIC_TURNS), "user"]
    assert topic["messages"][-1]["content"].startswith("Reads {braces} and 100 %\n")
    (short,) = demo.shorten_prompts([source])
    assert short["messages"][-1]["content"] == "Shorten to a few words: Reads {braces} and 100 %."


@pytest.fixture
def fake_model(fake_pools: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A pool of bytes that writes prompts back stands in the embedded model's place."""
    model = str(byte_model(tmp_path / "bytes", context=4096))
    monkeypatch.setattr(pools, "EMBEDDED", model)
    monkeypatch.setenv(demo.KEY_VARIABLE, "replaced-by-the-demo")
    yield model
    settings.reset()
    keys.forget()


def test_the_whole_demo_ends_in_a_frame_and_leaves_no_pool(fake_model: str, capsys: pytest.CaptureFixture[str]) -> None:
    frame = demo.main(6)
    out = capsys.readouterr().out
    assert list(frame.columns) == ["name", "short", "topic", "own", "cost"]
    assert len(frame) == 6
    assert frame["cost"].notna().all(), "priced by [price]"
    assert (frame["cost"] > 0).all()
    assert "12 of 12 answers are the same as before" in out
    assert "6 cached (saved $" in out
    assert "of 40 failed" in out
    assert "topics match the packages' own classifiers" in out
    assert "replaced-by-the-demo" not in out
    assert pools.listing() == []


def test_the_pool_ends_though_the_demo_fails(fake_model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "_run_tasks", broken)
    with pytest.raises(KeyboardInterrupt):
        demo.main(6)
    assert pools.listing() == []
    monkeypatch.setattr(demo, "_run_tasks", lambda *args: None)
    monkeypatch.setattr(demo, "_show_failures", lambda: None)
    demo.main(6, keep=True)
    assert [p.name for p in pools.listing()] == [demo.POOL_NAME]
