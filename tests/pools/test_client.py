"""Starting, finding, asking and stopping pools, as the magic, the command line and the engine do it. The runner is the fake one."""

from __future__ import annotations

import errno
import math
import os
import shlex
import signal
import subprocess
import sys
import time
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from pool_fake import byte_model

from holynb import pools
from holynb.config import settings
from holynb.errors import BadOption, BadRoute
from holynb.pools import launch, options
from holynb.pools.info import PoolInfo, read_status
from holynb.pools.options import PoolOptions
from holynb.ui.commands import pool
from kernels_support.jupyter import rendezvous, supervisor
from kernels_support.jupyter.process import Process
from kernels_support.jupyter.rendezvous import Record

HERE = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def nothing_left(fake_pools: None, home: Path) -> Iterator[None]:
    yield
    pools.stop("all")
    assert list((home / "run").glob("*")) == []


def test_start_find_status_stop(model: str, home: Path) -> None:
    notices: list[str] = []
    info = pools.start(model, name="mine", port=0, notice=notices.append)
    assert (info.name, info.model, info.state, info.devices, info.max_len) == ("mine", model, "ready", ("cpu",), 512)
    assert "mine: loading the weights" in notices
    assert info.base_url == f"http://127.0.0.1:{info.port}/v1"
    assert info.token is not None
    assert info.token.reveal() not in repr(info)
    assert info.as_dict()["token"] == info.token.reveal()
    assert [g.device for g in info.memory] == ["cpu"]
    assert info.memory[0].parts == {"weights": 4.0, "kv": 6.0, "rest": 2.0}
    assert pools.gauges("mine")[0].ours == 12
    for word in ("mine", model):
        record = pools.find(word)
        assert record is not None
        assert record.name == "mine"
    assert [i.name for i in pools.listing()] == ["mine"]
    assert pools.status("mine").pid == info.pid
    assert any("ready: mine" in line for line in pools.logs("mine"))
    assert any("loaded bytes" in line for line in pools.logs("mine"))
    pids = [info.pid, *info.ranks]
    assert pools.stop("mine") == ["mine"]
    assert not any(psutil.pid_exists(p) and psutil.Process(p).status() != psutil.STATUS_ZOMBIE for p in pids)
    assert pools.listing() == []
    assert list((home / "run").iterdir()) == []
    assert any("told to end" in line for line in pools.logs("mine")), "the log of an ended pool can still be read"


def test_the_same_pool_is_not_started_twice(model: str, tmp_path: Path) -> None:
    first = pools.start(model)
    assert first.name == "bytes"
    assert pools.start(model).pid == first.pid
    with pytest.raises(BadOption, match="already running"):
        pools.start(str(byte_model(tmp_path / "other" / "bytes")))
    with pytest.raises(BadOption, match="with no port"):
        pools.start(model, port=0)
    with pytest.raises(BadOption, match="as --dp 1 --tp 1 --pp 1"):
        pools.start(model, dp=2)
    with pytest.raises(BadOption, match="as --dp 1"):
        pools.start(model, tp=2)
    with pytest.raises(BadOption, match=r"its --max-len is the default\. Choose another --name"):
        pools.start(model, max_len=64)
    assert pools.start(model, devices="cpu").pid == first.pid
    assert pools.start(str(byte_model(tmp_path / "other" / "bytes")), name="b").pid != first.pid
    assert sorted(pools.stop("all")) == ["b", "bytes"]


def test_a_known_model_is_started_and_found_without_its_organisation(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "models").unlink()  # those that tests share
    byte_model(home / "models" / "Qwen--Qwen3-8B")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # its files are here
    first = pools.start("qwen3-8b", name="mine")
    assert first.model == "Qwen/Qwen3-8B"
    assert [pools.start(word, name="mine").pid for word in ("Qwen3-8B", "qwen3-8b", "Qwen/Qwen3-8B")] == [first.pid] * 3
    with pytest.raises(BadOption, match="already running Qwen/Qwen3-8B"):
        pools.start("Qwen3-4B", name="mine")


def test_bg_returns_at_once_and_wait_comes_later(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOLYNB_FAKE_LOAD", "1.5")
    info = pools.start(model, wait=False)
    assert info.state == "starting"
    assert pools.start(model).state == "ready"


def test_replicas_are_ranks_of_their_own_on_cores_of_their_own(model: str) -> None:
    info = pools.start(model, dp=2)
    assert info.devices == ("cpu", "cpu")
    assert len(set(info.ranks)) == 2
    assert len(info.memory) == 2
    shares = [os.sched_getaffinity(pid) for pid in info.ranks]
    if len(os.sched_getaffinity(0)) > 1:
        assert shares[0].isdisjoint(shares[1])
    assert shares[0] | shares[1] == os.sched_getaffinity(0)


@pytest.mark.parametrize(
    ("values", "devices"),
    [
        ({}, "cuda:0"),
        ({"dp": 2}, "cuda:0,cuda:1"),
        ({"devices": "3"}, "cuda:3"),
        ({"dp": 2, "devices": "1,0"}, "cuda:1,cuda:0"),
        ({"dp": 2, "devices": "cpu"}, "cpu,cpu"),
        ({"tp": 2}, "cuda:0,cuda:1"),
        ({"pp": 2, "devices": "4,5"}, "cuda:4,cuda:5"),
        ({"dp": 2, "tp": 2, "pp": 2, "devices": "cpu"}, ",".join(["cpu"] * 8)),
    ],
)
def test_devices_on_a_machine_of_two_gpus(monkeypatch: pytest.MonkeyPatch, values: dict[str, Any], devices: str) -> None:
    monkeypatch.setattr(options, "_gpus", lambda: 2)
    monkeypatch.setattr(options, "_torch_is_cpu_only", lambda: False)
    assert PoolOptions.parse("m", values).device_list == devices


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"dp": 3}, "--dp 3 needs 3 GPUs, but there are 2"),
        ({"dp": 2, "tp": 2}, "--dp 2 × --tp 2 needs 4 GPUs"),
        ({"pp": 2, "devices": "0"}, "names 1, but --pp 2 needs 2"),
        ({"dp": 2, "devices": "0"}, "Try --dp 1"),
        ({"devices": "0,1"}, "Try --dp 2 for replicas, --tp 2 or --pp 2 for a model that is larger than one device"),
    ],
)
def test_too_few_devices(monkeypatch: pytest.MonkeyPatch, values: dict[str, Any], words: str) -> None:
    monkeypatch.setattr(options, "_gpus", lambda: 2)
    monkeypatch.setattr(options, "_torch_is_cpu_only", lambda: False)
    with pytest.raises(BadOption, match=words):
        _ = PoolOptions.parse("m", values).device_list


def test_a_gpu_is_refused_where_torch_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options, "_torch_is_cpu_only", lambda: True)
    with pytest.raises(BadOption, match=r"--devices 1: the installed torch supports only the CPU\. Use --devices cpu"):
        _ = PoolOptions.parse("m", {"devices": "1"}).device_list
    assert PoolOptions.parse("m", {"devices": "cpu"}).device_list == "cpu"
    assert PoolOptions.parse("m", {}).device_list == "cpu"


def test_two_kernels_starting_at_once_share_one_pool(model: str) -> None:
    code = "import sys; from holynb import pools; print(pools.start(sys.argv[1]).pid)"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parent)])}
    both = [
        subprocess.Popen([sys.executable, "-c", code, model], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)
        for _ in range(2)
    ]
    outputs = [p.communicate(timeout=60) for p in both]
    assert [p.returncode for p in both] == [0, 0], outputs
    assert outputs[0][0] == outputs[1][0]


def test_a_pool_outlives_the_kernel_that_started_it_and_its_interrupts(model: str) -> None:
    """As a kernel is interrupted and killed: signals to its process group."""
    code = "import sys, time; from holynb import pools; print(pools.start(sys.argv[1]).pid, flush=True); time.sleep(60)"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parent)])}
    kernel = subprocess.Popen(
        [sys.executable, "-c", code, model], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=env, start_new_session=True
    )
    assert kernel.stdout is not None
    pid = int(kernel.stdout.readline())
    os.killpg(kernel.pid, signal.SIGINT)
    os.killpg(kernel.pid, signal.SIGKILL)
    kernel.wait(10)
    kernel.stdout.close()
    assert pools.status("bytes").state == "ready"
    assert pools.status("bytes").pid == pid
    pools.stop("bytes")
    process = Process.of(pid)
    assert process is None or process.wait(30)


def test_a_server_that_had_to_be_killed_was_told_to_end_as_well(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pools.start(model)

    def kill(process: Process, grace: float) -> bool:
        assert process.signal(signal.SIGKILL), grace
        return process.wait(30)

    monkeypatch.setattr(Process, "stop", kill)
    assert pools.stop("bytes") == ["bytes"]
    assert pools.ENDED_ON_REQUEST in pools.end_reason("bytes"), "or a row of a run would start the embedded pool again, which nobody wants"


def test_a_server_that_hangs_is_stopped_all_the_same(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    info = pools.start(model)
    os.kill(info.pid, signal.SIGSTOP)
    os.kill(info.ranks[0], signal.SIGSTOP)
    monkeypatch.setattr(launch, "_SILENT_S", 0.1)
    with pytest.raises(BadRoute, match=r"does not answer. End it: %infer pool stop bytes"):
        pools.start(model)
    silent = pools.status("bytes")
    assert (silent.state, silent.requests) == ("silent", None)
    assert "%infer pool stop bytes" in str(silent.why)
    assert pools.stop("bytes") == ["bytes"]
    assert any("told to end" in line for line in pools.logs("bytes")), "it went on, and ended in order"
    assert pools.listing() == []
    assert not any(psutil.pid_exists(p) and psutil.Process(p).status() != psutil.STATUS_ZOMBIE for p in (info.pid, *info.ranks))


def test_a_start_that_gives_up_ends_what_it_began(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOLYNB_FAKE_LOAD", "60")
    seen: list[Process] = []

    def status(record: Record) -> PoolInfo:
        """The status; once its rank has started, the server hangs."""
        info = read_status(record)
        if record.ranks and not seen:
            seen.extend([record.process, *record.ranks])
            os.kill(record.process.pid, signal.SIGSTOP)
        return info

    monkeypatch.setattr(launch, "read_status", status)
    monkeypatch.setattr(launch, "_SILENT_S", 0.1)
    with pytest.raises(BadRoute, match=r"did not answer while it started, and was ended. .*pool logs bytes"):
        pools.start(model)
    assert len(seen) == 2
    assert not any(process.alive for process in seen)
    assert pools.listing() == []


@pytest.mark.parametrize("wait", [True, False])
def test_a_start_that_is_interrupted_ends_what_it_began(model: str, monkeypatch: pytest.MonkeyPatch, wait: bool) -> None:
    monkeypatch.setenv("HOLYNB_FAKE_LOAD", "60")
    seen: list[Process] = []
    notices: list[str] = []

    def status(record: Record) -> PoolInfo:
        """The status; the user interrupts once its rank has started, or without --wait at once."""
        if record.ranks or not wait:
            seen.extend([record.process, *record.ranks])
            raise KeyboardInterrupt
        return read_status(record)

    monkeypatch.setattr(launch, "read_status", status)
    with pytest.raises(KeyboardInterrupt):
        pools.start(model, wait=wait, notice=notices.append)
    assert seen
    assert not any(process.alive for process in seen)
    assert pools.listing() == []
    assert notices[-1] == "bytes: interrupted while it started, so it is stopped"


def test_ctrl_c_ends_a_start_of_the_command_line(model: str, home: Path) -> None:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parent)]), "HOLYNB_FAKE_LOAD": "60"}
    code = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); from holynb import cli; sys.exit(cli.main())"
    command = [sys.executable, "-c", code, "pool", "start", model]
    started = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env)
    deadline = time.monotonic() + 60
    while not (record := rendezvous.find(home / "run", "bytes")) or not record.ranks:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    started.send_signal(signal.SIGINT)
    said, _ = started.communicate(timeout=60)
    assert "it is stopped" in said
    assert "Traceback" not in said
    assert not any(process.alive for process in (record.process, *record.ranks))
    assert pools.listing() == []


def test_a_start_that_is_interrupted_leaves_the_pool_of_another_that_was_first(model: str) -> None:
    first = pools.start(model)
    child = supervisor.spawn(
        supervisor.Command([sys.executable, "-c", "import time; time.sleep(60)"], inherits=dict(os.environ)), bound=True
    )
    launch._end("bytes", child)
    assert not child.alive
    ended = supervisor.spawn(supervisor.Command([sys.executable, "-c", ""], inherits=dict(os.environ)), bound=True)
    assert ended.wait(30)
    launch._end("bytes", ended)
    for one in (child, ended):
        assert one.control is not None
        assert one.control.fileno() == -1, "nothing of it stays open, also where it had ended by itself"
    assert pools.status("bytes").pid == first.pid


def test_a_start_that_is_never_seen_ends_what_it_began(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "_UNSEEN_S", 0.0)
    monkeypatch.setattr(rendezvous, "find", lambda run, name: None)
    began: list[Any] = []
    monkeypatch.setattr(launch, "spawn", lambda *a, **k: began.append(supervisor.spawn(*a, **k)) or began[0])
    with pytest.raises(BadRoute, match="was ended"):
        pools.start(model)
    assert not began[0].alive


def test_a_killed_server_is_cleaned_up_and_said(model: str) -> None:
    info = pools.start(model)
    os.kill(info.pid, signal.SIGKILL)
    gone = Process.of(info.ranks[0])
    assert gone is None or gone.wait(30)
    notes: list[str] = []
    end = time.monotonic() + 5
    while not notes and time.monotonic() < end:
        assert pools.listing(notes.append) == []
    assert "gone without a goodbye" in notes[0]
    assert info.socket is not None
    assert not Path(info.socket).parent.exists()


def test_a_pool_that_fails_to_start_says_its_own_words(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOLYNB_FAKE_FAIL", "CUDA out of memory while loading")
    with pytest.raises(BadRoute, match="CUDA out of memory while loading"):
        pools.start(model)


def test_a_model_that_is_none_says_so() -> None:
    with pytest.raises(BadRoute, match="no hub id"):
        pools.start("/no/such/model")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"tp": 0}, "1 to 64"),
        ({"pp": 12}, "1 to 11"),
        ({"dp": 8, "tp": 8, "pp": 2}, "128 processes"),
        ({"micro_batches": 2}, "belongs to --pp"),
        ({"pp": 3, "micro_batches": 2}, "takes 3 "),
        ({"restart": -1}, "--restart"),
        ({"dp": 0}, "1 to 64"),
        ({"dp": 2, "devices": "0"}, "Try --dp 1"),
        ({"engine": "vllm"}, "there is no vLLM in that environment"),
        ({"memory": 0}, "memory"),
        ({"memory": math.nan}, "memory"),
        ({"max_len": 0}, "--max-len"),
        ({"port": -1}, "1 to 65535"),
        ({"port": 65536}, "1 to 65535"),
        ({"dtype": "int4"}, "as they are, without --dtype: .*AWQ.*gpt-oss.*GGUF"),
        ({"name": "a/b"}, "name"),
        ({"devices": "gpu"}, "devices"),
        ({"maxlen": 3}, "Did you mean max_len"),
    ],
)
def test_bad_options_start_nothing(model: str, values: dict[str, object], words: str) -> None:
    with pytest.raises(BadOption, match=words):
        pools.start(model, **values)  # type: ignore[arg-type]
    assert pools.listing() == []


def test_what_does_not_run_cannot_be_asked(model: str) -> None:
    for ask in (pools.status, pools.stop, pools.logs):
        with pytest.raises(BadRoute, match="nowhere"):
            ask("nowhere")
    pools.start(model)
    with pytest.raises(BadRoute, match="Did you mean bytes"):
        pools.status("byte")


def test_what_has_run_once_is_started_again_by_the_line_that_started_it(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = str(byte_model(tmp_path / "a model"))
    assert pools.start_command("mine") == "%infer pool start MODEL --name mine"
    assert pools.start_command("org/name") == "%infer pool start org/name"
    pools.start("a model", name="mine", dp=2, idle=90.0, max_len=64)
    pools.start(model)
    pools.stop("all")
    line = f"%infer pool start '{folder}' --name mine --dp 2 --max-len 64 --idle 90s"
    assert pools.start_command("mine") == line
    with pytest.raises(BadRoute, match=f"Start it: {line}$"):
        pools.status("mine")
    assert pools.start_command(model) == pools.start_command("bytes") == f"%infer pool start {model}"
    assert pools.start_command("elsewhere/bytes") == "%infer pool start elsewhere/bytes", "another model of the same last word"
    message, info = pool.run(shlex.split(line)[2:], lambda text: None)
    assert "pool/mine is ready" in message
    assert (info["model"], info["dp"], info["max_len"]) == (folder, 2, 64)
    with pytest.raises(BadOption, match="its --max-len is 64"):
        pools.start(folder, name="mine", dp=2, max_len=128)
    assert pools.start(folder, name="mine", dp=2, max_len=64).pid == info["pid"]


def test_missing_extras_name_the_command(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "torch" else object())
    with pytest.raises(BadRoute, match=r"needs torch: pip install 'holynb\[local\]'. Or ask a provider: %%infer openai/"):
        pools.start(model)
    settings.override(default="pool/other")
    with pytest.raises(BadRoute, match="Or ask a provider: %%infer openai/"):
        pools.start(model)
    settings.override(default="class", alias={"class": "school/llm"}, provider={"school": {"base": "http://127.0.0.1:1/v1"}})
    with pytest.raises(BadRoute, match=r"Or ask a provider: %%infer school/llm$"):
        pools.start(model)


def test_another_machines_pool_is_shown_as_such(home: Path) -> None:
    rendezvous.write(home / "run", rendezvous.Record("far", Process(1, 1), host="elsewhere", facts={"model": "m"}))
    assert [(i.name, i.state, i.host) for i in pools.listing()] == [("far", "elsewhere", "elsewhere")]
    for ask in (pools.stop, pools.status):
        with pytest.raises(BadRoute, match=r"is of the machine elsewhere, .* remove the pool's file in .*run"):
            ask("far")
    (home / "run" / "far.json").unlink()


def test_importing_pools_loads_nothing_heavy() -> None:
    code = "import sys, holynb.pools; print([m for m in ('torch', 'httpx', 'pandas', 'uvicorn', 'holynb.pool') if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": str(HERE.parent)}
    )
    assert done.stdout.strip() == "[]"


def test_a_kernel_that_is_out_of_files_says_so_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def out(folder: Path, on_stale: Any = None) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), str(folder))

    with monkeypatch.context() as changed:
        changed.setattr(rendezvous, "listing", out)
        for ask in (pools.listing, lambda: pools.find("x"), lambda: pools.stop("all"), pools.start):
            with pytest.raises(BadRoute, match=r"Too many open files .*ulimit -n") as caught:
                ask()
            assert "\n" not in str(caught.value)


@pytest.mark.parametrize("start", [pools.start, pools.deploy])
def test_the_embedded_models_name_mistyped_is_refused_before_anything_starts(start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "spawn", lambda *_, **__: pytest.fail("started"))
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("started"))
    with pytest.raises(BadOption, match=r"smollm2-135 is no folder, no \.gguf file and no hub id.*Did you mean smollm2-135m\?"):
        start("smollm2-135")


def test_names_that_look_alike_are_one_pool(tmp_path: Path) -> None:
    """A Mac's folders write Hangul in parts."""
    apart = unicodedata.normalize("NFD", "반")
    folder = byte_model(tmp_path / f"{apart}-모델")
    assert PoolOptions(str(folder)).pool_name == "반-모델"
    pools.start(str(folder), name=apart)
    assert [p.name for p in pools.listing()] == ["반"]
    assert pools.status(apart).pid == pools.status("반").pid
    assert pools.logs("반")[0] == pools.logs(apart)[0]
    assert pools.stop(apart) == ["반"]
    assert pools.start_command(apart) == pools.start_command("반")
