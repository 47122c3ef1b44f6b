"""Cost and saved prompts: what the commands print, what a cell saves, what --confirm asks."""

from __future__ import annotations

import builtins
import datetime as dt
from decimal import Decimal
from pathlib import Path

import pytest
from ui.shells import Here

import holynb
from holynb import runlog
from holynb.config.options import Options
from holynb.pricing import spending
from holynb.pricing.spending import SpendingLine
from holynb.prompts import saved


# -- saved prompts -----------------------------------------------------------------------------------------------------------
def test_a_cell_saves_its_prompt_and_a_line_runs_it(here: Here) -> None:
    here("name = 'Ada'")
    result = here("%%infer sim/echo -S hello --max-tokens 5\nHello {{ name }}, how are you today?")
    assert "Saved as hello. %infer run --use hello" in result.out
    assert result.value["text"][0].startswith("Hello Ada")
    again = here("%infer run --use hello")
    assert again.value["text"].tolist() == result.value["text"].tolist()
    assert again.value["finish_reason"].tolist() == ["length"], "the sampling is saved too"
    here("name = 'Grace'")
    assert here("%infer run --use hello sim/stream -q --max-tokens 2").value["route"].tolist() == ["sim/stream"]
    assert here("%%infer r << --use hello\n").value is None
    assert here.shell.user_ns["r"]["text"][0].startswith("Hello Grace")


def test_saving_alone_sends_nothing(here: Here) -> None:
    result = here("%%infer sim/echo -S later -N\nWhat is {{ not_there_yet }}?")
    assert result.error is None
    assert result.value is None
    assert "Saved as later" in result.out
    assert saved.load("later").body == "What is {{ not_there_yet }}?"
    assert len(here("%infer runs").out.splitlines()) == 1
    assert "give it a name with -S NAME" in here.refused("%%infer sim/echo -N\nx")


def test_saving_again_says_what_became_of_the_one_before(here: Here) -> None:
    here("%%infer sim/echo -S a -N\none")
    assert "in place of" not in here("%%infer sim/echo -S a -N\none").out
    assert "replacing an earlier one, which is kept" in here("%%infer sim/echo -S a -N\ntwo").out
    assert here("%%infer r << sim/echo -S a -q\nthree").out == ""


def test_a_cell_that_cannot_be_sent_saves_nothing(here: Here) -> None:
    here.refused("%%infer sim/echo -S bad\n{{ not_there }}")
    assert saved.listing() == []


def test_prompts_are_listed_shown_and_removed(here: Here) -> None:
    assert "No prompt is saved yet" in here("%infer prompts").out
    here("%%infer sim/echo -S one --system Kind. -N\nfirst line\nsecond line")
    here("%%infer -S two -N\n\x1b[31mred")
    listed = here("%infer prompts").out
    assert [line.split()[0] for line in listed.splitlines()] == ["name", "one", "two"]
    assert "system=Kind." in listed
    assert "\x1b" not in listed
    assert here("%infer prompts one").out.endswith("first line\nsecond line\n")
    assert "prompts/before" in here("%infer prompts two --remove").out
    assert "Did you mean one?" in here.refused("%infer prompts on")
    assert "say which" in here.refused("%infer prompts --remove")
    assert "takes one name" in here.refused("%infer prompts a b")


def test_use_with_a_prompt_of_its_own_is_refused(here: Here) -> None:
    here("%%infer sim/echo -S a -N\none")
    assert "brings its own prompt" in here.refused("%%infer --use a\nanother")
    assert "Unexpected argument 'more'" in here.refused("%infer run --use a sim/echo more")
    assert "no saved prompt" in here.refused("%infer run --use nothing")


def test_python_uses_and_saves_them_too(here: Here) -> None:
    holynb.infer("Say {{ x }}\n---\nSay it again", "sim/echo", save="two", max_tokens=9).wait()
    saved.save("frame", "Say {{ x }}", "sim/echo", Options())
    import pandas as pd

    run = holynb.infer(None, use="frame", df=pd.DataFrame({"x": [1, 2]})).wait()
    assert run.frame()["text"].tolist() == ["Say 1", "Say 2"]
    with pytest.raises(holynb.UserError, match=r"not defined|no variable|There is no"):
        holynb.infer(None, use="frame")
    with pytest.raises(holynb.UserError, match="keeps one text"):
        holynb.infer(["a", "b"], "sim/echo", save="x")
    with pytest.raises(holynb.UserError, match="no_execute has no meaning"):
        holynb.infer("a", "sim/echo", save="x", no_execute=True)


# -- money ---------------------------------------------------------------------------------------------------------------------
def test_cost_by_day_and_by_month(here: Here, home: Path) -> None:
    assert "No requests in the last 14 days." in here("%infer cost").out
    here("%%infer sim/echo -l -q\none two three\nfour five six")
    here("%%infer sim/echo -l -q\none two three\nfour five six")
    days = here("%infer cost").out
    assert days.splitlines()[0].split() == ["day", "route", "model", "sent", "failed", "cached", "tokens", "in", "tokens", "out", "cost"]
    assert "simulated" in days
    assert "Simulated, not billed" in days
    month = here("%infer cost --month").out
    assert [line.split()[0] for line in month.splitlines()[:3]] == ["route", "sim/echo", "all"]
    assert month.splitlines()[1].split()[1:4] == ["4", "0", "2"]
    assert "There is no run 'nightly' in the run log" in here.refused("%infer cost nightly")
    here("%%infer sim/echo -q --name nightly\nseven")
    assert here("%infer cost nightly").out.startswith("nightly on sim/echo: $0.0000")
    assert " simulated and 1 + 1 tokens over all attempts, 1 of 1 row answered, started just now." in here("%infer cost nightly").out
    assert "takes a run or --month" in here.refused("%infer cost --mont")
    assert "Did you mean --month" in here.refused("%infer cost --mont")


def test_what_pools_alone_answered_is_free_in_the_sum_too(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    def line(route: str, cost: str | None, unknown: int = 0) -> SpendingLine:
        return SpendingLine(dt.date(2026, 11, 1), route, "m", 9, 0, 0, 90, 90, cost and Decimal(cost), unknown)  # type: ignore[arg-type]

    pool, sim = line("pool/m", None), line("sim/echo", "0.5")
    for lines, ends in (([pool, sim], "free"), ([pool, line("vllm/m", None, 9)], "?"), ([pool, line("a/b", "0.5")], "$0.50")):
        monkeypatch.setattr(spending, "by_day", lambda *_, listed=lines, **__: listed)
        (last,) = [text for text in here("%infer cost --month").out.splitlines() if text.startswith("all but sim")]
        assert last.split()[-1] == ends


def test_the_cache_is_counted_and_cleared(here: Here) -> None:
    here("%%infer sim/echo -l -q\none\ntwo")
    assert here("%infer cache").out.startswith("2 answers can be reused")
    assert here("%infer cache clear").out.startswith("2 answers will not be reused")
    assert here("%infer cache").out.startswith("0 answers")
    assert here("%%infer sim/echo -l -q\none\ntwo").value["cached"].tolist() == [False, False]
    assert "Did you mean clear?" in here.refused("%infer cache cleer")


def test_price_as_is_in_the_final_line_and_in_the_log(here: Here) -> None:
    result = here("%%infer sim/echo -l --name priced --price-as openai/gpt-4.1-nano\none two three\nfour five")
    assert " as openai/gpt-4.1-nano ·" in result.out
    assert holynb.last.summary().alternative.cost > 0
    from holynb.run import session

    session._session.clear()
    assert " as openai/gpt-4.1-nano ·" in here("%infer show priced").out
    assert "--price-as needs a price for vllm/x" in here.refused("%%infer sim/echo --price-as vllm/x\nhello")


def test_confirm_where_nobody_can_answer(here: Here) -> None:
    line = here.refused("%%infer sim/echo --confirm 0.000001\nhello there")
    assert "--confirm 0.000001" in line
    assert "no way to ask here" in line
    assert here("%infer runs").out.startswith("There is no run yet")
    assert here("%%infer sim/echo --confirm 5\nhello there").value["status"].tolist() == ["ok"]


@pytest.mark.parametrize(("answer", "rows"), [("y", 1), ("Yes ", 1), ("", 0), ("no", 0)])
def test_confirm_asks_a_person(here: Here, monkeypatch: pytest.MonkeyPatch, answer: str, rows: int) -> None:
    questions: list[str] = []
    monkeypatch.setattr(here.shell._holynb, "can_ask", lambda: True)
    monkeypatch.setattr(builtins, "input", lambda question: questions.append(question) or answer)
    result = here("%%infer sim/echo --confirm 0.000001\nhello there")
    assert len(questions) == 1
    assert "1 row on sim/echo may cost $" in questions[0]
    assert (0 if result.value is None else len(result.value)) == rows
    assert rows or "Nothing was sent." in result.err


def test_each_word_has_help(here: Here) -> None:
    for word in ("prompts", "cost", "cache"):
        assert here(f"%infer {word} --help").out.startswith(f"%infer {word}")
        assert f"%infer {word}" in here("%infer help").out


# -- answers as columns ------------------------------------------------------------------------------------------------------
MOOD = 'mood = {"type": "object", "properties": {"stars": {"type": "integer", "minimum": 1, "maximum": 5}}, "required": ["stars"]}'


def test_a_schema_of_the_notebook_is_saved_shown_and_sent_again(here: Here) -> None:
    here(MOOD)
    assert "schema=mood," in here("%%infer sim/json --schema mood --show-code\nHow many stars?").out
    assert "Answers must match mood; its columns: stars." in here("%%infer sim/json --schema mood --dry-run\nHow many stars?").out
    result = here("%%infer r << sim/json -l --schema mood -S stars --name held -p broken=1\nOne row\nOther row")
    assert "2 of 2 failed: 2 invalid_output" in result.out
    assert "the answer does not match the schema" in result.out
    assert here.shell.user_ns["r"]["stars"].dtype == "Int64", "whatever came"
    used = here("%infer run --use stars -p broken=0").value
    assert used["status"].tolist() == ["ok", "ok"]
    assert used["stars"].between(1, 5).all()
    assert "2 invalid_output" in here("%infer show held").out


def test_rows_that_do_not_hold_and_are_sent_again_are_paid_twice_in_the_log(here: Here) -> None:
    here(MOOD)
    here("%%infer r << sim/json -l --schema mood --name held -p broken=1\nOne row\nOther row")
    frame, first = here.shell.user_ns["r"], runlog.log().find("held")
    assert first is not None
    assert float(first.cost or 0) == pytest.approx(frame["cost"].sum())
    here("%infer run --only failed held")
    again = runlog.log().find("held")
    assert again is not None
    assert first.cost is not None
    assert again.cost == 2 * first.cost
    answers = runlog.log().answers(again.id)
    assert [outcome.attempts for _, outcome in answers.values()] == [4, 4]


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        ("moood", "there is no such variable or file. Did you mean mood?"),
        ("loop", "contains itself (#)"),
        ("worse", "no keyword 'propertys'. Did you mean properties?"),
        ("number", "is an int, not a JSON Schema"),
        ("a.json", "no such file"),
    ],
)
def test_a_schema_that_is_not_there_or_none_is_one_line(here: Here, schema: str, says: str) -> None:
    here(MOOD)
    here("loop = {'$ref': '#'}; worse = {'type': 'object', 'propertys': {}}; number = 5")
    assert says in here.refused(f"%%infer sim/json --schema {schema}\nx")
