"""No test finds what another one left in this process: everything that a module keeps is forgotten, or may stay for a reason."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import process_state
import pytest
from layout import PACKAGES, ROOT, name_of
from process_state import EMPTIED, STAYS, TOLD

#: What a module assigns at its outermost to a name in small letters, and what its functions declare as such.
ASSIGNED = re.compile(r"^(_?[a-z][a-z_0-9]*)(?:: [^=]+)? = (.+?)(?:  #.*)?$|^ +global (.+?)(?:  #|$)", re.MULTILINE)
#: What is made once and holds nothing that changes.
FIXED = re.compile(r"attrgetter|getattr|checks\.number|json\.JSONEncoder")


def kept(source: str) -> Iterator[str]:
    """Names that hold what a module's functions change: objects that are made, and what is declared `global`."""
    for name, value, declared in ASSIGNED.findall(source):
        if declared:
            yield from declared.split(", ")
        elif value.endswith((")", "{}", "[]")) and not FIXED.match(value):
            yield name


def test_everything_that_a_module_keeps_is_in_a_table() -> None:
    paths = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    found = {f"{name_of(path)}.{name}" for path in paths for name in kept(path.read_text(encoding="utf-8"))}
    forgotten = [f"{module}.{name}" for module, names in EMPTIED.items() for name in names]
    forgotten += [f"{module}.{name}" for module, (_, _, names) in TOLD.items() for name in names]
    assert found == {*forgotten, *STAYS}


@pytest.mark.parametrize(
    "source",
    [
        "_seen: dict[str, int] = {}",
        "_gate = _Gate()",
        "_all = WeakSet[int]()",
        "def f():\n    global _seen  # noqa",
        "x = []\n",
        "a = Lock()\nB = 1\n",
    ],
)
def test_what_is_kept_is_found(source: str) -> None:
    assert len(list(kept(source))) == 1


@pytest.mark.parametrize("module", EMPTIED)
def test_it_is_empty_afterwards(module: str) -> None:
    loaded = import_module(module)
    for name in EMPTIED[module]:
        one = getattr(loaded, name)
        mark = type("Mark", (), {"__init__": lambda self, *_: None})()
        for fill in (lambda: one.set(), lambda: one.add(mark), lambda: one.append(mark), lambda: one.update({mark: mark})):  # noqa: B023
            try:
                fill()
                break
            except AttributeError:
                continue
        assert one.is_set() if hasattr(one, "is_set") else len(one)
        process_state.forget()
        assert not (one.is_set() if hasattr(one, "is_set") else len(one)), name


def test_settings_language_and_loop_are_as_at_the_start() -> None:
    from holynb import loop, translation
    from holynb.config import settings

    settings.override(default="sim/flaky")
    translation.choose(lambda: "ko")
    loop.submit(nothing()).result(10)
    process_state.forget()
    assert settings.current().default is None
    assert translation._chosen is None
    assert not loop.running()


async def nothing() -> None:
    pass


def test_the_process_is_restored(tmp_path: Path) -> None:
    os.environ["HOLYNB_TEST_CHANGED"] = "before"
    folder, handler = Path.cwd(), signal.getsignal(signal.SIGINT)
    with process_state.restored():
        os.environ["HOLYNB_TEST_CHANGED"] = "inside"
        os.environ["HOLYNB_TEST_ADDED"] = "inside"
        del os.environ["HOLYNB_HOME"]
        os.chdir(tmp_path)
        signal.signal(signal.SIGINT, lambda *_: None)
    assert os.environ["HOLYNB_TEST_CHANGED"] == "before"
    assert "HOLYNB_TEST_ADDED" not in os.environ
    assert "HOLYNB_HOME" in os.environ
    assert Path.cwd() == folder
    assert signal.getsignal(signal.SIGINT) is handler
    os.environ["HOLYNB_TEST_LEFT"] = "for the next"


def test_what_the_one_before_left_is_gone() -> None:
    assert not [name for name in os.environ if name.startswith("HOLYNB_TEST_") and name != "HOLYNB_TEST_MODELS"]
