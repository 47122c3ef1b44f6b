"""`%infer pool plan` and the panel's Plan button: what fits, and what would; nothing is loaded."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf_fake
import pytest
import tiny

from holynb import cli
from holynb.config import settings
from holynb.errors import BadOption
from holynb.pool import advice
from holynb.pool.fit import memory, preflight
from holynb.pools.info import PoolInfo
from holynb.ui.commands import pool, pool_state
from holynb.ui.live import timer
from holynb.ui.panel.poolform import PoolForm
from holynb.ui.panel.pooltable import table

LLAMA8 = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "max_position_embeddings": 8192,
    "torch_dtype": "bfloat16",
}


def plan(*words: str) -> tuple[str, Any]:
    return pool.run(["plan", *words], lambda text: None)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "llama-8b").mkdir()
    (tmp_path / "llama-8b" / "config.json").write_text(json.dumps(LLAMA8))
    return tmp_path / "llama-8b"


@pytest.mark.parametrize(
    ("size", "gpus", "words"),
    [
        (
            "70B",
            "4x24GB",
            ("does not fit on 4x24GB in bfloat16: the weights alone are 139 GB", "It would fit in fp8, as --tp 4", "About 32B"),
        ),
        ("1.76T", "8x80GB", ("does not fit on 8x80GB", "3,520 GB", "It would fit on 56x80GB, as --tp 8 --pp 7", "About 123B")),
        (
            "Qwen/Qwen3-30B-A3B",
            "2x24GB",
            ("the weights alone are 61.1 GB", "It would fit in fp8, as --tp 2, or in four bits (files of AWQ or GPTQ), as --dp 2."),
        ),
        ("8B", "1x17GB", ("beside 16 GB of weights, 90% of 17 GB has no room for keys", "It would fit in fp8, or in four bits")),
        ("70B", "8x80GB", ("fits on 8x80GB as --dp 2 --tp 4", "--pp 8")),
        ("8B", "2x12GB", ("fits on 2x12GB as --tp 2",)),
    ],
)
def test_a_size_without_files(size: str, gpus: str, words: tuple[str, ...]) -> None:
    text, data = plan(size, "--gpus", gpus)
    assert [w for w in words if w not in text] == []
    assert "pool start" not in text, "a size cannot be started"
    assert data["devices"] == gpus


def test_the_best_way_stands_first_and_is_what_start_takes(folder: Path) -> None:
    text, data = plan(str(folder), "--gpus", "4x24GB")
    assert data["best"] == data["ways"][0]
    assert (data["best"]["dp"], data["best"]["tp"], data["best"]["pp"]) == (4, 1, 1)
    assert text.endswith(f"Start it: %infer pool start {folder} --dp 4")
    assert {w["dtype"] for w in data["ways"]} == {"bfloat16", "float32"}
    assert all(w["dp"] * w["tp"] * w["pp"] <= 4 and w["kv_tokens"] > 4096 for w in data["ways"])


def test_what_starts_it_has_all_that_was_asked_for(folder: Path) -> None:
    asked = ("--dtype", "fp8", "--kv", "fp8", "--max-len", "4096", "--memory", "0.8")
    text, _ = plan(str(folder), "--gpus", "2x12GB", "--tp", "2", *asked)
    assert text.endswith(f"Start it: %infer pool start {folder} --tp 2 {' '.join(asked)}")


@pytest.mark.parametrize(
    ("cards", "devices"),
    [
        *[("2xH100", "2x80GB"), ("4xA100-80GB", "4x80GB"), ("RTX 4090", "1x24GB"), ("h200", "1x141GB"), ("2x4090", "2x24GB")],
        *[("2xRTX3090", "2x24GB"), ("5090", "1x32GB"), ("2xA6000", "2x48GB"), ("2x RTX A6000", "2x48GB"), ("L40S", "1x48GB")],
        *[("2xA10", "2x24GB"), ("4xT4", "4x16GB"), ("NVIDIA L4", "1x24GB"), ("v100-32g", "1x32GB")],
    ],
)
def test_cards_are_known_by_name(cards: str, devices: str) -> None:
    assert plan("8B", "--gpus", cards)[1]["devices"] == devices


def test_sizes_that_are_asked_for_are_held(folder: Path) -> None:
    _, data = plan(str(folder), "--gpus", "4x24GB", "--tp", "2")
    assert {w["tp"] for w in data["ways"]} == {2}
    text, data = plan(str(folder), "--gpus", "2x12GB", "--dp", "2")
    assert data["ways"] == []
    assert "does not fit on 2x12GB in bfloat16" in text
    assert "It would fit as --tp 2" in text
    assert "is the most" not in text
    with pytest.raises(BadOption, match="--tp can be 1, 2, 4, 8, 16, 32"):
        plan(str(folder), "--gpus", "4x24GB", "--tp", "3")


@pytest.mark.parametrize(
    ("sizes", "says"),
    [
        ("--gpus 2x24GB --dp 3", "8B does not fit on 2x24GB: --dp 3 needs 3 devices, and 2 are named. It would fit as --dp 2."),
        ("--gpus 2x24GB --dp 2 --tp 2", "--dp 2 --tp 2 needs 4 devices, and 2 are named. It would fit as --dp 2."),
        ("--gpus 24GB --pp 2", "--pp 2 needs 2 devices, and 1 is named. It would fit as one replica on one device."),
        (
            "--gpus 24GB --memory 0.5",
            "beside 16 GB of weights, 50% of 24 GB has no room for keys, values and work. It would fit with --memory 0.9.",
        ),
    ],
)
def test_what_is_asked_for_in_vain_is_named_and_not_the_weights(sizes: str, says: str) -> None:
    text, data = plan("8B", *sizes.split())
    assert says in text
    assert "weights alone" not in text
    assert data["ways"] == []


def test_more_than_is_here_is_said_to_be_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for module in (advice, preflight):
        monkeypatch.setattr(module, "gpu_memory", lambda device: 79_000_000_000 if device == "cuda:0" else None)
    assert advice.main(["8B", "--tp", "2"]) == 1
    assert "--tp 2 needs 2 devices, and 1 is here. It would fit as one replica" in capsys.readouterr().out


def test_all_that_a_device_holds_is_said_with_what_it_has() -> None:
    text, data = plan("8B", "--gpus", "1x24GB")
    (line,) = re.findall(
        r"^Per device: ([\d.]+) GB of weights \+ ([\d.]+) GB of work \+ ([\d.]+) GB of KV cache = ([\d.]+) GB of 24 GB\.$",
        text,
        re.MULTILINE,
    )
    *parts, total = map(float, line)
    assert total == pytest.approx(sum(parts), abs=0.6)
    assert total <= 24 * 0.9
    assert [data["best"][name] / 1e9 for name in ("weights", "work", "kv")] == pytest.approx(parts, abs=0.5)


def test_the_time_of_what_is_not_here_leaves_out_that_it_is_fetched(folder: Path) -> None:
    text, _ = plan("Qwen/Qwen3-8B", "--gpus", "1x24GB")
    assert "The time is for files on this disk: first about 16.4 GB are fetched." in text
    for here in (str(folder), "8B"):
        assert "fetched" not in plan(here, "--gpus", "1x24GB")[0]
    assert "fetched" not in plan("Qwen/Qwen3-8B", "--gpus", "1x8GB")[0]


def test_a_known_name_without_its_organisation_is_planned_and_started_with_it() -> None:
    text, data = plan("qwen3-8b", "--gpus", "2x24GB")
    assert text.startswith("Qwen/Qwen3-8B fits on 2x24GB as --dp 2")
    assert text.endswith("Start it: %infer pool start Qwen/Qwen3-8B --dp 2")
    assert data["model"] == "Qwen/Qwen3-8B"


def test_a_gguf_file_is_planned_by_its_header(tmp_path: Path) -> None:
    gguf_fake.write(tmp_path / "x.gguf")
    _, data = plan(str(tmp_path / "x.gguf"), "--devices", "cpu")
    assert data["best"]["dtype"] == "float32"
    assert list((settings.home() / "models").glob("x-*")) == [], "nothing was converted"


def test_a_hub_id_is_judged_by_its_name_until_its_files_are_here(tmp_path: Path) -> None:
    spec, remark = advice.spec_of("someone/Model-8B-Instruct", tmp_path)
    assert "Judged by the 8B in its name" in remark
    assert spec.weights == pytest.approx(8e9, rel=0.05)
    downloaded = tmp_path / "models" / "someone--Model-8B-Instruct"
    downloaded.mkdir(parents=True)
    (downloaded / "config.json").write_text(json.dumps({**LLAMA8, "num_hidden_layers": 2}))
    spec, remark = advice.spec_of("someone/Model-8B-Instruct", tmp_path)
    assert (spec.layers, remark) == (2, "")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("nonsense",), "neither a folder"),
        (("8B", "--gpus", "many"), "4x24GB"),
        (("8B", "9B"), "unexpected argument"),
        (("8B", "--tp", "x"), "whole number"),
        (("8B", "--dtype", "int4"), r"^--dtype takes float32, .* not int4\. Four bits .* AWQ, GPTQ or GGUF"),
        (("8B", "--gpus", "2xA100"), "so say which: 2xA100-40GB or 2xA100-80GB"),
        (("8B", "--gpus", "V100"), "1xV100-16GB or 1xV100-32GB"),
        (("8B", "--gpus", "2xB9000"), "4x24GB or 2xH100"),
        (("8B", "--gpus", "2x24"), r"has no unit\. Did you mean 2x24GB\?"),
        (("8B", "--gpus", "1xH100,1x24GB"), "more than one kind: name one"),
        (("8B", "--port", "1"), "no option --port"),
        (("8B", "--devices", "gpu"), "numbers of GPUs"),
        (("8B", "--memory", "90"), "^--memory takes a share above 0 up to 1, not 90"),
        (("8B", "--memory", "0"), "^--memory takes a share above 0 up to 1, not 0"),
        (("8B", "--max-len", "0"), "^--max-len takes a number of tokens"),
    ],
)
def test_what_makes_no_plan_is_one_line(words: tuple[str, ...], says: str) -> None:
    with pytest.raises(BadOption, match=says) as caught:
        plan(*words)
    assert "\n" not in str(caught.value)


def test_on_this_machine_the_gpus_are_counted(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for module in (advice, preflight):
        monkeypatch.setattr(module, "gpu_memory", lambda device: {"cuda:0": 79_000_000_000, "cuda:1": 40_000_000_000}.get(device))
    assert advice.main(["8B"]) == 0
    assert "8B fits on 2x40GB as --dp 2" in capsys.readouterr().out, "the one with less decides"
    assert advice.main(["8B", "--devices", "0"]) == 0
    assert "fits on 1x79GB" in capsys.readouterr().out
    assert advice.main(["8B", "--devices", "7"]) == 2
    assert "name it with --gpus" in capsys.readouterr().err
    monkeypatch.setattr(memory, "device_memory", lambda device: memory.Memory("cpu", 64 * 10**9, 60 * 10**9))
    assert advice.main(["8B", "--devices", "cpu", "--tp", "2"]) == 0
    assert "8B fits on this CPU as --tp 2 in float32: 16 GB" in capsys.readouterr().out, "two ranks share what is free"
    assert advice.main(["70B", "--devices", "cpu"]) == 1
    assert "does not fit on this CPU in float32" in capsys.readouterr().out


def test_from_the_console(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["pool", "plan", "8B", "--gpus", "24GB", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["best"]["tp"] == 1
    assert cli.main(["pool", "plan", "70B", "--gpus", "2x24GB"]) == 1
    assert "does not fit on 2x24GB" in capsys.readouterr().out
    assert cli.main(["pool", "--json", "plan", "70B", "--gpus", "2x24GB"]) == 1
    assert json.loads(capsys.readouterr().out)["ways"] == []
    assert cli.main(["pool", "plan", "--help"]) == 0
    assert cli.main(["pool", "list", "--json"]) == 0


def test_the_panel_says_what_fits(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "config.json").write_text(json.dumps({"model_type": "llama", "architectures": ["LlamaForCausalLM"], **tiny.SIZES}))
    form = PoolForm()
    form.model.value = str(tmp_path / "m")
    for name, value in (("gpus", "2x24GB"), ("tp", "2"), ("port", "8000"), ("micro_batches", "2")):
        form.fields[name].value = value
    assert form.args("plan") == ["plan", str(tmp_path / "m"), "--tp", "2", "--gpus", "2x24GB"]
    assert form.args("start") == ["start", str(tmp_path / "m"), "--tp", "2", "--micro-batches", "2", "--port", "8000"]

    async def until(shown: Callable[[], bool]) -> None:
        async with asyncio.timeout(30):
            while not shown():  # noqa: ASYNC110 - a widget's value, not an event
                await asyncio.sleep(0.02)

    async def typed() -> None:
        form.watch()
        await until(lambda: "as --tp 2" in form.fit.box.value)
        form.fields["tp"].value = "3"
        await until(lambda: "holynb-wrong" in form.section.notes["tp"].box.value + form.section.notes["model"].box.value)
        assert "What fits: " in form.section.notes["tp"].box.value + form.section.notes["model"].box.value
        form.model.value, form.fields["tp"].value, form.fields["gpus"].value = "70B", "1", "8x24GB"
        await until(lambda: "does not fit" in form.fit.box.value)
        assert "As these it would fit" in form.fit.box.value
        assert "--tp 8" in form.fit.box.value
        assert "holynb-wrong" not in form.section.notes["tp"].box.value
        timer.stop()

    asyncio.run(typed())
    assert not form.start.disabled


def test_a_pipelines_stages_are_shown_where_pools_are() -> None:
    info = PoolInfo("p", "m", "ready", 1, "here", stages=((0.93, 0.881), (0.5, 0.25)), deaths=("rank 1 of 2 was killed",))
    assert pool_state.stages(info) == ["stage 0 93% busy, stage 1 88% busy", "stage 0 50% busy, stage 1 25% busy"]
    assert "ready; stage 0 93% busy, stage 1 88% busy; stage 0 50% busy" in table([info])
    assert "busy" not in table([PoolInfo("p", "m", "ready", 1, "here")])


def lame(monkeypatch: pytest.MonkeyPatch, **more: Any) -> PoolInfo:
    """A pool of two replicas that lost one, as `holynb.pools` gives it."""
    lost = {"at": 1_790_000_000.0, "what": "lost", "why": "rank 0 was killed"}
    info = replace(PoolInfo("p", "m", "ready", 1, "here", stage="ready", dp=2, replicas=({"running": 0},), changes=(lost,)), **more)
    monkeypatch.setattr("holynb.pools.start", lambda *_, **__: info)
    monkeypatch.setattr("holynb.pools.status", lambda name: info)
    monkeypatch.setattr("holynb.pools.listing", lambda *_: [info])
    return info


@pytest.mark.parametrize("words", [["start", "m", "--name", "p", "--dp", "2"], ["list"], ["status", "p"]], ids=lambda w: w[0])
def test_a_pool_that_lost_a_replica_is_not_whole(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    info = lame(monkeypatch)
    text, _ = pool.run(words, lambda line: None, command="holynb pool")
    assert "ready, 1 of 2 replicas" in text
    assert "holynb pool stop p, and start it as before; with --restart N" in text
    assert "ready, 1 of 2 replicas" in table([info])
    lame(monkeypatch, restarting=1)
    assert "which is being started again" in pool.run(words, lambda line: None)[0]


def test_a_replica_is_lost_and_comes_back_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    info = lame(monkeypatch)
    assert re.search(r"lost +2026-09-2\d \d\d:\d\d:\d\d: rank 0 was killed", pool.run(["status", "p"], lambda line: None)[0])
    back = {"at": 1_790_000_060.0, "what": "came back", "why": ""}
    lame(monkeypatch, replicas=({}, {}), changes=(*info.changes, back))
    text, _ = pool.run(["status", "p"], lambda line: None)
    assert re.search(r"came back +2026-09-2\d \d\d:\d\d:\d\d$", text, re.MULTILINE)
    assert "replicas" not in text
    assert "remedy" not in text


@pytest.mark.parametrize("more", [{"on": "ray://h:1"}, {"engine": "vllm"}, {"state": "starting"}, {"replicas": ()}], ids=str)
def test_only_a_ready_pool_of_our_own_ranks_here_lacks_replicas(more: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    assert lame(monkeypatch).missing == 1
    assert lame(monkeypatch, **more).missing == 0
