"""The library that validates by a JSON Schema, loaded without what no schema here has a use for."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from types import ModuleType
from typing import Any

_GRAMMAR = "rfc3987_syntax"


def library() -> Any:
    """The module jsonschema. The grammar of IRIs that JupyterLab brings along takes seconds to make: once a format asks for it."""
    if "jsonschema" not in sys.modules and _GRAMMAR not in sys.modules and importlib.util.find_spec(_GRAMMAR) is not None:
        sys.modules[_GRAMMAR] = later = _Later(_GRAMMAR)
        try:
            importlib.import_module("jsonschema")
        finally:
            later.leave()
    return importlib.import_module("jsonschema")


class _Later(ModuleType):
    """Stands in for the grammar while jsonschema loads, which takes a function of it."""

    def is_valid_syntax(self, term: str, value: str) -> bool:
        return bool(self.__getattr__("is_valid_syntax")(term, value))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        self.leave()
        return getattr(importlib.import_module(_GRAMMAR), name)

    def leave(self) -> None:
        if sys.modules.get(_GRAMMAR) is self:
            del sys.modules[_GRAMMAR]
