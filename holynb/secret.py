"""A key that never shows itself. Standard library only."""

from __future__ import annotations

from typing import NoReturn

__all__ = ["Secret"]

#: A server that echoes this many characters of a key in a row has told too much.
MIN_LEAK_CHARS = 8
#: In an answer that many make no accident; fewer may be a word that the model chose.
MIN_ANSWER_LEAK_CHARS = 16


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
        if len(value) < MIN_LEAK_CHARS:
            return text.replace(value, "***") if value else text
        found = {value[i : i + MIN_LEAK_CHARS] for i in range(len(value) - MIN_LEAK_CHARS + 1)}
        out, i = [], 0
        while i < len(text):
            if text[i : i + MIN_LEAK_CHARS] in found:
                j = i + MIN_LEAK_CHARS
                while j < len(text) and text[j - MIN_LEAK_CHARS + 1 : j + 1] in found:
                    j += 1
                out.append("***")
                i = j
            else:
                out.append(text[i])
                i += 1
        return "".join(out)

    def mask_answer(self, answer: str) -> str:
        """An answer, the same object where this key is not in it; masked where it is. Quick, for every answer is looked through.

        Finds the key whole, and any 23 of its characters in a row. A key of under 16 characters may be a word, and is left alone.
        """
        value = self._value
        for i in range(0, len(value) - MIN_ANSWER_LEAK_CHARS + 1, MIN_LEAK_CHARS):
            if value[i : i + MIN_ANSWER_LEAK_CHARS] in answer:
                return self.mask(answer)
        return answer

    def __repr__(self) -> str:
        return f"Secret({self.name})"

    __str__ = __repr__

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret is never pickled")
