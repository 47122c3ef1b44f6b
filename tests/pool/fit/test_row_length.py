"""A row that is asked for has to go into the cache, or the way does not fit; a model's own context is said where more is asked for."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from holynb.errors import UserError
from holynb.pool import advice
from holynb.pool.fit import Mesh, forecast, parse_spec, plan, preflight
from holynb.pool.fit.known import KNOWN
from holynb.pool.fit.row_length import longest_row, own_context
from holynb.pools.info import PoolInfo
from holynb.ui.commands import pool_state


def planned(capsys: pytest.CaptureFixture[str], words: str) -> tuple[int, dict[str, Any]]:
    code = advice.main([*words.split(), "--json"])
    return code, json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(
    ("words", "holds"),
    [
        ("Qwen3-8B --gpus 2x24GB --dp 2 --max-len 40960", "as --tp 2 ("),
        ("8B --gpus 2x24GB --dp 2 --max-len 60000", "as --tp 2 ("),
        ("Qwen/Qwen3-32B --gpus 2x24GB --tp 2 --dtype int8 --max-len 32768", "on 3x24GB"),
        ("8B --gpus 1x24GB --max-len 60000", "in fp8"),
    ],
)
def test_a_way_whose_cache_holds_no_such_row_does_not_fit(capsys: pytest.CaptureFixture[str], words: str, holds: str) -> None:
    code, said = planned(capsys, words)
    asked = int(words.rpartition(" ")[2])
    assert (code, said["ways"]) == (1, [])
    (room,) = re.findall(rf"a row of {asked:,} tokens \(--max-len\) is more than the ([\d,]+) that its KV cache would hold\.", said["says"])
    assert int(room.replace(",", "")) < asked
    assert f"It would fit {holds}" in said["says"] or f", or {holds}" in said["says"]
    # What is offered holds what it says: the longest row that these devices take.
    (rows,) = re.findall(r"or with --max-len (\d+)", said["says"])
    code, shorter = planned(capsys, words.replace(str(asked), rows))
    assert code == 0
    assert shorter["best"]["kv_tokens"] >= int(rows)


def test_without_a_length_that_is_asked_for_rows_are_as_long_as_the_cache(capsys: pytest.CaptureFixture[str]) -> None:
    code, said = planned(capsys, "Qwen/Qwen3-32B --gpus 2x24GB --tp 2 --dtype int8")
    assert code == 0
    assert 4096 <= said["best"]["kv_tokens"] < 8192
    assert f"{said['best']['kv_tokens']:,} tokens of KV cache per replica (rows of up to that many)" in said["says"]


def test_the_longest_row_of_layers_that_slide_is_one_that_goes_in() -> None:
    """A shorter row takes more bytes of a token there, so the cache's tokens at one length are not those at another."""
    spec, device = parse_spec(dict(KNOWN["google/gemma-3-12b"])), plan.Device(1, 32 * 10**9)
    limits = plan.limits_of(spec, cpu=False, max_len=131072)
    short = plan.fit(spec, device, Mesh(), "bfloat16", limits)
    rows = longest_row(spec, device, short, limits, plan.SHARE)
    assert not short.fits
    assert plan.fit(spec, device, Mesh(), "bfloat16", replace(limits, max_len=rows)).fits
    assert not plan.fit(spec, device, Mesh(), "bfloat16", replace(limits, max_len=rows + 1024)).fits
    assert rows < short.kv_tokens


@pytest.mark.parametrize(
    ("words", "context"), [("Qwen/Qwen3-8B --gpus 1x80GB", 40960), ("smollm2-135m --devices cpu", 8192), ("8B --gpus 8x80GB", None)]
)
def test_a_plan_says_the_models_own_context_where_more_is_asked_for(
    capsys: pytest.CaptureFixture[str], words: str, context: int | None
) -> None:
    asked = 60000
    _, said = planned(capsys, f"{words} --max-len {asked}")
    sentence = f"Its own context is {context:,} tokens: --max-len {asked} gives no more." if context else "own context"
    assert (sentence in said["says"]) is (context is not None)
    assert "own context" not in planned(capsys, f"{words} --max-len 4096")[1]["says"]


def test_a_start_says_so_and_refuses_a_row_that_its_device_cannot_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.json").write_text(json.dumps(dict(KNOWN["Qwen/Qwen3-8B"])))
    monkeypatch.setattr(preflight, "gpu_memory", lambda _: 24 * 10**9)

    def ask(max_len: int | None) -> str:
        result = forecast(tmp_path, ("cuda:0",), dtype=None, max_len=max_len, share=0.9, mesh=Mesh())
        assert result is not None
        return result.details

    with pytest.raises(
        UserError, match=r"a row of 40,960 tokens \(--max-len\) is more than the .* It would fit in fp8, or .*--max-len \d+"
    ):
        ask(40960)
    assert "own context" not in ask(None)
    monkeypatch.setattr(preflight, "gpu_memory", lambda _: 80 * 10**9)
    assert ask(50000).endswith("Its own context is 40,960 tokens: --max-len 50000 gives no more.")


def test_a_pool_says_what_its_rows_have_where_more_was_asked_for() -> None:
    info = PoolInfo("m", "m", "ready", 1, "here", max_len=512, max_len_asked=4096)
    assert pool_state.shortened(info) == "Rows of pool/m have up to 512 tokens, its context: --max-len 4096 gives no more."
    assert pool_state.longest(info) == "512 tokens (--max-len 4096 is more than its context)"
    for as_asked in (replace(info, max_len_asked=512), replace(info, max_len_asked=None), replace(info, max_len=None)):
        assert pool_state.shortened(as_asked) == ""
        assert "max-len" not in pool_state.longest(as_asked)


def test_no_more_than_the_context_is_nothing_to_say() -> None:
    spec = parse_spec(dict(KNOWN["Qwen/Qwen3-8B"]))
    assert own_context(spec, None) == own_context(spec, 40960) == ""
    assert own_context(spec, 40961)
