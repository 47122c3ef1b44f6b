"""Which models need a GPU that computes with FP8 numbers, as the engine has no other way for them. Knows specs and devices; no torch."""

from __future__ import annotations

from holynb.errors import UserError
from holynb.pool.fit import plan
from holynb.pool.fit.quantization import Quantization
from holynb.pool.fit.spec import Spec

__all__ = ["check_units", "kept", "multiplied"]


def multiplied(spec: Spec) -> bool:
    """Whether matrices are multiplied as FP8 numbers. `spec`: as it lies on its devices."""
    how = spec.quantization
    return isinstance(how, Quantization) and how.weights != "group" and not how.widened


def kept(spec: Spec) -> bool:
    """Whether keys and values are kept as such."""
    return spec.kv_fp8


def check_units(spec: Spec, device: plan.Device, dtype: str) -> None:
    """Raises UserError where the devices are known to have no FP8 units, and the model started in `dtype` needs them."""
    if device.cpu or device.fp8:
        return
    none = "These GPUs have no FP8 units: NVIDIA's do from Ada and Hopper on."
    if multiplied(plan.started(spec, dtype, cpu=False)):
        raise UserError(f"{none} Take the model's plain weights or files of four bits, or --engine vllm.")
    if kept(spec):
        raise UserError(f"{none} Leave --kv out, or take --engine vllm.")
