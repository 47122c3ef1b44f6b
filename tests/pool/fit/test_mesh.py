"""Every number of the model lies with exactly the ranks that need it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from holynb.errors import UserError
from holynb.pool.advice import main
from holynb.pool.fit.mesh import Mesh, stage_layers, tensor_sizes
from holynb.pool.fit.plan import Device, best_fit, fit, limits_of, spec_of_size, weights_bytes
from holynb.pool.fit.spec import Spec

SMOL = spec_of_size("135M")


def test_every_layer_head_column_and_word_is_somewhere_once() -> None:
    spec = spec_of_size("8B")
    for tensor in (1, 2, 4, 8):
        for pipe in (1, 2, 3):
            cuts = [Mesh(tensor, pipe, rank).shard(spec) for rank in range(tensor * pipe)]
            for stage in range(pipe):
                group = cuts[stage * tensor : (stage + 1) * tensor]
                for name, size in (("heads", spec.heads), ("kv_heads", spec.kv_heads), ("inner", spec.inner), ("vocab", spec.vocab)):
                    spans = [getattr(c, name) for c in group]
                    assert [spans[0][0], *(s[1] for s in spans)] == [*(s[0] for s in spans), size], name
                assert sum(c.adds_bias for c in group) == 1
            assert [c.layers for c in cuts[::tensor]] == stage_layers(spec, pipe)
            assert sum(c.has_embedding for c in cuts) == sum(c.has_head for c in cuts) == tensor


def test_heads_that_do_not_divide_are_refused_with_the_sizes_that_do() -> None:
    assert tensor_sizes(SMOL) == [1, 3]
    with pytest.raises(UserError, match=r"9 heads, 3 KV heads and 1536 MLP columns do not divide by --tp 2.* can be 1, 3\."):
        Mesh(2).shard(SMOL)
    few = replace(SMOL, heads=8, kv_heads=2)
    assert [Mesh(4, 1, r).shard(few).kv_heads for r in range(4)] == [(0, 1), (0, 1), (1, 2), (1, 2)], (
        "copied where there are fewer than ranks"
    )
    with pytest.raises(UserError, match="30 layers do not make 31 stages"):
        Mesh(1, 31).shard(SMOL)


@pytest.mark.parametrize("pipe", [1, 2, 5, 30])
def test_stages_are_whole_and_the_head_counts(pipe: int) -> None:
    found = stage_layers(SMOL, pipe)
    assert len(found) == pipe
    assert [found[0][0], *(b for _, b in found)] == [*(a for a, _ in found), SMOL.layers]
    if pipe == 2:
        assert found[1][1] - found[1][0] < found[0][1] - found[0][0], "the last stage has the head too"


def test_a_head_counts_by_the_time_it_takes_beside_a_layers_cache() -> None:
    eight = Spec("Qwen3ForCausalLM", 36, 4096, 12288, 32, 8, 128, 151936, max_len=40960)
    assert stage_layers(eight, 2) == [(0, 19), (19, 36)]


def test_shares_add_up_to_the_model() -> None:
    spec = spec_of_size("70B")
    whole = weights_bytes(spec, Mesh().shard(spec), 2)
    assert whole == spec.weights * 2
    parts = sum(weights_bytes(spec, Mesh(4, 2, rank).shard(spec), 2) for rank in range(8))
    norms = (4 - 1) * (spec.layers * 2 + 1) * spec.hidden * 2
    assert parts == whole + norms


@pytest.mark.parametrize(
    ("asked", "code", "says"),
    [
        (["70B", "--gpus", "4x24GB"], 1, "does not fit on 4x24GB"),
        (["1.76T", "--gpus", "8x80GB"], 1, "weights alone are 3,52"),
        (["8B", "--gpus", "24GB"], 0, "fits on 1x24GB"),
        (["0.6B", "--gpus", "2x80GB"], 0, "--dp 2"),
        (["70B", "--gpus", "8x80GB"], 0, "--dp"),
        (["8B", "--gpus", "2x141GB", "--pp", "2"], 0, "--tp 2 answers faster"),
        (["nonsense"], 2, "neither a folder"),
        (["8B", "--gpus", "many"], 2, "4x24GB"),
    ],
)
def test_plan_without_files(asked: list[str], code: int, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(asked) == code
    out = capsys.readouterr()
    assert says in out.out + out.err


def test_a_fit_leaves_room_on_every_device() -> None:
    spec, device = spec_of_size("8B"), Device.parse("2x24GB")
    limits = limits_of(spec, cpu=False)
    found = best_fit(spec, device, "bfloat16", limits)
    assert found is not None
    assert found.weights + found.work + found.kv <= 0.9 * device.memory
    shard = fit(spec, device, Mesh(2), "bfloat16", limits)
    assert shard.weights < found.weights
