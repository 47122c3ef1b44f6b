"""Triton where it is installed, else None, so that the plain torch side of each kernel can be imported everywhere.

Kernels are launched through `launch_kernel`, with programmatic dependent launch (CUDA C++ Programming Guide) where the device has it.
Inside `record_launches` they are recorded and not run, also over tensors on torch's meta device, which hold no data: what a model will
launch can be compiled before its weights are loaded.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

__all__ = [
    "HAS_TRITON",
    "Launch",
    "fitting_stages",
    "has_pdl",
    "jit",
    "launch_kernel",
    "on_device",
    "pdl_barrier",
    "pdl_launch_dependents",
    "pdl_wait",
    "plain_torch",
    "record_launches",
    "tl",
    "triton",
]

# A CPU-only torch can run kernels in Triton's interpreter alone, and importing Triton would slow down every start.
if torch.version.cuda or torch.version.hip or os.environ.get("TRITON_INTERPRET") == "1":
    try:
        import triton
        import triton.language as tl
    except ImportError:
        triton = tl = None
else:
    triton = tl = None

HAS_TRITON = triton is not None

#: `launches`: what this thread's `record_launches` has recorded so far; unset or None outside of it.
_recording = threading.local()


class _Plain(threading.local):
    """Whether this thread is inside `plain_torch`."""

    on = False


_plain = _Plain()


def jit(function: Any) -> Any:
    """`triton.jit`; without Triton the undecorated function, which is never launched."""
    return triton.jit(function) if HAS_TRITON else function


def on_device(x: torch.Tensor) -> bool:
    """Whether Triton serves this tensor."""
    return HAS_TRITON and (x.is_cuda or x.is_meta) and not _plain.on


@contextmanager
def plain_torch() -> Iterator[None]:
    """In this thread the plain torch side of each function serves, also on a GPU."""
    before, _plain.on = _plain.on, True
    try:
        yield
    finally:
        _plain.on = before


@cache
def has_pdl() -> bool:
    """Whether the device has programmatic dependent launch (Hopper and later): a kernel may start before the one in front has ended."""
    return torch.cuda.is_available() and bool(torch.version.cuda) and torch.cuda.get_device_capability() >= (9, 0)


def fitting_stages(stages: int, stage_bytes: int) -> int:
    """As many loads in flight, of so many bytes each, as a program has room for: a Hopper has 228 KB, others 100."""
    return max(1, min(stages, _shared_memory() // stage_bytes))


@cache
def _shared_memory() -> int:
    """Bytes that one program may hold for its tiles; a Hopper's where there is no device."""
    if not torch.cuda.is_available():
        return 220_000
    properties: Any = torch.cuda.get_device_properties()
    return int(properties.shared_memory_per_block_optin) - 7_000


@jit
def pdl_barrier(pdl: tl.constexpr) -> None:
    """`pdl_wait`, then `pdl_launch_dependents`: for the beginning of a kernel that reads nothing earlier."""
    pdl_wait(pdl)
    pdl_launch_dependents(pdl)


@jit
def pdl_wait(pdl: tl.constexpr) -> None:
    """Wait until the preceding kernel has ended and its writes are visible. What was written before that kernel may be read without it."""
    if pdl:
        tl.extra.cuda.gdc_wait()


@jit
def pdl_launch_dependents(pdl: tl.constexpr) -> None:
    """Let the next kernel start, up to its own `pdl_wait`, once every program has come here."""
    if pdl:
        tl.extra.cuda.gdc_launch_dependents()


def launch_kernel(kernel: Any, grid: tuple[int, ...], *args: Any, **options: Any) -> None:
    """Launch `kernel` over `grid`, by programmatic dependent launch where the device has it. Inside `record_launches`: record it."""
    launches: dict[Any, Launch] | None = getattr(_recording, "launches", None)
    options["pdl"] = has_pdl()
    if options["pdl"]:
        options["launch_pdl"] = True
    if launches is None:
        kernel[grid](*args, **options)
    else:
        launch = Launch(kernel, args, options)
        launches.setdefault(launch.key, launch)


@dataclass(frozen=True, slots=True)
class Launch:
    """A kernel with the arguments and options of its launch."""

    kernel: Any
    args: tuple[Any, ...]
    options: dict[str, Any]

    @property
    def key(self) -> Any:
        """Equal for launches that share one compilation: Triton specializes on types, and on integers and addresses divisible by 16."""
        return self.kernel, *map(_specialization, self.args), *sorted(self.options.items())

    def compile(self, *, load: bool) -> None:
        """Compile for this thread's device; with `load`, load the binary onto it as well. Nothing is run."""
        compiled = self.kernel.warmup(*self.args, grid=(1,), **self.options)
        if load:
            _ = compiled.run  # reading the attribute makes Triton load the binary


def _specialization(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.dtype, value.data_ptr() % 16 == 0
    return (value == 1, value % 16 == 0) if isinstance(value, int) else type(value)


@contextmanager
def record_launches() -> Iterator[dict[Any, Launch]]:
    """Record this thread's launches, each compilation once and in order, and run none of them."""
    _recording.launches = {}
    try:
        yield _recording.launches
    finally:
        _recording.launches = None
