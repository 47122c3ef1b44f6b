"""Prompt caches in a run: what is marked, who goes first, what it costs, and what is said of it."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd
import pictures
import pytest
from servers.exact import END, Asked, Exact, Step, chunk, reply, sse, stream_head
from servers.prompt_caches import PromptCaching, bill, uncached

import holynb
from holynb.cache_mark import CacheMark
from holynb.config import Options
from holynb.engines import hosted
from holynb.events import Ended
from holynb.results import dollars, summarize
from holynb.run import billing
from holynb.run import plan as plans
from holynb.types import Outcome, Usage
from holynb.ui.commands import preview
from holynb.ui.live.totals import Totals

WORDS = ("the", "invoice", "refund", "customer", "policy", "agent", "returns", "shipping", "warranty", "delivery", "seller", "buyer")


def text(seed: int, tokens: int) -> str:
    """About so many tokens, by the server's count."""
    rng = random.Random(seed)
    return " ".join(rng.choices(WORDS, k=tokens))[: 4 * tokens].rstrip()


class Caching:
    """A server of Messages with a prompt cache. `began`: when each request came, and when its answer began."""

    def __init__(self, slow: float = 0.02, *, first: Sequence[bytes] = (), refusal: Any = None) -> None:
        self.cache, self.slow, self.first, self.refusal = PromptCaching(), slow, list(first), refusal
        self.refused = 0
        self.usages: list[Any] = []
        self.bodies: list[Any] = []
        self.came: list[float] = []

    @property
    def streamed(self) -> list[bool]:
        return [bool(body.get("stream")) for body in self.bodies]

    def __call__(self, asked: Asked, number: int) -> Iterator[Step]:
        body = asked.json
        if self.refusal is not None and b"cache_control" in asked.body:
            self.refused += 1
            yield reply(self.refusal, 400)
            return
        if number < len(self.first):
            yield self.first[number]
            return
        self.bodies.append(body)
        usage, writes = self.cache.arrives(body, time.monotonic())
        self.usages.append(usage)
        self.came.append(time.monotonic())
        yield self.slow
        self.cache.begins(writes, time.monotonic())
        start = {"type": "message_start", "message": {"model": body["model"], "usage": {**usage, "output_tokens": 1}}}
        if not body.get("stream"):
            yield reply(
                {
                    "model": body["model"],
                    "content": [{"type": "text", "text": "ok"}],
                    "stop_reason": "end_turn",
                    "usage": {**usage, "output_tokens": 3},
                }
            )
            return
        yield stream_head()
        yield chunk(sse(start, {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "ok"}}))
        yield self.slow
        yield chunk(
            sse({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 3}}, {"type": "message_stop"})
        )
        yield END


@pytest.fixture(autouse=True)
def keyed(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-test-0123456789")
    monkeypatch.setattr(hosted, "_traits_by_model", {})


def questions(n: int) -> pd.DataFrame:
    return pd.DataFrame({"question": [text(i, 40) for i in range(n)]})


MODEL = "anthropic/claude-sonnet-4-6"
TEMPLATE = f"{text(99, 2_000)}\n\nQuestion: {{{{ question }}}}"


def asked(server: Caching, n: int = 8, template: str = TEMPLATE, **options: Any) -> holynb.run.Run:
    with Exact(server) as at:
        return holynb.infer(template, MODEL, df=questions(n), **{"api_base": at.base, "max_tokens": 64, **options}).wait()


def test_fifty_rows_behind_a_long_beginning_cost_a_seventh():
    rows = pd.DataFrame({"question": [text(i, 500) for i in range(50)]})
    with Exact(server := Caching()) as at:
        head = text(99, 19_000)
        run = holynb.infer(f"{head}\n\nQuestion: {{{{ question }}}}", MODEL, df=rows, api_base=at.base, max_tokens=64).wait()
    assert list(run.frame()["text"]) == ["ok"] * 50
    paid, full = sum(map(bill, server.usages)), sum(map(uncached, server.usages))
    assert full > 50 * 19_400
    assert paid <= 0.15 * full
    assert run.summary().prompt_cache_saved == pytest.approx((Decimal(full) - Decimal(paid)) * 3 / 1_000_000)
    assert f"{dollars(run.summary().prompt_cache_saved)} saved by the prompt cache" in run.summary().line()
    assert float(run.frame()["cost"].sum()) == pytest.approx(3e-6 * paid + 15e-6 * 50 * 3)


def test_one_row_goes_first_and_the_rest_as_soon_as_its_answer_begins():
    run = asked(server := Caching(slow=0.1))
    assert [u["cache_creation_input_tokens"] > 0 for u in server.usages] == [True] + [False] * 7
    assert all(u["cache_read_input_tokens"] > 2_000 for u in server.usages[1:])
    assert 0.09 < server.came[1] - server.came[0] < 0.19, "not before it begins, and not only when it has ended"
    assert max(server.came[1:]) - server.came[1] < 0.09
    assert server.streamed == [True] + [False] * 7
    assert list(run.frame()["tokens_cache_write"] > 0) == [True] + [False] * 7


def test_the_mark_changes_neither_the_text_nor_what_the_log_knows():
    with Exact(server := Caching()) as at:
        options = {"df": questions(8), "api_base": at.base, "max_tokens": 64}
        holynb.infer(TEMPLATE, MODEL, **options).wait()
        block, rest = server.bodies[0]["messages"][0]["content"]
        assert block["cache_control"] == {"type": "ephemeral"}
        assert block["text"].endswith("Question:")
        assert block["text"] + rest["text"] == TEMPLATE.replace("{{ question }}", questions(1)["question"][0])
        assert holynb.infer(TEMPLATE, MODEL, **options, prompt_cache=False).wait().summary().cached == 8
    assert len(server.bodies) == 8


@pytest.mark.parametrize(
    ("options", "n"),
    [({"prompt_cache": False}, 8), ({"p": {"cache_control": {"type": "ephemeral"}}}, 8), ({}, 1), ({"template": "{{ question }}"}, 8)],
    ids=["--no-prompt-cache", "a mark of the user's own", "one row", "no beginning"],
)
def test_where_nothing_is_won_nothing_is_marked(options: dict[str, Any], n: int):
    asked(server := Caching(), n, **options)
    assert not any(u["cache_creation_input_tokens"] for u in server.usages)
    assert all(isinstance(b["messages"][0]["content"], str) for b in server.bodies)


def test_a_system_prompt_is_a_beginning_too():
    asked(server := Caching(), template="Answer: {{ question }}", system=text(5, 2_000))
    assert server.bodies[0]["messages"][0]["content"][0] == {"type": "text", "text": "Answer:", "cache_control": {"type": "ephemeral"}}
    assert sum(u["cache_creation_input_tokens"] > 0 for u in server.usages) == 1


def test_what_is_attached_is_behind_the_beginning_that_is_kept():
    photos = questions(8).assign(photo=[pictures.noise(seed=i) for i in range(8)])
    with Exact(server := Caching()) as at:
        options: dict[str, Any] = {"df": photos, "attach": ("photo",), "api_base": at.base, "max_tokens": 64}
        holynb.infer("What is it? {{ question }}", MODEL, system=text(5, 2_000), **options).wait()
        assert [u["cache_creation_input_tokens"] > 0 for u in server.usages] == [True] + [False] * 7
        assert all(u["cache_read_input_tokens"] > 1_900 for u in server.usages[1:])
        for body in server.bodies:
            assert body["system"][0]["cache_control"] == {"type": "ephemeral"}
            assert [block["type"] for block in body["messages"][0]["content"]] == ["image", "text"]
            assert "cache_control" not in str(body["messages"])
        server.bodies.clear()
        # Of a turn with a picture nothing is the same in all rows: the picture comes first.
        holynb.infer(TEMPLATE, MODEL, **options).wait()
        holynb.infer(TEMPLATE + "{{ attach(photo) }}", MODEL, **{**options, "attach": ()}).wait()
    assert len(server.bodies) == 16 and "cache_control" not in str(server.bodies)


def test_a_dry_run_says_what_is_read_and_what_that_saves():
    plan = plans.make(TEMPLATE, MODEL, Options(df=questions(50), max_tokens=64, dry_run=True))
    said = preview.text(plan)
    assert re.search(
        r"Prompt cache of anthropic/claude-sonnet-4-6: all rows begin with the same [12],\d{3} tokens. One row goes first, and 49 rows read them "
        r"from the cache, which saves about \$0\.\d+ \(--no-prompt-cache\)\.",
        said,
    )
    off = plans.make(TEMPLATE, MODEL, Options(df=questions(50), max_tokens=64, dry_run=True, prompt_cache=False))
    assert "Prompt cache" not in preview.text(off)


def test_a_server_that_takes_no_marks_gets_none():
    refusal = {"type": "error", "error": {"type": "invalid_request_error", "message": "cache_control: Extra inputs are not permitted"}}
    run = asked(server := Caching(refusal=refusal))
    assert list(run.frame()["status"]) == ["ok"] * 8
    assert server.refused == 1


def test_a_first_row_that_fails_leaves_its_place_to_the_next():
    overloaded = reply({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}, 529)
    run = asked(server := Caching(first=[overloaded]))
    assert list(run.frame()["status"]) == ["ok"] * 8
    assert sum(u["cache_creation_input_tokens"] > 0 for u in server.usages) == 1
    assert sum(u["cache_read_input_tokens"] > 0 for u in server.usages) == 7


class Chat:
    """A server of chat completions that writes what is marked, or where nothing says otherwise the whole prompt."""

    def __init__(self) -> None:
        self.bodies: list[Any] = []
        self.known: set[str] = set()
        self.written = self.read = self.total = 0

    def __call__(self, asked: Asked, number: int) -> Sequence[Step]:
        body = asked.json
        self.bodies.append(body)
        contents = [m["content"] for m in body["messages"]]
        blocks = [b for c in contents for b in ([{"text": c}] if isinstance(c, str) else c)]
        marks = [i for i, b in enumerate(blocks) if "prompt_cache_breakpoint" in b]
        marks += [len(blocks) - 1] if body.get("prompt_cache_options", {}).get("mode") != "explicit" else []
        total, read, written = sum(len(b["text"]) for b in blocks) // 4, 0, 0
        for mark in marks:
            head = "".join(b["text"] for b in blocks[: mark + 1])
            if len(head) // 4 >= 1024:
                read, written = (len(head) // 4, written) if head in self.known else (read, len(head) // 4)
                self.known.add(head)
        self.written, self.read, self.total = self.written + written, self.read + read, self.total + total
        details = {"cached_tokens": read, "cache_write_tokens": written}
        usage = {"prompt_tokens": total, "completion_tokens": 1, "total_tokens": total + 1, "prompt_tokens_details": details}
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "ok"}}
        return [reply({"model": body["model"], "choices": [choice], "usage": usage})]


@pytest.mark.parametrize(("shared", "options"), [(True, {}), (False, {}), (True, {"prompt_cache": False})])
def test_openai_s_newer_models_write_what_is_shared_once_and_nothing_of_what_is_not(
    shared: bool, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
):
    """Unasked they write every row's whole prompt, at a quarter more."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test-0123456789abcdef")
    rows = pd.DataFrame({"question": [text(i, 40 if shared else 1_500) for i in range(8)]})
    with Exact(server := Chat()) as at:
        template = TEMPLATE if shared else "{{ question }}"
        run = holynb.infer(template, "openai/gpt-6-luna", df=rows, api_base=at.base, max_tokens=640, **options).wait()
    if options:
        assert server.written == server.total
        assert run.summary().prompt_cache_saved < 0
        assert "more for the prompt cache" in run.summary().line()
    elif shared:
        assert len({body["prompt_cache_key"] for body in server.bodies}) == 1
        assert 2_000 <= server.written <= 2_010
        assert server.read == 7 * server.written
    else:
        assert (server.written, server.read) == (0, 0)


def test_each_of_several_routes_has_a_beginning_of_its_own():
    with Exact(server := Caching()) as at:
        other = "anthropic/claude-opus-4-8"
        run = holynb.infer(TEMPLATE, MODEL, df=questions(24), spread=[other], api_base=at.base, max_tokens=64, concurrency=4).wait()
    assert list(run.frame()["status"]) == ["ok"] * 24
    wrote = [body["model"] for body, usage in zip(server.bodies, server.usages, strict=True) if usage["cache_creation_input_tokens"]]
    assert sorted(wrote) == ["claude-opus-4-8", "claude-sonnet-4-6"]
    assert sum(map(bill, server.usages)) < 0.4 * sum(map(uncached, server.usages))


def test_a_budget_holds_what_writing_may_cost():
    plan = plans.make(TEMPLATE, MODEL, Options(df=questions(2), max_tokens=64, budget=1.0))
    worst = billing.worst_case(plan)
    row = plan.rows.requests[0]
    assert row is not None
    size = sum(len(m.content) for m in row.messages) + 64
    out = 64 * 15
    assert worst(row, row.route) * 10**6 == pytest.approx(Decimal(size) * Decimal("3.75") + out)
    hour = replace(row, cache=CacheMark(0, 10, "k", hour=True))
    assert worst(hour, row.route) * 10**6 == pytest.approx(Decimal(size) * 6 + out)


def test_a_stopped_run_has_paid_for_one_write_at_most():
    with Exact(server := Caching(slow=0.3)) as at:
        run = holynb.infer(TEMPLATE, MODEL, df=questions(8), api_base=at.base, max_tokens=64)
        deadline = time.monotonic() + 10
        while not server.came and time.monotonic() < deadline:
            time.sleep(0.01)
        run.cancel()
        run.wait()
    assert len(server.came) == 1
    assert sum(map(bill, server.usages)) - sum(map(uncached, server.usages)) <= 0.25 * 2_010


def test_the_live_view_s_head_says_what_was_saved():
    totals = Totals(3)
    usage = Usage(2_100, 5, 2_000, None)
    outcome = Outcome("ok", "a", route=MODEL, model="claude-sonnet-4-6", attempts=1, usage=usage, cost=Decimal("0.01"))
    totals.fold([Ended(0, outcome, 1.0), Ended(1, replace(outcome, cached=True), 1.0), Ended(2, replace(outcome, route="pool/x"), 1.0)])
    saved = totals.summary(1.0).prompt_cache_saved
    assert saved == 2_000 * (Decimal(3) - Decimal("0.3")) / 1_000_000
    assert saved == summarize([outcome], 1.0).prompt_cache_saved
