"""The same prompts over several routes: what is measured agrees with what the simulator is known to do, and what is not known stays unknown."""

from __future__ import annotations

import pandas as pd
import pytest

from holynb import pools, runlog
from holynb.config import settings
from holynb.config.options import Options
from holynb.errors import BadKey, BadOption, BadPrompt, BadRoute
from holynb.run import bench
from holynb.run.bench import Bench, measure, plans, setup, table
from holynb.types import Route

pytestmark = pytest.mark.usefixtures("no_project", "ended")


def one(route: str, n: int = 4, **options: object) -> bench.Measured:
    (found,) = measure(Bench([route], ["one two three four", "five six"], Options.parse({"limit": n, **options})))
    return found


def test_figures_are_those_of_a_stream_of_ten_words_a_second() -> None:
    m = one("sim/stream", max_tokens=5)
    assert (m.route, m.rows, m.ok, m.error, m.simulated) == ("sim/stream", 4, 4, None, True)
    assert 0.09 < m.ttft_p50_s <= m.ttft_p95_s < 0.4
    assert 0.45 < m.latency_p50_s <= m.latency_p95_s < 1.0
    assert 0.45 < m.cold_s < 2.0
    assert m.tokens_out == 5
    assert 10 < m.tokens_per_s <= 4 * 10.1, "four streams at once, five words in half a second each"
    assert m.rows_per_s == pytest.approx(m.tokens_per_s / 5)


def test_money_is_the_mean_row_times_the_load() -> None:
    found = list(measure(Bench(["sim/echo"], ["one two three four"], Options(limit=10), per_day=500)))
    each = (4 * 2.00 + 4 * 8.00) / 1e6
    assert found[0].cost_1000 == pytest.approx(each * 1000)
    assert found[0].cost_month == pytest.approx(each * 500 * 30)


def test_nothing_is_answered_from_the_run_log_nor_offered_to_it() -> None:
    first, second = one("sim/echo"), one("sim/echo")
    assert (first.ok, second.ok) == (4, 4)
    assert second.cost_1000 == first.cost_1000 > 0
    assert runlog.log().clear() == 0


def test_routes_are_measured_one_after_the_other_and_once() -> None:
    settings.override(alias={"same": "sim/echo"})
    found = list(measure(Bench(["sim/echo", "same", "sim/stream"], ["a b c"], Options(max_tokens=2))))
    assert [m.route for m in found] == ["sim/echo", "sim/stream"]
    runs = {r.route: r for r in runlog.log().runs()}
    assert runs["sim/stream"].started >= runs["sim/echo"].ended


def test_a_route_that_fails_says_why_and_the_others_go_on() -> None:
    refused, good = measure(Bench(["vllm/x", "sim/echo"], ["a"], Options.parse({"limit": 3, "retries": 0})))
    assert refused.ok == 0
    assert "connection" in refused.error
    assert (refused.rows_per_s, refused.ttft_p50_s, refused.cost_1000, refused.cold_s) == (None,) * 4
    assert good.ok == 3
    partly = one("sim/flaky", 30, retries=0, p=["seconds=0"])
    assert 0 < partly.ok < 30
    assert f"{30 - partly.ok} of 30 failed" in partly.error


def test_mistakes_are_found_before_anything_is_sent() -> None:
    with pytest.raises(BadKey, match="OPENAI_API_KEY"):
        plans(Bench(["sim/echo", "openai/gpt-4.1"]))
    with pytest.raises(BadRoute):
        plans(Bench(["sim/echo", "nowhere/x"]))
    with pytest.raises(BadOption, match="needs routes"):
        plans(Bench([]))
    with pytest.raises(BadPrompt, match="needs at least one prompt"):
        plans(Bench(["sim/echo"], []))
    assert runlog.log().runs() == []


def test_the_frames_dtypes_do_not_depend_on_what_was_measured() -> None:
    full, empty = table([one("sim/echo")]), table([])
    failed = table(list(measure(Bench(["vllm/x"], ["a"], Options.parse({"retries": 0})))))
    assert full.dtypes.to_dict() == empty.dtypes.to_dict() == failed.dtypes.to_dict()
    assert full.index.tolist() == ["sim/echo"]
    assert pd.isna(failed["cost_month"].iloc[0])
    assert set(full.columns) == set(bench.COLUMNS) - {"route"}


def test_set_up_steps_are_data() -> None:
    def steps(route: str) -> tuple[str, ...]:
        return setup(settings.endpoint(Route.parse(route)))

    settings.override(provider={"mine": {"base": "https://example.com/v1"}})
    assert steps("sim/echo") == steps(settings.EMBEDDED) == steps("mine/x") == ()
    assert steps("openai/gpt-4.1") == ("a key from https://platform.openai.com/api-keys", "%infer key openai")
    assert len(steps("vllm/x")) == 3
    assert "%infer pool start" in steps("pool/llama")[0]


def test_twenty_prompts_of_its_own_of_four_kinds() -> None:
    assert len(set(bench.PROMPTS)) == 20
    (pair,) = plans(Bench(["sim/echo"]))
    assert [len(p.rows.requests) for p in pair] == [1, 20]
    assert all(r.stream and r.sampling.max_tokens == bench.MAX_TOKENS for r in pair[1].rows.requests)


@pytest.mark.usefixtures("fake_pools")
def test_a_pool_starts_in_the_cold_row_and_says_its_context(model: str) -> None:
    pools.start(model, name="tiny")
    m = one("pool/tiny", max_tokens=4)
    assert (m.ok, m.error) == (4, None)
    assert m.context == pools.status("tiny").max_len
    assert m.cost_1000 is None, "no price for its devices is set"


@pytest.mark.usefixtures("keyed")
def test_a_model_that_thinks_has_room_to_answer() -> None:
    """64 tokens are fewer than it thinks."""
    limits = {}
    for cold, _ in plans(Bench(["openai/gpt-6-luna", "openai/gpt-4.1-mini", "sim/echo"], ["hello"])):
        limits[str(cold.route)] = [r.sampling.max_tokens for r in cold.rows.requests if r is not None]
    assert limits == {"openai/gpt-6-luna": [8192], "openai/gpt-4.1-mini": [64], "sim/echo": [64]}
