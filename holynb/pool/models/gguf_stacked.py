"""Experts of gpt-oss in a GGUF file → as its safetensors have them: all of a layer in one tensor, gate and up row by row. No torch.

MXFP4 stays in its four bits. A block is an exponent and 16 bytes, whose low halves are its first 16 numbers and whose high halves the
others (llama.cpp's block_mxfp4); in safetensors byte j has the numbers 2j and 2j + 1, and the exponents lie apart.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from holynb.pool.models.gguf_facts import ConvertError

__all__ = ["StackedPiece", "codes_of", "exponents_of", "in_mxfp4", "is_stacked", "stacked_pieces"]

#: Numbers of a block, and its bytes.
_BLOCK, _BYTES = 32, 17
_PLAIN = frozenset({"F32", "F16", "BF16"})
_PARTS = ("ffn_gate_exps", "ffn_up_exps", "ffn_down_exps")


@dataclass(frozen=True, slots=True)
class StackedPiece:
    """One tensor to be written, as `Piece`: of `tensors`, one below the other for each expert, or gate's and up's rows in turns.

    `shape`: (experts, rows, columns), of biases (experts, rows).
    """

    name: str
    shape: tuple[int, ...]
    tensors: tuple[Any, ...]

    @property
    def four(self) -> bool:
        """Whether its numbers lie in MXFP4."""
        return bool(self.tensors[0].tensor_type.name == "MXFP4")

    def entries(self, *, kept: bool) -> list[tuple[str, str, tuple[int, ...]]]:  # noqa: ARG002 - other engines read the same
        """What it is written as: the end of a tensor's name, its type and its shape. What is plain has a row for each column of x."""
        if self.four:
            groups = (*self.shape[:-1], self.shape[-1] // _BLOCK)
            return [("_blocks", "U8", (*groups, _BLOCK // 2)), ("_scales", "U8", groups)]
        return [("", "F32", self.shape if len(self.shape) == 2 else (self.shape[0], self.shape[2], self.shape[1]))]

    def arrays(self, config: Mapping[str, Any], *, kept: bool) -> Iterator[Any]:  # noqa: ARG002 - as of `Piece`
        """The numbers of `entries` in their order, expert by expert."""
        if self.four:
            yield from (codes_of(self._expert(e)) for e in range(self.shape[0]))
            yield from (exponents_of(self._expert(e)) for e in range(self.shape[0]))
        else:
            yield from (self._plain(e) for e in range(self.shape[0]))

    def _plain(self, e: int) -> Any:
        import gguf
        import numpy as np

        tensor = self.tensors[0]
        rows = gguf.dequantize(self._expert(e), tensor.tensor_type)
        return np.ascontiguousarray(rows.T if rows.ndim == 2 else rows, dtype=np.float32)

    def _expert(self, e: int) -> Any:
        """An expert's rows as the file has them."""
        import numpy as np

        parts = [tensor.data[e] for tensor in self.tensors]
        return np.ascontiguousarray(parts[0] if len(parts) == 1 else np.stack(parts, 1).reshape(-1, *parts[0].shape[1:]))


def codes_of(rows: Any) -> Any:
    """Rows of blocks (n, bytes) → their numbers as safetensors have them: (n, blocks, 16)."""
    import numpy as np

    codes = rows.reshape(len(rows), -1, _BYTES)[..., 1:]
    codes = np.concatenate((codes & 15, codes >> 4), -1)
    return codes[..., 0::2] | codes[..., 1::2] << 4


def exponents_of(rows: Any) -> Any:
    """Rows of blocks (n, bytes) → their exponents (n, blocks)."""
    import numpy as np

    return np.ascontiguousarray(rows.reshape(len(rows), -1, _BYTES)[..., 0])


def is_stacked(name: str) -> bool:
    """Whether a tensor of the file belongs to all experts of a layer."""
    parts = name.split(".")
    return len(parts) == 4 and parts[1].isdecimal() and parts[2] in _PARTS


def in_mxfp4(tensors: Sequence[Any]) -> bool:
    """Whether the experts lie in four bits. Raises ConvertError where some do and some do not, or lie in another kind."""
    matrices = [tensor for tensor in tensors if is_stacked(tensor.name) and tensor.name.endswith(".weight")]
    kinds = {tensor.tensor_type.name for tensor in matrices}
    if kinds == {"MXFP4"}:
        return True
    for tensor in matrices:
        if (kind := tensor.tensor_type.name) not in _PLAIN:
            beside = " beside others" if kind == "MXFP4" else ""
            raise ConvertError(
                f"{tensor.name} lies in {kind}{beside}, and gpt-oss' experts are read all in MXFP4, or all in F32, F16 or BF16; "
                "take a file of the model that keeps them so, as ggml-org's does"
            )
    return False


def stacked_pieces(tensors: Sequence[Any], config: Mapping[str, Any]) -> list[StackedPiece]:
    """What is to be written of all experts. Raises ConvertError where a part of a layer is missing, or is of other sizes than the rest."""
    layers: dict[int, dict[str, Any]] = defaultdict(dict)
    for tensor in tensors:
        if is_stacked(tensor.name):
            _, layer, part, end = tensor.name.split(".")
            layers[int(layer)][f"{part}.{end}"] = tensor
    count, hidden, inner = config["num_local_experts"], config["hidden_size"], config["intermediate_size"]
    rows = dict(zip(_PARTS, (inner, inner, hidden), strict=True))
    pieces = []
    for layer, held in sorted(layers.items()):
        for part, size in rows.items():
            _check(held, f"blk.{layer}", f"{part}.weight", (count, size, inner if part == _PARTS[2] else hidden))
            _check(held, f"blk.{layer}", f"{part}.bias", (count, size))
        name, (gate, up, down) = f"model.layers.{layer}.mlp.experts", _PARTS
        for end, ours, columns in (("weight", "", [hidden]), ("bias", "_bias", [])):
            pieces += [
                StackedPiece(f"{name}.gate_up_proj{ours}", (count, 2 * inner, *columns), (held[f"{gate}.{end}"], held[f"{up}.{end}"])),
                StackedPiece(f"{name}.down_proj{ours}", (count, hidden, *[inner for _ in columns]), (held[f"{down}.{end}"],)),
            ]
    return pieces


def _check(held: dict[str, Any], block: str, name: str, shape: tuple[int, ...]) -> None:
    if name not in held:
        raise ConvertError(f"the GGUF file holds experts in {block} and no {block}.{name}: fetch it again")
    actual = tuple(int(n) for n in reversed(held[name].shape))
    if actual != shape:
        promised, holds = (" × ".join(f"{n:,}" for n in sizes) for sizes in (shape, actual))
        raise ConvertError(f"{block}.{name} holds {holds} numbers, and the GGUF header says {promised}: fetch the file again")
