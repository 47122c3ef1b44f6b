"""Quantized blocks of a GGUF file → whole numbers, scales and zeros, as they are: nothing is rounded. Reads with gguf and numpy; no torch.

A matrix W of a folder that keeps them: `NAME.weight` (int8 (n, k), or uint8 (n, k / 2), where the low half of byte j of 16 is column j
of 32, and the high half column j + 16), `NAME.weight_scale` (n, k / 32), of Q6_K (n, k / 16), and where there is one `NAME.weight_zero`:
W = scale · value + zero; of four bits without a zero it is −8 · scale.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["BITS", "QuantizedBlocks", "entries", "gpu_bits", "groups_of"]

#: Kinds that are kept, and bits of a number once they are packed (`engine/load_groups.py`): four or eight, and its share of scale and zero.
BITS: Mapping[str, float] = {
    "Q4_0": 4.5,
    "Q4_1": 5.0,
    "Q4_K": 6.0,
    "Q5_0": 8.5,
    "Q5_1": 9.0,
    "Q8_0": 8.5,
    "Q5_K": 10.0,
    "Q6_K": 10.0,
}


@dataclass(frozen=True, slots=True)
class QuantizedBlocks:
    """The arrays of one matrix. `values`: uint8 (n, k / 2) or int8 (n, k)."""

    values: Any
    scale: Any
    zero: Any | None = None

    @property
    def arrays(self) -> list[Any]:
        """In the order of `entries`."""
        import numpy as np

        return [np.ascontiguousarray(one) for one in (self.values, self.scale, self.zero) if one is not None]

    def rows(self, order: Callable[[Any], Any]) -> QuantizedBlocks:
        """The same with its rows in another order."""
        return QuantizedBlocks(order(self.values), order(self.scale), None if self.zero is None else order(self.zero))


def entries(kind: str, shape: tuple[int, int]) -> list[tuple[str, str, tuple[int, int]]]:
    """What a matrix of this kind and shape is written as: the end of a tensor's name, its type in safetensors and its shape."""
    n, k = shape
    values = ("", "U8", (n, k // 2)) if BITS[kind] < 8 else ("", "I8", (n, k))
    scale = ("_scale", "F32" if kind.endswith("_K") else "F16", (n, k // (16 if kind == "Q6_K" else 32)))
    return [values, scale] + ([("_zero", *scale[1:])] if kind in _WITH_ZERO else [])


def gpu_bits(kinds: Collection[str], columns: int) -> float:
    """Bits of a number of matrices with the same input, packed as one for a GPU (`kernels_support/gpu/packed_matrix.py`)."""
    bits, group = 4 if all(BITS[kind] < 8 for kind in kinds) else 8, 16 if "Q6_K" in kinds else 32
    step = group * (16 // bits)
    # A scale and a zero are two float16 where the file's are; a scale alone is a float32.
    factor = 64 if any(kind in _WITH_ZERO for kind in kinds) and any(kind.endswith("_K") for kind in kinds) else 32
    return (bits + factor / group) * -(-columns // step) * step / columns


def groups_of(data: Any, kind: str) -> QuantizedBlocks:
    """The blocks of a tensor of one of the kinds in `BITS`: (n, bytes of a row), uint8."""
    import numpy as np

    rows = len(data)
    blocks = np.ascontiguousarray(data).reshape(rows, -1, _BYTES[kind])
    return _READERS[kind](np, blocks)


def _half(np: Any, blocks: Any, at: int) -> Any:
    """The float16 at one place of each block."""
    return np.ascontiguousarray(blocks[..., at : at + 2]).view(np.float16)[..., 0]


def _q4_0(np: Any, b: Any) -> QuantizedBlocks:
    return QuantizedBlocks(_flat(b[..., 2:]), _half(np, b, 0))


def _q4_1(np: Any, b: Any) -> QuantizedBlocks:
    return QuantizedBlocks(_flat(b[..., 4:]), _half(np, b, 0), _half(np, b, 2))


def _q5_0(np: Any, b: Any) -> QuantizedBlocks:
    return QuantizedBlocks(_flat(_fives(np, b[..., 2:6], b[..., 6:]) - 16), _half(np, b, 0))


def _q5_1(np: Any, b: Any) -> QuantizedBlocks:
    return QuantizedBlocks(_flat(_fives(np, b[..., 4:8], b[..., 8:])), _half(np, b, 0), _half(np, b, 2))


def _q8_0(np: Any, b: Any) -> QuantizedBlocks:
    return QuantizedBlocks(_flat(b[..., 2:].view(np.int8)), _half(np, b, 0))


def _q4_k(np: Any, b: Any) -> QuantizedBlocks:
    scale, zero = _two_levels(np, b)
    numbers = _nibbles(np, b[..., 16:])  # groups of 32
    return QuantizedBlocks(_flat(numbers[..., :16] | numbers[..., 16:] << 4), scale, zero)


def _q5_k(np: Any, b: Any) -> QuantizedBlocks:
    scale, zero = _two_levels(np, b)
    high = b[..., None, 16:48] >> np.arange(8, dtype=np.uint8)[:, None] & 1
    return QuantizedBlocks(_flat((_nibbles(np, b[..., 48:]) | high << 4).astype(np.int8)), scale, zero)


def _q6_k(np: Any, b: Any) -> QuantizedBlocks:
    low, high = b[..., :128].reshape(*b.shape[:-1], 2, 1, 64), b[..., 128:192].reshape(*b.shape[:-1], 2, 1, 32)
    low = (low >> np.array([[0], [4]], np.uint8) & 15).reshape(*b.shape[:-1], 8, 32)
    high = (high >> np.array([[0], [2], [4], [6]], np.uint8) & 3).reshape(*b.shape[:-1], 8, 32)
    scale = _half(np, b, 208).astype(np.float32)[..., None] * b[..., 192:208].view(np.int8).astype(np.float32)
    return QuantizedBlocks(_flat((low | high << 4).astype(np.int8) - 32), _flat(scale))


def _fives(np: Any, high: Any, low: Any) -> Any:
    """Five bits of 32 numbers: four in `low`, the fifth in `high`."""
    bits = np.ascontiguousarray(high).view(np.uint32) >> np.arange(32, dtype=np.uint32) & 1
    return (np.concatenate((low & 15, low >> 4), -1) | bits.astype(np.uint8) << 4).astype(np.int8)


def _nibbles(np: Any, data: Any) -> Any:
    """128 bytes → eight groups of 32: the low halves of 32 bytes, then their high ones."""
    pairs = data.reshape(*data.shape[:-1], 4, 1, 32) >> np.array([[0], [4]], np.uint8) & 15
    return pairs.reshape(*data.shape[:-1], 8, 32)


def _two_levels(np: Any, b: Any) -> tuple[Any, Any]:
    """Scales and zeros of eight groups a block: two factors, each times six bits."""
    import gguf

    factors = np.ascontiguousarray(b[..., :4]).view(np.float16).astype(np.float32)
    scales, minima = gguf.quants.Q4_K.get_scale_min(b[..., 4:16].reshape(-1, 12))
    shape = (*b.shape[:-1], 8)
    scale = factors[..., :1] * scales.reshape(shape).astype(np.float32)
    return _flat(scale), _flat(-(factors[..., 1:] * minima.reshape(shape).astype(np.float32)))


def _flat(blocks: Any) -> Any:
    return blocks.reshape(len(blocks), -1)


#: Kinds that have more than a scale.
_WITH_ZERO = frozenset({"Q4_1", "Q5_1", "Q4_K", "Q5_K"})
_BYTES = {"Q4_0": 18, "Q4_1": 20, "Q5_0": 22, "Q5_1": 24, "Q8_0": 34, "Q4_K": 144, "Q5_K": 176, "Q6_K": 210}
_READERS = {"Q4_0": _q4_0, "Q4_1": _q4_1, "Q5_0": _q5_0, "Q5_1": _q5_1, "Q8_0": _q8_0, "Q4_K": _q4_k, "Q5_K": _q5_k, "Q6_K": _q6_k}
