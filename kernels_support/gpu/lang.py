"""Triton where it is installed, and nothing in its place where not, so that the plain torch side of each kernel imports everywhere.

A kernel is started by `start`. Over tensors that are not there (torch's meta device) it is noted instead, inside `noting`: what a model would launch can
be compiled before there is a model.
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

__all__ = ["HAS_TRITON", "Launch", "after", "early", "jit", "let", "noting", "on_device", "start", "tl", "triton", "wait"]

# A CPU's torch has nothing to run it but its interpreter, and loading it would delay every start.
if torch.version.cuda or torch.version.hip or os.environ.get("TRITON_INTERPRET") == "1":
    try:
        import triton
        import triton.language as tl
    except ImportError:
        triton = tl = None
else:
    triton = tl = None

HAS_TRITON = triton is not None

#: What this thread's `noting` has found so far; none where it is not inside one.
_here = threading.local()


def jit(function: Any) -> Any:
    """`triton.jit`; without Triton the kernel stays as it stands, and nobody launches it."""
    return triton.jit(function) if HAS_TRITON else function


def on_device(x: torch.Tensor) -> bool:
    """Whether this tensor is for the Triton side."""
    return HAS_TRITON and (x.is_cuda or x.is_meta)


@cache
def early() -> bool:
    """Whether a kernel may be set up before the one in front of it has ended (programmatic dependent launch, from Hopper on)."""
    return torch.cuda.is_available() and bool(torch.version.cuda) and torch.cuda.get_device_capability() >= (9, 0)


@jit
def after(pdl: tl.constexpr) -> None:
    """First of all in a kernel: wait until all that was launched before it is done. What comes next may be set up meanwhile."""
    wait(pdl)
    let(pdl)


@jit
def wait(pdl: tl.constexpr) -> None:
    """The first half of `after`. What was written before the kernel in front of this one may be read already."""
    if pdl:
        tl.extra.cuda.gdc_wait()


@jit
def let(pdl: tl.constexpr) -> None:
    """The second half: once every program has come here, the next kernel may be set up."""
    if pdl:
        tl.extra.cuda.gdc_launch_dependents()


def start(kernel: Any, grid: tuple[int, ...], *args: Any, **options: Any) -> None:
    """Launch `kernel` over `grid`; inside `noting`, take note of it. It may be set up while the kernel before it still runs, where the device can."""
    found: dict[Any, Launch] | None = getattr(_here, "found", None)
    options["pdl"] = early()
    if options["pdl"]:
        options["launch_pdl"] = True
    if found is None:
        kernel[grid](*args, **options)
    else:
        launch = Launch(kernel, args, options)
        found.setdefault(launch.key, launch)


@dataclass(frozen=True, slots=True)
class Launch:
    """A kernel with what it would be started with."""

    kernel: Any
    args: tuple[Any, ...]
    options: dict[str, Any]

    @property
    def key(self) -> Any:
        """Equal for launches that Triton compiles once: it looks at types, and at which numbers and addresses 16 divides."""
        return self.kernel, *map(_special, self.args), *sorted(self.options.items())

    def compile(self, *, load: bool) -> None:
        """Compile it, for this thread's device; with `load`, bring it there as well. Nothing is run."""
        made = self.kernel.warmup(*self.args, grid=(1,), **self.options)
        if load:
            _ = made.run  # Triton loads a kernel where somebody asks how to run it


def _special(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.dtype, value.data_ptr() % 16 == 0
    return (value == 1, value % 16 == 0) if isinstance(value, int) else type(value)


@contextmanager
def noting() -> Iterator[dict[Any, Launch]]:
    """While inside, this thread's kernels are noted, each once, in order, and none is run."""
    _here.found = {}
    try:
        yield _here.found
    finally:
        _here.found = None
