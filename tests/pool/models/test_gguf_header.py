"""A GGUF file is read as gguf's own reader reads it."""

from __future__ import annotations

import gguf
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holynb.pool.models.gguf_header import read_gguf

TEXTS = st.lists(st.text(st.characters(codec="utf-8"), max_size=20), max_size=20)
FACTS = {
    "uint8": st.integers(0, 2**8 - 1),
    "int8": st.integers(-(2**7), 2**7 - 1),
    "uint16": st.integers(0, 2**16 - 1),
    "int16": st.integers(-(2**15), 2**15 - 1),
    "uint32": st.integers(0, 2**32 - 1),
    "int32": st.integers(-(2**31), 2**31 - 1),
    "uint64": st.integers(0, 2**64 - 1),
    "int64": st.integers(-(2**63), 2**63 - 1),
    "float32": st.floats(width=32, allow_nan=False),
    "float64": st.floats(allow_nan=False),
    "bool": st.booleans(),
    "string": st.text(st.characters(codec="utf-8"), min_size=1, max_size=40),
}
TENSORS = {"F32": np.float32, "F16": np.float16, "I32": np.int32, "Q8_0": None, "Q4_K": None, "BF16": None}


@settings(max_examples=30)
@given(facts=st.fixed_dictionaries(FACTS), texts=TEXTS, numbers=st.lists(st.integers(-9, 2**31 - 1), min_size=1, max_size=9))
def test_facts_and_tensors_are_what_gguf_s_own_reader_has(
    tmp_path_factory: pytest.TempPathFactory, facts: dict[str, object], texts: list[str], numbers: list[int]
) -> None:
    path = tmp_path_factory.mktemp("gguf") / "x.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    for kind, value in facts.items():
        getattr(writer, f"add_{kind}")(f"a.{kind}", value)
    writer.add_array("a.numbers", numbers)
    if texts:
        writer.add_array("a.texts", texts)
    chance = np.random.default_rng(0)
    for name, dtype in TENSORS.items():
        kind = gguf.GGMLQuantizationType[name]
        if dtype is not None:
            writer.add_tensor(f"t.{name}", chance.integers(-99, 99, (3, 5)).astype(dtype))
            continue
        block, size = gguf.GGML_QUANT_SIZES[kind]
        rows = chance.integers(0, 256, (2, 256 // block * size)).astype(np.uint8)
        writer.add_tensor(f"t.{name}", rows, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    ours, theirs = read_gguf(path), gguf.GGUFReader(path)
    said = {key: field.contents() for key, field in theirs.fields.items() if not key.startswith("GGUF.")}
    assert {key: (type(value), value) for key, value in ours.facts.items()} == {key: (type(value), value) for key, value in said.items()}
    for mine, other in zip(ours.tensors, theirs.tensors, strict=True):
        assert (mine.name, mine.tensor_type, list(mine.shape)) == (other.name, other.tensor_type, other.shape.tolist())
        assert (mine.data.dtype, mine.data.shape) == (other.data.dtype, other.data.shape)
        np.testing.assert_array_equal(mine.data, other.data)
