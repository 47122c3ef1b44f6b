"""What a plan will cost: what is answered already is not counted, answers of the same kind narrow the range, --confirm holds it."""

from __future__ import annotations

from decimal import Decimal

import pytest

import holynb
from holynb import runlog
from holynb.config.options import Options
from holynb.errors import BadOption
from holynb.run import plan, quote, resume

TEXTS = [f"Say again, please, number {i}: {'words and more words ' * (i % 7 + 1)}" for i in range(200)]
pytestmark = pytest.mark.usefixtures("ended")


def made(texts: list[str], route: str = "sim/echo", **options: object) -> plan.Plan:
    return resume.continued(plan.make(texts, route, Options.parse(options)))


def test_nothing_measured_is_a_wide_range() -> None:
    said = quote.quote(made(TEXTS))
    assert (said.estimate.rows, said.answered, said.estimate.measured) == (200, 0, 0)
    low, high = said.range
    assert 0 < low < high
    assert said.says().startswith("$")


def test_a_few_rows_sent_first_make_it_narrow_and_right() -> None:
    holynb.infer(TEXTS[:20], "sim/echo").wait()
    said = quote.quote(made(TEXTS))
    assert (said.estimate.rows, said.answered, said.estimate.measured) == (180, 20, 20)
    run = holynb.infer(TEXTS, "sim/echo").wait()
    bill = sum(o.cost for o in run.rows())
    low, high = said.range
    assert low <= bill <= high <= 2 * low
    assert quote.quote(made(TEXTS)).says() == "nothing"


def test_answers_of_another_kind_teach_nothing() -> None:
    holynb.infer([f"{i} is another kind" for i in range(20)], "sim/echo").wait()
    holynb.infer(TEXTS[:20], "sim/echo", system="Another.").wait()
    assert quote.quote(made(TEXTS)).estimate.measured == 0


def test_refresh_no_cache_and_resume() -> None:
    holynb.infer(TEXTS[:50], "sim/echo", name="nightly", cache=False).wait()
    assert quote.quote(made(TEXTS[:50])).answered == 0, "not offered to other runs"
    assert quote.quote(made(TEXTS[:50], name="nightly", cache=False)).answered == 50, "but it is that run's own"
    assert quote.quote(made(TEXTS[:50], name="nightly", refresh=True)).answered == 0


def test_rows_that_ask_the_same_are_counted_once() -> None:
    texts = ["the same"] * 5 + ["another"] + ["the same"] * 4
    said = quote.quote(made(texts))
    assert (said.estimate.rows, said.answered) == (2, 8)
    assert quote.quote(made(texts, refresh=True)).estimate.rows == 2
    assert quote.quote(made(texts, cache=False)).estimate.rows == 10
    assert [sum(o.attempts for o in holynb.infer(texts, "sim/echo", cache=c).wait().rows()) for c in (True, False)] == [2, 10]


def test_pools_cost_nothing_and_an_unknown_price_is_said() -> None:
    assert quote.quote(made(TEXTS, "pool/smollm2-135m")).says() == "nothing"
    said = quote.quote(made(TEXTS, "vllm/mine"))
    assert said.range is None
    assert "no price is known for vllm/mine" in said.says()


def test_confirm_fails_where_nobody_can_answer_and_names_the_flag() -> None:
    with pytest.raises(BadOption, match=r"200 rows on sim/echo may cost \$.* above --confirm 0.01, and there is no way to ask") as caught:
        holynb.infer(TEXTS, "sim/echo", confirm=0.01)
    assert "\n" not in str(caught.value)
    assert runlog.log().runs() == [], "nothing was started"
    with pytest.raises(BadOption, match=r"above --confirm 0\.00001, and"):
        holynb.infer(TEXTS, "sim/echo", confirm=0.00001)
    with pytest.raises(BadOption, match="no price is known for vllm/mine"):
        holynb.infer(TEXTS, "vllm/mine", confirm=100)
    assert holynb.infer(TEXTS[:2], "sim/echo", confirm=5).wait().summary().ok == 2
    assert holynb.infer(TEXTS[:2], "sim/echo", confirm=0).wait().summary().cached == 2, "what costs nothing needs no leave"


def test_confirm_asks_once_and_a_no_sends_nothing() -> None:
    asked: list[str] = []

    def answer(yes: bool):
        return lambda question: asked.append(question) or yes

    over = made(TEXTS, confirm=0.001)
    quote.check(over, answer(True))
    with pytest.raises(BadOption, match="Nothing was sent"):
        quote.check(over, answer(False))
    quote.check(made(TEXTS, confirm=1000), answer(False))
    quote.check(made(TEXTS), answer(False))
    assert len(asked) == 2
    assert asked[0].startswith("200 rows on sim/echo may cost $")


def test_a_log_that_cannot_be_read_counts_as_empty(home) -> None:
    holynb.infer(TEXTS[:20], "sim/echo").wait()
    runlog.close()
    (home / "runs.sqlite").write_bytes(b"not a database at all" * 100)
    for beside in ("-wal", "-shm"):
        (home / f"runs.sqlite{beside}").unlink(missing_ok=True)
    assert quote.quote(made(TEXTS)).estimate.rows == 200


def test_the_range_is_in_dollars_of_the_route() -> None:
    cheap, dear = (quote.quote(made(TEXTS, r, api_key_name=None)).range[1] for r in ("sim/echo", "sim/stream"))
    assert cheap == dear > Decimal(0)
