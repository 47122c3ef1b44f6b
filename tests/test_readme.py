"""The README's cells run as they are written, from top to bottom in one kernel, and its pages' links lead somewhere.

A server of this machine answers in the provider's place, and the embedded model in that of the model that needs GPUs.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from layout import ROOT
from leftovers import end_pools
from nbclient import NotebookClient
from servers.exact import Asked, Exact, Step, reply

README = (ROOT / "README.md").read_text(encoding="utf-8")
#: What only a machine with GPUs can do, and what does the same here.
HERE = {"Qwen/Qwen3-8B --name mine --dp 2": "smollm2-135m --name mine --dp 2"}
PAGES = [*ROOT.glob("*.md"), *(ROOT / "notebooks").glob("*.md"), *(ROOT / "notebooks").glob("*.ipynb")]


def cells() -> list[str]:
    """The README's Python and its cells; shell commands are others' to try."""
    blocks = re.findall(r"^```([^\n]*)\n(.*?)\n```$", README, re.DOTALL | re.MULTILINE)
    return [body for kind, body in blocks if kind in ("", "python")]


def answer(asked: Asked, _: int) -> list[Step]:
    """One word, or what the schema asks for."""
    body = asked.json
    text = json.dumps({"mood": "negative", "why": "It says so."}) if "response_format" in body else "negative"
    usage = {"prompt_tokens": 20, "completion_tokens": 3, "total_tokens": 23}
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return [reply({"id": "x", "model": body["model"], "choices": [choice], "usage": usage})]


@pytest.fixture
def server() -> Iterator[Exact]:
    with Exact(answer) as running:
        yield running


@pytest.mark.timeout(300)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")  # of nbclient and its sockets
def test_every_cell_runs_as_it_is_written(server: Exact, home: Path, tmp_path: Path) -> None:
    written = "\n".join(cells())
    assert all(written.count(there) == 1 for there in HERE)
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in cells()])
    for cell in book.cells:
        for there, here in HERE.items():
            cell.source = cell.source.replace(there, here)
    keys = {"OPENAI_API_KEY": "sk-test-0123456789abcdef", "OPENAI_BASE_URL": f"http://127.0.0.1:{server.port}/v1"}
    environment = {**os.environ, "HOLYNB_HOME": str(home), "PYTHONPATH": str(ROOT), **keys}
    client = NotebookClient(book, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}, allow_errors=True)
    asyncio.run(client.async_execute(env=environment))
    end_pools(tmp_path)
    outputs = [(c.source, o) for c in book.cells for o in c.get("outputs", [])]
    assert not [(source, o.evalue) for source, o in outputs if o.output_type == "error"]
    said = "\n".join(str(o.get("text") or o.get("data", {}).get("text/plain", "")) for _, o in outputs)
    assert "Error:" not in said
    assert len(re.findall(r"^\d+ rows? · ", said, re.MULTILINE)) >= 5, "each recipe's cell answered"
    assert (tmp_path / "replies.csv").read_text(encoding="utf-8").count("negative") == 3


def test_the_labels_join_a_frame_whatever_its_columns_are_called() -> None:
    line = next(cell for cell in cells() if cell.startswith("reviews.join("))
    labels = pd.DataFrame({"mood": ["negative"], "why": ["It says so."], "status": ["ok"]})
    for columns in (["text"], ["text", "mood"], ["why", "status", "mood"]):
        frame = eval(line, {"reviews": pd.DataFrame([["x"] * len(columns)], columns=columns), "labels": labels})
        assert list(frame) == [*columns, "answer_mood", "answer_why"]
        assert [frame.iloc[0][name] for name in columns] == ["x"] * len(columns), "what the user has stays"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_to_something(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    if page.suffix == ".ipynb":
        text = "\n".join("".join(cell["source"]) for cell in json.loads(text)["cells"] if cell["cell_type"] == "markdown")
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text) if not re.match(r"\w+:|#", link)]
    assert [link for link in links if not (page.parent / link).exists()] == []
