"""What Tab offers in a `%%infer` line, and that it offers nothing below it."""

from __future__ import annotations

import time
from collections import deque
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from IPython.core.interactiveshell import InteractiveShell

from holynb import runlog
from holynb.config import settings
from holynb.ui.cell import complete
from holynb.ui.line_magic import COMMANDS


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("HOLYNB_HOME", str(tmp_path))
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine.json").write_text("{}", encoding="utf-8")
    settings.override(alias={"fast": "sim/stream"})
    monkeypatch.chdir(tmp_path)
    (tmp_path / "review.json").write_text("{}", encoding="utf-8")
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "deep.json").write_text("{}", encoding="utf-8")
    yield tmp_path
    runlog.close()
    settings.reset()


class Review:
    """As a pydantic model looks."""

    @staticmethod
    def model_json_schema() -> dict[str, Any]:
        return {}


WEIRD = pd.DataFrame([[1] * 6], columns=["a b", 'say "hi"', "none", 0, "x\ny", "한글"])
VARIABLES = {
    "weird": WEIRD,
    "Review": Review,
    "stars": {"type": "object"},
    "reviews": pd.DataFrame({"text": [1], "task_type": [2], "best_of": [3]}),
    "tone": "be kind",
    "_x": pd.DataFrame(),
    "n": 3,
}


def offered(line: str, body: str = "prompt", row: int = 0) -> list[str] | None:
    """What is offered at the `|`, or at the end of the body's first line."""
    column = line.index("|") if "|" in line else len(line)
    text = line.replace("|", "")
    token = next((text[i:column] for i in range(column, -1, -1) if i == 0 or text[i - 1] in " =,"), "")
    suggestions = complete.suggest(
        f"{text}\n{body}" if text.startswith("%%") else text, row, column, token, variables=lambda: VARIABLES, commands=lambda: COMMANDS
    )
    return None if suggestions is None else [t for t, _ in suggestions]


@pytest.mark.parametrize(
    ("line", "some"),
    [
        ("%%infer |", ["fast", "pool/mine", "sim/echo", "openai/gpt-6-luna"]),
        ("%infer models up|", ["update"]),
        ("%infer models open|", ["openai"]),
        ("%infer prices |", ["update"]),
        ("%infer prices update --t|", ["--take"]),
        ("%infer models update |", ["--take", "--from", "--remove"]),
        ("%%infer sim/|", ["sim/echo", "sim/flaky", "sim/json", "sim/stream"]),
        ("%%infer sim/echo --con|", ["--connect-timeout", "--concurrency"]),
        ("%%infer sim/echo -|", ["-n", "-c", "--df"]),
        ("%%infer sim/echo --think |", ["off", "low", "medium", "high", "max"]),
        ("%%infer sim/echo --df |", ["reviews"]),
        ("%%infer sim/echo --df=r|", ["reviews"]),
        ("%%infer --df reviews |", ["sim/echo"]),
        ("%%infer sim/echo --df reviews --label t|", ["text", "task_type"]),
        ("%%infer sim/echo --df reviews --judge s|", ["sim/json", "sim/echo"]),
        ("%%infer sim/echo --df reviews --params-from t|", ["text", "task_type"]),
        ("%%infer sim/echo --df reviews --params-from text,b|", ["best_of"]),
        ("%%infer sim/echo --system-from |", ["tone"]),
        ("%%infer sim/echo --show |", ["all", "table", "charts", "none"]),
        ("%%infer sim/echo --fallback sim/echo,f|", ["fast"]),
        ("%%infer answers << s|", ["sim/echo"]),
        ("%%infer sim/| --df reviews", ["sim/echo"]),
        ("%%holynb sim/e|", ["sim/echo"]),
        ("%%infer sim/echo -p |", ["fault=", "latency=", "thoughts="]),
        ("%%infer sim/echo -p fa|", ["fault="]),
        ("%%infer sim/echo -p fault=|", ["429", "stall", "oom"]),
        ("%%infer sim/echo -p fault=4|", ["429", "401"]),
        ("%%infer fast -p ti|", ["times="]),
        ("%%infer -p | pool/mine", ["top_k=", "min_p=", "ignore_eos=", "chat_template_kwargs="]),
        ("%%infer pool/mine -p ignore_eos=|", ["true", "false"]),
        ("%%infer pool/mine -p reasoning_effort=|", ["low", "high"]),
        ("%%infer kept << gemini/gemini-2.5-pro -p sa|", ["safetySettings="]),
        ("%%infer bedrock/x -p perf|", ["performanceConfig="]),
        ("%%infer anthropic/x -p out|", ["output_config="]),
        ("%%infer openai/x -p ver|", ["verbosity="]),
        ("%%infer sim/echo --schema |", ["Review", "stars", "review.json", "more/"]),
        ("%%infer sim/echo --schema more/|", ["more/deep.json"]),
        ("%infer |", ["models", "show", "pool"]),
        ("%infer sh|", ["show"]),
        ("%infer pool st|", ["start", "status", "stop"]),
        ("%infer pool p|", ["plan"]),
        ("%infer pool stop |", ["mine"]),
        ("%infer models |", ["anthropic", "pool", "sim"]),
        ("%infer key az|", ["azure"]),
        ("%infer bench sim/echo,f|", ["fast"]),
    ],
)
def test_what_fits_is_offered(line: str, some: list[str]) -> None:
    suggestions = offered(line)
    assert suggestions is not None
    assert set(some) <= set(suggestions)


@pytest.mark.parametrize(
    ("line", "body", "some"),
    [
        ("%%infer sim/echo --df reviews", "Is {{ te", ["text"]),
        ("%%infer sim/echo --df reviews", "Is {{ ", ["text", "task_type", "best_of", "tone", "n"]),
        ("%%infer sim/echo --df=reviews", "Is {{", ["text"]),
        ("%%infer sim/echo --df reviews", "{{ text }} and {{ ta", ["task_type"]),
        ("%%infer sim/echo --df reviews", "{% if ta", ["task_type"]),
        ("%%infer sim/echo", "Say {{ to", ["tone"]),
        ("%%infer sim/echo --df weird", "{{ ", ['row["a b"]', 'row["say \\"hi\\""]', 'row["none"]', 'row["0"]', 'row["x\\ny"]', "한글"]),
        ("%%infer sim/echo --df weird", "{{ say", ['row["say \\"hi\\""]']),
    ],
)
def test_what_a_template_may_name_is_offered_in_its_braces(line: str, body: str, some: list[str]) -> None:
    suggestions = in_body(line, body)
    assert suggestions is not None
    assert set(some) <= set(suggestions)


@pytest.mark.parametrize(
    ("line", "body"),
    [
        ("%%infer sim/echo --df reviews", "a te"),
        ("%%infer sim/echo --df reviews", "{{ text }} te"),
        ("%%infer sim/echo --df reviews", "{ te"),
        ("%%infer sim/echo --df reviews --raw", "{{ te"),
        ("%%infer sim/echo --df reviews", "{{ text | te"),
        ("%%infer sim/echo --df reviews", "{{ row.te"),
        ("%%infer sim/echo --df reviews", '{{ "te'),
        ("%%infer sim/echo --df nothing", "{{ te"),
    ],
)
def test_prose_is_left_alone(line: str, body: str) -> None:
    assert in_body(line, body) == []


def test_a_very_wide_frame_does_not_hold_up_a_key() -> None:
    wide = {"wide": pd.DataFrame([[0] * 10_001], columns=[*map(str, range(10_000)), "x" * 1_000_000])}
    began = time.process_time()
    suggestions = in_body("%%infer sim/echo --df wide", "{{ ", wide)
    assert time.process_time() - began < 0.5
    assert suggestions is not None
    assert max(map(len, suggestions)) < 200
    assert len(suggestions) <= 1_000


def in_body(line: str, body: str, variables: Any = None) -> list[str] | None:
    token = next((body[i:] for i in range(len(body), -1, -1) if i == 0 or body[i - 1] in ' {[("'), "")
    found = complete.suggest(
        f"{line}\nfirst\n{body}", 2, len(body), token, variables=lambda: variables or VARIABLES, commands=lambda: COMMANDS
    )
    return None if found is None else [t for t, _ in found]


@pytest.mark.parametrize(
    ("line", "row"),
    [
        ("%%infer sim/echo ", 1),
        ("%%infer", 3),
        ("%%infer sim/echo nothing|", 0),
        ("%%infer sim/echo --max-tokens |", 0),
        ("%%infer sim/echo --into |", 0),
    ],
)
def test_nothing_is_offered_and_nobody_else_may(line: str, row: int) -> None:
    assert offered(line, "Why does import \nfail here\n", row) == []


@pytest.mark.parametrize("line", ["import o|", "%%inf|", "%%timeit |", "x = '%%infer' |", "%%infer sim/echo --file da|", ""])
def test_other_lines_are_left_to_ipython(line: str) -> None:
    assert offered(line) is None


def test_every_option_is_offered() -> None:
    from holynb.config.options import TABLE

    suggestions = offered("%%infer sim/echo --|")
    assert suggestions is not None
    assert {o.flags[-1] for o in TABLE if o.flags[-1].startswith("--")} <= set(suggestions)


def test_in_ipython_the_body_is_silent_at_once_and_the_line_is_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holynb.run.session._session", deque())  # routes of earlier runs are offered too
    shell = InteractiveShell()
    complete.install(shell, lambda: VARIABLES, lambda: COMMANDS)
    complete.install(shell, lambda: VARIABLES, lambda: COMMANDS)
    assert len(shell.Completer.custom_matchers) == 1
    try:
        cell = "%%infer sim/echo\nimport pandas as pd\npd.Da"
        started = time.process_time()
        assert _all(shell, cell) == []
        assert time.process_time() - started < 0.5
        assert _all(shell, "%%infer sim/e") == ["sim/echo"]
        assert "pandas" in _all(shell, "import pand")
    finally:
        complete.remove(shell)
    assert shell.Completer.custom_matchers == []


def _all(shell: Any, text: str) -> list[str]:
    from IPython.core.completer import provisionalcompleter

    with provisionalcompleter():
        return [c.text for c in shell.Completer.completions(text, len(text))]


def test_a_comment_above_the_magic_is_not_in_the_way() -> None:
    def at(row: int, column: int, token: str) -> list[str] | None:
        text = "# what customers think\n\n  %%infer sim/echo --df r\n  reviews"
        given = complete.suggest(text, row, column, token, variables=lambda: VARIABLES, commands=lambda: COMMANDS)
        return None if given is None else [t for t, _ in given]

    assert at(2, len("  %%infer sim/echo --df r"), "r") == ["reviews"]
    assert at(3, 3, "r") == []
    assert at(0, 3, "w") is None
