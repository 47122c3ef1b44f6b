"""A magic called in a function reads that function's names. Looked at: `%%infer`, `%infer run`, `%infer bench`; the form and completion
belong to no function.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from typing import Any

import pytest
from ui.shells import Here, shell

CALL = "get_ipython().run_cell_magic('infer', 'out << sim/echo -q', '{{ who }}')"
FRAME = "get_ipython().run_cell_magic('infer', 'out << sim/echo -q --df mine', '{{ x }} {{ who }}')"


@pytest.fixture(scope="module")
def here() -> Iterator[Here]:
    with shell() as ip:
        ip.run_cell("%load_ext holynb\nimport pandas as pd, asyncio\nwho = 'notebook'")
        yield Here(ip)


PROGRAMS = {
    "a function": (f"def ask():\n    who = 'local'\n    {CALL}\nask()", ["local"]),
    "a frame of it": (f"def ask():\n    mine, who = pd.DataFrame({{'x': ['row']}}), 'local'\n    {FRAME}\nask()", ["row local"]),
    "an argument": (f"def ask(who):\n    {CALL}\nask('given')", ["given"]),
    "the notebook's, where it has none": (f"def ask():\n    {CALL}\nask()", ["notebook"]),
    "a function in a function": (f"def ask():\n    who = 'outer'\n    def inner():\n        x = 1\n        {CALL}\n    inner()\nask()", ["outer"]),
    "the inner one first": (f"def ask():\n    who = 'outer'\n    def inner():\n        who = 'inner'\n        {CALL}\n    inner()\nask()", ["inner"]),
    "not who called it": (f"def ask():\n    {CALL}\ndef other():\n    who = 'caller'\n    ask()\nother()", ["notebook"]),
    "a comprehension": (f"def ask():\n    [{CALL} for who in ['each']]\nask()", ["each"]),
    "what is around a comprehension": (f"def ask():\n    who = 'around'\n    [{CALL} for _ in [1]]\nask()", ["around"]),
    "a generator": (f"def ask():\n    who = 'around'\n    list({CALL} for _ in [1])\nask()", ["around"]),
    "a lambda that pandas calls": (f"def ask():\n    who = 'around'\n    pd.Series([1]).map(lambda _: {CALL})\nask()", ["around"]),
    "a method": (f"class A:\n    def ask(self):\n        who = 'method'\n        {CALL}\nA().ask()", ["method"]),
    "a body of a class": (f"class A:\n    who = 'class'\n    {CALL}", ["class"]),
    "an async function": (f"async def ask():\n    who = 'async'\n    await asyncio.sleep(0)\n    {CALL}\nawait ask()", ["async"]),
    "the top of a cell": (f"who = 'top'\n{CALL}\nwho = 'notebook'", ["top"]),
    "time": (f"def ask():\n    who = 'timed'\n    {CALL}\n%time ask()", ["timed"]),
    "where": ("def ask():\n    mine, least = pd.DataFrame({'x': [1, 5]}), 3\n    get_ipython().run_cell_magic('infer', 'out << sim/echo -q --df mine --where \"x > @least\"', '{{ x }}')\nask()", ["5"]),
    "system-from": ("def ask():\n    said = 'be brief'\n    get_ipython().run_cell_magic('infer', 'out << sim/echo -q --system-from said', 'hi')\nask()", ["hi"]),
}  # fmt: skip


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_names_where_the_magic_stands_are_read(program: str, here: Here) -> None:
    source, expected = PROGRAMS[program]
    here.shell.user_ns.pop("out", None)
    result = here(source)
    assert result.error is None, result.err
    assert list(here["out"]["text"]) == expected
    assert "mine" not in here.shell.user_ns


def test_a_module_of_ones_own_has_names_of_its_own(here: Here) -> None:
    module: Any = types.ModuleType("asker")
    exec(f"from IPython import get_ipython\nwho = 'module'\ndef ask():\n    {CALL}", module.__dict__)
    sys.modules["asker"] = module
    try:
        assert here("import asker; asker.ask()").error is None
        assert list(here["out"]["text"]) == ["module"]
    finally:
        del sys.modules["asker"]


def test_a_name_that_is_nowhere_is_suggested_from_the_function(here: Here) -> None:
    result = here(
        "def ask():\n    mines = pd.DataFrame({'x': [1]})\n    get_ipython().run_cell_magic('infer', 'sim/echo --df mine', '{{ x }}')\nask()"
    )
    assert "Did you mean mines?" in result.err + result.out
