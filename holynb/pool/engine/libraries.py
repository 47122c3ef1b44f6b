"""What a rank's process loads before it is told what to serve, side by side: libraries, and on a GPU the driver's context. Knows no model.

Torch's shared libraries are opened by one thread while another imports what needs no torch; a context is made by a third. None of it is
needed: what fails here is done, and its error raised, where it is used.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from threading import Thread

from holynb.pool.engine.torch_parts import import_torch

__all__ = ["load_libraries"]

#: Of torch's folder lib, and how: as torch opens them. Neither calls Python while it is opened.
_SHARED = (("libtorch_global_deps.so", os.RTLD_NOW | os.RTLD_GLOBAL), ("libtorch_cuda.so", os.RTLD_NOW))

#: What needs no torch and takes longest, then what needs it.
_BESIDE_CUDA = ("numpy", "triton")
_ENGINE = ("load", "model", "pipeline", "embedder")


def load_libraries(device: str) -> None:
    """Import torch and the engine, as `device` (cpu or cuda:N) needs them."""
    # Spinning OpenMP threads on shared cores cost four fifths of the rate; read when torch loads its OpenMP.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if device != "cpu":
        _begin(_make_context, device)
        opening = _begin(_open_shared)
        for name in _BESIDE_CUDA:
            with contextlib.suppress(ImportError):
                importlib.import_module(name)
        opening.join()
    import_torch()
    for name in (*_ENGINE, *(("eager",) if device == "cpu" else ("graphs", "first_steps", "precompile"))):
        importlib.import_module(f"holynb.pool.engine.{name}")


def _begin(work: Callable[..., None], *args: str) -> Thread:
    thread = Thread(target=work, args=args, name="holynb-libraries", daemon=True)
    thread.start()
    return thread


def _open_shared() -> None:
    """Open torch's libraries as `import torch` will; called through ctypes itself, for `ctypes.CDLL` keeps the interpreter meanwhile."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return
    with contextlib.suppress(OSError, AttributeError):  # a system whose C library has no dlopen
        dlopen = ctypes.CDLL(None).dlopen
        dlopen.restype, dlopen.argtypes = ctypes.c_void_p, [ctypes.c_char_p, ctypes.c_int]
        for name, how in _SHARED:
            if dlopen(os.fsencode(Path(spec.origin).with_name("lib") / name), how) is None:
                return


def _make_context(device: str) -> None:
    """Make the device's primary context, which torch takes as it is."""
    with contextlib.suppress(OSError, AttributeError, ValueError):  # no driver
        driver = ctypes.CDLL("libcuda.so.1")
        number, context = ctypes.c_int(), ctypes.c_void_p()
        if driver.cuInit(0) == 0 and driver.cuDeviceGet(ctypes.byref(number), int(device.rpartition(":")[2])) == 0:
            driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), number)
