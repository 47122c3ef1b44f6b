"""The type of number that a rank computes in. Knows no torch."""

from __future__ import annotations

from holynb.errors import UserError, closest
from holynb.pool.fit import Spec, bf16_is_fast
from holynb.pool.fit.groups import GroupQuantization

__all__ = ["compute_dtype"]

DTYPES = ("float32", "bfloat16", "float16", "fp8", "int8")


def compute_dtype(dtype: str | None, device: str, spec: Spec) -> str:
    """The dtype to compute in. On CPU bfloat16 only if requested and the processor has it: elsewhere it is slower than float32."""
    if dtype not in (None, "auto", *DTYPES):
        raise UserError(f"--dtype {dtype} is none of {', '.join(DTYPES)}.{closest(str(dtype), DTYPES)}")
    if device == "cpu":
        return "bfloat16" if dtype == "bfloat16" and bf16_is_fast() else "float32"
    # A GGUF file says nothing of what it was made from; bfloat16 has the range of float32, and float16 has not.
    given = spec.quantization
    if isinstance(given, GroupQuantization) and dtype in (None, "auto", "int8") and not (given.widened or spec.dtype == "float16"):
        return "bfloat16"
    return (spec.dtype if spec.dtype in DTYPES else "bfloat16") if dtype in (None, "auto", "fp8", "int8") else str(dtype)
