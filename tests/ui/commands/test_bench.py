"""`%infer bench` in a real IPython: its arguments, table, figure and value."""

from __future__ import annotations

import json
import os
import re
import signal
import threading
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from ui.shells import Here

from holynb import cli
from holynb.config.options import Options
from holynb.prompts import saved
from holynb.run.bench import Measured
from holynb.ui.commands import bench_report

GOOD = Measured("sim/echo", 4, 4, None, 10.0, 120.0, 0.5, 0.01, 0.02, 0.2, 0.3, 30, 12, None, 0.3, 90.0, simulated=True)
BAD = Measured("vllm/x", 4, 0, "connection: <b>refused</b>", steps=1, setup="vllm serve")


def test_the_value_is_a_frame_and_is_shown_once(here: Here) -> None:
    result = here("%infer bench sim/echo,sim/stream -n 2 --max-tokens 3")
    assert isinstance(result.value, pd.DataFrame)
    assert result.value.index.tolist() == ["sim/echo", "sim/stream"]
    assert result.out.count("sim/stream") == 1
    assert "tokens/s" in result.out
    assert "Dollars of sim/ are simulated." in result.out
    assert here.shell.user_ns["_"] is result.value


def test_inside_time_and_assigned_it_gives_the_same(here: Here) -> None:
    here("r = %infer bench sim/echo -n 2 -q")
    assert here.shell.user_ns["r"]["ok"].tolist() == [2]
    assert here("%time %infer bench sim/echo -n 2 -q").error is None


def test_prompts_from_a_variable_a_frame_a_file_and_a_saved_prompt(here: Here, tmp_path: Path) -> None:
    here("texts = ['one two', 'three']\nimport pandas as pd\ndf = pd.DataFrame({'id': [1], 'prompt': ['from a frame']})")
    pd.DataFrame({"text": ["a", "b", "c"]}).to_csv(tmp_path / "asks.csv")
    saved.save("mine", "first\n---\nsecond", "sim/echo", Options(system="Kind."))
    for name, rows in (("texts", 2), ("df", 1), (str(tmp_path / "asks.csv"), 3), ("mine", 2)):
        assert here(f"%infer bench sim/echo -q --prompts {name}").value["rows"].tolist() == [rows], name
    assert here("%infer bench sim/echo -q --prompts mine").value["tokens_in"].iloc[0] > 2, "the saved system prompt goes along"


def test_mistakes_are_one_line(here: Here) -> None:
    assert "takes the routes to compare" in here.refused("%infer bench")
    assert "no variable, saved prompt or file" in here.refused("%infer bench sim/echo --prompts nothing")
    assert "Did you mean --prompts" in here.refused("%infer bench sim/echo --prompt x")
    assert "--requests-per-day takes a whole number" in here.refused("%infer bench sim/echo --requests-per-day many")
    assert "There is no provider" in here.refused("%infer bench nowhere/x")
    assert "There is no option --name" in here.refused("%infer bench sim/echo --name x")


LABELLED = (
    "import pandas as pd\nasks = pd.DataFrame({'prompt': ['pos', 'neg', None, 'meh', 'pos'], 'y': ['pos', 'pos', 'pos', None, 'POS.']})"
)


def test_how_good_each_route_is_stands_beside_its_speed_and_cost(here: Here) -> None:
    """Three of the rows have a prompt and a label; two of those are answered by what they ask."""
    here(LABELLED)
    result = here("%infer bench sim/echo,vllm/x --prompts asks --label y --retries 0")
    good, refused = result.value.to_dict("records")
    assert (good["rows"], good["compared"], good["accuracy"], good["failed"]) == (4, 3, pytest.approx(2 / 3), 0)
    assert (good["accuracy_low"], good["accuracy_high"]) == pytest.approx((0.2077, 0.9385), abs=1e-4)
    assert refused["failed"] == 1, "the cold row alone was asked"
    assert pd.isna(refused["accuracy"])
    assert "66.7 % (20.8 to 93.9)" in result.out
    assert "accuracy (95 %)" in result.out
    exact = here("%infer bench sim/echo --prompts asks --label y --exact -n 8 -q").value
    assert (exact["compared"].tolist(), exact["accuracy"].tolist()) == ([6], [pytest.approx(1 / 3)])
    assert here("%infer bench sim/echo --prompts asks -q").value["accuracy"].isna().all()


def test_what_cannot_be_a_label_of_a_bench_is_refused_in_one_line(here: Here) -> None:
    here(f"{LABELLED}\ntexts = ['a', 'b']")
    for line, message in (
        ("--label y", "--label y names a column: --prompts takes a frame or a file"),
        ("--label y --prompts texts", "--label y names a column: --prompts takes a frame or a file"),
        ("--label z --prompts asks", "--label z: there is no such column. Known: prompt, y"),
        ("--exact --prompts asks", "--exact says how answers are compared with labels: add --label COL."),
        ("--exact", "--exact says how answers are compared with labels: add --label COL."),
    ):
        assert message in here.refused(f"%infer bench sim/echo {line}"), line


def test_help_lists_its_options(here: Here) -> None:
    out = here("%infer bench --help").out
    assert out.startswith("%infer bench R1,R2")
    assert "--requests-per-day N" in out
    assert "--requests-per-day" not in here("%infer help").out, "the list has a line for each word"


def test_html_escapes_and_says_what_is_unknown() -> None:
    page = bench_report.as_html([GOOD, BAD])
    assert "&lt;b&gt;refused" in page
    assert "<script" not in page
    assert page.count("<tr ") == 3
    assert ">?<" in page
    assert "accuracy" not in page.lower(), "nobody asked"
    labelled = bench_report.as_html([replace(GOOD, compared=4, accuracy=0.75, accuracy_low=0.3, accuracy_high=0.954, failed=1)])
    assert ">75.0 % (30.0 to 95.4)<" in labelled
    assert ">Accuracy<" in labelled
    text = bench_report.as_text([GOOD, BAD])
    assert "vllm/x: connection: <b>refused</b>" in text
    assert "10.0 ms · 20.0 ms" in text


def test_bars_say_what_they_measure() -> None:
    page = bench_report.bars_html([GOOD, BAD])
    shown = [t for t in re.split(r"<[^>]*>", page) if t]
    assert [t for t in shown if t[0].isupper()] == ["Tokens/s", "First token", "Whole answer", "Cost of 1,000 rows"]
    assert {"120", "10 ms", "0.30 s", "$0.30"} <= set(shown)
    assert bench_report.bars_html([BAD]) == ""


def test_the_console_says_the_same_and_speaks_json(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert cli.main(["bench", "sim/echo", "-n", "3"]) == 0
    streams = capsys.readouterr()
    assert "3 of 3" in streams.out
    assert "sim/echo: 3 of 3 rows answered" in streams.err
    assert cli.main(["bench", "sim/echo,vllm/x", "-n", "3", "--retries", "0", "--json"]) == 0
    first, second = json.loads(capsys.readouterr().out)
    assert (first["ok"], second["ok"]) == (3, 0)
    assert second["accuracy"] is None
    pd.DataFrame({"text": ["a", "b"], "y": ["a", "c"]}).to_csv(tmp_path / "asks.csv", index=False)
    assert cli.main(["bench", "sim/echo", "--prompts", str(tmp_path / "asks.csv"), "--label", "y"]) == 0
    assert "50.0 % (9.5 to 90.5)" in capsys.readouterr().out
    assert cli.main(["bench", "vllm/x", "--retries", "0", "-n", "1"]) == 1
    capsys.readouterr()
    assert cli.main(["bench", "sim/ecko"]) == 2
    assert cli.main(["bench", "--help"]) == 0
    assert "--requests-per-day" in capsys.readouterr().out


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_keeps_what_was_measured(here: Here) -> None:
    timer = threading.Timer(1.5, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    result = here("%infer bench sim/echo,sim/stream -n 4")
    timer.join()
    assert "Interrupted: 1 of 2 routes are measured." in result.out + result.err
    assert "Traceback" not in result.out + result.err
    assert here("1 + 1").value == 2
