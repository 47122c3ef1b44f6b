"""aimock: an OpenAI, Azure, Anthropic, Gemini and Bedrock server that nobody here wrote. https://www.npmjs.com/package/@copilotkit/aimock"""

from __future__ import annotations

import json
import os
import shutil
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from servers.process import serving

ROOT = Path(__file__).parents[2]
INSTALL = "npm install --prefix .venv/node --no-save @copilotkit/aimock@1.43.0"


def command() -> list[str]:
    """The command that starts it. Fails, with what to do, where Node or the package is missing."""
    node = shutil.which("node")
    named = os.environ.get("HOLYNB_AIMOCK")
    places = [Path(named)] if named else [p / "node_modules/@copilotkit/aimock" for p in (ROOT, ROOT / ".venv/node")]
    scripts = [p / "dist/cli.js" for p in places if (p / "dist/cli.js").is_file()]
    if node is None or not scripts:
        pytest.fail(
            f"these tests need Node 20 or later and aimock: {INSTALL} (or sh tests/run, or HOLYNB_AIMOCK=its folder)", pytrace=False
        )
    return [node, str(scripts[0])]


@dataclass(frozen=True)
class Aimock:
    base: str
    key: str

    def journal(self) -> list[dict[str, Any]]:
        """What clients really sent."""
        request = urllib.request.Request(f"{self.base}/__aimock/journal", headers={"authorization": f"Bearer {self.key}"})
        with urllib.request.urlopen(request, timeout=10) as reply:
            return json.loads(reply.read())  # type: ignore[no-any-return]

    def chaos(self, **rates: float) -> None:
        request = urllib.request.Request(
            f"{self.base}/__aimock/chaos", json.dumps(rates).encode(), {"content-type": "application/json"}, method="POST"
        )
        urllib.request.urlopen(request, timeout=10).close()


@contextmanager
def running(folder: Path, fixtures: Sequence[dict[str, Any]], keys: str | None = None) -> Iterator[Aimock]:
    """A server with these fixtures, 5 ms between its chunks; `keys`: those it lets in, separated by commas."""
    file = folder / "fixtures.json"
    file.write_text(json.dumps({"fixtures": list(fixtures)}), "utf-8")
    argv = [*command(), "-p", "0", "-f", str(file), "-l", "5", "--validate-on-load"]
    with serving(argv, folder / "aimock.log", r"listening on (http://\S+)", {"AIMOCK_API_KEYS": keys} if keys else None) as base:
        yield Aimock(base, keys or "")
