"""What the browser's tests type, models that wait for the test, and the wait for the live view."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

ROWS = 'import pandas as pd\ndf = pd.DataFrame({"x": [f"review {i}" for i in range(%d)]}, index=[f"r{i}" for i in range(%d)])'
STREAM = "%%infer sim/stream --df df --stream --no-cache"
ASK = "\nSay what you think of {{ x }}"

#: Models of sim/ say no more than the file allows: a run goes on until the test has seen what it came for, on however slow a machine.
HELD = """
import asyncio, holynb.engines.sim as sim
from pathlib import Path
send, begun = sim.Sim.send, 0
async def held(self, request, timeouts):
    global begun
    me, said, begun = begun, 0, begun + 1
    async for event in send(self, request, timeouts):
        while True:
            words, requests = map(int, (Path("allowed").read_text() or "0 0").split())
            if said < words or me < requests: break
            await asyncio.sleep(0.05)
        said += 1
        yield event
sim.Sim.send = held
"""
WHOLE = 1_000


def allow(page: Any, words: int, requests: int = 0) -> None:
    """From now on each request of a notebook that ran HELD gets so many words, and the first `requests` of them all. What does not stream is one word."""
    (page.path.parent / "allowed").write_text(f"{words} {requests}", encoding="utf-8")


def live(page: Any) -> None:
    page.until(lambda: page.there(".hn .hn-sizer .hn-row"), 20, "the live view")


RECORDINGS = Path(__file__).parents[2] / "holynb/ui/assets/recordings"


def endless(folder: Path, name: str = "flaky", s: float = 14.5) -> str:
    """A recording, as a file in `folder`, whose rows that end after `s` seconds take an hour more: its view goes on until it is closed.

    At 14.5 s the last rows that have begun are running: the table follows to them, and somebody who comes late sees them run.
    """
    path = folder / f"{name}-endless.jsonl.gz"
    with gzip.open(RECORDINGS / f"{name}.jsonl.gz", "rt", encoding="utf-8") as recorded, gzip.open(path, "wt", encoding="utf-8") as kept:
        for line in recorded:
            event = json.loads(line)
            kept.write(json.dumps({**event, "t": event["t"] + 3600.0} if event.get("t", 0.0) > s else event) + "\n")
    return path.name
