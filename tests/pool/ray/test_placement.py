"""What fits where, when a pool grows and shrinks, and what its command line says: pure, so without Ray."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from holynb.errors import BadOption
from holynb.pool.ray import node, placement
from holynb.pool.ray.config import RayConfig, parse_args
from holynb.pool.ray.placement import ClusterNode
from holynb.pool.ray.scaling import ScalePolicy
from holynb.pools.options import PoolOptions

HOSTS = [ClusterNode("a", "10.0.0.1", 64.0, 4.0), ClusterNode("b", "10.0.0.2", 64.0, 4.0)]


def config(**more: Any) -> RayConfig:
    return RayConfig("p", "m", Path("/home"), **more)


@pytest.mark.parametrize(
    ("more", "bundles", "strategy", "fits"),
    [
        ({"gpu": True, "tp": 2, "dp": (4, 4)}, [{"CPU": 2, "GPU": 2}], "STRICT_PACK", 4),
        ({"gpu": True, "tp": 4, "pp": 2}, [{"CPU": 4, "GPU": 4}] * 2, "PACK", 1),
        ({"gpu": True, "tp": 4, "pp": 2, "spread": True}, [{"CPU": 4, "GPU": 4}] * 2, "SPREAD", 1),
        ({"gpu": True, "tp": 3}, [{"CPU": 3, "GPU": 3}], "STRICT_PACK", 2),
        ({"gpu": True, "tp": 8}, [{"CPU": 8, "GPU": 8}], "STRICT_PACK", 0),
        ({"cpus": 16}, [{"CPU": 16}], "STRICT_PACK", 8),
    ],
)
def test_a_stage_is_a_bundle_and_never_crosses_a_host(more: Any, bundles: Any, strategy: str, fits: int):
    wanted = config(**more)
    assert (placement.bundles(wanted), placement.strategy(wanted), placement.fitting(wanted, HOSTS)) == (bundles, strategy, fits)
    assert (placement.refusal(wanted, HOSTS) is None) == (fits >= wanted.dp[0])


def test_a_refusal_says_what_there_is_and_what_could_be():
    why = placement.refusal(config(gpu=True, tp=2, dp=(8, 8)), HOSTS)
    assert why is not None
    assert "4 replicas of 2 (1 GPU, 1 CPU a rank, STRICT_PACK) fit on 10.0.0.1: 4 GPUs, 64 CPUs, 10.0.0.2: 4 GPUs, 64 CPUs" in why
    assert "--dp 4" in why
    assert "--wait-nodes" in why
    assert "smaller --tp" in str(placement.refusal(config(gpu=True), [ClusterNode("a", "10.0.0.1", 8.0, 0.0)]))


def test_a_pool_grows_while_rows_wait_and_shrinks_after_a_while_without_work():
    policy = ScalePolicy(2, 4, patience=2.0, idle=60.0, pause=5.0)
    assert [policy.step(t, 2, 5, 0) for t in (0.0, 1.0, 2.0, 3.0)] == [0, 0, 1, 0]
    assert policy.step(6.9, 3, 9, 0) == 0, "a pause after each change"
    assert policy.step(7.1, 3, 9, 0) == 1
    assert policy.step(20.0, 4, 99, 0) == 0, "no more than the bound"
    assert [policy.step(t, 4, 0, 2) for t in (30.0, 89.0, 90.0)] == [0, 0, -1]
    assert policy.step(96.0, 3, 0, 1) == 0, "another while of it"
    assert policy.step(156.0, 3, 0, 1) == -1
    assert policy.step(999.0, 2, 0, 1) == 0, "no fewer than the bound"


def test_rows_that_come_and_go_change_nothing():
    policy = ScalePolicy(1, 4)
    assert {policy.step(float(t), 1, t % 2 * 9, 0) for t in range(60)} == {0}


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"on": "somewhere"}, "--on takes ray"),
        ({"on": "ray://host"}, "--on takes ray"),
        ({"on": "2x24GB"}, "Devices that are not here are planned with --gpus 2x24GB"),
        ({"on": "80GB"}, "--gpus 80GB"),
        ({"on": "2xH100"}, "--gpus 2xH100"),
        ({"on": "ray", "devices": "0,1"}, "--devices takes cpu or gpu"),
        ({"on": "ray", "port": 0}, "--port is of a pool of this machine"),
        ({"on": "ray", "dp": "8..2"}, "bounds such as 2..8"),
        ({"on": "ray", "runtime_env": "[1]"}, "--runtime-env takes"),
        ({"on": "ray", "runtime_env": "/no/such/file.yaml"}, "--runtime-env takes"),
        ({"dp": "2..8"}, "belongs to --on ray"),
        ({"lease": 5.0}, "belongs to --on ray"),
    ],
)
def test_what_is_wrong_is_said_before_anything_starts(options: Any, why: str):
    with pytest.raises(BadOption, match=why):
        PoolOptions.parse("m", options)


def test_bounds_and_switches_are_in_the_command_that_starts_it_again(tmp_path: Path):
    file = tmp_path / "env.yaml"
    file.write_text("pip: [holynb]\nenv_vars: {A: '1'}\n")
    options = PoolOptions.parse("org/m", {"on": "ray", "dp": "2..8", "spread": True, "runtime_env": str(file)})
    assert options.start_command.startswith("%infer pool start org/m --dp 2..8 --on ray --spread")
    assert options.runtime_env_json == '{"pip": ["holynb"], "env_vars": {"A": "1"}}'


def test_the_command_line_is_read_with_its_runtime_env_from_the_environment(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOLYNB_RAY_RUNTIME_ENV", '{"pip": ["x"]}')
    read, devices = parse_args(["--name", "n", "--model", "m", "--home", "/h", "--dp", "2..8", "--devices", "gpu"])
    assert (read.dp, read.runtime_env, devices) == ((2, 8), {"pip": ["x"]}, "gpu")


def test_a_folder_goes_in_pieces_and_comes_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(node, "PIECE_BYTES", 10)
    source, target = tmp_path / "a", tmp_path / "b"
    (source / "1_Pooling").mkdir(parents=True)
    (source / "w.safetensors").write_bytes(bytes(range(25)))
    (source / "1_Pooling" / "config.json").write_text("{}")
    (source / "empty.txt").write_bytes(b"")
    for name, offset, size in reversed(node.pieces(source)):
        node.write_piece(target, name, offset, (source / name).read_bytes()[offset : offset + size])
    assert {p.relative_to(target): p.read_bytes() for p in target.rglob("*") if p.is_file()} == {
        p.relative_to(source): p.read_bytes() for p in source.rglob("*") if p.is_file()
    }
    assert set(node.card(source)) == {"1_Pooling/config.json", "empty.txt"}
    with pytest.raises(ValueError, match="leads out"):
        node.write_piece(target, "../evil", 0, b"x")
    with pytest.raises(ValueError, match="no digest"):
        node.received(tmp_path, "../x")
