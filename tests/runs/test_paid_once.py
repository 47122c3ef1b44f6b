"""kill -9 while rows are embedded and while answers are judged: what was on disk is not paid again, and nothing is lost."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from killed import DEADLINE, ROOT, kill
from servers.exact import Asked, Exact, Step, reply
from servers.vectors import Embedder, vector

import holynb
from holynb import runlog

ROWS, JUDGED, LANES = 5_000, 30, 4
ROUTE, JUDGE, EMBEDS = "openai/gpt-4.1-mini", "openai/gpt-4.1", "openai/text-embedding-3-small"
#: Both at once: a process takes longer to begin than to be killed.
CHILD = """
import sys
import holynb
rows, judged, lanes = map(int, sys.argv[1:4])
holynb.infer([f"text {i}" for i in range(rows)], sys.argv[4], embed=True, dimensions=12, name="embedded", concurrency=lanes, cache=False)
holynb.infer([f"q{i}" for i in range(judged)], sys.argv[5], judge=sys.argv[6], name="judged", concurrency=lanes, cache=False).wait()
"""


class Slow:
    """Embeds, answers and grades, a third of it at first. `asked`: how often each text was sent to be embedded, answered or judged."""

    def __init__(self) -> None:
        self.half_way = True
        self.asked: Counter[tuple[str, str]] = Counter()
        self._changed = threading.Condition()

    def __call__(self, request: Asked, number: int) -> Sequence[Step]:
        body = request.json
        texts, kind = (body["input"], "embed") if "input" in body else self._chat(body)
        with self._changed:
            self.asked.update((kind, text) for text in texts)
            self._changed.notify_all()
            late = self.half_way and self.of(kind).total() > {"embed": ROWS // 3, "judge": JUDGED // 3}.get(kind, JUDGED)
        pause = DEADLINE if late else 0.005
        if kind == "embed":
            return [pause, *Embedder()(request, number)]
        content = f"re: {texts[0]}" if kind == "answer" else json.dumps({"reason": texts[0], "score": 1 + int(texts[0][1:]) % 5})
        choice = {"message": {"role": "assistant", "content": content}, "finish_reason": "stop", "index": 0}
        return [
            pause,
            reply({"id": "x", "model": body["model"], "choices": [choice], "usage": {"prompt_tokens": 9, "completion_tokens": 3}}),
        ]

    def _chat(self, body: Any) -> tuple[list[str], str]:
        text = body["messages"][-1]["content"]
        graded = re.findall(r"<prompt-\w+>\n(.*?)\n</prompt", text, re.DOTALL)
        return (graded, "judge") if graded else ([text], "answer")

    def of(self, kind: str) -> Counter[str]:
        return Counter({text: n for (what, text), n in self.asked.items() if what == kind})

    def wait(self) -> None:
        """Until nothing more is answered."""
        with self._changed:
            assert self._changed.wait_for(lambda: self.of("embed").total() > ROWS // 3 and self.of("judge").total() > JUDGED // 3, DEADLINE)


@pytest.mark.usefixtures("keyed")
def test_what_was_on_disk_is_not_paid_again(home: Path) -> None:
    slow = Slow()
    with Exact(slow) as server:
        env = {
            "HOLYNB_HOME": str(home),
            "PYTHONPATH": str(ROOT),
            "OPENAI_API_KEY": "sk-test-0123456789abcdef",
            "OPENAI_BASE_URL": server.base,
        }
        argv = [sys.executable, "-c", CHILD, *map(str, (ROWS, JUDGED, LANES)), EMBEDS, ROUTE, JUDGE]
        with subprocess.Popen(argv, env=env) as child:
            try:
                slow.wait()
            finally:
                kill(child)
        slow.half_way = False
        log = runlog.log()
        records = {name: log.find(name) for name in ("embedded", "judged")}
        kept = {name: log.answers(record.id) for name, record in records.items() if record is not None}
        verdicts = log.answers(f"{records['judged'].id}{runlog.VERDICTS_SUFFIX}") if records["judged"] is not None else {}
        assert len(kept["embedded"]) % 256 == 0, "a request's rows are there together, or not"
        assert 0 < len(kept["embedded"]) < ROWS
        assert 0 < len(verdicts) < JUDGED
        options: dict[str, Any] = {"concurrency": LANES, "cache": False, "api_base": server.base}
        embedded = holynb.infer([f"text {i}" for i in range(ROWS)], EMBEDS, embed=True, dimensions=12, name="embedded", **options)
        judged = holynb.infer([f"q{i}" for i in range(JUDGED)], ROUTE, judge=JUDGE, name="judged", **options)
        vectors, frame = embedded.wait(DEADLINE).vectors(), judged.wait(DEADLINE).frame()
    assert np.array_equal(vectors, np.stack([vector(f"text {i}") for i in range(ROWS)]))
    assert frame["text"].tolist() == [f"re: q{i}" for i in range(JUDGED)]
    assert frame["score"].tolist() == [1 + i % 5 for i in range(JUDGED)]
    for kind, lanes in (("embed", 256 * LANES), ("answer", LANES), ("judge", LANES)):
        times = Counter(slow.of(kind).values())
        assert set(times) <= {1, 2}, kind
        assert times[2] <= lanes, f"{kind}: sent twice, only what was in flight"
    twice = {text for text, n in slow.of("judge").items() if n == 2}
    assert twice.isdisjoint(f"q{place // runlog.PARTS_PER_ROW}" for place in verdicts), "no verdict that is on disk is paid twice"
    twice = {text for text, n in slow.of("embed").items() if n == 2}
    assert twice.isdisjoint(f"text {row}" for row in kept["embedded"])
