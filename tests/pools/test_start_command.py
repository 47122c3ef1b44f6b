"""The command that starts a pool again: what is written is read back as the same pool, in a terminal and in a cell."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holynb.config import duration, duration_text
from holynb.errors import BadOption
from holynb.pools.options import PoolOptions
from holynb.ui.cell import grammar
from holynb.ui.commands import pool

SECONDS = st.one_of(
    st.integers(1, 10**9).map(float),
    st.integers(1, 4000).map(lambda days: days * 86400.0),
    st.floats(1e-9, 1e15, allow_nan=False),
)
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0", exclude_categories=("C", "Z")), min_size=1, max_size=12)
#: No spelling of a single quote beside one of these is the same in a shell and in a cell.
APART = str.maketrans("", "", '"$`\\!')
PATHS = TEXTS.map(lambda t: f"/nowhere/it's {t.translate(APART)}") | TEXTS.map(lambda t: f"org/{t}".replace("'", ""))

#: Of a pool of this machine, and of one on Ray.
LOCAL: dict[str, st.SearchStrategy[Any]] = {
    "name": st.from_regex(r"[a-z][\w.:-]{0,20}", fullmatch=True).filter(lambda n: n != "all"),
    "dp": st.integers(1, 8),
    "tp": st.integers(1, 8),
    "devices": st.sampled_from(["cpu", "0", "0,1"]),
    "dtype": st.sampled_from(["float32", "bfloat16", "int8"]),
    "kv": st.just("fp8"),
    "max_len": st.integers(1, 10**7),
    "memory": st.floats(0, 1, exclude_min=True),
    "port": st.integers(0, 65535),
    "idle": SECONDS,
    "restart": st.integers(0, 1000),
}
STAGES: dict[str, st.SearchStrategy[Any]] = {"pp": st.integers(2, 3), "micro_batches": st.integers(3, 11)}
VLLM: dict[str, st.SearchStrategy[Any]] = {"engine": st.just("vllm"), "python": PATHS}
ON_RAY: dict[str, st.SearchStrategy[Any]] = {
    "on": st.sampled_from(["ray", "ray://10.0.0.1:10001", "head:6379"]),
    "dp": st.integers(1, 8) | st.tuples(st.integers(1, 3), st.integers(3, 8)).map(lambda b: f"{b[0]}..{b[1]}"),
    "cpus": st.integers(1, 64),
    "spread": st.just(True),
    "wait_nodes": SECONDS,
    "lease": SECONDS,
    "idle": SECONDS,
    "memory": st.floats(0, 1, exclude_min=True),
    "runtime_env": st.sampled_from(['{"pip": ["holynb[local,ray]"]}', '{"env_vars": {"A": "1"}}']),
}


def read(words: Sequence[str]) -> PoolOptions:
    """What `pool start` makes of the words."""
    values, positional = grammar.parse_options(words, {flag: option for option in pool.START_OPTIONS for flag in option.flags})
    by_name = {o.name: o for o in pool.START_OPTIONS}
    return PoolOptions.parse(positional[0], {n: o.convert(v) if (o := by_name[n]).convert else v for n, v in values.items()})


@settings(max_examples=60, deadline=None)
@given(
    PATHS,
    st.fixed_dictionaries({}, optional=LOCAL)
    | st.fixed_dictionaries(STAGES, optional={"idle": SECONDS})
    | st.fixed_dictionaries(VLLM, optional={"idle": SECONDS})
    | st.fixed_dictionaries({"on": ON_RAY["on"]}, optional={k: v for k, v in ON_RAY.items() if k != "on"}),
)
def test_what_is_written_is_read_back_as_the_same(model: str, values: dict[str, Any]) -> None:
    options = PoolOptions.parse(model, values)
    line = options.start_command
    assert read(shlex.split(line)[3:]) == options, "in a terminal"
    assert read(grammar.split(line)[3:]) == options, "in a cell"


def test_every_option_of_a_start_is_tried_above() -> None:
    tried = {*LOCAL, *STAGES, *VLLM, *ON_RAY, "model", "dp_most"}
    assert {f.name for f in fields(PoolOptions)} == tried
    assert {o.name for o in pool.START_OPTIONS} - {"bg"} <= tried


@given(SECONDS)
def test_a_duration_is_read_back_as_the_same_seconds(seconds: float) -> None:
    assert duration(duration_text(seconds)) == seconds


@pytest.mark.parametrize(
    ("typed", "written"),
    [
        ("30d", "30d"),
        ("1h30m", "90m"),
        ("90", "90s"),
        ("90s", "90s"),
        ("0.5", "0.5s"),
        ("2592000", "30d"),
        ("250ms", "0.25s"),
        ("7d", "7d"),
    ],
)
def test_durations_are_written_as_people_write_them(typed: str, written: str) -> None:
    assert duration_text(duration(typed)) == written
    assert PoolOptions("org/m", idle=duration(typed)).start_command == f"%infer pool start org/m --idle {written}"


@pytest.mark.parametrize("seconds", [0.0, -1.0, math.inf, math.nan])
@pytest.mark.parametrize("name", ["idle", "lease", "wait_nodes"])
def test_what_is_no_duration_is_refused(name: str, seconds: float) -> None:
    with pytest.raises(BadOption, match=f"--{name.replace('_', '-')} takes a duration|belongs to --on ray"):
        PoolOptions.parse("org/m", {name: seconds})


def test_paths_of_a_folder_hold_from_any_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("model", "env", "ray.json"):
        (tmp_path / name).write_text("{}")
    assert PoolOptions("model", engine="vllm", python="env").start_command.endswith(
        f"start {tmp_path}/model --engine vllm --python {tmp_path}/env"
    )
    assert PoolOptions("org/m", on="ray", runtime_env="ray.json").start_command.endswith(f"--runtime-env {tmp_path}/ray.json")
