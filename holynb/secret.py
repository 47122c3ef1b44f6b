"""An API key that never appears in a repr, a log or a traceback. Standard library only."""

from __future__ import annotations

from typing import NoReturn

__all__ = ["Secret"]

#: Shortest run of a key's characters that is masked in an error text: a server may echo part of the key.
MIN_LEAK_CHARS = 8
#: Shortest run that is masked in an answer; a shorter one may be a word that the model chose.
MIN_ANSWER_LEAK_CHARS = 16


class Secret:
    """A key that repr, str, format, pickle and a traceback's locals do not show; `reveal()` is for the wire alone."""

    __slots__ = ("_value", "name")

    def __init__(self, value: str, name: str = "key") -> None:
        self._value = value
        self.name = name

    def reveal(self) -> str:
        """The key itself."""
        return self._value

    def mask(self, text: str) -> str:
        """`text` with this key, and any run of 8 or more of its characters, replaced by `***`."""
        value = self._value
        if len(value) < MIN_LEAK_CHARS:
            return text.replace(value, "***") if value else text
        windows = {value[i : i + MIN_LEAK_CHARS] for i in range(len(value) - MIN_LEAK_CHARS + 1)}
        masked, i = [], 0
        while i < len(text):
            if text[i : i + MIN_LEAK_CHARS] in windows:
                j = i + MIN_LEAK_CHARS
                while j < len(text) and text[j - MIN_LEAK_CHARS + 1 : j + 1] in windows:
                    j += 1
                masked.append("***")
                i = j
            else:
                masked.append(text[i])
                i += 1
        return "".join(masked)

    def mask_answer(self, answer: str) -> str:
        """`answer` itself where this key is not in it, else masked. Fast, as every answer is searched.

        Matches the whole key, and any 23 of its characters in a row. A key of under 16 characters may be a word, and is left alone.
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
