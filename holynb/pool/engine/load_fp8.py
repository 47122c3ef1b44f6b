"""Matrices of FP8 numbers and their scales, as checkpoints hold them: read whole or in shards, several with the same input as one."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from holynb.errors import UserError
from holynb.pool.fit import Spec, fp8_units
from holynb.pool.fit.quantization import BLOCK, Quantization
from kernels_support.gpu.fp8_matrix import Fp8Matrix, supports_fp8

__all__ = ["Part", "TensorSource", "check_fp8", "is_fp8", "read_fp8"]

#: A module's name, and which rows of its matrix are wanted.
Part = tuple[str, tuple[int, int]]


class TensorSource(Protocol):
    """Reads a tensor, or a part of it, by name: rows and columns are half-open ranges (None: all). Returns None if there is none."""

    def __call__(self, name: str, rows: tuple[int, int] | None = None, columns: tuple[int, int] | None = None) -> Tensor | None: ...


def check_fp8(spec: Spec, device: str) -> None:
    """Raises UserError where this GPU has no eight bits for the matrices or the cache that are to have them."""
    if supports_fp8(device):
        return
    if fp8_units.multiplied(spec):
        raise UserError(
            f"{device} multiplies no FP8 numbers: NVIDIA's GPUs do from Ada and Hopper on. Take the model's plain weights, or --engine vllm."
        )
    if fp8_units.kept(spec):
        raise UserError(f"{device} keeps no FP8 numbers: NVIDIA's GPUs do from Ada and Hopper on. Leave --kv out, or take --engine vllm.")


def is_fp8(source: TensorSource, module: str) -> bool:
    """Whether this module's matrix lies in eight bits; one that is not there does not."""
    first = source(f"{module}.weight", (0, 1))
    return first is not None and first.dtype == torch.float8_e4m3fn


def read_fp8(source: TensorSource, parts: list[Part], columns: tuple[int, int] | None, how: Quantization, device: str) -> Fp8Matrix:
    """The matrices of `parts` below each other, or the `columns` of one. Raises UserError where a scale is missing or has no such shape,
    and where a shard would divide a block.
    """
    values = [_read(source, f"{name}.weight", None if columns else rows, columns) for name, rows in parts]
    scales = [_scale(source, part, columns, how, tuple(value.shape)) for part, value in zip(parts, values, strict=True)]
    if how.weights == "block" and any(len(value) % BLOCK for value in values[:-1]):
        raise _divided(parts[0][0])
    known = [_read(source, f"{name}.input_scale").float().reshape(-1) for name, _ in parts] if how.activations == "static" else []
    return Fp8Matrix(
        torch.cat(values).to(device),
        torch.cat(scales).to(device).contiguous(),
        # What has the same input has the same scale for it; of two that differ the larger one cuts nothing off.
        torch.cat(known).max().reshape(1).to(device) if known else None,
        how.most,
    )


def _scale(source: TensorSource, part: Part, columns: tuple[int, int] | None, how: Quantization, shape: tuple[int, ...]) -> Tensor:
    """The scales of one part: (rows,), or (rows / 128, columns / 128) of blocks."""
    (module, rows), name = part, f"{part[0]}.{how.scale}"
    whole = _read(source, name if how.weights != "block" or source(name) is not None else f"{module}.weight_scale").float()
    if how.weights == "block":
        cuts = []
        for (first, last), size in ((rows, whole.shape[0]), (columns or (0, shape[1]), whole.shape[-1])):
            if first % BLOCK or (last % BLOCK and -(-last // BLOCK) < size):
                raise _divided(module)
            cuts.append(slice(first // BLOCK, -(-last // BLOCK)))
        scale = whole[cuts[0], cuts[1]]
        expected: tuple[int, ...] = (-(-shape[0] // BLOCK), -(-shape[1] // BLOCK))
    elif how.weights == "tensor":
        scale, expected = whole.reshape(-1).expand(shape[0]) if whole.numel() == 1 else whole, (shape[0],)
    else:
        scale, expected = whole.reshape(-1)[rows[0] : rows[1]], (shape[0],)
    if scale.shape != expected:
        raise UserError(
            f"{name} has {' × '.join(map(str, whole.shape)) or 'one'} numbers, not a scale a {how.weights}. Fetch the model again."
        )
    return scale


def _read(source: TensorSource, name: str, rows: tuple[int, int] | None = None, columns: tuple[int, int] | None = None) -> Tensor:
    tensor = source(name, rows, columns)
    if tensor is None:
        raise UserError(f"The model's files hold no tensor {name}, which its quantization_config promises. Fetch the model again.")
    return tensor


def _divided(module: str) -> UserError:
    return UserError(f"{module} would be divided within a block of {BLOCK} that shares a scale. Take a smaller --tp, or --pp.")
