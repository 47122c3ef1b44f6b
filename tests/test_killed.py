"""kill -9 in the middle of runs over real HTTP: what was answered is there, only the rest is sent, and nothing is in the log twice."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal
from pathlib import Path

from killed import Counting, child, finished, halfway, kill
from servers.exact import Exact

from holynb.runlog.store import RunLog

ROWS, LANES = 300, 16


def test_half_of_a_run_is_killed_and_only_the_rest_is_sent_again(home: Path):
    report = halfway(home, ROWS, LANES)
    assert report.frame["ok"] == ROWS
    assert report.frame["wrong"] == 0
    assert report.logged == ROWS
    assert 0 < report.kept < ROWS
    assert report.frame["cached"] == report.kept, "what was on disk is not asked again"
    assert report.frame["attempts"] == ROWS - report.kept
    assert report.more == 0
    assert report.twice <= LANES, "a lane frees only when its answer is on disk, so no more than were in flight"
    assert report.sent == ROWS + report.twice


def test_a_budget_holds_over_kills_and_goes_with_and_without_it(home: Path):
    """The server bills all that it is sent, also what was under way at a kill and came to nobody. Every go stays below the budget together."""
    each, rows = Decimal("0.001"), 200
    budget = rows * each
    tokens = 1000  # as many as the prompt may have at most: a row costs what it is reserved for
    (home / "config.toml").write_text('[price."openai/m"]\ninput = 0\noutput = 1\n', encoding="utf-8")
    server = Counting(wrote=tokens)
    options = {"concurrency": LANES, "cache": False, "budget": float(budget), "max_tokens": tokens}
    log = RunLog(home / "runs.sqlite")
    with Exact(server) as exact:
        for requests in (60, 120):
            with child(home, ROWS, "held", {"OPENAI": exact.base}, **options) as process:
                server.wait(requests)
                kill(process)
        lost = server.seen.total() - len(log.answers(log.find("held").id))
        with child(home, ROWS, "held", {"OPENAI": exact.base}, **options) as process:
            assert finished(process)["ok"] < ROWS, "the budget does not cover them all"
        assert lost > 0
        sent = server.seen.total()
        assert sent * each <= budget
        assert sent * each >= budget * Decimal("0.8"), "what a kill takes from it is what was under way, and a little"
        with child(home, ROWS, "held", {"OPENAI": exact.base}, **options) as process:
            finished(process)
        assert server.seen.total() * each <= budget, "a go that ended forgets nothing"


def test_two_kernels_a_failover_and_a_kill_share_one_log(home: Path):
    """Both processes start on one provider, which dies; one process is killed after that, and goes on by its name."""
    first, second = Counting(dies_at=80), Counting()
    with Exact(first) as one, Exact(second) as two:
        bases = {"OPENAI": one.base, "DEEPSEEK": two.base}
        options = {"fallback": ["deepseek/m"], "concurrency": LANES, "retries": 1, "cache": False}
        with child(home, ROWS, "left", bases, **options) as left, child(home, ROWS, "right", bases, **options) as right:
            second.wait(ROWS)
            kill(left)
            steady = finished(right)
        with child(home, ROWS, "left", bases, **options) as again:
            resumed = finished(again)
    for frame in (steady, resumed):
        assert frame["ok"] == ROWS
        assert frame["wrong"] == 0
        assert frame["routes"].get("deepseek/m", 0) > 0
        assert frame["moved"] > 0, "the frame says why a row moved"
    seen = first.seen + second.seen
    mine = Counter({row: n for row, n in seen.items() if row.endswith("right")})
    assert steady["attempts"] == mine.total(), "attempts are what the servers saw, of the kernel that lived"
    log = RunLog(home / "runs.sqlite")
    for name in ("left", "right"):
        record = log.find(name)
        assert record is not None
        assert (record.n, record.ok, record.failed, record.status) == (ROWS, ROWS, 0, "done")
        answers = log.answers(record.id)
        assert sorted(answers) == list(range(ROWS))
        assert all(outcome.text == f"answer to row {row} of {name}" for row, (_, outcome) in answers.items())
    answered = Counter(second.seen)
    assert sum(n - 1 for row, n in answered.items() if row.endswith("left")) <= LANES, (
        "sent twice where they are answered: only what was in flight"
    )
