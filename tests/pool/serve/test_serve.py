"""A pool behind Ray Serve, and a data set in shards: asked of one cluster on this machine, in a process of its own (`session.py`)."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from holynb.errors import BadOption
from holynb.pool.serve import deploying
from holynb.pool.serve.__main__ import main
from holynb.pool.serve.deploying import Deployed
from holynb.shards import Shards, infer, shard_of
from holynb.ui.commands import pool

DEADLINE_S = 1200
pytestmark = pytest.mark.timeout(DEADLINE_S + 100)


@pytest.fixture(scope="module")
def facts() -> Iterator[dict[str, Any]]:
    if importlib.util.find_spec("ray") is None:
        pytest.skip("Ray is not installed: pip install 'holynb[ray]'")
    folder = Path(tempfile.mkdtemp(prefix="h-", dir="/tmp"))  # short: Ray's sockets lie under it
    try:
        session = Path(__file__).with_name("session.py")
        done = subprocess.run([sys.executable, session, folder], capture_output=True, text=True, check=False, timeout=DEADLINE_S)
        assert done.returncode == 0, done.stderr[-3000:]
        yield json.loads(done.stdout.strip().splitlines()[-1])
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.slow
def test_a_deployed_pool_answers_a_notebook_as_a_provider_does(facts: dict[str, Any]) -> None:
    served = facts["served"]
    assert served["deployed"]["name"] == "bytes"
    assert served["health"][1]["state"] == "ready"
    assert served["models"][1]["data"][0]["id"] == "bytes"
    assert served["notebook"] == ["by a notebook"]
    assert served["refused"][0] == 404


@pytest.mark.slow
def test_a_client_that_leaves_ends_its_row(facts: dict[str, Any]) -> None:
    assert facts["served"]["under_way"] == 1
    assert facts["served"]["left"]


@pytest.mark.slow
def test_a_rolling_update_drops_no_stream_and_leaves_no_process(facts: dict[str, Any]) -> None:
    served = facts["served"]
    assert served["streamed"] == "a stream of some length that is on its way while its replica is replaced"
    assert served["replaced"]
    assert served["answers_after"] == "again"
    assert facts["left_behind"] == 0


@pytest.mark.slow
def test_load_brings_a_replica_and_quiet_takes_it_away(facts: dict[str, Any]) -> None:
    assert facts["scaled"]["grew_in_s"] > 5, "a burst brings none"
    assert facts["scaled"]["shrank_in_s"] > 2


@pytest.mark.slow
def test_a_rank_that_is_killed_costs_no_row_and_one_that_stays_away_its_replica(facts: dict[str, Any]) -> None:
    survived = facts["survived"]
    assert survived["killed"] == 4
    assert survived["rows"] == survived["rows_after"] == [f"row {i} " for i in range(8)]
    assert survived["left"] == 0


@pytest.mark.slow
def test_a_task_that_is_killed_goes_on_with_its_shard(facts: dict[str, Any]) -> None:
    """What was under way at the kill is asked again; nothing that a log has."""
    divided = facts["divided"]
    assert divided["killed"] == 1
    assert divided["right"]
    assert divided["asked_twice"] <= 16
    assert divided["paid_more_than_asked"] == 0
    assert divided["again"] == [400, 0]
    assert set(divided["logs"]) == {"shards.json", "shard-0", "shard-1", "shard-2"}


def test_a_key_has_one_shard_everywhere() -> None:
    assert shard_of(7, 16) == shard_of("7", 16) == 2, "answers lie where they were put"
    counts = [0] * 8
    for key in range(4000):
        counts[shard_of(key, 8)] += 1
    assert max(counts) < 1.2 * min(counts)


@pytest.mark.parametrize(
    ("shards", "options", "said"),
    [
        (Shards("id", 0, "n"), {}, "count=0"),
        (Shards("id", 4, "a/b"), {}, "becomes a folder"),
        (Shards("id", 4, ".."), {}, "becomes a folder"),
        (Shards("id", 4, "n"), {"df": 1}, "df cannot be given"),
        (Shards("id", 4, "n"), {"temprature": 1}, "temprature"),
    ],
)
def test_what_cannot_be_divided_is_said_before_anything_runs(shards: Shards, options: dict[str, Any], said: str) -> None:
    with pytest.raises(BadOption, match=said):
        infer(None, "x", "sim/echo", shards, **options)


@pytest.mark.parametrize("replicas", ["0", "8..1", "1..", "a", "1..0", "-1"])
def test_bounds_that_are_none_are_refused(replicas: str) -> None:
    with pytest.raises(ValueError, match="--replicas"):
        deploying.bounds(replicas)


def test_the_file_says_what_serve_is_told() -> None:
    deployed = Deployed.of({"model": "m", "name": "n", "replicas": "1..8", "tp": 2, "gpus": True, "max_len": 4096})
    (application,) = deploying.schema(deployed, 9000)["applications"]
    assert Deployed.of(application["args"]) == deployed
    (deployment,) = application["deployments"]
    delays = {"upscale_delay_s": 10.0, "downscale_delay_s": 600.0}
    assert deployment["autoscaling_config"] == {"min_replicas": 1, "max_replicas": 8, "target_ongoing_requests": 32.0, **delays}
    assert deployment["ray_actor_options"] == {"num_cpus": 2.0, "num_gpus": 2}
    assert deployed.pool_args[:2] == ["--devices", "cuda:0,cuda:1"]
    with pytest.raises(ValueError, match="modle"):
        Deployed.of({"modle": "m"})


def test_the_command_writes_the_file_that_serve_takes(tmp_path: Path) -> None:
    schema = pytest.importorskip("ray.serve.schema")
    yaml = pytest.importorskip("yaml")
    text, _ = pool.run(["deploy", "smollm2-135m", "--replicas", "2..4", "--write", str(tmp_path / "p.yaml")], lambda line: None)
    assert text.endswith(f"serve deploy {tmp_path / 'p.yaml'}")
    read = schema.ServeDeploySchema.model_validate(yaml.safe_load((tmp_path / "p.yaml").read_text()))
    assert read.applications[0].import_path == "holynb.pool.serve.deployment:build"
    with pytest.raises(BadOption, match="--replicas takes a number"):
        pool.run(["deploy", "smollm2-135m", "--replicas", "4..2", "--write", str(tmp_path / "q.yaml")], lambda line: None)


def test_an_address_that_answers_nothing_is_said_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("ray")
    assert main(["--model", "m", "--name", "n", "--address", "ray://127.0.0.1:9"]) == 1
    assert json.loads(capsys.readouterr().out)["error"].startswith("Nothing answers at ray://127.0.0.1:9 (Connection refused).")


def test_where_no_cluster_runs_nothing_is_announced(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    ray = pytest.importorskip("ray")
    notices: list[str] = []
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    with pytest.raises(BadOption, match=r"Nothing answers at 127\.0\.0\.1:9"):
        pool.run(["deploy", "smollm2-135m"], notices.append)
    assert notices == []

    def init(**_: object) -> None:
        raise ConnectionError("Could not find any running Ray instance")

    monkeypatch.delenv("RAY_ADDRESS")
    monkeypatch.setattr(ray, "init", init)
    assert main(["--model", "m", "--name", "n"]) == 1
    assert json.loads(capsys.readouterr().out)["error"].startswith(
        "No Ray cluster answers on this machine. Start one with ray start --head"
    )


@pytest.mark.skipif(sys.platform == "win32", reason="the stand-in is a shell script")
def test_what_serve_does_is_announced_once_the_cluster_has_let_us_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = {"name": "smollm2-135m", "url": "http://127.0.0.1:8000/v1", "replicas": "1", "cluster": "10.0.0.1:6379"}
    stand_in = tmp_path / "python"
    stand_in.write_text(f"#!/bin/sh\necho '{json.dumps({'connected': True})}'\necho a word of Serve\necho '{json.dumps(facts)}'\n")
    stand_in.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(stand_in))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: True)
    notices: list[str] = []
    text, _ = pool.run(["deploy", "smollm2-135m"], notices.append)
    assert notices == ["Ray Serve starts the replicas; weights are fetched on the nodes that lack them"]
    assert text.startswith("ray/smollm2-135m answers at http://127.0.0.1:8000/v1, on the Ray cluster at 10.0.0.1:6379.")
    stand_in.write_text(f"#!/bin/sh\necho '{json.dumps({'connected': True})}'\necho it broke >&2\n")
    with pytest.raises(BadOption, match=r"^it broke$"):
        pool.run(["deploy", "smollm2-135m"], notices.append)
