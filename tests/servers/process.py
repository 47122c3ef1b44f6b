"""A server in a process of its own: started, waited for until it says where it listens, ended."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def serving(argv: Sequence[str], log: Path, says: str, env: Mapping[str, str] | None = None, seconds: float = 60.0) -> Iterator[str]:
    """`says` is a pattern whose first group is the address, which the server writes when it is ready."""
    with log.open("wb") as out:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, env={**os.environ, **(env or {})})
    try:
        yield _address(process, log, says, time.monotonic() + seconds)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)


def _address(process: subprocess.Popen[bytes], log: Path, says: str, deadline: float) -> str:
    while time.monotonic() < deadline:
        text = log.read_text("utf-8", "replace")
        if match := re.search(says, text):
            return match.group(1)
        assert process.poll() is None, f"{process.args} ended: {text}"
        time.sleep(0.05)
    raise AssertionError(f"{process.args} did not start: {log.read_text('utf-8', 'replace')}")
