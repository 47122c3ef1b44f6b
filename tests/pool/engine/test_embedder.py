"""Vectors of whole prompts: those of transformers, whatever else goes through the model; and what happens where memory runs out."""

from __future__ import annotations

import base64
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from numpy.typing import NDArray

from holynb.pool.engine.runner import Runner
from holynb.pool.fit import BatchLimits
from holynb.pool.protocol import Emit, Job

torch = pytest.importorskip("torch")


def texts(*lengths: int) -> list[Job]:
    rng = random.Random(1)
    return [Job(i, tuple(rng.randrange(3, 320) for _ in range(n)), 1, pooling="mean" if i % 2 else "last") for i, n in enumerate(lengths)]


def vectors(runner: Runner, jobs: list[Job]) -> dict[int, NDArray[np.float32]]:
    out = {}
    for job in jobs:
        runner.add(job)
    while not runner.idle:
        for emit in runner.step():
            if emit.vector:
                assert emit.finish == "stop"
                out[emit.id] = np.frombuffer(base64.b64decode(emit.vector), "<f4")
    return out


@pytest.mark.parametrize("family", ["llama", "qwen3-tied"])
def test_they_are_those_of_transformers(family: str, tmp_path: Path) -> None:
    from transformers import AutoModel

    tiny.make(family, tmp_path)
    model = AutoModel.from_pretrained(tmp_path, dtype=torch.float32).eval()
    runner, jobs = Runner(tmp_path), texts(1, 5, 17, 100, 300, 3)
    answer = Job(99, (5, 6, 7), 9, ignore_eos=True)
    alone = written(Runner(tmp_path), answer)
    runner.add(answer)  # decodes beside them
    embedded = vectors(runner, jobs)
    assert written(runner, Job(98, (5, 6, 7), 9, ignore_eos=True)) == alone
    for job in jobs:
        with torch.no_grad():
            states = model(torch.tensor([job.ids])).last_hidden_state[0]
        expected = (states.mean(0) if job.pooling == "mean" else states[-1]).numpy()
        np.testing.assert_allclose(embedded[job.id], expected, atol=1e-5, rtol=0)


def written(runner: Runner, job: Job) -> list[int]:
    runner.add(job)
    tokens: list[int] = []
    while not runner.idle:
        for emit in runner.step():
            tokens += emit.tokens if emit.id == job.id else ()
    return tokens


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    folder = tmp_path_factory.mktemp("model")
    tiny.make("llama", folder)
    yield Runner(folder)


def test_what_does_not_fit_is_refused_with_its_sizes(runner: Runner) -> None:
    with pytest.raises(ValueError, match="513 tokens are more than the 512"):
        runner.add(Job(1, (5,) * 513, 1, pooling="mean"))
    with pytest.raises(ValueError, match="without tokens"):
        runner.add(Job(1, (), 1, pooling="mean"))
    with pytest.raises(ValueError, match="token 320"):
        runner.add(Job(1, (320,), 1, pooling="mean"))
    assert runner.idle


def test_a_cancelled_text_is_not_computed(runner: Runner) -> None:
    jobs = texts(4, 4, 4)
    for job in jobs:
        runner.add(job)
    runner.cancel(1)
    runner.cancel(77)
    assert sorted(e.id for e in runner.step()) == [0, 2]
    assert runner.idle


def test_memory_that_runs_out_makes_passes_smaller(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    passes: list[int] = []
    compute = runner.embedder._vectors

    def short(jobs: Any) -> list[str]:
        passes.append(sum(len(j.ids) for j in jobs))
        if passes[-1] > 20:
            raise torch.OutOfMemoryError("out of memory")
        return compute(jobs)

    monkeypatch.setattr(runner.embedder, "_vectors", short)
    monkeypatch.setattr(runner.embedder, "budget", BatchLimits().chunk)
    jobs = [*texts(10, 10, 10, 10), Job(9, (5,) * 30, 1, pooling="mean")]
    for job in jobs:
        runner.add(job)
    emits: list[Emit] = []
    while not runner.idle:
        emits += runner.step()
    assert sorted(e.id for e in emits if e.vector) == [0, 1, 2, 3]
    assert [(e.id, e.finish, e.note) for e in emits if e.finish == "error"] == [(9, "error", "oom")]
    assert {e.id for e in emits if e.note == "oom"} == {0, 1, 2, 3, 9}
