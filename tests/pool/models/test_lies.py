"""A model's files that say more than they hold are refused in one line, before anything is made of what they say."""

from __future__ import annotations

import json
import resource
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf_fake
import pytest
from pool_fake import Pools, byte_model

from holynb.errors import UserError
from holynb.pool.fit import check_shapes, read_spec
from holynb.pool.models.check import BrokenModel, check
from holynb.pool.models.convert import ConvertError, convert
from holynb.pool.server.tokenizer import ChatTokenizer, TokenizerFileError

INDEX = "model.safetensors.index.json"
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 8,
    "intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "vocab_size": 257,
    "max_position_embeddings": 512,
    "tie_word_embeddings": True,
}
DEEP = "[" * 500_000


def tensors(config: dict[str, Any]) -> dict[str, list[int]]:
    """The shapes of a model with this configuration."""
    hidden, inner, kv = config["hidden_size"], config["intermediate_size"], config["hidden_size"] // config["num_attention_heads"]
    shapes = {"model.embed_tokens.weight": [config["vocab_size"], hidden], "model.norm.weight": [hidden]}
    for i in range(config["num_hidden_layers"]):
        at = f"model.layers.{i}."
        shapes |= {f"{at}input_layernorm.weight": [hidden], f"{at}post_attention_layernorm.weight": [hidden]}
        shapes |= {f"{at}self_attn.{n}_proj.weight": [size, hidden] for n, size in (("q", hidden), ("k", kv), ("v", kv), ("o", hidden))}
        shapes |= {f"{at}mlp.{n}_proj.weight": [inner, hidden] for n in ("gate", "up")} | {f"{at}mlp.down_proj.weight": [hidden, inner]}
    return shapes


def safetensors(path: Path, shapes: dict[str, list[int]]) -> None:
    header, end = {}, 0
    for name, shape in shapes.items():
        size = 4 * shape[0] * (shape[1] if len(shape) > 1 else 1)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [end, end + size]}
        end += size
    raw = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + bytes(end))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = byte_model(tmp_path / "model")
    (folder / "config.json").write_text(json.dumps(CONFIG))
    safetensors(folder / "model.safetensors", tensors(CONFIG))
    return folder


def refused(what: Callable[[], Any], *kinds: type[Exception]) -> str:
    """The line of a refusal, which comes at once."""
    began = time.monotonic()
    with pytest.raises(kinds) as caught:
        what()
    assert time.monotonic() - began < 5
    line = str(caught.value)
    assert "\n" not in line
    assert len(line) < 600
    return line


def test_a_whole_model_is_let_through(model: Path) -> None:
    check(model)
    check_shapes(model, read_spec(model))
    assert ChatTokenizer(model).context == 512


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"num_hidden_layers": 1_000_000_000}, "num_hidden_layers is 1000000000 and must be a whole number from 1 to 10,000"),
        ({"num_hidden_layers": 10**400}, "num_hidden_layers is a number of more than 30 digits"),
        ({"num_hidden_layers": 9_999}, "promises 9,999 layers and the model's files hold 20 tensors"),
        ({"num_hidden_layers": 3}, "no tensor model.layers.2.input_layernorm.weight"),
        ({"num_hidden_layers": -1}, "num_hidden_layers is -1"),
        ({"num_hidden_layers": True}, "num_hidden_layers is true"),
        ({"num_hidden_layers": "2"}, 'num_hidden_layers is "2"'),
        ({"num_hidden_layers": float("nan")}, "num_hidden_layers is NaN"),
        ({"num_hidden_layers": [2]}, "num_hidden_layers is a list"),
        ({"hidden_size": float("inf")}, "hidden_size is Infinity"),
        ({"hidden_size": 16}, r"promises 257 × 16 numbers and the model's files hold 257 × 8"),
        ({"vocab_size": 100_000}, r"promises 100000 × 8 numbers and the model's files hold 257 × 8"),
        ({"num_attention_heads": 0}, "num_attention_heads is 0"),
        ({"num_key_value_heads": 4}, "num_key_value_heads is 4 and must be a whole number from 1 to 2"),
        ({"max_position_embeddings": 1e300}, "max_position_embeddings"),
        ({"rms_norm_eps": "small"}, "rms_norm_eps"),
        ({"rope_scaling": [1]}, "rope settings are no object"),
        ({"rope_scaling": {"rope_type": "linear"}}, "says no factor"),
        ({"rope_scaling": {"rope_type": "linear", "factor": float("nan")}}, "factor is NaN"),
        ({"tie_word_embeddings": "false"}, "tie_word_embeddings"),
        ({"eos_token_id": ["</s>"]}, "eos_token_id"),
        ({"architectures": {"a": 1}}, "architectures is not a list"),
    ],
)
def test_a_config_that_lies(model: Path, changed: dict[str, Any], says: str) -> None:
    (model / "config.json").write_text(json.dumps(CONFIG | changed))
    assert says in refused(lambda: check_shapes(model, read_spec(model)), UserError)


@pytest.mark.parametrize(
    "name",
    [
        "model.layers.0.self_attn.q_proj.bias",
        "model.layers.1.self_attn.q_norm.weight",
        "score.weight",
        "model.layers.0.mlp.up_proj.weight_scale",
    ],
)
def test_a_tensor_that_nothing_would_be_computed_with_is_named(model: Path, name: str) -> None:
    safetensors(model / "model.safetensors", tensors(CONFIG) | {name: (8,)})
    assert name in refused(lambda: check_shapes(model, read_spec(model)), UserError)


def test_frequencies_that_config_says_are_passed_over(model: Path) -> None:
    safetensors(model / "model.safetensors", tensors(CONFIG) | {"model.layers.0.self_attn.rotary_emb.inv_freq": (2,)})
    check_shapes(model, read_spec(model))


@pytest.mark.parametrize("name", ["config.json", INDEX])
def test_json_that_is_nested_without_end_or_too_long(model: Path, name: str) -> None:
    for content, says in ((DEEP, "nested too deeply"), (" " * 65_000_000 + "{}", "at most 64,000,000 are read")):
        (model / name).write_text(content)
        assert says in refused(lambda: check(model), BrokenModel)


@pytest.mark.parametrize(
    "named", [[], ["a"], {}, None, {"w": 1}, {"w": ["a"]}, {"w": "../model.safetensors"}, {"w": "/etc/passwd"}, {"w": ".."}]
)
def test_an_index_that_lies(model: Path, named: Any) -> None:
    (model / INDEX).write_text(json.dumps({"weight_map": named}))
    assert INDEX in refused(lambda: check(model), BrokenModel)


def entry(shape: Any, offsets: Any, dtype: Any = "U8") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


@pytest.mark.parametrize(
    "header",
    [
        {"a": entry([4], [0, 4]), "b": entry([4], [2, 6])},
        {"a": entry([4], [4, 8])},
        {"a": entry([4], [-4, 0])},
        {"a": entry([-4], [0, 4])},
        {"a": entry([4], [4, 0])},
        {"a": entry([8], [0, 4])},
        {"a": entry([4], [0, 4], "F32")},
        {"a": entry([4], [0, 4], "X9")},
        {"a": entry([4], [0, 4], ["U8"])},
        {"a": entry([True, 4], [0, 4])},
        {"a": entry([4.0], [0, 4])},
        {"a": entry("4", [0, 4])},
        {"a": entry([2**62, 2**62], [0, 2**62])},
        {"a": entry([1] * 20 + [4], [0, 4])},
        {"a": entry([4], [0, float("nan")])},
        {"a": entry([4], [0, 1, 2])},
        {"a": [1]},
        [1],
        "DEEP",
    ],
)
def test_a_header_of_weights_that_lies(model: Path, header: Any) -> None:
    raw = DEEP.encode() if header == "DEEP" else json.dumps(header).encode()
    (model / "model.safetensors").write_bytes(struct.pack("<Q", len(raw)) + raw + bytes(8))
    assert "model.safetensors has no readable header" in refused(lambda: check(model), BrokenModel)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("config.json", {"vocab_size": "many"}, "vocab_size"),
        ("config.json", {"max_position_embeddings": float("inf")}, "max_position_embeddings is Infinity"),
        ("generation_config.json", {"do_sample": True, "temperature": "hot"}, "temperature"),
        ("generation_config.json", {"do_sample": True, "top_k": 1e99}, "top_k"),
        ("generation_config.json", {"do_sample": "yes"}, "do_sample"),
        ("generation_config.json", {"eos_token_id": [7, "x"]}, "generation_config.json: eos_token_id"),
        ("config.json", {"eos_token_id": True}, "config.json: eos_token_id"),
        ("tokenizer_config.json", [1], "no JSON object"),
    ],
)
def test_a_tokenizers_file_that_lies(model: Path, name: str, content: Any, says: str) -> None:
    (model / name).write_text(json.dumps(content))
    assert says in refused(lambda: ChatTokenizer(model), TokenizerFileError)
    (model / name).write_text(DEEP)
    assert "nested too deeply" in refused(lambda: ChatTokenizer(model), TokenizerFileError)


def test_ids_that_are_none_end_nothing(model: Path) -> None:
    (model / "generation_config.json").write_text(json.dumps({"eos_token_id": [-1, 2**40, 7]}))
    assert ChatTokenizer(model).eos == (7, 256)


# -- GGUF ------------------------------------------------------------------------------------------------------------
def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def gguf(facts: list[bytes], tensors: list[bytes] = [], *, counts: tuple[int, int] | None = None, version: int = 3) -> bytes:  # noqa: B006
    many = counts or (len(tensors), len(facts))
    return b"GGUF" + struct.pack("<IQQ", version, *many) + b"".join(facts) + b"".join(tensors) + bytes(64)


def array(kind: int, count: int, body: bytes = b"") -> bytes:
    return text("tokenizer.ggml.tokens") + struct.pack("<IIQ", 9, kind, count) + body


def tensor(name: str, shape: list[int], kind: int = 0, offset: int = 0) -> bytes:
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (gguf([array(8, 2**50)]), "1,125,899,906,842,624 items of tokenizer.ggml.tokens do not fit"),
        (gguf([array(4, 2**63)]), "do not fit"),
        (gguf([array(9, 3, struct.pack("<IQ", 9, 2**40))]), "an array of a kind that is not known"),
        (gguf([array(8, 2, struct.pack("<Q", 2**60))]), "do not fit"),
        (gguf([text("a") + struct.pack("<IQ", 8, 2**60)]), "do not fit"),
        (gguf([text("a") + struct.pack("<I", 77)]), "of a kind that is not known"),
        (gguf([struct.pack("<Q", 2**50)]), "a name in it has"),
        (gguf([], counts=(2**62, 0)), "do not fit"),
        (gguf([], counts=(0, 2**62)), "do not fit"),
        (gguf([], [tensor("a", [2**31, 2**31])]), "it is cut off"),
        (gguf([], [tensor("a", [1] * 4, kind=999)]), "quantized in a way that is not known"),
        (gguf([], [text("a") + struct.pack("<I", 2**31)]), "dimensions"),
        (gguf([], [tensor("a", [8]), tensor("b", [8], offset=4)]), "another tensor's, too"),
        (gguf([], [tensor("a", [8], offset=2**62)]), "it is cut off"),
        (gguf([text("general.alignment") + struct.pack("<II", 4, 0)]), "alignment is 0"),
        (gguf([], version=9), "version is 9"),
        (b"GGUF\x03\0", "cut off"),
        (b"GGML" + bytes(99), "does not begin as one"),
    ],
)
def test_a_gguf_header_that_lies(tmp_path: Path, content: bytes, says: str) -> None:
    (tmp_path / "x.gguf").write_bytes(content)
    line = refused(lambda: convert(tmp_path / "x.gguf", tmp_path), ConvertError)
    assert says in line
    assert "x.gguf is not a readable GGUF file" in line


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"block_count": 4_000_000_000}, "block_count"),
        ({"block_count": 1_000}, "promises 1,000 layers"),
        ({"attention.head_count": 0}, "head_count"),
        ({"tokenizer.eot": 4_000_000_000, "embedding_length": 0}, "embedding_length"),
    ],
)
def test_sizes_in_a_gguf_that_lie(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    gguf_fake.write(tmp_path / "x.gguf", **changes)
    assert says in refused(lambda: convert(tmp_path / "x.gguf", tmp_path), ConvertError)


def test_a_converter_that_would_take_too_much_says_so(tmp_path: Path) -> None:
    """In a process of its own, which the limit would stay with."""
    gguf_fake.write(tmp_path / "x.gguf")
    code = (
        "import sys, resource\n"
        "from holynb.pool.models import convert, weights\n"
        "real = convert._opened\n"
        "def opened(source):\n"
        "    assert resource.getrlimit(resource.RLIMIT_AS)[0] == 3 * source.stat().st_size + 4 * 10**9\n"
        "    bytearray(5 * 10**9)\n"
        "convert._opened = opened\n"
        f"sys.exit(weights.main([{str(tmp_path / 'x.gguf')!r}, '--home', {str(tmp_path)!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert "needs more memory than a file of its size may" in json.loads(done.stdout.splitlines()[-1])["error"], done.stderr
    assert done.returncode == 1


# -- processes -------------------------------------------------------------------------------------------------------
def limit(pid: int) -> int:
    return resource.prlimit(pid, resource.RLIMIT_AS)[0]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems hold no process to it")
def test_the_server_is_limited_and_its_ranks_are_not(pools: Pools) -> None:
    pool = pools.start()
    assert limit(pool.process.pid) == 4 * 10**9
    assert limit(pool.record.ranks[0].pid) == limit(0)
