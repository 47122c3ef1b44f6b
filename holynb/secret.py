"""A key that never shows itself. Standard library only."""

from __future__ import annotations

from typing import NoReturn

__all__ = ["Secret"]

#: A server that echoes this many characters of a key in a row has told too much.
TELLING = 8
#: In an answer that many make no accident; fewer may be a word that the model chose.
NO_ACCIDENT = 16


class Secret:
    """A key. Never shows itself: not in repr, str, format, pickle or a traceback's locals; `reveal()` is for the wire alone."""

    __slots__ = ("_value", "name")

    def __init__(self, value: str, name: str = "key") -> None:
        self._value = value
        self.name = name

    def reveal(self) -> str:
        return self._value

    def mask(self, text: str) -> str:
        """`text` without this key: whole, or any run of 8 or more of its characters that a server may have echoed."""
        value = self._value
        if len(value) < TELLING:
            return text.replace(value, "***") if value else text
        found = {value[i : i + TELLING] for i in range(len(value) - TELLING + 1)}
        out, i = [], 0
        while i < len(text):
            if text[i : i + TELLING] in found:
                j = i + TELLING
                while j < len(text) and text[j - TELLING + 1 : j + 1] in found:
                    j += 1
                out.append("***")
                i = j
            else:
                out.append(text[i])
                i += 1
        return "".join(out)

    def kept_out_of(self, answer: str) -> str:
        """An answer, the same object where this key is not in it; masked where it is. Quick, for every answer is looked through.

        Finds the key whole, and any 23 of its characters in a row. A key of under 16 characters may be a word, and is left alone.
        """
        value = self._value
        for i in range(0, len(value) - NO_ACCIDENT + 1, TELLING):
            if value[i : i + NO_ACCIDENT] in answer:
                return self.mask(answer)
        return answer

    def __repr__(self) -> str:
        return f"Secret({self.name})"

    __str__ = __repr__

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret is never pickled")
