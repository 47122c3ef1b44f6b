"""Layers lie in groups that keep the same tokens: every layer once, the same windows on all stages, and the bytes that the plan says."""

from __future__ import annotations

import json
from dataclasses import replace
from math import ceil
from pathlib import Path
from typing import Any

import pytest

from holynb.pool.advice import main
from holynb.pool.fit.cache_groups import BLOCK_TOKENS, MAX_GROUPS, cache_groups, row_blocks
from holynb.pool.fit.limits import BatchLimits
from holynb.pool.fit.mesh import Mesh
from holynb.pool.fit.spec import Spec, parse_spec

#: layers, window, and the layers that see all: every so manyth.
GEMMA_2B, GEMMA_12B, GEMMA_27B, OLMO_7B, GPT_OSS_20B = (26, 4096, 2), (48, 1024, 6), (62, 1024, 6), (32, 4096, 4), (24, 128, 2)


def mixed(layers: int, window: int, every: int) -> Spec:
    windows = tuple(window * bool((i + 1) % every) for i in range(layers))
    return Spec("Gemma3ForCausalLM", layers, 3840, 15360, 16, 8, 256, 262208, max_len=131072, windows=windows)


@pytest.mark.parametrize(
    ("model", "length", "groups", "layers", "saves"),
    [
        (GEMMA_2B, 8192, (0, 4096), 13, 1.33),
        (GEMMA_12B, 8192, (0, *(1024,) * 5), 8, 3.67),
        (GEMMA_12B, 32768, (0, *(1024,) * 5), 8, 5.18),
        (GEMMA_27B, 32768, (0, *(1024,) * 6), 10, 5.21),
        (OLMO_7B, 8192, (0, *(4096,) * 3), 8, 1.6),
        (GPT_OSS_20B, 8192, (0, 128), 12, 1.97),
        (GEMMA_12B, 1024, (0,), 48, 1.0),  # nothing slides
        (OLMO_7B, 4352, (0,), 32, 1.0),  # too little for more tables
        ((32, 4096, 100), 8192, (4096,), 32, 1.99),  # all slide
        ((8, 4096, 1), 8192, (0,), 8, 1.0),  # none
    ],
)
def test_real_models(model: tuple[int, int, int], length: int, groups: tuple[int, ...], layers: int, saves: float) -> None:
    made = cache_groups(mixed(*model), Mesh(), length)
    assert (made.windows, made.layers, round(made.saves(length), 2)) == (groups, layers, saves)


@pytest.mark.parametrize("pipe", [1, 2, 3, 5])
@pytest.mark.parametrize("model", [GEMMA_2B, GEMMA_12B, GEMMA_27B, OLMO_7B, GPT_OSS_20B, (7, 512, 3), (6, 512, 6)])
def test_every_layer_has_a_place_of_its_own_in_a_group_of_its_window(model: tuple[int, int, int], pipe: int) -> None:
    spec = mixed(*model)
    stages = [cache_groups(spec, Mesh(1, pipe, stage), 16384) for stage in range(pipe)]
    assert len({stage.windows for stage in stages}) == 1, "all ranks plan with the same blocks"
    assert len(stages[0].windows) <= MAX_GROUPS
    places = []
    for stage in stages:
        assert len(set(stage.places)) == stage.whole
        assert max(place for _, place in stage.places) < stage.layers
        places += [stage.windows[group] for group, _ in stage.places]
    if len(stages[0].windows) > 1:
        assert places == list(spec.windows)
    else:
        assert places == [0 if 0 in spec.windows else max(spec.windows)] * spec.layers


def test_kinds_of_windows_that_differ_are_groups_of_their_own() -> None:
    spec = replace(mixed(6, 512, 3), windows=(512, 2048, 0, 512, 2048, 0))
    made = cache_groups(spec, Mesh(), 16384)
    assert (made.windows, made.layers) == ((0, 512, 2048), 2)
    assert [made.windows[group] for group, _ in made.places] == list(spec.windows)


def test_a_full_batch_has_room_and_not_more() -> None:
    limits = BatchLimits(batch=4, chunk=256, max_len=4096)
    made = cache_groups(mixed(6, 512, 3), Mesh(), 4096)
    row = 4096 // BLOCK_TOKENS + 2 * (512 // BLOCK_TOKENS + 1)
    assert row_blocks(made.windows, 4096, BLOCK_TOKENS) == row
    assert made.block_count(10**9, 1, limits) == 4 * row + 2 * ceil(256 / BLOCK_TOKENS)


def test_the_plan_says_how_much_windows_save(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config: dict[str, Any] = {
        "architectures": ["Gemma3ForCausalLM"],
        "hidden_size": 3840,
        "intermediate_size": 15360,
        "num_hidden_layers": 48,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "vocab_size": 262208,
        "sliding_window": 1024,
        "dtype": "bfloat16",
    }
    assert parse_spec(config).windows.count(0) == 8
    (tmp_path / "config.json").write_text(json.dumps(config))
    tokens = {}
    for max_len in (1024, 32768):
        assert main([str(tmp_path), "--gpus", "1x48GB", "--max-len", str(max_len), "--json"]) == 0
        answer = json.loads(capsys.readouterr().out)
        tokens[max_len] = answer["best"]["kv_tokens"]
        assert ("5.2 times less than all layers would keep" in answer["says"]) == (max_len == 32768)
        assert answer["best"]["kv_saves"] == (5.18 if max_len == 32768 else 1)
    assert tokens[32768] / tokens[1024] == pytest.approx(5.18, rel=0.1)
