"""Two and four processes say what one says: tensor, pipeline, and both together, with jobs that come, go and are cancelled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf_fake
import pytest
import ranks
import tiny

from holynb.pool.engine.runner import Runner
from holynb.pool.models.convert import convert
from holynb.pool.protocol import Job
from kernels_support.cpu.machine_code import lanes

pytest.importorskip("torch")


def jobs(temperature: float = 0.0) -> list[dict[str, Any]]:
    return [
        {"id": i, "ids": p, "max_new": 6 + i, "temperature": temperature, "seed": i, "ignore_eos": True, "cancel": i == 3}
        for i, p in enumerate(tiny.prompts(7))
    ]


def one(folder: Path, asked: list[dict[str, Any]]) -> dict[int, list[int]]:
    runner = Runner(folder)
    said: dict[int, list[int]] = {}
    for job in asked:
        said[job["id"]] = []
        runner.add(Job(**{k: tuple(v) if k == "ids" else v for k, v in job.items() if k != "cancel"}))
    while not runner.idle:
        for emit in runner.step():
            said[emit.id] += emit.tokens
    return said


@pytest.mark.parametrize(
    ("family", "how"),
    [
        ("llama", {"tensor": 2}),
        ("qwen2", {"tensor": 2}),
        ("llama-bias", {"tensor": 2}),
        ("qwen3-tied", {"tensor": 4}),
        ("qwen3", {"pipe": 2}),
        ("llama", {"pipe": 2, "micro": 3}),
        ("qwen3-tied", {"tensor": 2, "pipe": 2}),
        ("qwen3-moe", {"tensor": 2, "pipe": 2}),
        ("gemma3", {"pipe": 2}),  # a cache of two groups on each stage
        pytest.param("mixtral", {"tensor": 2}, marks=pytest.mark.slow),
        pytest.param("mixtral", {"pipe": 2}, marks=pytest.mark.slow),
    ],
)
def test_the_same_tokens_as_one_process(family: str, how: dict[str, int], tmp_path: Path) -> None:
    tiny.make(family, tmp_path)
    asked = jobs(0.8 if "pipe" in how else 0.0)
    plain, said = one(tmp_path, asked), ranks.answers(tmp_path, asked, **how)
    for job in asked:
        if job["cancel"]:
            assert plain[job["id"]][: len(said[job["id"]])] == said[job["id"]]
        else:
            assert plain[job["id"]] == said[job["id"]], job["id"]


@pytest.mark.skipif(not lanes(), reason="no code of ours runs on this machine")
@pytest.mark.parametrize("how", [{"tensor": 2}, {"pipe": 2}])
def test_a_quantized_file_that_is_divided_stays_quantized_and_says_the_same(
    how: dict[str, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gguf_fake, "WIDE", 128)  # halves of whole groups
    gguf_fake.write(tmp_path / "file.gguf", kind="Q4_1")
    convert(tmp_path / "file.gguf", tmp_path, kept=True)
    asked = [
        {"id": i, "ids": [2 + i, 9, 4, 11, 3], "max_new": 6, "temperature": 0.0, "seed": i, "ignore_eos": True, "cancel": False}
        for i in range(3)
    ]
    assert one(tmp_path, asked) == ranks.answers(tmp_path, asked, **how)
