"""The facts of a GGUF file's header, typed where they are read. Knows names and numbers; knows neither models nor files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from holynb.pool.modelfields import FieldRefused, check, fields_of, unknown
from holynb.pool.modelfiles import real, truth, whole

__all__ = ["ConvertError", "Facts", "shown"]

#: No size in a header is larger.
MAX_SIZE = 2**31 - 1


class ConvertError(Exception):
    """This GGUF file cannot be converted; the message says why."""


def shown(name: object) -> str:
    """A word of a file as a message shows it: one line, never long."""
    return ascii(str(name))[1:-1][:100]


class Facts:
    """What a header says, by name. Raises ConvertError, which names the fact, where its value is of the wrong type."""

    def __init__(self, facts: Mapping[str, Any], family: str) -> None:
        self._facts, self.family = facts, family

    def check(self) -> None:
        """Raises ConvertError where the header says something that `modelfields.toml` refuses, or has no row for."""
        rooms = {row.name.partition(".")[0] for row in fields_of("gguf")} | {self.family}
        strange = [name for name in self._facts if name.partition(".")[0] not in rooms] + unknown("gguf", self._facts)
        if strange:
            raise ConvertError(f"this gguf says {shown(strange[0])}, which is not supported; use the model's safetensors")
        try:
            check("gguf", self._facts, self.family)
        except FieldRefused as exc:
            raise ConvertError(f"this {exc}; use the model's safetensors") from exc

    def __contains__(self, name: str) -> bool:
        return self._facts.get(name) is not None

    def whole(self, name: str, default: int | None = None, low: int = 1) -> int:
        """A whole number of the family's own; one for each layer counts where all are the same."""
        return int(self._number(whole, name, low, MAX_SIZE, default))

    def real(self, name: str, low: float, high: float, default: float | None = None) -> float:
        """A number of the family's own."""
        return float(self._number(real, name, low, high, default))

    def _number(self, kind: Any, name: str, low: float, high: float, default: float | None) -> float:
        name = f"{self.family}.{name}"
        value = self._facts.get(name)
        if isinstance(value, list):
            if not value or any(one != value[0] for one in value):
                raise ConvertError(f"{name} differs from layer to layer, which is not supported; use the model's safetensors")
            value = value[0]
        try:
            number: float = kind({name: value}, name, low, high, default)
        except KeyError:
            raise ConvertError(f"the GGUF header lacks {name}") from None
        return number

    def number(self, name: str) -> float | None:
        """A number, by its whole name; None where there is none."""
        value = self._facts.get(name)
        if value is None:
            return None
        number = real(self._facts, name, -1e30, 1e30)
        return value if isinstance(value, int) else number

    def truth(self, name: str, *, default: bool) -> bool:
        """A switch, by its whole name."""
        return truth(self._facts, name, default=default)

    def text(self, name: str, default: str | None = None) -> str | None:
        """A text, by its whole name."""
        value = self._facts.get(name)
        if value is not None and not isinstance(value, str):
            raise ConvertError(f"{name} is not text")
        return default if value is None else value

    def items(self, name: str, kind: type | tuple[type, ...]) -> list[Any] | None:
        """A list, by its whole name; None where there is none."""
        value = self._facts.get(name)
        if value is not None and not (isinstance(value, list) and all(isinstance(one, kind) for one in value)):
            raise ConvertError(f"{name} is not a list of {'texts' if kind is str else 'numbers'}")
        return value

    def token(self, word: str, count: int, default: int | None = None) -> int | None:
        """The id of a special token among `count`."""
        name = f"tokenizer.ggml.{word}_token_id"
        return default if self._facts.get(name) is None else whole(self._facts, name, 0, count - 1)

    def names(self, prefix: str) -> list[str]:
        """What follows `prefix` in the names that begin with it."""
        return [name.removeprefix(prefix) for name in self._facts if name.startswith(prefix)]
