"""A run by batch whose process is killed at many moments: nothing is submitted twice, nothing is lost, and what it cost is known.

    python tests/runs/batch_killed.py [VENDOR] [ROWS] [KILLS]

prints the figures. A kill comes when the server has got, done or answered the n-th request of a process, whatever it is about.
"""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

from servers.batches import USAGE, Batches
from servers.exact import Asked

ROUTES = {
    "openai": "openai/gpt-6-luna",
    "azure": "azure/gpt-6-luna",
    "anthropic": "anthropic/claude-haiku-4-5",
    "gemini": "gemini/gemini-3.8-flash",
}
#: What a process does: pieces of so many rows, and everything that takes minutes in moments.
CHILD = """
import sys
from dataclasses import replace
import holynb
from holynb import batches
from holynb.batches import pace
pace.FIRST_S, pace.MOST_S = 0.02, 0.05
known = {n: replace(p, settles_s=0.3, rows=int(sys.argv[4])) for n, p in batches.table().items()}
batches.table = lambda: known
rows = [f"p{i}" for i in range(int(sys.argv[3]))]
run = holynb.infer(rows, sys.argv[1], batch=True, name="killed", api_base=sys.argv[2]).wait(300)
assert run.summary().ok == len(rows), run.summary().line()
"""
WHENS = ("came", "done", "answered")


@dataclass
class Killer:
    """Kills the process that a server talks to at the `number`-th request, when it has come, is done, or is answered."""

    child: subprocess.Popen[bytes] | None = None
    number: int = 0
    when: str = ""
    seen: int = 0
    killed: bool = False

    def __call__(self, when: str, asked: Asked) -> None:
        self.seen += when == "came"
        if self.child is not None and not self.killed and when == self.when and self.seen >= self.number:
            self.killed = True
            self.child.send_signal(signal.SIGKILL)


@dataclass(frozen=True)
class Figures:
    kills: int
    batches: int
    twice: int
    lost: int
    cost: Decimal
    expected: Decimal
    seconds: float


def killed(vendor: str, rows: int, kills: int, home: Path, piece: int) -> Figures:
    """Run, kill, run again, until one process comes to its end."""
    killer, began, moments = Killer(), time.monotonic(), itertools.count()
    with Batches(vendor, at_once=True) as server:
        server.hook = killer
        env = {
            **os.environ,
            "HOLYNB_HOME": str(home),
            **{f"{n}_API_KEY": "sk-test-0123456789abcdef" for n in ("OPENAI", "AZURE_OPENAI", "ANTHROPIC", "GEMINI")},
        }
        args = [sys.executable, "-c", CHILD, ROUTES[vendor], server.base, str(rows), str(piece)]
        done = 0
        while True:
            moment = next(moments)
            killer.seen, killer.killed = 0, False
            killer.number, killer.when = (2 + moment % 4, WHENS[moment % 3]) if moment < kills else (10**9, "")
            killer.child = subprocess.Popen(args, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            timer = threading.Timer(300, killer.child.kill)
            timer.start()
            said = killer.child.communicate()[0]
            timer.cancel()
            if killer.child.returncode == 0:
                break
            assert killer.killed, said.decode()[-2000:]
            done += 1
        submitted = server.submitted()
    return Figures(
        done,
        len(server.jobs),
        sum(n - 1 for n in submitted.values() if n > 1),
        *_of_log(vendor, rows, home),
        time.monotonic() - began,
    )


def _of_log(vendor: str, rows: int, home: Path) -> tuple[int, Decimal, Decimal]:
    """Rows without an answer, what the log says was paid, and what it should be."""
    import sqlite3

    from holynb.pricing import prices
    from holynb.types import Route, Usage

    with sqlite3.connect(home / "runs.sqlite") as db:
        answered = db.execute("SELECT count(*) FROM answers WHERE status = 'ok'").fetchone()[0]
        paid = sum((Decimal(c) for (c,) in db.execute("SELECT cost FROM payments WHERE cost IS NOT NULL")), Decimal(0))
    n, cached, out = USAGE
    each = prices.price(Route.parse(ROUTES[vendor]), None, Usage(n, out, cached), tier="batch")
    assert each is not None
    return rows - answered, paid, rows * each


if __name__ == "__main__":
    import tempfile

    vendor, n, k = (*sys.argv[1:], *("openai", "10000", "10")[len(sys.argv) - 1 :])
    with tempfile.TemporaryDirectory() as folder:
        f = killed(vendor, int(n), int(k), Path(folder), max(1, int(n) // 7))
    print(
        f"{vendor}: {int(n):,} rows, {f.kills} kills, {f.batches} batches: submitted twice {f.twice}, lost {f.lost}, paid ${f.cost} of ${f.expected} in {f.seconds:.0f} s"
    )
