"""The forecast's line is the plan's, about the one device that was chosen; what does not fit stops before anything is loaded."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from holynb.errors import UserError
from holynb.pool.fit import preflight as module
from holynb.pool.fit.mesh import Mesh
from holynb.pool.fit.preflight import forecast, gpu_memory

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "max_position_embeddings": 8192,
    "torch_dtype": "bfloat16",
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "llama-8b").mkdir()
    (tmp_path / "llama-8b" / "config.json").write_text(json.dumps(CONFIG))
    return tmp_path / "llama-8b"


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Any:
    return lambda free: monkeypatch.setattr(module, "gpu_memory", lambda device: free)


def ask(folder: Path, *devices: str, mesh: Mesh = Mesh()) -> str | None:  # noqa: B008 - it never changes
    fit = forecast(folder, devices or ("cuda:0",), dtype=None, max_len=4096, share=0.9, mesh=mesh)
    return fit and fit.details


def test_what_fits_says_with_what(folder: Path, gpu: Any) -> None:
    gpu(80_000_000_000)
    line = ask(folder)
    assert line is not None
    assert line.startswith("llama-8b fits on 1x80GB in bfloat16: 16.1 GB of weights per device, ")
    fit = forecast(folder, ("cuda:0",), dtype=None, max_len=4096, share=0.9, mesh=Mesh())
    assert fit is not None
    assert re.match(r"loading llama-8b \(16\.1 GB\), about \d+ s", fit.loading)


def test_what_does_not_fit_says_what_would(folder: Path, gpu: Any) -> None:
    gpu(12_000_000_000)
    with pytest.raises(UserError, match=r"does not fit on 1x12GB .* --tp 2"):
        ask(folder)


def test_a_divided_model_is_judged_by_its_shares(folder: Path, gpu: Any) -> None:
    gpu(16_000_000_000)
    with pytest.raises(UserError, match="does not fit on 1x16GB"):
        ask(folder)
    for mesh, flag in ((Mesh(2, 1), "--tp 2"), (Mesh(1, 2), "--pp 2")):
        line = ask(folder, "cuda:0", "cuda:1", mesh=mesh)
        assert line is not None
        assert f"as {flag} in bfloat16: 8." in line


def test_gpus_that_stand_idle_are_pointed_at(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = {"cuda:0": 80_000_000_000, "cuda:1": 79_000_000_000, "cuda:2": 5_000_000_000, "cuda:3": 80_000_000_000}
    monkeypatch.setattr(module, "gpu_memory", free.get)
    line = ask(folder)
    assert line is not None
    assert line.endswith("; with all 3 free GPUs: --dp 3"), "the third one is somebody else's"
    assert "free GPUs" not in str(ask(folder, "cuda:0", "cuda:1", "cuda:3", mesh=Mesh()))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert "free GPUs" not in str(ask(folder)), "others are not for this process"


def test_a_cut_that_does_not_divide_names_those_that_do(folder: Path) -> None:
    for device in ("cpu", "cuda:0"):
        with pytest.raises(UserError, match=r"do not divide by --tp 3. For this model --tp can be 1, 2, 4, 8, 16, 32"):
            ask(folder, *[device] * 3, mesh=Mesh(3, 1))
        with pytest.raises(UserError, match=r"--pp can be 1 to 32"):
            ask(folder, *[device] * 33, mesh=Mesh(1, 33))


def test_an_unknown_family_is_said_before_loading(folder: Path, gpu: Any) -> None:
    (folder / "config.json").write_text(json.dumps({**CONFIG, "architectures": ["MambaForCausalLM"]}))
    with pytest.raises(UserError, match="Mamba"):
        ask(folder)


def test_a_gpu_that_cannot_be_asked_is_left_to_the_loader(folder: Path, gpu: Any) -> None:
    gpu(None)
    assert ask(folder) is None


def test_nvml_is_asked_for_the_device_that_torch_would_take(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def handle(which: Any) -> Any:
        asked.append(which)
        return which

    fake = SimpleNamespace(
        NVMLError=RuntimeError,
        nvmlInit=lambda: None,
        nvmlShutdown=lambda: None,
        nvmlDeviceGetHandleByIndex=handle,
        nvmlDeviceGetHandleByUUID=handle,
        nvmlDeviceGetMemoryInfo=lambda h: SimpleNamespace(free=5),
    )
    monkeypatch.setitem(__import__("sys").modules, "pynvml", fake)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert gpu_memory("cuda:1") == 5
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-abc")
    gpu_memory("cuda:0")
    gpu_memory("cuda:1")
    assert asked == [1, 3, "GPU-abc"]
    fake.nvmlInit = lambda: (_ for _ in ()).throw(RuntimeError("no driver"))
    assert gpu_memory("cuda:0") is None
