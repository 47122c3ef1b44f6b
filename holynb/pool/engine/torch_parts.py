"""Torch without the parts that no rank needs: they are imported when somebody asks for them, not at every start.

A third to a half of `import torch` is Python that describes operators to compilers and exporters, and quantization, distributions and
data loaders: 0.45 of 1.2 CPU seconds, and 11,500 of 16,000 looks at files, which are what a slow file system is slow at. While torch is
imported, an empty module stands for each of these parts; afterwards it is gone, and whoever imports a further module of torch, or asks
torch for a name that it does not have, has all of them imported, in torch's own order. Only for versions that this was tried with: any
other is imported whole.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

__all__ = ["import_torch"]

#: Versions (major, minor) whose imports were looked at, on CPU and CUDA.
_TRIED = ("2.11", "2.13")

#: The parts, in the order in which torch imports them. Each is asked for by torch's own `__init__` or a part, and used by no other module.
_PARTS = (
    "torch.utils.data",
    "torch.profiler",
    "torch.nested",
    "torch.distributions",
    "torch.ao",
    "torch.nn.intrinsic",
    "torch.nn.qat",
    "torch.nn.quantizable",
    "torch.nn.quantized",
    "torch.quantization",
    "torch.masked",
    "torch.export",
    "torch.func",
    "torch._higher_order_ops",
    "torch.distributed._meta_registrations",
    "torch._meta_registrations",
    "torch._native",
)


def import_torch() -> None:
    """`import torch`, without its parts where this version is known."""
    if "torch" in sys.modules or not _known():
        importlib.import_module("torch")
        return
    absent = _Absent()
    sys.meta_path.insert(0, absent)
    try:
        torch = importlib.import_module("torch")
    except BaseException:
        sys.meta_path.remove(absent)
        raise
    absent.leave(torch)


def _known() -> bool:
    try:
        return ".".join(importlib.metadata.version("torch").split(".")[:2]) in _TRIED
    except importlib.metadata.PackageNotFoundError:
        return False


def _is_part(name: str) -> bool:
    return any(name == part or name.startswith(f"{part}.") for part in _PARTS)


class _Missing(type):
    """What a missing part would have given, where torch names it: a class, since annotations take nothing else. Of no use."""

    home: str

    def __call__(cls, *_: Any, **__: Any) -> Any:
        raise RuntimeError(f"torch was imported without {cls.home}, and {cls.__name__} is used")


class _Empty(ModuleType):
    """Stands for a part while torch is imported."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        missing = _Missing(name, (), {"home": self.__name__})
        setattr(self, name, missing)
        return missing


class _Imported(Loader):
    """Of a module that was imported while it was looked for, with the parts: it must not be executed again."""

    def __init__(self, module: ModuleType) -> None:
        self._module, self._spec = module, module.__spec__

    def create_module(self, spec: ModuleSpec) -> ModuleType:  # noqa: ARG002
        return self._module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._spec


class _Absent(MetaPathFinder, Loader):
    """Finds an empty module for each part while torch is imported, and imports all of them where any further module is asked for."""

    def __init__(self) -> None:
        self._importing = True
        self._torch: ModuleType | None = None

    def find_spec(  # the import system's protocol
        self,
        fullname: str,
        path: Sequence[str] | None = None,  # noqa: ARG002
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> ModuleSpec | None:
        if self._importing:
            return ModuleSpec(fullname, self, is_package=True) if _is_part(fullname) else None
        if fullname.startswith("torch."):  # whatever it is: torch's modules import each other, and in another order some of them cannot
            self.complete()
            if module := sys.modules.get(fullname):
                module.__spec__ = ModuleSpec(fullname, _Imported(module))
                return module.__spec__  # which Python takes in any case, where the module is there by now
        return None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _Empty(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Nothing is in it."""

    def leave(self, torch: ModuleType) -> None:
        """Torch is imported: take the empty modules away, and wait for somebody who asks for one."""
        self._importing, self._torch = False, torch
        for name in [name for name, module in sys.modules.items() if type(module) is _Empty]:
            del sys.modules[name]
        for module in _torch_modules():
            for name in [name for name, value in vars(module).items() if type(value) is _Empty]:
                delattr(module, name)
        for name in [name for name, value in vars(torch).items() if type(value) is _Missing]:
            delattr(torch, name)
        given: Any = torch.__dict__.get("__getattr__")

        def attribute(name: str) -> Any:
            if self in sys.meta_path and not name.startswith("__"):
                self.complete()
                if name in vars(torch):
                    return vars(torch)[name]
            if given is None:
                raise AttributeError(f"module 'torch' has no attribute {name!r}")
            return given(name)

        torch.__dict__["__getattr__"] = attribute

    def complete(self) -> None:
        """Import all parts."""
        torch: Any = self._torch
        sys.meta_path.remove(self)
        for part in _PARTS:
            if importlib.util.find_spec(part) is not None:
                importlib.import_module(part)
        given = sys.modules["torch._higher_order_ops"]
        torch.vmap, torch.cond, torch.while_loop = torch.func.vmap, vars(given)["cond"], vars(given)["while_loop"]
        for module in _torch_modules():
            for name, value in list(vars(module).items()):
                if type(value) is _Missing:
                    setattr(module, name, getattr(importlib.import_module(value.home), name))


def _torch_modules() -> list[ModuleType]:
    return [module for name, module in list(sys.modules.items()) if name.partition(".")[0] == "torch" and isinstance(module, ModuleType)]
