"""`--think` end to end: what is sent over HTTP, what is said once, what a refusal teaches, and which answer of the run log is the same."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from servers.exact import Asked, Exact, Step, reply

import holynb
from holynb import loop, runlog
from holynb.config.options import Options
from holynb.events import Noted
from holynb.run import plan, pythoncode, resume, session
from holynb.ui.commands import preview

ROUTE = "openai/gpt-6-luna"
pytestmark = [pytest.mark.usefixtures("keyed"), pytest.mark.filterwarnings("ignore:.*takes thinking levels:UserWarning")]


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    session._session.clear()
    yield
    loop.close()
    runlog.close()


def whole(text: str = "good") -> Sequence[Step]:
    return [reply({"model": "m", "choices": [{"index": 0, "message": {"content": text}, "finish_reason": "stop"}]})]


def taking(*refused: str) -> Exact:
    """A server that does not know these fields."""

    def script(request: Asked, number: int) -> Sequence[Step]:
        for name in refused:
            if name in request.json:
                return [
                    reply({"error": {"message": f"Unrecognized request argument supplied: {name}", "type": "invalid_request_error"}}, 400)
                ]
        return whole()

    return Exact(script)


def ask(server: Exact, prompts: Any = ("Say tea.",), route: str = ROUTE, **said: Any) -> holynb.Run:
    return holynb.infer(list(prompts) if isinstance(prompts, tuple) else prompts, route, api_base=server.base, **said).wait(30)


def noted(run: holynb.Run) -> list[str]:
    """Its notes about thinking, which stay below the result: warnings."""
    return [e.text for e in run.journal.events_since(0)[0] if isinstance(e, Noted) and "think" in e.text and e.level == "warning"]


def planned(route: str, **said: Any) -> plan.Plan:
    return plan.make("Say tea.", route, Options.parse({"dry_run": True, **said}), variables={})


def test_a_level_is_sent_by_the_cell_and_by_each_row():
    import pandas as pd

    with taking() as server:
        ask(server, think="high")
        rows = pd.DataFrame({"x": ["a", "b", "c"], "think": ["low", None, "off"]})
        ask(server, "Say {{ x }}.", df=rows, params_from="think", concurrency=1, think="max")
        ask(server, [{"prompt": "d", "think": 12000}])
        ask(server, ("plain",))
    assert [a.json.get("reasoning_effort") for a in server.asked] == ["high", "low", "max", "none", "medium", None]


def test_what_a_model_cannot_do_is_one_note_of_the_run_and_of_the_dry_run():
    line = "openai/gpt-4.1 does not think: --think high is left out."
    with taking() as server, pytest.warns(UserWarning, match="does not think"):
        run = ask(server, ("one", "two", "three"), "openai/gpt-4.1", think="high")
    assert noted(run) == [line]
    assert preview.text(planned("openai/gpt-4.1", think="high")).count(line) == 1
    assert "left out" not in preview.text(planned(ROUTE, think="high"))


def test_rows_of_many_levels_get_one_note_a_kind():
    import pandas as pd

    rows = pd.DataFrame({"think": ["low", "high", 100, 200, 3000]})
    made = plan.make("x", "openai/gpt-4.1", Options.parse({"df": rows, "params_from": "think", "dry_run": True}), variables={})
    assert [n for n in made.notes if "think" in n] == ["openai/gpt-4.1 does not think: --think low is left out."]


def test_every_route_that_a_row_may_come_to_is_looked_at():
    notes = planned(ROUTE, think="high", fallback="openai/gpt-4.1").notes
    assert "openai/gpt-4.1 does not think: --think high is left out." in notes


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (
            {"max_tokens": 5},
            "openai/gpt-6-luna thinks before it answers, and --max-tokens 5 may not be enough for both: with --think off it",
        ),
        ({"max_tokens": 64}, "with --think off it answers at once."),
        ({"max_tokens": 65}, None),
        ({"max_tokens": 5, "think": "off"}, None),
        ({"max_tokens": 5, "think": "low"}, None),
        ({"max_tokens": 5, "p": ["reasoning_effort=none"]}, None),
        ({}, None),
    ],
)
def test_a_short_answer_of_a_model_that_thinks_unasked_gets_a_line(said: Any, words: str | None):
    notes = [n for n in planned(ROUTE, **said).notes if "think" in n]
    assert len(notes) == (words is not None)
    assert words is None or words in notes[0]


def test_a_short_answer_of_a_model_that_always_thinks():
    assert any(
        "its thinking cannot be switched off, so allow more tokens, or add --think low." in n
        for n in planned("openai/gpt-6.1-sol", max_tokens=5).notes
    )
    assert not [n for n in planned("openai/gpt-4.1", max_tokens=5).notes if "think" in n]


def test_p_stands_above_think_and_says_so():
    notes = planned(ROUTE, think="low", p=["reasoning_effort=high"]).notes
    assert "-p reasoning_effort is sent unchanged, and overrides --think low." in notes


def test_a_field_that_a_server_refuses_is_learned_once_and_said_once_a_run():
    line = "vllm/some does not take reasoning_effort, so --think high is left out."
    with taking("reasoning_effort", "chat_template_kwargs") as server:
        first = ask(server, ("one", "two", "three", "four"), "vllm/some", think="high", concurrency=1)
        second = ask(server, ("five", "six"), "vllm/some", think="high")
        assert list(first.frame()["status"]) == ["ok"] * 4
        assert ["reasoning_effort" in a.json for a in server.asked] == [True, *[False] * 7]
        assert ["chat_template_kwargs" in a.json for a in server.asked] == [True, True, *[False] * 6]
    assert (noted(first)[-1], noted(second)) == (line, [line])


def test_a_temperature_that_a_server_refuses_is_said_once_a_run():
    line = "vllm/warm does not take temperature, so it is left out."
    with taking("temperature") as server:
        runs = [ask(server, (f"one {i}", f"two {i}"), "vllm/warm", temperature=0.2) for i in range(2)]
        assert sum("temperature" in a.json for a in server.asked) <= 2, "learned by the rows that were under way together"
    assert [[e.text for e in r.journal.events_since(0)[0] if isinstance(e, Noted)].count(line) for r in runs] == [1, 1]


def test_an_answer_that_was_thought_about_is_another_answer():
    with taking() as server:
        for think in (None, "low", "low", 1000, None):
            ask(server, think=think)
        assert len(server.asked) == 3
        run = ask(server, ("again",), think="max", name="kept")
        assert session.find("kept") is run
        session._session.clear()
        assert [r.sampling.think for r in resume.resumed("kept").rows.requests if r] == ["max"]


def test_the_code_of_a_cell_names_it():
    assert "think='low'," in pythoncode.code("x", ROUTE, Options.parse({"think": "low"}))
    assert "think=4000," in pythoncode.code("x", ROUTE, Options.parse({"think": "4000"}))
