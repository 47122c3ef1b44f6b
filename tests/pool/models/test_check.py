"""What is missing, cut off or unreadable in a model's folder is named before a process is started for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pool_fake import byte_model

from holynb.pool.fit import spec
from holynb.pool.models.check import BrokenModel, check

INDEX = "model.safetensors.index.json"


def weights(size: int, header: Any = None) -> bytes:
    """A safetensors file of one tensor of so many bytes."""
    said = json.dumps(
        {"__metadata__": {"format": "pt"}, "w": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}} if header is None else header
    )
    return len(said).to_bytes(8, "little") + said.encode() + bytes(size)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = byte_model(tmp_path / "model")
    (folder / "model.safetensors").write_bytes(weights(100))
    return folder


def test_a_whole_folder_is_let_through(model: Path) -> None:
    check(model)
    (model / "model.safetensors").rename(model / "a.safetensors")
    (model / INDEX).write_text(json.dumps({"weight_map": {"w": "a.safetensors"}}))
    check(model)


def test_an_adapter_is_named_before_what_it_lacks(model: Path) -> None:
    (model / "adapter_config.json").write_text("{}")
    (model / "config.json").unlink()
    with pytest.raises(BrokenModel, match=r"adapter_config\.json.*Merge it into its model"):
        check(model)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (weights(100)[:-1], "is cut off: 205 of 206 bytes"),
        (weights(100)[:40], "cut off or no safetensors"),
        (b"", "cut off or no safetensors"),
        (b"1234567", "cut off or no safetensors"),
        (weights(100, [1]), "no readable header"),
        (weights(100, {"w": {}}), "no readable header"),
        (b"version https://git-lfs.github.com/spec/v1", "git lfs pull"),
    ],
)
def test_weights_that_are_not_whole(model: Path, content: bytes, says: str) -> None:
    (model / "model.safetensors").write_bytes(content)
    with pytest.raises(BrokenModel, match=says) as caught:
        check(model)
    assert "model.safetensors" in str(caught.value)
    assert "Fetch the model again" in str(caught.value) or "git lfs pull" in str(caught.value)


def test_a_shard_that_is_missing_is_named(model: Path) -> None:
    shards = ["model.safetensors", "b.safetensors", "c.safetensors"]
    (model / INDEX).write_text(json.dumps({"weight_map": dict(zip("xyz", shards, strict=True))}))
    with pytest.raises(BrokenModel, match=r"lacks b\.safetensors and 1 more of the 3 files"):
        check(model)


@pytest.mark.parametrize("name", ["config.json", INDEX])
@pytest.mark.parametrize(("content", "says"), [("{", "is not readable JSON"), ("[]", "holds no JSON object")])
def test_json_that_is_none(model: Path, name: str, content: str, says: str) -> None:
    (model / name).write_text(content)
    with pytest.raises(BrokenModel, match=says):
        check(model)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"hidden_size": None}, "says no hidden_size"),
        ({"architectures": None}, "names no architecture"),
        ({"hidden_size": "many"}, "is not a readable config.json"),
        ({"max_position_embeddings": [1]}, "is not a readable config.json"),
    ],
)
def test_a_config_that_says_too_little_is_one_line(tmp_path: Path, changed: dict[str, Any], says: str) -> None:
    whole = {
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "vocab_size": 32,
    }
    (tmp_path / "config.json").write_text(json.dumps(whole))
    assert spec.read_spec(tmp_path).hidden == 8
    (tmp_path / "config.json").write_text(json.dumps({k: v for k, v in (whole | changed).items() if v is not None}))
    with pytest.raises(spec.UnknownModel, match=says) as caught:
        spec.read_spec(tmp_path)
    assert "\n" not in str(caught.value)
