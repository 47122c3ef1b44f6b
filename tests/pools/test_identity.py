"""Which answers of a pool are used again: those of the same model, the same files and the same precision, whatever the pool is called."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from pool_fake import byte_model
from safetensors.numpy import save_file

import holynb
from holynb import pools


def checkpoint(folder: Path, weights: bytes) -> Path:
    path = byte_model(folder / "checkpoint-500")
    write(path, weights)
    return path


def write(path: Path, weights: bytes) -> None:
    save_file({"weights": np.frombuffer(weights, np.uint8)}, path / "model.safetensors")


def cached(texts: list[str]) -> list[bool]:
    return list(holynb.infer(texts, "pool/checkpoint-500").wait(60).frame()["cached"])


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    return [checkpoint(tmp_path / name, weights) for name, weights in (("a", b"first"), ("b", b"other"))]


@pytest.mark.usefixtures("fake_pools", "ended")
def test_the_next_runs_checkpoint_answers_itself(runs: list[Path]) -> None:
    seen = []
    for path in (*runs, runs[0]):
        pools.start(str(path))
        seen.append((pools.identity("checkpoint-500"), cached(["x", "y"])))
        pools.stop("checkpoint-500")
        assert pools.identity("checkpoint-500") == seen[-1][0], "a stopped pool is known as it was"
    assert [c for _, c in seen] == [[False, False], [False, False], [True, True]]
    assert seen[0][0] == seen[2][0] != seen[1][0]
    (runs[0] / "checkpoint-400").mkdir()
    write(runs[0] / "checkpoint-400", b"older")
    assert pools.identity("checkpoint-500") == seen[0][0], "another model lies in its folder"
    write(runs[0], b"again")
    os.utime(runs[0] / "model.safetensors", (1, 1))
    pools.start(str(runs[0]))
    assert cached(["x", "y", "z"]) == [False] * 3, "trained on in its place"
    pools.stop("checkpoint-500")
    pools.start(str(runs[0]), dtype="bfloat16")
    run = holynb.infer(["x"], "pool/checkpoint-500", name="cited").wait(60)
    assert list(run.frame()["cached"]) == [False]
    models = {"pool/checkpoint-500": pools.identity("checkpoint-500")}
    assert run.frame().attrs["holynb"]["models"] == holynb.read("cited").attrs["holynb"]["models"] == models
    assert str(runs[0]) in models["pool/checkpoint-500"]


def test_the_embedded_model_is_known_by_its_name_and_a_hubs_by_its_id(home: Path) -> None:
    assert pools.identity("smollm2-135m") == ""
    assert pools.identity("never-started") == ""
    assert pools.identity("Qwen/Qwen3-8B") == "pool Qwen/Qwen3-8B"
    (home / "logs").mkdir()
    (home / "logs" / "pool-smollm2-135m.log").write_text("started with: %infer pool start /gone/model --name smollm2-135m --dtype int8\n")
    assert pools.identity("smollm2-135m") == "pool /gone/model dtype=int8"
    (home / "logs" / "pool-smollm2-135m.log").write_text("started with: %infer pool start 'broken\n")
    assert pools.identity("smollm2-135m") == ""
