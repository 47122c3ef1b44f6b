"""`--embed`: many rows in a request, each with its own end; limits, retries, budget, log and failover as for answers."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from servers.exact import Asked, Exact, reply
from servers.vectors import SIZE, Embedder, texts_of, vector

from holynb import loop, runlog
from holynb.config import settings as configured
from holynb.errors import BadOption, BadPrompt, InferError
from holynb.events import Ended, Failed
from holynb.run import Run, infer, prompt_spool, quote, session
from holynb.run.plan import make
from holynb.run.shares import shares
from holynb.runlog import ledger, tables
from holynb.runlog.writer import LogWriter
from holynb.types import Usage
from holynb.ui.commands import preview

DEADLINE = 30


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("HOLYNB_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    session._session.clear()
    yield tmp_path / "home"
    loop.close()
    runlog.close()


def frame_of(n: int, **more: Any) -> pd.DataFrame:
    return pd.DataFrame({"t": [f"text {i}" for i in range(n)], **more}, index=[f"r{i}" for i in range(n)])


def embed(server: Exact, df: pd.DataFrame, template: str = "{{ t }}", **options: Any) -> Run:
    route = options.pop("route", "vllm/m")
    return infer(template, route, df=df, embed=True, api_base=f"{server.base}/v1", **options)


def rows_right(run: Run, texts: list[str], size: int = SIZE) -> None:
    """Each row has its own vector, and no other one."""
    expected = np.stack([vector(t, size) for t in texts])
    assert np.array_equal(run.vectors(), expected)
    column = run.frame()["embedding"]
    assert column.dtype == pd.ArrowDtype(pa.list_(pa.float32(), size))
    assert np.array_equal(np.stack([np.asarray(v) for v in column]), expected.astype(float))


def ends(run: Run) -> list[int]:
    return sorted(e.row for e in run.journal.events_since(0)[0] if isinstance(e, Ended))


def test_rows_go_together_and_come_back_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    written: Counter[str] = Counter()
    add = LogWriter.add
    monkeypatch.setattr(LogWriter, "add", lambda self, s: written.update([s.sql] * (not s.replay)) or add(self, s))
    df = frame_of(600)
    with Exact(Embedder(shuffled=True)) as server:
        run = embed(server, df).wait(DEADLINE)
    assert (written[tables.ANSWER_UPSERT], written[ledger.INSERT]) == (3, 3), "the ends and payments of a request are written together"
    texts = df["t"].tolist()
    rows_right(run, texts)
    assert len(server.asked) == 3, "256 rows each"
    frame = run.frame()
    assert frame.index.tolist() == df.index.tolist()
    assert frame["text"].isna().all()
    assert frame["attempts"].tolist() == [1] * 600
    assert frame["tokens_in"].sum() == 1200, "what the server counted, divided among its rows"
    assert frame["tokens_out"].tolist() == [0] * 600
    assert frame["finish_reason"].tolist() == ["stop"] * 600
    assert ends(run) == list(range(600))
    summary = run.summary()
    assert summary.vectors.startswith("12 dimensions, not normalized (norm ")
    assert "1,200 tokens" in summary.line()


def test_run_all_again_sends_nothing() -> None:
    df = frame_of(30)
    with Exact(Embedder()) as server:
        embed(server, df).wait(DEADLINE)
        again = embed(server, df).wait(DEADLINE)
        assert len(server.asked) == 1
        rows_right(again, df["t"].tolist())
        assert again.frame()["cached"].all()
        shorter = embed(server, df, dimensions=5).wait(DEADLINE)
        rows_right(shorter, df["t"].tolist(), 5)
        assert len(server.asked) == 2, "other dimensions are other vectors"
        embed(server, df, p={"input_type": "query"}).wait(DEADLINE)
        assert len(server.asked) == 3, "and so is another kind of text"
        more = embed(server, frame_of(33)).wait(DEADLINE)
        assert [len(a.json["input"]) for a in server.asked[3:]] == [3], "only new rows are sent"
        rows_right(more, [f"text {i}" for i in range(33)])


def test_equal_rows_are_asked_once_and_empty_ones_never() -> None:
    df = pd.DataFrame({"t": ["a", "b", "a", None, "  ", "a"]})
    with Exact(Embedder()) as server:
        run = embed(server, df).wait(DEADLINE)
    assert server.asked[0].json["input"] == ["a", "b"]
    frame = run.frame()
    assert frame["status"].tolist() == ["ok", "ok", "ok", "skipped", "skipped", "ok"]
    assert frame["attempts"].tolist() == [1, 1, 0, 0, 0, 0]
    assert frame["embedding"].isna().tolist() == [False, False, False, True, True, False]
    got = run.vectors()
    assert got.dtype == np.float32
    assert np.isnan(got[3:5]).all()
    assert np.array_equal(got[[0, 2, 5]], np.stack([vector("a")] * 3))


@pytest.mark.parametrize("bad", [{0}, {77}, {255}, {3, 4, 200}, {299}])
def test_a_bad_row_fails_alone(bad: set[int]) -> None:
    df = frame_of(300)
    with Exact(Embedder(refuse=lambda text: int(text.split()[1]) in bad)) as server:
        run = embed(server, df).wait(DEADLINE)
    frame = run.frame()
    failed = {i for i, status in enumerate(frame["status"]) if status == "error"}
    assert failed == bad
    assert ends(run) == list(range(300)), "exactly one end a row"
    assert set(frame["error_type"].dropna()) == {"context_length"}
    assert len(server.asked) < 16 + 18 * len(bad)
    asked: dict[str, int] = {}
    for request in server.asked:
        for text in texts_of(request.path, request.json):
            asked[text] = asked.get(text, 0) + 1
    assert frame["attempts"].tolist() == [asked[t] for t in df["t"]], "a row's attempts are the requests that it was in"
    good = [i for i in range(300) if i not in bad]
    assert np.array_equal(run.vectors()[good], np.stack([vector(f"text {i}") for i in good]))
    assert np.isnan(run.vectors()[list(bad)]).all()


def test_what_is_refused_for_everything_is_not_asked_row_by_row() -> None:
    with Exact(Embedder(refuse=lambda text: True, words="This model does not support specifying dimensions.")) as server:
        run = embed(server, frame_of(2000))
        with pytest.raises(InferError, match="does not support specifying dimensions"):
            run.wait(DEADLINE)
    assert len(server.asked) <= 8 + 2, "each request of the first round, and two rows alone"
    assert ends(run) == list(range(2000))
    frame = run.frame()
    assert set(frame["status"]) == {"error"}
    assert frame["embedding"].isna().all()


def test_a_refusal_for_a_while_is_waited_for() -> None:
    def script(asked: Asked, number: int) -> Any:
        if number == 0:
            return [reply({"error": {"message": "slow down", "code": "rate_limit_exceeded"}}, 429, retry_after="0.05")]
        return [reply(b"<html>", 502)] if number == 1 else Embedder()(asked, number)

    with Exact(script) as server:
        run = embed(server, frame_of(10)).wait(DEADLINE)
    rows_right(run, frame_of(10)["t"].tolist())
    assert run.frame()["attempts"].tolist() == [3] * 10
    failed = [e for e in run.journal.events_since(0)[0] if isinstance(e, Failed)]
    assert sorted((e.row, e.kind) for e in failed) == sorted((i, kind) for i in range(10) for kind in ("rate_limit", "server"))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: data[:-1],
        lambda data: [*data, data[0]],
        lambda data: [{**data[0], "embedding": [1.0]}, *data[1:]],
        lambda data: [{**d, "embedding": []} for d in data],
        lambda data: [{**data[0], "index": 1}, *data[1:]],
    ],
)
def test_a_wrong_number_of_vectors_is_no_answer(spoil: Any) -> None:
    """A list that is one short would give the wrong vector to every row after the gap."""

    def script(asked: Asked, number: int) -> Any:
        whole = Embedder()._openai(asked.json, [vector(t) for t in asked.json["input"]], 9)
        return [reply({**whole, "data": spoil(whole["data"]) if number == 0 else whole["data"]})]

    with Exact(script) as server:
        run = embed(server, frame_of(8)).wait(DEADLINE)
    rows_right(run, frame_of(8)["t"].tolist())
    assert run.frame()["attempts"].tolist() == [2] * 8


def test_vectors_of_another_length_are_errors() -> None:
    sizes = iter([SIZE, 7])

    def script(asked: Asked, number: int) -> Any:
        return Embedder(size=next(sizes))(asked, number)

    with Exact(script) as server:
        run = embed(server, frame_of(300), concurrency=1).wait(DEADLINE)
    frame = run.frame()
    assert frame["status"].tolist() == ["ok"] * 256 + ["error"] * 44
    assert frame["error"].iloc[-1].startswith("the vector has 7 dimensions, and those before have 12")
    assert run.vectors().shape == (300, SIZE)


def test_a_model_that_does_not_shorten_is_told() -> None:
    def script(asked: Asked, number: int) -> Any:
        asked.body = json.dumps({**asked.json, "dimensions": None}).encode()
        return Embedder()(asked, number)

    with Exact(script) as server:
        run = embed(server, frame_of(2), dimensions=5)
        with pytest.raises(InferError, match="12 dimensions, and --dimensions asks for 5"):
            run.wait(DEADLINE)
    assert run.frame()["embedding"].dtype == pd.ArrowDtype(pa.list_(pa.float32(), 5)), "whatever came of it"


def test_another_provider_of_the_same_model_takes_over() -> None:
    dead = Exact(lambda asked, number: [reply({"error": {"message": "no", "code": "invalid_api_key"}}, 401)])
    with dead, Exact(Embedder()) as other:
        configured.override(provider={"one": {"base": f"{dead.base}/v1"}, "two": {"base": f"{other.base}/v1"}})
        run = infer("{{ t }}", "one/org/M", df=frame_of(20), embed=True, fallback="two/m").wait(DEADLINE)
    rows_right(run, frame_of(20)["t"].tolist())
    assert set(run.frame()["route"]) == {"two/m"}


def test_limits_are_of_requests_and_of_tokens() -> None:
    with Exact(Embedder()) as server:
        run = embed(server, pd.DataFrame({"t": [f"{i} " + "word " * 100 for i in range(40)]}), tpm=1000, rpm=1000, deadline=0.5)
        run.wait(DEADLINE)
    assert [len(a.json["input"]) for a in server.asked] == [4, 4], "no request is larger than the bound, and the third must wait"
    frame = run.frame()
    assert frame["status"].tolist() == ["ok"] * 8 + ["error"] * 32
    assert set(frame["error_type"].dropna()) == {"deadline"}


def test_money_is_the_servers_count_and_the_budget_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test-0123456789abcdef")
    route = "openai/text-embedding-3-small"
    with Exact(Embedder()) as server:
        run = embed(server, frame_of(300), route=route, budget=1.0).wait(DEADLINE)
        assert run.summary().cost == Decimal(600) * Decimal("0.02") / 1_000_000
        assert sum(map(Decimal, map(str, run.frame()["cost"])), Decimal(0)) == pytest.approx(run.summary().cost)
        [(paid,)] = paid_in_log()
        assert paid == run.summary().cost
        refused = embed(server, frame_of(5, u=list("abcde")), "{{ t }}{{ u }}", route=route, budget=0.0000001)
        with pytest.raises(InferError, match="raise --budget"):
            refused.wait(DEADLINE)
        assert len(server.asked) == 2


def paid_in_log() -> list[tuple[Decimal]]:
    runlog.log()._writer.close()
    with runlog.log().reading() as db:
        return [(sum((Decimal(c) for (c,) in db.execute("SELECT cost FROM payments")), Decimal(0)),)]


def test_a_dry_run_says_what_it_costs_and_sends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test-0123456789abcdef")
    plan = make("{{ t }}", "openai/text-embedding-3-small", Options(df=frame_of(100)))
    estimate = quote.quote(plan).estimate
    assert estimate.tokens_out == (0, 0)
    assert estimate.cost is not None
    assert 0 < estimate.cost[0] < estimate.cost[1] < Decimal("0.0001")
    words = preview.text(make("{{ t }}", "openai/text-embedding-3-small", Options(df=frame_of(600), rpm=1)))
    assert " in 3 requests." in words
    assert "Time, at --rpm and --tpm: 3 min" in words, "requests are limited, not rows"


def Options(**values: Any) -> Any:  # noqa: N802 - as the class is called
    from holynb.config import Options as Checked

    return Checked.parse({"embed": True, **values})


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"stream": True}, "--embed gives vectors, and --stream is about answers"),
        ({"temperature": 0.5}, "--temperature is about answers"),
        ({"schema": {"type": "object"}}, "--schema is about answers"),
        ({"compare": "sim/stream"}, "--compare is about answers"),
        ({"chunk": "auto"}, "--chunk is about answers"),
        ({"think": "low"}, "--think is about answers"),
        ({"tier": "flex"}, "--tier is about answers"),
        ({"dimensions": 5000}, "sim/echo gives vectors of 1 to 4,096 dimensions, not 5,000"),
        ({"fallback": "sim/stream"}, "the vectors of sim/echo and sim/stream cannot be compared"),
        ({"embed": False, "dimensions": 5}, "Add --embed"),
    ],
)
def test_what_does_not_go_with_vectors_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(BadOption, match=words):
        infer("{{ t }}", "sim/echo", df=frame_of(2), **{"embed": True, **options})


def test_without_pyarrow_one_line_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holynb.run.embedding.find_spec", lambda name: None)
    with pytest.raises(BadOption) as refused:
        infer("{{ t }}", "sim/echo", df=frame_of(2), embed=True)
    assert str(refused.value) == "--embed needs pyarrow for its column: %pip install 'holynb[files]'"
    infer("{{ t }}", "sim/echo", df=frame_of(2)).wait(DEADLINE)


@pytest.mark.parametrize(
    ("route", "options", "words"),
    [
        (
            "anthropic/claude-opus-5-5",
            {},
            "Anthropic has no embedding models. Ask openai/text-embedding-3-small, gemini/gemini-embedding-001",
        ),
        ("vertex/gemini-embedding-001", {}, "not supported yet. Ask openai/"),
        ("bedrock/us.anthropic.claude-opus-4-6-v1", {}, "of Bedrock's models Titan"),
        ("openai/text-embedding-3-small", {"dimensions": 4000}, "1 to 1,536 dimensions, not 4,000"),
        ("openai/text-embedding-ada-002", {"dimensions": 4}, "1,536 alone dimensions, not 4"),
        ("openai/text-embedding-3-large", {"p": {"input_type": "query"}}, "embeds documents and queries alike. Leave -p input_type out"),
        ("bedrock/amazon.titan-embed-text-v2:0", {"dimensions": 300}, "256, 512, 1,024 dimensions, not 300"),
    ],
)
def test_a_route_that_cannot_is_refused_before_anything_is_sent(
    route: str, options: dict[str, Any], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test-0123456789abcdef")
    with pytest.raises(BadOption, match=words):
        infer("{{ t }}", route, df=frame_of(2), embed=True, **options)


@pytest.mark.parametrize("many", [prompt_spool.MANY, 2])
def test_one_text_a_row(many: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the rows are so many that their prompts lie in a spool."""
    monkeypatch.setattr(prompt_spool, "MANY", many)
    with pytest.raises(BadPrompt, match="row 1 has 2 messages"):
        infer(["a", {"prompt": "b", "system": "s"}], "sim/echo", embed=True)
    with pytest.raises(BadPrompt, match="row 0 has an attachment"):
        infer("{{ attach(t) }}", "sim/echo", df=frame_of(1), embed=True)
    with pytest.raises(BadPrompt, match="row 0 sets some"):
        infer([{"prompt": "b", "temperature": 0.1}], "sim/echo", embed=True)


def test_a_text_that_would_be_cut_off_in_silence_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEMINI_API_KEY", "sk-test-0123456789abcdef")
    df = pd.DataFrame({"t": ["short", "long words " * 3000]})
    plan = make("{{ t }}", "gemini/gemini-embedding-001", Options(df=df))
    assert [n for n in plan.notes if "2,048 tokens" in n] == [
        "1 row may be longer than the 2,048 tokens that gemini/gemini-embedding-001 reads of a text. It leaves out the rest without a word."
    ]


def test_into_puts_the_vectors_beside_the_input() -> None:
    df = frame_of(3)
    value = infer("{{ t }}", "sim/echo", df=df, embed=True, into="vec").wait(DEADLINE).frame()
    assert list(value.columns) == ["t", "vec"]
    assert str(value["vec"].dtype) == "fixed_size_list<item: float>[64][pyarrow]"
    assert list(df.columns) == ["t"]


def test_the_log_keeps_a_run_for_resume() -> None:
    from holynb.run import resume

    first = infer("{{ t }}", "sim/echo", df=frame_of(5), embed=True, dimensions=8, name="vectors").wait(DEADLINE)
    whole = first.vectors()
    session._session.clear()
    plan = resume.resumed("vectors")
    assert plan.options.embed
    assert plan.keys.of(0) == first.plan.keys.of(0)
    again = Run(plan).start().wait(DEADLINE)
    assert np.array_equal(again.vectors(), whole)
    assert again.frame()["cached"].all()


@given(
    st.lists(st.integers(1, 5000), min_size=1, max_size=40),
    st.none() | st.integers(0, 10**7),
    st.none() | st.decimals(0, 100, places=12),
)
@settings(max_examples=60)
def test_shares_add_up(weights: list[int], tokens: int | None, cost: Decimal | None) -> None:
    parts = shares(Usage(tokens, 0), cost, weights)
    assert len(parts) == len(weights)
    assert sum(u.tokens_in or 0 for u, _ in parts) == (tokens or 0)
    assert all((u.tokens_in is None) == (tokens is None) and (u.tokens_in or 0) >= 0 for u, _ in parts)
    if cost is not None:
        assert sum((c or Decimal(0) for _, c in parts), Decimal(0)) == cost
        assert all(c is not None and c >= 0 for _, c in parts)
