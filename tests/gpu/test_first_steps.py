"""The first steps of a rank on a GPU, by plain torch, say what a CPU says: in float32, which takes other branches there than bfloat16."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny

torch = pytest.importorskip("torch")

from holynb.pool.engine.first_steps import FirstSteps  # noqa: E402
from holynb.pool.engine.runner import Runner  # noqa: E402
from holynb.pool.protocol import Job  # noqa: E402

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")]


class Never:
    """Kernels that are not compiled as long as this test runs."""

    done = False

    def wait(self) -> None:
        """Only where a step is too large for plain torch."""
        raise AssertionError("a small step waited for kernels")


@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_plain_torch_on_a_gpu_says_what_a_cpu_says(family: str, tmp_path: Path) -> None:
    tiny.make(family, tmp_path)
    said: list[dict[int, list[int]]] = []
    for device in ("cpu", "cuda:0"):
        runner = Runner(tmp_path, device=device, dtype="float32", memory=0.1)
        if device != "cpu":
            kernels = runner._first.kernels if runner._first is not None else runner.executor
            runner.executor = runner._first = FirstSteps(kernels, Never())
        for i, ids in enumerate(tiny.prompts(3)):
            runner.add(Job(i, tuple(ids), 12, ignore_eos=True))
        said.append({})
        while not runner.idle:
            for emit in runner.step():
                said[-1].setdefault(emit.id, []).extend(emit.tokens)
        runner.close()
    assert said[0] == said[1]
