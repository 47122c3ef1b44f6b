"""Blocks of a GGUF file are taken apart to the bit, and a folder that keeps them says what it holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import gguf_fake
import numpy as np
import pytest

from holynb.pool.fit import check_shapes, read_spec
from holynb.pool.models.convert import config_of, convert
from holynb.pool.models.gguf_groups import BITS, entries, groups_of

#: Bytes of a block, and where in it a float16 lies.
BLOCKS = {
    "Q4_0": (18, [0]),
    "Q4_1": (20, [0, 2]),
    "Q5_0": (22, [0]),
    "Q5_1": (24, [0, 2]),
    "Q8_0": (34, [0]),
    "Q4_K": (144, [0, 2]),
    "Q5_K": (176, [0, 2]),
    "Q6_K": (210, [208]),
}


def blocks(kind: str, rows: int, columns: int) -> Any:
    """Any bits at all, and finite factors."""
    dice, (size, halves) = np.random.default_rng(len(kind) + rows), BLOCKS[kind]
    data = dice.integers(0, 256, (rows, columns // (256 if kind.endswith("_K") else 32), size), dtype=np.uint8)
    for at in halves:
        data[..., at : at + 2] = (dice.normal(size=(*data.shape[:2], 1)) * 0.01).astype(np.float16).view(np.uint8)
    return data.reshape(rows, -1)


def test_every_kind_that_is_kept_is_taken_apart_here() -> None:
    assert BITS.keys() == BLOCKS.keys()


@pytest.mark.parametrize("kind", BLOCKS)
def test_numbers_and_scales_say_what_ggufs_own_reader_says_to_the_bit(kind: str) -> None:
    data = blocks(kind, 5, 512)
    arrays = groups_of(data, kind).arrays
    assert [(array.dtype.name, array.shape) for array in arrays] == [
        ({"U8": "uint8", "I8": "int8", "F16": "float16", "F32": "float32"}[dtype], shape) for _, dtype, shape in entries(kind, (5, 512))
    ]
    values, scale = arrays[0], arrays[1].astype(np.float32)
    if values.dtype == np.uint8:
        halves = values.reshape(5, -1, 16)
        values = np.concatenate((halves & 15, halves >> 4), -1).reshape(5, -1)
    zero = arrays[2].astype(np.float32) if len(arrays) > 2 else scale * (-8 if values.dtype == np.uint8 else 0)
    groups = values.reshape(*scale.shape, -1).astype(np.float32) * scale[..., None] + zero[..., None]
    assert np.array_equal(groups.reshape(5, 512), gguf.dequantize(data, gguf.GGMLQuantizationType[kind]))


#: 64 and 96 columns are filled up to 128 on a GPU.
BITS_OF_Q4_1 = {"layers": 5.0, "gpu_layers": 9.333, "tables": 5.0, "gpu_tables": 10.0}


def test_a_folder_that_keeps_them_says_so_and_is_whole(tmp_path: Path) -> None:
    gguf_fake.write(tmp_path / "x.gguf", kind="Q4_1")
    convert(tmp_path / "x.gguf", tmp_path, kept=True)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["quantization_config"] == {"quant_method": "gguf", "group_size": 32, "bits": BITS_OF_Q4_1}
    assert config_of(tmp_path / "x.gguf") == config
    check_shapes(tmp_path, read_spec(tmp_path))


def test_a_file_that_is_not_quantized_is_written_as_ever(tmp_path: Path) -> None:
    gguf_fake.write(tmp_path / "x.gguf")
    (tmp_path / "kept").mkdir()
    (tmp_path / "plain").mkdir()
    convert(tmp_path / "x.gguf", tmp_path / "kept", kept=True)
    convert(tmp_path / "x.gguf", tmp_path / "plain")
    assert [p.read_bytes() for p in sorted((tmp_path / "kept").iterdir())] == [
        p.read_bytes() for p in sorted((tmp_path / "plain").iterdir())
    ]
