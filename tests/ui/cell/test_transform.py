"""The rewrite to `await`: at top level only, whatever surrounds it, and gone when taken out."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ui.shells import run, shell

from holynb.ui.cell import transform


class Recorder:
    """Stands where the magics stand, and says which door was used."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str, str]] = []

    async def acell(self, line: str, cell: str) -> str:
        await asyncio.sleep(0)
        self.calls.append(("awaited", line, cell))
        return "awaited"

    async def aline(self, line: str) -> str:
        self.calls.append(("awaited line", line, ""))
        return "awaited"

    def infer(self, line: str, cell: str | None = None) -> str:
        self.calls.append(("sync" if cell is not None else "sync line", line, cell or ""))
        return "sync"


@pytest.fixture
def here() -> Iterator[tuple[Any, Recorder]]:
    with shell() as ip:
        recorder = Recorder()
        setattr(ip, transform.ATTRIBUTE, recorder)
        for kind in ("line", "cell"):
            ip.magics_manager.magics[kind]["infer"] = recorder.infer
        installed = transform.install(ip)
        try:
            yield ip, recorder
        finally:
            transform.remove(ip, installed)
            delattr(ip, transform.ATTRIBUTE)


@pytest.mark.parametrize(
    ("cell", "call"),
    [
        ("%%infer sim/echo -n 5\nhello\n", ("awaited", "sim/echo -n 5", "hello\n")),
        ("%%infer\nhello", ("awaited", "", "hello\n")),
        ("\n\n%%infer sim/echo\nhello\n", ("awaited", "sim/echo", "hello\n")),
        ("  %%infer sim/echo\n  hello\n    there\n", ("awaited", "sim/echo", "hello\n  there\n")),
        ("%%holynb x\nhello\n", ("awaited", "x", "hello\n")),
        ("# what customers think\n%%infer x\nhello\n# kept\n", ("awaited", "x", "hello\n# kept\n")),
        ("\n# %%\n  \n#!python\n# %%infer y\n%%infer x\nhello\n", ("awaited", "x", "hello\n")),
        ("  # indented\n  %%infer x\n  hello\n", ("awaited", "x", "hello\n")),
        ("\ufeff%%infer x\nhello\n", ("awaited", "x", "hello\n")),
        ("\ufeff# a\r\n%%infer x\r\nhello\r\n", ("awaited", "x", "hello\r\n")),
        ("%%infer sim/echo", ("awaited", "sim/echo", "")),
        ('%%infer\nit\'s {x} {{ y }} \\n "quoted";\n', ("awaited", "", 'it\'s {x} {{ y }} \\n "quoted";\n')),
        ("%%infer --system don't\n%time x = 1\n!ls\n%%infer\n?\n", ("awaited", "--system don't", "%time x = 1\n!ls\n%%infer\n?\n")),
        ("%infer run --only failed", ("awaited line", "run --only failed", "")),
        ("\n  %infer resume demo -c 4\n\n", ("awaited line", "resume demo -c 4", "")),
        ("%infer status", ("sync line", "status", "")),
        ("x = 1\n%infer run --only failed", ("sync line", "run --only failed", "")),
        ("x = %infer run --only failed", ("sync line", "run --only failed", "")),
    ],
)
def test_what_is_awaited_at_top_level(here: tuple[Any, Recorder], cell: str, call: tuple[str, str, str]) -> None:
    ip, recorder = here
    assert run(ip, cell).error is None
    assert recorder.calls == [call]


@pytest.mark.parametrize(
    ("cell", "line"),
    [
        ("%infer what is a cache?", "what is a cache?"),
        ("%infer what's a cache?", "what's a cache?"),
        ("  %infer what is a cache ?  \n\n", "what is a cache ?"),
        ("x = 1\n%holynb why??\n", "why??"),
        ("!true\nif True:\n    %infer what?\n", "what?"),
        ("%infer run it?", "run it?"),
        ("%infer 한국어로 설명해 줄래?", "한국어로 설명해 줄래?"),
    ],
)
def test_a_question_to_infer_is_not_one_to_ipython(here: tuple[Any, Recorder], cell: str, line: str) -> None:
    ip, recorder = here
    for name in ("infer", "holynb"):
        ip.magics_manager.magics["line"][name] = recorder.infer
    try:
        assert run(ip, cell).error is None
    finally:
        del ip.magics_manager.magics["line"]["holynb"]
    assert recorder.calls == [("sync line", line, "")]


@pytest.mark.parametrize(
    "cell",
    [
        "%infer?",
        "%infer??",
        "%infer status",
        "%%infer\n%infer what?\n",
        'x = """\n%infer what is it?\n"""\n',
        "# %infer what?",
        "%inference what?",
        "%infer ?",
    ],
)
def test_other_questions_are_left_to_ipython(cell: str) -> None:
    lines = cell.splitlines(keepends=True)
    assert transform.unasked(lines) == lines


@pytest.mark.parametrize(
    "cell",
    [
        "# a\nprint(1)\n%%infer\n",
        "# a\n",
        "# a\n%%inference\nx\n",
        "%%inference\nx\n",
        "%%infer?\n",
        "# %%infer\n",
        "print(1)\n",
        "%%infers",
        "%inferno run",
        "",
    ],
)
def test_what_is_not_ours_is_left_alone(cell: str) -> None:
    lines = cell.splitlines(keepends=True)
    assert transform.rewrite(lines) == lines


@pytest.mark.parametrize(
    "cell",
    [
        "%%time\n%%infer sim/echo\nhello\n",
        "%%capture\n%%infer sim/echo\nhello\n",
        "get_ipython().run_cell('%%infer sim/echo\\nhello\\n')",
        "get_ipython().run_cell_magic('infer', 'sim/echo', 'hello\\n')",
        "import asyncio\nawait asyncio.sleep(0)\nget_ipython().run_cell('%%infer sim/echo\\nhello\\n')",
        "get_ipython().run_cell('')\nget_ipython().run_cell('%%infer sim/echo\\nhello\\n')",
    ],
)
def test_nested_in_a_cell_that_runs_the_synchronous_magic_takes_over(here: tuple[Any, Recorder], cell: str) -> None:
    ip, recorder = here
    result = run(ip, cell)
    assert result.error is None
    assert recorder.calls == [("sync", "sim/echo", "hello\n")]
    assert run(ip, "%%infer sim/echo\nafter\n").value == "awaited"


def test_run_cell_from_a_callback_of_a_running_loop_is_synchronous(here: tuple[Any, Recorder]) -> None:
    ip, recorder = here

    async def front_end() -> None:
        run(ip, "%%infer sim/echo\nhello\n")

    asyncio.run(front_end())
    assert [c[0] for c in recorder.calls] == ["sync"]


def test_run_cell_in_another_thread_is_synchronous(here: tuple[Any, Recorder]) -> None:
    ip, recorder = here
    thread = threading.Thread(target=ip.run_cell, args=("%%infer sim/echo\nhello\n",))
    thread.start()
    thread.join(10)
    assert [c[0] for c in recorder.calls] == ["sync"]


def test_without_autoawait_nothing_is_rewritten(here: tuple[Any, Recorder]) -> None:
    ip, recorder = here
    ip.autoawait = False
    run(ip, "%%infer sim/echo\nhello\n")
    assert [c[0] for c in recorder.calls] == ["sync"]


def test_a_terminal_still_sees_an_unfinished_cell(here: tuple[Any, Recorder]) -> None:
    ip, _ = here
    assert ip.input_transformer_manager.check_complete("%%infer sim/echo")[0] == "incomplete"
    assert ip.input_transformer_manager.check_complete("%%infer sim/echo\nhello")[0] == "incomplete"
    assert ip.input_transformer_manager.check_complete("%%infer sim/echo\nhello\n\n")[0] == "complete"


def test_it_stands_first_and_leaves_nothing() -> None:
    with shell() as ip:
        before = list(ip.input_transformers_cleanup)
        installed = transform.install(ip)
        assert ip.input_transformers_cleanup[:2] == [transform.uncovered, installed]
        transform.remove(ip, installed)
        transform.remove(ip, installed)
        assert ip.input_transformers_cleanup == before


def test_a_comment_above_is_no_hindrance_inside_another_magic(here: tuple[Any, Recorder]) -> None:
    ip, recorder = here
    assert run(ip, "%%time\n# a\n%%infer x\nhello\n").error is None
    assert run(ip, "get_ipython().run_cell('# a\\n%%infer y\\nhello')").error is None
    assert [call[:2] for call in recorder.calls] == [("sync", "x"), ("sync", "y")]


def test_a_terminal_waits_for_the_body_below_a_comment_and_the_magic(here: tuple[Any, Recorder]) -> None:
    ip, _ = here
    assert ip.check_complete("# a\n%%infer x\n")[0] == "incomplete"
    assert ip.check_complete("# a\nx = 1\n")[0] == "complete"


LINES = ["%%infer x\n", "# a\n", "\n", "  # b\n", "y = 1\n", "%%time\n", "hello\n", '"""\n', "\ufeff"]


@given(st.lists(st.sampled_from(LINES), max_size=6))
def test_only_what_python_would_skip_is_left_out(lines: list[str]) -> None:
    kept = transform.uncovered(lines)
    assert kept == lines or kept[0].startswith("%%infer")
    dropped = lines[: len(lines) - len(kept)]
    assert all(not line.strip("\ufeff \n") or line.lstrip("\ufeff ").startswith("#") for line in dropped)
