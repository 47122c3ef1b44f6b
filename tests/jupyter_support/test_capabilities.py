"""What is told apart: front ends, versions, nobody there. The shells here are the few attributes that IPython's have."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from kernels_support.jupyter.capabilities import Capabilities, detect

LAB = {"content": {"allow_stdin": True}, "metadata": {"cellId": "a1", "deletedCells": []}}


def shell(parent: dict[str, Any], **names: Any) -> Any:
    return SimpleNamespace(kernel=SimpleNamespace(get_parent=lambda: parent), user_ns=names)


@pytest.fixture
def version(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.delenv("VSCODE_PID", raising=False)
    return lambda text: monkeypatch.setitem(sys.modules, "ipykernel", SimpleNamespace(__version__=text))


@pytest.mark.parametrize(
    ("text", "widgets", "clicks"), [("7.4.0", True, True), ("7.3.0", True, False), ("7.0.1", False, False), ("6.31.0", True, False)]
)
def test_versions(version: Any, text: str, widgets: bool, clicks: bool) -> None:
    version(text)
    found = detect(shell(LAB))
    assert (found.front_end, found.widgets, found.clicks, found.asks) == ("notebook", widgets, clicks, True)


def test_nbclient_has_nobody_to_ask(version: Any) -> None:
    version("7.4.0")
    found = detect(shell({"content": {"allow_stdin": False}, "metadata": {}}))
    assert found == Capabilities("none", widgets=False, clicks=False, asks=False, ipykernel=(7, 4, 0))


def test_console_and_vscode(version: Any) -> None:
    version("7.4.0")
    parent = {"content": {"allow_stdin": True}, "metadata": {}}
    assert detect(shell(parent)).front_end == "console"
    assert not detect(shell(parent)).widgets
    code = detect(shell(LAB, __vsc_ipynb_file__="a.ipynb"))
    assert (code.front_end, code.widgets, code.clicks) == ("vscode", True, False)


def test_no_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    assert detect(None) == Capabilities("none", widgets=False, clicks=False, asks=False)
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: True))
    assert detect(SimpleNamespace()).front_end == "terminal"


def test_a_kernel_that_says_nothing_is_a_notebook_without_a_cell(version: Any) -> None:
    version("not a version")
    found = detect(SimpleNamespace(kernel=SimpleNamespace(), user_ns={}))
    assert (found.front_end, found.ipykernel) == ("console", (0, 0, 0))
