"""`--chunk`: rows that are too long are asked in parts and put together; nothing is lost, paid twice or left open."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from servers.exact import Asked, Exact, Step, chunk, reply, sse, stream_head, streamed
from servers.golden import openai_chunk
from servers.reader import FACT, LIMIT, Reader, book

import holynb
from holynb import runlog
from holynb.config.options import Options
from holynb.errors import BadOption
from holynb.events import Ended, Started
from holynb.pricing import spending
from holynb.prompts import chunking
from holynb.run import plan, quote, resume
from holynb.ui.commands import preview

ROUTE = "openai/gpt-4.1-mini"
ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.usefixtures("keyed")


def ask(server: Exact, texts: list[str], **said: Any) -> holynb.Run:
    run = holynb.infer(texts, ROUTE, api_base=server.base, **{"max_tokens": 200, **said})
    try:
        return run.wait(60)
    except holynb.InferError:
        return run


QUESTION = "List every code in the text below, in order."


def test_two_hundred_pages_at_a_server_that_takes_four_thousand_tokens():
    text = book(200)
    reader = Reader()
    with Exact(reader) as server:
        run = ask(server, [f"{QUESTION}\n\n{text}\n\nAnswer with the codes alone."], chunk="4000")
    row = run.frame().iloc[0]
    chunks = run.chunks()
    pieces = chunks[chunks.index.get_level_values("round") == 1]
    assert len(text) > 500_000
    assert reader.refused == 0
    assert max(reader.sizes) <= LIMIT
    assert len(pieces) > 20
    assert all(p.startswith(QUESTION) and p.endswith("Answer with the codes alone.") for p in chunks["prompt"])
    # None lost, order kept: in the pieces, and in the answer made of theirs.
    read = [FACT.findall(p) for p in pieces["prompt"]]
    assert list(dict.fromkeys(f for piece in read for f in piece)) == [f"K{i:04}" for i in range(200)]
    assert row["text"].split() == [f"K{i:04}" for i in range(200)]
    assert row["attempts"] == len(server.asked) == len(chunks) == len(reader.sizes)
    assert row["tokens_in"] == sum(reader.sizes)
    assert row["cost"] == pytest.approx(float(chunks["cost"].sum()))


def test_rows_that_fit_are_asked_whole_and_all_keep_their_places():
    index = pd.Index(list("abcdef"), name="key")
    texts = ["K0001 short", book(12, 1), "K0002 short", book(9, 2), "", book(12, 1)]
    with Exact(Reader()) as server:
        df = pd.DataFrame({"body": texts}, index=index)
        run = holynb.infer("Codes of:\n\n{{ body }}", ROUTE, df=df[df.body != ""], api_base=server.base, max_tokens=200, chunk=1500).wait(
            60
        )
    frame = run.frame()
    assert frame.index.tolist() == ["a", "b", "c", "d", "f"]
    assert [len(t.split()) for t in frame["text"]] == [1, 12, 1, 9, 12]
    assert frame.loc["a", "attempts"] == frame.loc["c", "attempts"] == 1
    # Rows that ask the same are asked once, and the second costs nothing.
    assert frame.loc["f", "text"] == frame.loc["b", "text"]
    assert frame.loc["f", "cost"] == 0
    assert frame.loc["f", "attempts"] == 0
    assert frame["attempts"].sum() == len(server.asked)
    assert run.chunks().index.names == ["key", "round", "part"]
    assert set(run.chunks().index.get_level_values("key")) == {"b", "d", "f"}


def test_answers_that_are_too_long_together_are_put_together_in_rounds():
    wordy = " ".join(f"K{i:04} is what this part says, at some length." for i in range(12))

    def before(text: str, number: int) -> Sequence[Step] | None:
        return [reply({"choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": wordy}}]})]

    with Exact(Reader(before=before)) as server:
        run = ask(server, [f"{QUESTION}\n\n{book(20)}"], chunk="1000")
    rounds = run.chunks().groupby(level="round").size().tolist()
    assert len(rounds) >= 3
    assert rounds[-1] == 1
    assert all(a > b for a, b in pairwise(rounds))
    assert run.frame()["status"].tolist() == ["ok"]


def test_a_server_that_refuses_the_whole_is_asked_in_parts_of_the_size_it_names():
    reader = Reader(2500)
    with Exact(reader) as server:
        run = ask(server, [f"{QUESTION}\n\n{book(20)}"], chunk="100000")
    assert reader.refused == 1
    assert run.frame()["text"][0].split() == [f"K{i:04}" for i in range(20)]
    assert run.frame()["attempts"][0] == len(server.asked)


def test_a_piece_that_a_server_finds_too_long_is_cut_again():
    # It counts three times as many tokens as any tokenizer that is known.
    reader = Reader(1500, count=len)
    with Exact(reader) as server:
        run = ask(server, [f"{QUESTION}\n\n{book(6)}"], chunk="1500")
    row = run.frame().iloc[0]
    assert row["status"] == "ok", row["error"]
    assert reader.refused > 1
    assert row["text"].split() == [f"K{i:04}" for i in range(6)]
    assert row["attempts"] == len(server.asked)
    assert any("." in part for part in run.chunks().index.get_level_values("part"))


def test_a_prompt_that_times_out_again_and_again_is_asked_in_parts():
    def slow(text: str, number: int) -> Sequence[Step] | None:
        return [3.0] if len(text) > 12_000 else None

    with Exact(Reader(100_000, before=slow)) as server:
        run = ask(server, [f"{QUESTION}\n\n{book(6)}"], chunk="auto", timeout=1, retries=1)
    row = run.frame().iloc[0]
    assert row["text"].split() == [f"K{i:04}" for i in range(6)]
    assert row["attempts"] == len(server.asked) > 3


def broken_at(part: str, times: int = 1 << 30, status: int = 500) -> Callable[[str, int], Sequence[Step] | None]:
    seen = []

    def before(text: str, number: int) -> Sequence[Step] | None:
        if f"[Part {part} of" not in text or len(seen) >= times:
            return None
        seen.append(number)
        return [reply({"error": {"message": "it does not please me", "type": "server_error"}}, status)]

    return before


def test_a_piece_that_fails_fails_its_row_and_only_what_is_missing_is_asked_again():
    reader = Reader(before=broken_at("3"))
    texts = [f"{QUESTION}\n\n{book(12)}", "K0777 alone"]
    with Exact(reader) as server:
        run = ask(server, texts, chunk="1500", retries=1, name="pages")
        frame = run.frame()
        assert frame["status"].tolist() == ["error", "ok"]
        assert re.match(r"part 3 of \d+: .*it does not please me", frame["error"][0])
        assert frame["error_type"][0] == "server"
        assert frame["attempts"].sum() == len(server.asked)
        assert frame["cost"][0] > 0
        told = spending.total(spending.by_day(runlog.log()))
        assert told.failed == run.chunks()["status"].eq("error").sum() == 1, "its parts are counted, and not the row beside them"
        first = len(server.asked)
        answered = run.chunks()["status"].eq("ok").sum()
        reader.before = None
        again = holynb.infer(texts, ROUTE, api_base=server.base, chunk="1500", max_tokens=200, only="failed", name="pages").wait(60)
        chunks = again.chunks()
        pieces = chunks[chunks.index.get_level_values("round") == 1]
        assert again.frame()["text"][0].split() == [f"K{i:04}" for i in range(12)]
        assert len(server.asked) - first == len(chunks) - answered
        assert pieces["cached"].sum() == answered
        # And once more, all of it from the log.
        total = len(server.asked)
        third = holynb.infer(texts, ROUTE, api_base=server.base, chunk="1500", max_tokens=200).wait(60)
        assert len(server.asked) == total
        assert third.frame()["cached"].tolist() == [True, True]
        assert third.chunks()["text"].tolist() == chunks["text"].tolist(), "its parts can still be looked at"
        assert third.chunks().index.tolist() == chunks.index.tolist()
        assert third.frame()["cost"].tolist() == [0, 0]


@pytest.mark.usefixtures("quick_retries")
def test_a_passing_fault_of_a_piece_is_tried_again():
    with Exact(Reader(before=broken_at("2", times=2))) as server:
        run = ask(server, [f"{QUESTION}\n\n{book(5)}"], chunk="1500")
    assert run.frame()["status"].tolist() == ["ok"]
    assert run.frame()["attempts"][0] == len(server.asked) == len(run.chunks()) + 2


def test_the_answer_in_parts_is_not_the_answer_to_the_whole():
    texts = [f"{QUESTION}\n\n{book(5)}"]
    with Exact(Reader(1_000_000)) as server:
        ask(server, texts, chunk="1500")
        asked = len(server.asked)
        whole = ask(server, texts)
        assert len(server.asked) == asked + 1
        assert whole.frame()["cached"].tolist() == [False]
        assert ask(server, texts, chunk="1500").frame()["cached"].tolist() == [True]
        assert len(server.asked) == asked + 1


def test_the_budget_holds_over_all_parts():
    with Exact(Reader()) as server:
        run = ask(server, [f"{QUESTION}\n\n{book(30)}"], chunk="1500", budget=0.01)
    row = run.frame().iloc[0]
    assert row["error_type"] == "budget"
    assert 0 < row["cost"] <= 0.01
    assert row["attempts"] == len(server.asked)


def test_a_stop_ends_the_row_with_what_it_cost_and_a_resume_asks_the_rest():
    texts = [f"{QUESTION}\n\n{book(12)}"]

    def slow(text: str, number: int) -> Sequence[Step] | None:
        return None if number < 3 else [20.0]

    reader = Reader(before=slow)
    with Exact(reader) as server:
        run = holynb.infer(texts, ROUTE, api_base=server.base, chunk="1500", max_tokens=200, name="stopped", concurrency=2)

        until = time.monotonic() + 20
        while int(run.chunks()["status"].eq("ok").sum()) < 3:
            assert time.monotonic() < until
            time.sleep(0.02)
        assert re.fullmatch(r"3 of \d+ parts answered", run.journal.partial_texts()[0].strip())
        run.cancel()
        run.cancel()
        run.wait(20)
        row = run.frame().iloc[0]
        assert row["status"] == "cancelled"
        assert row["cost"] > 0
        assert row["attempts"] == len(server.asked)
        asked, reader.before = len(server.asked), None
        again = holynb.infer(texts, ROUTE, api_base=server.base, chunk="1500", max_tokens=200, name="stopped").wait(60)
        assert again.frame()["text"][0].split() == [f"K{i:04}" for i in range(12)]
        assert len(server.asked) - asked == len(again.chunks()) - 3


def test_the_answer_put_together_streams_into_the_row_and_a_stop_keeps_it():
    said = threading.Event()

    def script(asked: Asked, number: int) -> Sequence[Step]:
        if "answers to its parts" not in asked.json["messages"][-1]["content"]:
            return [streamed(sse(openai_chunk("K0001"), openai_chunk(finish="stop"), "[DONE]"))]
        said.set()
        return [stream_head(), chunk(sse(openai_chunk("all codes: "))), chunk(sse(openai_chunk("K0001"))), 30.0]

    with Exact(script) as server:
        run = holynb.infer([f"{QUESTION}\n\n{book(5)}"], ROUTE, api_base=server.base, chunk="1500", max_tokens=200, stream=True)
        assert said.wait(20)
        until = time.monotonic() + 20
        while run.journal.partial_texts().get(0) != "all codes: K0001":
            assert time.monotonic() < until
            time.sleep(0.02)
        run.cancel()
        run.cancel()
        run.wait(20)
    row = run.frame().iloc[0]
    assert (row["status"], row["text"]) == ("cancelled", "all codes: K0001")
    assert row["attempts"] == len(server.asked)


def test_the_log_alone_continues_and_no_dollar_is_counted_twice():

    texts = [f"{QUESTION}\n\n{book(8)}"]
    reader = Reader(before=broken_at("2", times=1, status=400))
    with Exact(reader) as server:
        run = ask(server, texts, chunk="1500", name="n")
        assert run.frame()["status"].tolist() == ["error"]
        made = resume.resumed("n")
        assert list(made.rows.long) == [0]
        again = holynb.Run(made).start().wait(60)
    assert again.frame()["status"].tolist() == ["ok"]
    paid = [Decimal(str(c)) for c in run.frame()["cost"]] + [Decimal(str(c)) for c in again.frame()["cost"]]
    assert float(spending.total(spending.by_day(runlog.log())).cost) == pytest.approx(float(sum(paid)))
    assert [r.name for r in runlog.log().runs()] == ["n"]


def test_rows_that_failed_for_their_length_are_sent_again_in_parts():
    with Exact(Reader(2000)) as server:
        run = ask(server, [f"{QUESTION}\n\n{book(8)}", "K0777 alone"])
        assert run.frame()["error_type"].tolist() == ["context_length", pd.NA]
        asked = len(server.asked)
        made = resume.failed_again(options={"chunk": "1500"})
        assert list(made.rows.long) == [0]
        again = holynb.Run(made).start().wait(60)
        assert len(server.asked) - asked == len(again.chunks())
    assert [len(t.split()) for t in again.frame()["text"]] == [8, 1]


def test_no_cache_asks_each_row_by_itself():
    text = f"{QUESTION}\n\n{book(4)}"
    with Exact(Reader()) as server:
        run = ask(server, [text, text], chunk="1500", cache=False)
        assert run.frame()["attempts"].tolist() == [len(server.asked) // 2] * 2


def test_two_megabytes_without_a_space():
    with Exact(Reader(20_000)) as server:
        run = ask(server, ["x" * 2_000_000 + "K0001"], chunk="20000")
    row = run.frame().iloc[0]
    assert row["status"] == "ok"
    assert row["text"] == "K0001"
    pieces = [p.partition("]\n")[2] for p in run.chunks().xs(1, level="round")["prompt"]]
    assert all(len(p) <= 100_000 for p in pieces)


def test_a_size_that_leaves_no_room_is_said_before_anything_is_sent():
    with Exact(Reader()) as server:
        with pytest.raises(BadOption, match="leaves no room for the text"):
            holynb.infer([book(1)], ROUTE, api_base=server.base, chunk=100)
        with pytest.raises(BadOption, match="--chunk takes auto, or a number of tokens from 64, not 'much'"):
            holynb.infer(["x"], ROUTE, api_base=server.base, chunk="much")
        assert not server.asked


@pytest.mark.parametrize("seed", range(12))
def test_whatever_happens_each_row_ends_once_and_every_request_is_counted(seed):
    rng = random.Random(seed)
    share, limit = rng.choice((0.0, 0.05, 0.3)), rng.choice((600, 1200, 5000, 1 << 30))

    def trouble(text: str, number: int) -> Sequence[Step] | None:
        fate = random.Random(f"{seed} {number}").random() / share if share else 2
        if fate < 0.03:
            return [reply({"error": {"message": "slow down"}}, 429, retry_after_ms="5")]
        if fate < 0.9:
            return [reply({"error": {"message": "boom", "type": "server_error"}}, 503, retry_after_ms="2")]
        return [reply({"error": {"message": "it breaks the rules", "code": "content_filter"}}, 400)] if fate < 0.93 else None

    texts = [f"{QUESTION}\n\n{book(rng.choice((0, 1, 3, 6)), rng.randrange(3))}" for _ in range(rng.randint(1, 9))]
    reader = Reader(limit, before=trouble)
    with Exact(reader) as server:
        said = {
            "chunk": rng.choice(("700", "1500", "4000", "auto")),
            "concurrency": rng.choice((1, 3, 16)),
            "retries": rng.choice((0, 2, 6)),
        }
        run = ask(server, texts, **said, cache=rng.random() < 0.7)
        frame = run.frame()
        assert frame["attempts"].sum() == len(server.asked)
    ended = [e.row for e in run.journal.events_since(0)[0] if isinstance(e, Ended)]
    assert sorted(ended) == list(range(len(texts)))
    assert set(frame["status"]) <= {"ok", "error"}
    for text, said_, status in zip(texts, frame["text"], frame["status"], strict=True):
        assert status == "error" or (said_.split() if said_ != "nothing" else []) == FACT.findall(text)
    started = [(e.row, e.attempt) for e in run.journal.events_since(0)[0] if isinstance(e, Started)]
    assert len(set(started)) == len(started) == len(server.asked), "a row's attempts are counted through"


# -- before it is sent ---------------------------------------------------------------------------------------------------
def test_a_dry_run_says_how_many_parts_and_what_they_cost():
    texts = [f"{QUESTION}\n\n{book(8, seed)}" for seed in range(4)] + ["K0001 short"]
    with Exact(Reader()) as server:
        made = plan.make(texts, ROUTE, Options.parse({"chunk": "1500", "max_tokens": 200, "api_base": server.base}))
        parts = sum(len(p.parts) for p in made.rows.long.values())
        told = quote.quote(made)
        text = preview.text(made)
        assert not server.asked
        run = ask(server, texts, chunk="1500")
    assert f"4 of 5 rows: longer than 1,500 tokens, so asked in {parts} parts (--chunk), and then for what these say together." in text
    assert "5 rows would go" in text
    alone = plan.make(texts[:1], ROUTE, Options.parse({"chunk": "1500", "max_tokens": 200, "api_base": server.base}))
    assert "1 of 1 row: longer" in preview.text(alone)
    assert (told.rows, told.answered) == (5, 0)
    low, high = told.range
    assert float(low) <= run.frame()["cost"].sum() <= float(high)
    assert told.estimate.rows >= parts + 4 + 1
    assert quote.quote(made).says() == "nothing"
    assert any("asked in" in str(e) for e in run.journal.events_since(0)[0])


def test_parts_that_were_seen_make_the_estimate_narrow():
    texts = [f"{QUESTION}\n\n{book(8, seed)}" for seed in range(24)]
    with Exact(Reader()) as server:
        ask(server, texts[:2], chunk="1500")
        told = quote.quote(plan.make(texts, ROUTE, Options.parse({"chunk": "1500", "max_tokens": 200, "api_base": server.base})))
        before = float(sum(o.cost for o in ask(server, texts[:2], chunk="1500").rows()))
        bill = float(sum(o.cost for o in ask(server, texts, chunk="1500").rows())) - before
    low, high = map(float, told.range)
    assert (told.rows, told.answered) == (22, 2)
    assert low <= bill <= high
    assert high <= 2 * low


def test_auto_is_the_models_own_context_or_short_where_nobody_knows():
    made = plan.make([f"{QUESTION}\n\n{book(200)}"] * 2, "openai/gpt-4.1-mini", Options.parse({"chunk": "auto", "dry_run": True}))
    assert not made.rows.long, "a million tokens hold it"
    made = plan.make([f"{QUESTION}\n\n{book(200)}"], "vllm/some-model", Options.parse({"chunk": "auto", "api_base": "http://127.0.0.1:9"}))
    assert max(chunking.prompt_tokens(p) for p in made.rows.long[0].parts) <= chunking.DEFAULT_CONTEXT_TOKENS
    assert "The context length of vllm/some-model is not known" in made.notes[1]


def test_auto_asks_a_server_of_ones_own_for_its_context_length():
    def script(asked: Asked, number: int) -> Sequence[Step]:
        assert asked.path == "/v1/models"
        return [reply({"data": [{"id": "another", "max_model_len": 9}, {"id": "mine", "max_model_len": 16_000}]})]

    with Exact(script) as server:
        made = plan.make(
            [f"{QUESTION}\n\n{book(200)}"],
            "vllm/mine",
            Options.parse({"chunk": "auto", "api_base": f"{server.base}/v1", "max_tokens": 500}),
        )
        longest = max(chunking.prompt_tokens(p) for p in made.rows.long[0].parts)
    assert 10_000 < longest <= 16_000 - 500


# -- killed ----------------------------------------------------------------------------------------------------------------
CHILD = """
import sys
import holynb
text = open(sys.argv[1], encoding="utf-8").read()
run = holynb.infer([text], "openai/gpt-4.1-mini", api_base=sys.argv[2], name="killed", chunk=1500, max_tokens=200, concurrency=4).wait()
print(run.frame()["text"][0])
"""


def test_killed_in_the_middle_only_the_parts_that_are_missing_are_asked_again(tmp_path, home):
    (tmp_path / "book.txt").write_text(f"{QUESTION}\n\n{book(20)}", encoding="utf-8")
    enough = threading.Event()

    def held(text: str, number: int) -> Sequence[Step] | None:
        """From the fifteenth on none is answered before the kill, however late that comes."""
        if number < 14:
            return None
        enough.set()
        return [60.0]

    reader = Reader(before=held)
    with Exact(lambda asked, number: [0.05, *reader(asked, number)]) as server:
        argv = [sys.executable, "-c", CHILD, str(tmp_path / "book.txt"), server.base]
        env = {**os.environ, "PYTHONPATH": str(ROOT), "HOLYNB_HOME": str(home)}
        first = subprocess.Popen(argv, env=env, stdout=subprocess.PIPE, text=True)
        try:
            assert enough.wait(60)
            os.kill(first.pid, signal.SIGKILL)
        finally:
            first.kill()
            first.communicate()
        log = runlog.log()
        found = log.find("killed")
        kept = len(log.answers(f"{found.id}/parts"))
        assert kept >= 10
        assert not log.answers(found.id), "the row has not ended"
        sent, reader.before = len(server.asked), None
        assert sent - kept <= 4, "a lane frees only when its answer is on disk"
        done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=60, check=True)
        again = len(server.asked) - sent
    assert done.stdout.split() == [f"K{i:04}" for i in range(20)]
    assert len(log.answers(f"{found.id}/parts")) == kept + again
