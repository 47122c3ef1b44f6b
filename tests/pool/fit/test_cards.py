"""Cards by name: their memory, and FP8 where they have units for it alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from holynb.errors import UserError
from holynb.pool import advice
from holynb.pool.fit import cards, preflight
from holynb.pool.fit.known import KNOWN


@pytest.mark.parametrize(
    "name", ["A100-80GB", "V100-32GB", "T4", "RTX 3090", "3080-10GB", "A10G", "A40", "RTX A6000", "2xA100-40GB", "P100-16GB"]
)
def test_cards_before_ada_and_hopper_have_no_fp8(name: str) -> None:
    assert not cards.has_fp8(name)
    assert not cards.parse_gpus(name).fp8


@pytest.mark.parametrize("name", ["L4", "L40S", "4090", "RTX 5090", "H100", "8xH200", "24GB", "4x80GB"])
def test_those_from_then_on_have_it_and_so_may_what_is_not_named(name: str) -> None:
    assert cards.has_fp8(name)
    assert cards.parse_gpus(name).fp8


@pytest.mark.parametrize(
    ("gpus", "offered"), [("4xA100-40GB", False), ("4x40GB", True), ("2xL40S", True), ("2xA40", False), ("4x3090", False)]
)
def test_fp8_is_offered_where_it_is_computed(gpus: str, offered: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    size = "100B" if gpus.startswith("4x40") or "A100" in gpus else "70B"
    assert advice.main([size, "--gpus", gpus, "--home", str(tmp_path)]) == 1
    says = capsys.readouterr().out
    assert "does not fit" in says
    assert ("in fp8" in says) == offered
    assert "in four bits" in says


def said(tmp_path: Path, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    code = advice.main([*words, "--home", str(tmp_path), "--json"])
    result = json.loads(capsys.readouterr().out)
    assert ("error" in result) == (code == 2)
    return str(result.get("error") or result["says"])


def test_what_needs_fp8_is_refused_by_a_card_without(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (("8B", "--dtype", "fp8"), ("Qwen/Qwen3-8B-FP8",)):
        assert "These GPUs have no FP8 units" in said(tmp_path, capsys, *words, "--gpus", "1xA100-80GB")
        assert " fits on 1x80GB" in said(tmp_path, capsys, *words, "--gpus", "1xH100")
    assert said(tmp_path, capsys, "8B", "--kv", "fp8", "--gpus", "1xA100-80GB").endswith("Leave --kv out, or take --engine vllm.")
    for words in (("Qwen/Qwen3-8B-AWQ",), ("openai/gpt-oss-20b",), ("8B",), ("8B", "--dtype", "int8")):
        assert " fits on 1x80GB" in said(tmp_path, capsys, *words, "--gpus", "1xA100-80GB")


@pytest.mark.parametrize(
    ("capability", "has"), [((7, 0), False), ((8, 0), False), ((8, 6), False), ((8, 9), True), ((9, 0), True), (None, True)]
)
def test_a_gpu_that_is_here_says_it_itself(
    capability: tuple[int, int] | None, has: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(preflight, "_by_nvml", lambda device, question: capability)
    assert preflight.gpu_has_fp8("cuda:0") == has
    monkeypatch.setattr(preflight, "gpu_memory", lambda device: 80 * 10**9)
    monkeypatch.setattr(preflight, "free_gpu_memory", list)
    (tmp_path / "config.json").write_text(json.dumps({**KNOWN["Qwen/Qwen3-8B"], "model_type": "qwen3"}))

    def start() -> preflight.Forecast | None:
        return preflight.forecast(tmp_path, ["cuda:0"], dtype="fp8", max_len=None, share=0.9, mesh=preflight.Mesh())

    if has:
        assert start() is not None
    else:
        with pytest.raises(UserError, match="no FP8 units"):
            start()
