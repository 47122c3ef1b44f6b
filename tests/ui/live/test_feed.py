"""What a page shows equals the fold of the run's events, whenever it opened and however the ticks fell."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holynb.events import Ended, Event, Failed, Gauge, Noted, Paused, Started
from holynb.journal import Journal
from holynb.types import Outcome, Usage
from holynb.ui.live import feed as feeds
from holynb.ui.live.buckets import Buckets, Merge
from holynb.ui.live.feed import Feed
from holynb.ui.live.only_row import PAGE_CHARS
from holynb.ui.live.protocol import Row, ViewOptions
from holynb.ui.live.runinfo import RunInfo
from holynb.ui.output.text import shared_prefix

ROUTE = "sim/flaky"
VIEW = ViewOptions(can_stop=True, recorded="", parts="all")


def ok(text: str = "fine", *, route: str = ROUTE, **more: Any) -> Outcome:
    facts = {"attempts": 1, "usage": Usage(3, 5), "cost": Decimal("0.25"), "latency_s": 1.5, "ttft_s": 0.2, **more}
    return Outcome("ok", text, route=route, **facts)


BAD = Outcome("error", error_type="timeout", error="nothing for 60 s", attempts=2)


def decode(values: list[Any]) -> Row:
    return Row(*values)


class Page:
    """The page's handling of messages, in Python: the reference for live.js."""

    def __init__(self) -> None:
        self.rows: dict[int, Row] = {}
        self.prompts: dict[int, str] = {}
        self.charts: dict[str, dict[str, list[Any]]] = {}
        self.head: dict[str, Any] = {}
        self.answer = self.thoughts = self.summary = ""

    def update(self, message: Any) -> Page:
        message = json.loads(json.dumps(message))
        if message["kind"] == "snapshot":
            self.__init__()
        self.head = message["head"]
        self.rows.update({row.row: row for row in map(decode, message["rows"])})
        for part in message["prompts"]:
            self.prompts.update({part["first"] + i: p for i, p in enumerate(part["prompts"])})
        if points := message["points"]:
            for chart, columns in points["charts"].items():
                for name, values in columns.items():
                    before = self.charts.setdefault(chart, {}).get(name, [])[: points["first"]]
                    self.charts[chart][name] = [*before, *values]
        if answer := message["answer"]:
            self.answer = self.answer + answer["text"] if answer["append"] else answer["text"]
        if thoughts := message["thoughts"]:
            self.thoughts = self.thoughts + thoughts["text"] if thoughts["append"] else thoughts["text"]
            self.summary = thoughts["summary"]
        return self


def drain(page: Page, feed: Feed) -> Page:
    for _ in range(1000):
        page.update(feed.delta(feed.head(1.0)))
        if feed.drained:
            return page
    raise AssertionError("never drained")


def shows(page: Page, feed: Feed) -> None:
    """The page holds the fold, no more and no less."""
    rows = {r: feed.row(r) for r in range(feed.n) if feed.row(r).status != "waiting"}
    assert page.rows == rows
    assert page.prompts == dict(enumerate(feed._prompt_range(range(feed.n))["prompts"]))
    assert page.charts == feed.series.points.all()["charts"]


N = 7
rows = st.integers(0, N - 1)
times = st.floats(0, 300)
steps = st.one_of(
    st.builds(Started, rows, st.integers(1, 3), st.just(ROUTE), times),
    st.builds(lambda r, t: Failed(r, 1, ROUTE, "rate_limit", "slow down", t, 0.5), rows, times),
    st.builds(lambda t: Paused(ROUTE, 2.0, "rate_limit", t), times),
    st.builds(
        lambda r, o, t: Ended(r, o, t),
        rows,
        st.sampled_from([ok(), ok("<script>"), BAD, Outcome("skipped"), Outcome("cancelled", "half")]),
        times,
    ),
    st.builds(lambda t, u: Gauge("gpu 0", u, 100, t, u // 2), times, st.integers(0, 100)),
    st.builds(lambda t: Noted("a note", t), times),
    st.tuples(rows, st.text(max_size=5)),  # a piece of an answer
    st.sampled_from(["tick", "open", "scroll"]),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(steps, max_size=60))
def test_snapshot_and_deltas_are_the_fold_at_any_moment(script: list[Any]) -> None:
    feed, page = Feed(RunInfo([f"prompt {i}" for i in range(N)])), Page()
    live: dict[int, str] = {}
    ended: set[int] = set()
    clock = 0.0
    page.update(feed.snapshot(feed.head(0.0), VIEW))
    for step in script:
        if isinstance(step, tuple):
            live[step[0]] = live.get(step[0], "") + step[1]
            feed.fold([], {r: (len(t), t) for r, t in live.items() if t}, clock, {step[0]: (len(step[1]), None)})
        elif isinstance(step, str):
            if step == "scroll":
                feed.set_visible(3, 6)
            page.update(feed.snapshot(feed.head(clock), VIEW) if step == "open" else feed.delta(feed.head(clock)))
        else:
            if isinstance(step, Ended) and step.row in ended:
                continue
            if isinstance(step, Ended):
                ended.add(step.row)
            if isinstance(step, Started | Failed) and step.row in ended:
                continue
            clock = max(clock, step.at)
            feed.fold([step], {}, clock)
    shows(drain(page, feed), feed)
    shows(Page().update(feed.snapshot(feed.head(clock), VIEW, whole=True)), feed)


def test_ten_thousand_rows_open_with_a_small_message_and_arrive_in_bounded_ones() -> None:
    feed = Feed(RunInfo([f"a prompt of row {i}, " * 10 for i in range(10_000)]))
    feed.fold([Ended(i, BAD if i % 1000 == 999 else ok("x" * 500), 1.0) for i in range(10_000)], {}, 1.0)
    page = Page()
    first = feed.snapshot(feed.head(1.0), VIEW)
    assert len(json.dumps(first)) < 3 * feeds.MAX_MESSAGE_CHARS
    begins = list(map(decode, first["rows"][:30]))
    assert [r.row for r in begins[:20]] == list(range(20)), "rows in sight come first"
    assert [r.status for r in begins[20:]] == ["error"] * 10, "then those that failed"
    page.update(first)
    sizes = []
    while not feed.drained:
        message = feed.delta(feed.head(1.0))
        sizes.append(len(json.dumps(message)))
        page.update(message)
    assert max(sizes) < 3 * feeds.MAX_MESSAGE_CHARS
    shows(page, feed)


def test_rows_in_sight_come_before_the_others() -> None:
    feed = Feed(RunInfo(["p" * 200] * 5000))
    feed.fold([Ended(i, ok("x" * 500), 1.0) for i in range(5000)], {}, 1.0)
    feed.snapshot(feed.head(1.0), VIEW)
    feed.set_visible(4000, 4020)
    message = feed.delta(feed.head(1.0))
    assert [decode(r).row for r in message["rows"][:20]] == list(range(4000, 4020))
    assert message["prompts"][0]["first"] == 4000
    assert len(message["prompts"][0]["prompts"]) == 20


def test_text_of_many_rows_in_flight_is_told_in_turn() -> None:
    feed = Feed(RunInfo(["p"] * 500))
    feed.fold([Started(i, 1, ROUTE, 0.1) for i in range(500)], {}, 0.2)
    page = drain(Page().update(feed.snapshot(feed.head(0.2), VIEW)), feed)
    feed.fold([], {i: (1, f"text {i}") for i in range(500)}, 0.3)
    message = feed.delta(feed.head(0.3))
    assert len(message["rows"]) == feeds.MAX_STREAMED_ROWS
    again = feed.delta(feed.head(0.3))
    assert {decode(r).row for r in message["rows"]}.isdisjoint({decode(r).row for r in again["rows"]})
    shows(drain(page.update(message).update(again), feed), feed)


def test_the_head_counts_and_never_shows_unknown_as_nothing() -> None:
    feed = Feed(RunInfo(["p"] * 6))
    feed.fold([Ended(0, ok(), 2.0), Ended(1, BAD, 2.0), Ended(2, ok(cost=None), 2.0), Started(3, 1, ROUTE, 2.0)], {}, 4.0)
    head = feed.head(4.0)
    assert (head["n"], head["ended"], head["ok"], head["failed"], head["in_flight"]) == (6, 3, 2, 1, 1)
    assert (head["cost"], head["errors"]) == ("$0.25 simulated + 1 unknown", [{"kind": "timeout", "n": 1}])
    assert Feed(RunInfo(["p"])).head(1.0)["cost"] == "", "before anything has ended, nothing is known"
    nothing_known = Feed(RunInfo(["p"] * 2))
    nothing_known.fold([Ended(0, ok(cost=None), 2.0)], {}, 2.0)
    assert nothing_known.head(2.0)["cost"] == "?"
    assert head["simulated"]
    real = Feed(RunInfo(["p"]))
    real.fold([Ended(0, Outcome("ok", "fine", route="openai/gpt-4.1-mini", cost=Decimal(1)), 2.0)], {}, 2.0)
    assert not real.head(2.0)["simulated"]


def test_the_head_says_how_long_it_will_take() -> None:
    feed = Feed(RunInfo(["p"] * 30))
    feed.head(0.0)
    for at in range(1, 11):
        feed.fold([Ended(at - 1, ok(), at)], {}, at)
        head = feed.head(float(at))
    assert (head["rows_s"], head["eta"]) == ("1", "20 s")


def test_a_pause_is_said_while_it_lasts() -> None:
    feed = Feed(RunInfo(["p"]))
    feed.fold([Noted("pool is starting", 0.5), Paused(ROUTE, 2.0, "rate_limit", 1.0)], {}, 1.1)
    assert feed.head(1.2)["note"] == "sim/flaky asked all rows to wait 2.0 s (rate_limit)"
    assert feed.head(3.5)["note"] == "pool is starting"


def test_a_server_that_is_gone_is_said_until_a_row_of_it_ends() -> None:
    feed = Feed(RunInfo(["p"] * 3))
    feed.fold([Paused(ROUTE, 1.0, "connection", 1.0), Failed(0, 2, ROUTE, "connection", "refused", 2.0, 0.0)], {}, 9.0)
    assert feed.head(9.0)["note"] == "waiting for the server of sim/flaky (connection): one row asks until it is back"
    feed.fold([Ended(1, ok(), 9.5)], {}, 9.5)
    assert feed.head(9.6)["note"] == ""


def test_one_answer_is_told_piece_by_piece_and_begins_anew_after_a_failure() -> None:
    feed, page = Feed(RunInfo(["p"])), Page()
    page.update(feed.snapshot(feed.head(0.0), VIEW))
    feed.fold([Started(0, 1, ROUTE, 0.1)], {0: (1, "안녕")}, 0.2)
    first = feed.delta(feed.head(0.2))
    feed.fold([], {0: (2, "안녕하세요")}, 0.3)
    second = feed.delta(feed.head(0.3))
    assert (first["answer"], second["answer"]) == ({"text": "안녕", "append": False}, {"text": "하세요", "append": True})
    feed.fold([Failed(0, 1, ROUTE, "connection", "cut", 0.4, 0.1)], {}, 0.4)
    assert feed.delta(feed.head(0.4))["answer"] == {"text": "", "append": False}
    feed.fold([Ended(0, ok("\x1b[31mred\x1b[0m" + "x" * 300_000), 0.5)], {}, 0.5)
    assert len(page.update(feed.delta(feed.head(0.5))).answer) <= 2 * PAGE_CHARS


def test_a_row_that_thinks_says_so_and_how_much_until_it_answers() -> None:
    feed, page = Feed(RunInfo(["a", "b"])), Page()
    page.update(feed.snapshot(feed.head(0.0), VIEW))

    def told(row: int) -> tuple[str, str]:
        drain(page, feed)
        return page.rows[row].status, page.rows[row].text

    feed.fold([Started(0, 1, ROUTE, 0.1), Started(1, 1, ROUTE, 0.1)], {}, 0.2, {0: (0, 412), 1: (1640, None)})
    assert (told(0), told(1)) == (("thinking", "thinking … 412 tokens"), ("thinking", "thinking … 1,640 characters"))
    feed.fold([], {0: (1, "Tea")}, 0.3, {0: (0, 512), 1: (1640, None)})
    assert (told(0), told(1)[0]) == (("running", "Tea"), "thinking")
    feed.fold([], {0: (2, "Tea.")}, 0.4, {0: (0, 600), 1: (0, None)})
    assert (told(0), told(1)) == (("running", "Tea."), ("thinking", "thinking …"))
    feed.fold([Failed(1, 1, ROUTE, "server", "gone", 0.5, 1.0)], {}, 0.5)
    assert told(1)[0] == "retrying"
    feed.fold([Started(1, 2, ROUTE, 0.6)], {}, 0.6, {1: (2, None)})
    assert told(1) == ("thinking", "thinking … 2 characters")
    shows(page, feed)


def test_the_only_row_shows_what_it_thinks_apart_from_its_answer() -> None:
    feed, page = Feed(RunInfo(["a"])), Page()
    page.update(feed.snapshot(feed.head(0.0), VIEW))
    feed.fold([Started(0, 1, ROUTE, 0.1)], {}, 0.2, {0: (2, None)}, "hm")
    page.update(feed.delta(feed.head(0.2)))
    assert (page.thoughts, page.summary, page.answer) == ("hm", "thinking … 2 characters", "")
    feed.fold([], {0: (1, "Tea")}, 0.3, {0: (5, None)}, "hm\x1b[31m so")
    message = feed.delta(feed.head(0.3))
    assert message["thoughts"] == {"text": " so", "append": True, "summary": "thinking … 5 characters"}
    page.update(message)
    assert feed.delta(feed.head(0.4))["thoughts"] is None
    feed.fold([Ended(0, ok("Tea.", usage=Usage(3, 9, tokens_reasoning=7), reasoning="hm so"), 0.5)], {}, 0.5)
    page.update(feed.delta(feed.head(0.5)))
    assert (page.thoughts, page.summary, page.answer) == ("hm so", "thought · 7 tokens", "Tea.")
    late = Page().update(feed.snapshot(feed.head(0.6), VIEW, whole=True))
    assert (late.thoughts, late.summary, late.answer) == (page.thoughts, page.summary, page.answer)


def test_a_row_without_thoughts_shows_none() -> None:
    feed = Feed(RunInfo(["a"]))
    feed.fold([Started(0, 1, ROUTE, 0.1)], {0: (1, "Tea")}, 0.2)
    assert feed.delta(feed.head(0.2))["thoughts"] is None
    feed.fold([Ended(0, ok("Tea.", usage=Usage(3, 9, tokens_reasoning=7)), 0.5)], {}, 0.5)
    assert feed.delta(feed.head(0.5))["thoughts"] is None


def test_what_models_say_is_cleaned_and_cut() -> None:
    feed = Feed(RunInfo(["<script>\x1b[31m\ud83d" + "y" * 1_000_000]))
    feed.fold([Ended(0, ok("\x1b]0;title\x07 \ud83d<b>" + "x" * 1_000_000), 0.5)], {}, 0.5)
    text = json.dumps([feed.snapshot(feed.head(0.5), VIEW)[part] for part in ("rows", "prompts")])
    assert len(text) < 1000
    assert "\\u001b" not in text
    assert "\\ud83d" not in text


def test_a_retrying_row_says_why() -> None:
    feed = Feed(RunInfo(["p", "q"]))
    feed.fold([Started(1, 1, ROUTE, 0.1), Failed(1, 1, ROUTE, "rate_limit", "slow down", 0.2, 1.5)], {}, 0.3)
    assert (feed.row(1).status, feed.row(1).text) == ("retrying", "rate_limit: slow down · again in 1.5 s")


def test_the_charts_count_tokens_in_flight_and_mark_429() -> None:
    feed = Feed(RunInfo(["p", "q"]))
    feed.fold([Started(0, 1, ROUTE, 0.1)], {}, 0.2)
    for i in range(1, 9):
        feed.fold([], {0: (i * 5, "x" * i)}, 0.2 + i / 8)
    feed.fold([Failed(1, 1, ROUTE, "rate_limit", "slow", 1.3, 1.0)], {0: (45, "x")}, 1.4)
    rate = feed.series.points.all()["charts"]["rate"]
    assert 30 <= max(v for v in rate["tokens"] if v) <= 45
    assert sum(v or 0 for v in rate["429"]) == 1


def test_the_price_elsewhere_is_a_line_of_its_own() -> None:
    feed = Feed(RunInfo(["p"] * 2, as_route="openai/gpt-4.1", price_as=lambda o: Decimal("2") * o.attempts))
    feed.fold([Ended(0, ok(), 1.0)], {}, 1.0)
    assert feed.head(1.0)["as_cost"] == "$2.00"
    assert feed.series.points.all()["charts"]["cost"]["as"][-1] == 2.0


def test_memory_is_drawn_per_device_with_what_is_ours() -> None:
    feed = Feed(RunInfo(["p"]))
    feed.fold([Gauge("gpu 0", 30, 100, 0.3, 20), Gauge("machine", 40, 200, 0.3)], {}, 0.4)
    columns = feed.series.points.all()["charts"]["memory"]
    assert {name: values[-1] for name, values in columns.items()} == {
        "gpu 0|all": 30,
        "gpu 0|total": 100,
        "gpu 0|ours": 20,
        "machine|all": 40,
        "machine|total": 200,
    }


def test_an_hour_takes_no_more_room_than_a_minute() -> None:
    feed = Feed(RunInfo(["p"] * 4000))
    sizes = []
    for second in range(3600):
        events: list[Event] = [Started(second, 1, ROUTE, second), Ended(second, ok(), second + 0.9), Gauge("m", second, 4000, second)]
        feed.fold(events, {}, second + 1)
        feed.delta(feed.head(second + 1))
        if second in (70, 3599):
            sizes.append(
                sum(len(c) for c in feed.series.points._columns.values())
                + len(feed.totals._samples)
                + sum(len(lane._rate_samples) for lane in feed.series._lanes)
            )
    assert sizes[1] <= sizes[0] * 2
    points = feed.series.points.all()
    assert points["size"] <= 240
    assert points["width"] * points["size"] >= 3600
    assert points["charts"]["cost"]["cost"][-1] == 900.0
    assert feed.drained


@given(st.lists(st.tuples(st.floats(0, 10_000), st.integers(1, 5)), min_size=1), st.sampled_from(["sum", "max", "last"]))
def test_buckets_keep_sums_and_peaks_whatever_they_join(values: list[tuple[float, int]], merge: Merge) -> None:
    buckets = Buckets(max_buckets=8, width=0.25)
    ordered = sorted(values)
    for at, value in ordered:
        buckets.put("c", "n", at, value, merge)
    joined = [v for v in buckets.all()["charts"]["c"]["n"] if v is not None]
    assert len(joined) <= 8
    assert {
        "sum": sum(joined) == sum(v for _, v in values),
        "max": max(joined) == max(v for _, v in values),
        "last": joined[-1] == ordered[-1][1],
    }[merge]


def test_a_beginning_that_all_prompts_share_is_left_out_of_the_column() -> None:
    prompts = ["Classify this review: good film", "Classify this review: gone home"]
    assert Page().update(Feed(RunInfo(prompts)).snapshot({}, VIEW)).prompts == {0: "good film", 1: "gone home"}
    assert shared_prefix(["the same question", "the same question"]) == 0
    assert shared_prefix(["Classify this review: good film"]) == 0
    assert shared_prefix([]) == 0


def test_the_head_names_the_routes_that_answered() -> None:
    """After a fallback it is not the route that gave none."""
    info = RunInfo(["p"] * 9, first_routes=("sim/stream",), fallbacks=frozenset({"sim/echo"}))
    feed = Feed(info)
    assert feed.head(1.0)["by"] == "sim/stream"
    feed.fold([Ended(0, BAD, 1.0)], {}, 1.0)
    assert feed.head(1.0)["by"] == "sim/stream"
    feed.fold([Ended(i, ok(route="sim/echo"), 1.0) for i in (1, 2)], {}, 1.0)
    assert feed.head(1.0)["by"] == "2 by fallback sim/echo"
    feed.fold([Ended(3, ok(route="sim/stream"), 1.0), Ended(4, ok(route="sim/spread"), 1.0)], {}, 1.0)
    assert feed.head(1.0)["by"] == "2 by fallback sim/echo, 1 by sim/stream, 1 by sim/spread"
    recorded = Feed(RunInfo(["p"]))
    recorded.fold([Ended(0, ok(), 1.0)], {}, 1.0)
    assert recorded.head(1.0)["by"] == ROUTE


def test_no_time_left_is_said_before_as_many_rows_were_answered_as_are_asked_at_once() -> None:
    """The first of five rows says how fast one is, and they go on together: 25 rows were 4 minutes then, and took 50 s."""
    feed = Feed(RunInfo(["p"] * 25))
    feed.head(0.0)
    feed.fold([Started(i, 1, ROUTE, 0.0) for i in range(5)], {}, 0.0)
    for row in range(5):
        feed.fold([Ended(row, ok(), 10.0), Started(row + 5, 1, ROUTE, 10.0)], {}, 10.0)
        assert bool(feed.head(10.0)["eta"]) is (row == 4)
    assert feed.head(10.0)["eta"] == "40 s"


def test_after_a_stop_the_head_says_how_long_it_takes_at_most_and_no_time_left() -> None:
    feed = Feed(RunInfo(["p"] * 30, grace_s=5.0))
    feed.head(0.0)
    feed.fold([Ended(i, ok(), i) for i in range(1, 5)] + [Started(i, 1, ROUTE, 5.0) for i in range(10, 14)], {}, 5.0)
    assert feed.head(5.0)["eta"]
    stopping = feed.head(5.2, "stopping")
    assert (stopping["eta"], stopping["note"]) == ("", "stopping: 4 rows in flight, 5 s at most")
    assert feed.head(8.0, "stopping")["note"] == "stopping: 4 rows in flight, 3 s at most"
    assert feed.head(11.0, "stopping")["note"] == "stopping: 4 rows in flight"
    assert feed.head(11.0, "stopped")["note"] == ""


def test_routes_side_by_side_have_a_line_each_in_every_chart() -> None:
    feed = Feed(RunInfo(["p"] * 4, first_routes=("a/x", "b/y"), compared=("a/x", "b/y")))
    ends = [Ended(i, ok(route="ab"[i % 2] + "/" + "xy"[i % 2], latency_s=1.0 + i % 2, cost=Decimal(1 + i % 2)), 1.0 + i) for i in range(4)]
    for event in ends:
        feed.fold([event], {}, event.at)
    charts = feed.series.points.all()["charts"]
    assert {chart: set(columns) for chart, columns in charts.items()} == {
        name: {f"{name}|a/x", f"{name}|b/y"} for name in ("cost", "latency", "rate")
    }
    assert [charts["latency"][f"latency|{r}"][-1] for r in ("a/x", "b/y")] == [1.0, 2.0]
    assert [charts["cost"][f"cost|{r}"][-1] for r in ("a/x", "b/y")] == [2.0, 4.0]


def test_an_answer_that_grows_shows_its_beginning_and_is_not_sent_again_for_what_comes_after_it() -> None:
    feed, page = Feed(RunInfo(["p", "q"])), Page()
    page.update(feed.snapshot(feed.head(0.0), VIEW))
    feed.fold([Started(0, 1, ROUTE, 0.1)], {0: (1, "Once upon")}, 0.2)
    assert drain(page, feed).rows[0].text == "Once upon"
    whole = "Once upon a time " * 20
    feed.fold([], {0: (2, whole)}, 0.3)
    assert drain(page, feed).rows[0].text.startswith("Once upon a time Once")
    feed.fold([], {0: (3, whole)}, 0.4)
    assert feed.delta(feed.head(0.4))["rows"] == []


def test_rows_say_what_the_result_holds() -> None:
    feed = Feed(RunInfo(["p", "q", "r"]))
    feed.fold([Ended(0, ok(cached=True), 1.0), Ended(1, BAD, 1.0), Ended(2, Outcome("skipped"), 1.0)], {}, 1.0)
    assert [(feed.row(r).status, feed.row(r).cached) for r in range(3)] == [("ok", True), ("error", False), ("skipped", False)]
    assert feed.row(1).text == "timeout: nothing for 60 s"
    assert (feed.row(0).tokens_in, feed.row(0).tokens_out, feed.row(2).tokens_in) == ("3", "5", "")


def test_the_common_beginning_is_told_once_and_of_a_long_one_both_ends() -> None:
    first = Feed(RunInfo(["Classify this review: good film", "Classify this review: gone home"])).snapshot({}, VIEW)
    assert first["shared_prefix"] == "Classify this review:"
    long = Feed(RunInfo([f"one {'word ' * 500}two {i}" for i in range(2)])).snapshot({}, VIEW)["shared_prefix"]
    assert long.startswith("one word") and long.endswith("word two") and len(long) < 700


behind_steps = st.one_of(
    st.builds(Started, rows, st.just(1), st.just(ROUTE), times),
    st.builds(lambda r, o, t: Ended(r, o, t), rows, st.sampled_from([ok(), BAD, Outcome("cancelled", "half")]), times),
    st.sampled_from(["tick", "open"]),
)


class WindowPage(Page):
    """Of a run longer than the table: as `keeps` of table.js."""

    def __init__(self) -> None:
        super().__init__()
        self.listed = 0

    def update(self, message: Any) -> Page:
        if message["kind"] == "snapshot":
            super().update(message)
            self.listed = message["listed"]
        else:
            super().update(message)
        for row, line in list(self.rows.items()):
            if row >= self.listed and line.status not in ("running", "thinking", "retrying", "error"):
                del self.rows[row]
                self.prompts.pop(row, None)
        return self


@settings(max_examples=100, deadline=None)
@given(st.lists(behind_steps, max_size=40))
def test_a_page_of_a_long_run_has_its_first_rows_those_in_flight_and_some_that_failed(script: list[Any]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(feeds, "LISTED_ROWS", 3)
        patch.setattr(feeds, "LISTED_FAILED", 2)
        feed, page = Feed(RunInfo([f"prompt {i}" for i in range(N)])), WindowPage()
        page.update(feed.snapshot(feed.head(0.0), VIEW))
        ended: dict[int, Outcome] = {}
        in_flight: set[int] = set()
        for step in script:
            if isinstance(step, Started) and step.row not in ended:
                in_flight.add(step.row)
                feed.fold([step], {}, 1.0)
            elif isinstance(step, Ended) and step.row not in ended:
                ended[step.row] = step.outcome
                in_flight.discard(step.row)
                feed.fold([step], {}, 1.0)
            elif isinstance(step, str):
                page.update(feed.snapshot(feed.head(1.0), VIEW) if step == "open" else feed.delta(feed.head(1.0)))
        drain(page, feed)
        failed = [r for r, o in ended.items() if r >= 3 and o.status == "error"][:2]
        listed = {r for r in range(3) if r in ended or r in in_flight}
        assert page.rows.keys() == listed | {r for r in in_flight if r >= 3} | set(failed)
        assert page.rows == {r: feed.row(r) for r in page.rows}
        assert page.prompts.keys() == {0, 1, 2} | {r for r in page.rows if r >= 3}
        assert (page.head["ended"], page.head["in_flight"]) == (len(ended), len(in_flight)), "the figures are of all rows"
        assert len(feed.outcomes) <= 5


def test_a_view_that_opens_late_holds_no_more_of_a_long_run_than_its_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeds, "LISTED_ROWS", 1_000)
    monkeypatch.setattr(feeds, "LISTED_FAILED", 200)
    journal = Journal(8_000)
    for row in range(8_000):
        journal.append(Ended(row, BAD if row % 2 else ok(), 1.0))
    feed, parts = Feed(RunInfo(["p"] * 8_000)), []
    for events in journal.parts_since(0):
        feed.fold_events(events)
        parts.append(len(events))
    assert sum(parts) == 8_000
    assert max(parts) < 8_000
    message = feed.snapshot(feed.head(1.0), VIEW, whole=True)
    assert (message["head"]["failed"], message["listed"], len(message["rows"])) == (4_000, 1_000, 1_200)
    assert "first 1,000 of 8,000 rows" in message["window"]
