"""Weights that make a row's numbers infinite or NaN end that row with this reason, and not as an answer without words."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny
from one_rank import answers, runner
from pool_fake import Pools

from holynb.engines import poolwire
from holynb.pool.protocol import Emit, Job, LogitRules

torch = pytest.importorskip("torch")

#: The token whose row of the embedding is NaN.
BAD = 9


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from safetensors.torch import load_file, save_file

    folder = tiny.talking(tmp_path_factory.mktemp("tiny"))
    tensors = load_file(folder / "model.safetensors")
    # The head is another matrix, so that only rows with this token are without numbers.
    table = tensors["model.embed_tokens.weight"]
    save_file(tensors | {"lm_head.weight": table.clone(), "model.embed_tokens.weight": _broken(table)}, folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": False}))
    return folder


def _broken(table: Any) -> Any:
    table = table.clone()
    table[BAD] = torch.nan
    return table


@pytest.fixture
def pools(tmp_path: Path) -> Iterator[Pools]:
    pools = Pools(tmp_path)
    yield pools
    pools.end()


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"temperature": 0.8, "top_k": 20, "top_p": 0.9},
        {"logprobs": 2, "prompt_logprobs": True},
        {"rules": LogitRules(repetition_penalty=1.3)},
        {"temperature": 1.0, "rules": LogitRules(min_p=0.1)},
    ],
)
def test_one_row_ends_and_the_others_answer_as_without_it(folder: Path, more: dict[str, Any]) -> None:
    asked = [replace(Job(i, (5, 6, 7 + i), 12, seed=i, ignore_eos=True), **more) for i in range(2)]
    bad, made = replace(asked[0], id=7, ids=(5, BAD, 6)), runner(folder)
    for job in (asked[0], bad, asked[1]):
        made.add(job)
    got: list[Emit] = []
    while not made.idle:
        got += made.step()
    theirs = [e for e in got if e.id == bad.id and e.note != "admitted"]
    assert [(e.tokens, e.finish, e.note) for e in theirs] == [((), "error", "not_finite")]
    answered = {j.id: [t for e in got if e.id == j.id for t in e.tokens] for j in asked}
    assert answered == answers(runner(folder), asked)
    assert all(map(len, answered.values()))
    assert made.blocks.free == made.blocks.total


@pytest.mark.parametrize("stream", [False, True])
def test_the_row_says_so_and_is_not_asked_again(pools: Pools, folder: Path, stream: bool) -> None:
    pool = pools.start("--model", str(folder), "--runner", "holynb.pool.engine.runner:Runner", OMP_NUM_THREADS="1")
    body = {"prompt": [5, BAD, 6], "max_tokens": 8}
    if stream:
        error = next(e for e in pool.events("/v1/completions", {**body, "stream": True}) if "error" in e)["error"]
    else:
        status, answer = pool.ask("/v1/completions", body)
        assert status == 500
        error = answer["error"]
    assert error["code"] == "not_finite"
    assert error["message"].startswith("The model computed something else than finite numbers: its files may be damaged")
    fault = poolwire.refusal(json.dumps({"error": error}).encode(), 500)
    assert (fault.kind, fault.retry) == ("server", False)
    assert pool.ask("/v1/completions", {"prompt": [5, 6], "max_tokens": 1})[0] == 200
