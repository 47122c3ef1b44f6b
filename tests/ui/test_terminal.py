"""IPython in a real terminal: the cell is awaited there too, progress is one line, and Ctrl-C keeps what is there."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pexpect
import pytest
from layout import ROOT

PROMPT = r"In \[\d+\]: "
CODES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@pytest.fixture
def terminal(home: Path) -> Iterator[pexpect.spawn]:
    env = {**os.environ, "HOLYNB_HOME": str(home), "IPYTHONDIR": str(home / "ipython"), "PYTHONPATH": str(ROOT), "TERM": "xterm"}
    options = ["--simple-prompt", "--no-banner", "--no-confirm-exit", "--colors=nocolor"]
    child = pexpect.spawn(sys.executable, ["-m", "IPython", *options], env=env, encoding="utf-8", timeout=30, dimensions=(40, 160))
    child.expect(PROMPT)
    yield child
    child.sendline("exit")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0, "nothing keeps the process from ending"


def said(terminal: pexpect.spawn, *lines: str) -> str:
    """Type lines, and give what stands before the next prompt."""
    for line in lines:
        terminal.sendline(line)
    terminal.expect(PROMPT)
    return CODES.sub("", terminal.before)


def test_a_cell_in_a_terminal(terminal: pexpect.spawn) -> None:
    assert "Error" not in said(terminal, "%load_ext holynb")
    out = said(terminal, "%%infer sim/echo", "hello terminal", "", "")
    assert re.search(r"Out\[2\]: \r?\nhello terminal\r?\n1 row", out)
    assert "DataFrame" in said(terminal, "type(_)")


def test_progress_is_one_line_and_an_interrupt_keeps_what_is_there(terminal: pexpect.spawn) -> None:
    said(terminal, "%load_ext holynb")
    for line in ("%%infer cut << sim/echo -l -c 1 -p latency=0.6", *(f"row {i}" for i in range(20)), "", ""):
        terminal.sendline(line)
    terminal.expect(r"rows/s")
    terminal.sendintr()
    terminal.expect(PROMPT)
    out = CODES.sub("", terminal.before)
    assert "Interrupted: " in out
    assert "Traceback" not in out
    assert "stopped" in out
    assert "True" in said(terminal, "set(cut.status) == {'ok', 'cancelled'}")
    assert "2" in said(terminal, "1 + 1")
