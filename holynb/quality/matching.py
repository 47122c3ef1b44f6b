"""When an answer and a label are the same. Standard library only."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

__all__ = ["OTHER", "classes", "fold"]

#: The class of an answer that is none of the labels. No label can be it: labels are texts.
OTHER = None

#: What a model adds around a label: a full stop, quotes, the stars of Markdown.
_AROUND = " \t\r\n.,;:!?…。！？、，；：\"'`*“”„‘’«»"


def fold(text: str, *, exact: bool = False) -> str:
    """What is compared: without space around it, without case, and without punctuation at its end and quotes around it.

    exact: the text as it is. A text of nothing but punctuation keeps it: `!` and `?` may be labels. An accent is the same as one character
    and as two, as files of macOS have it.
    """
    if exact:
        return text
    bare = text.strip()
    folded = (bare.rstrip(_AROUND).lstrip("\"'`*“”„‘’«» ") or bare).casefold()
    return folded if folded.isascii() else unicodedata.normalize("NFC", folded)


def classes(labels: Sequence[str], *, exact: bool = False) -> dict[str, str]:
    """Folded label → how it is written first, in order of their spelling."""
    first: dict[str, str] = {}
    for label in labels:
        first.setdefault(fold(label, exact=exact), label.strip() or label)
    return {key: first[key] for key in sorted(first, key=_order)}


def _order(key: str) -> tuple[bool, float, str]:
    """Whole numbers by their size, then texts."""
    is_number = key.lstrip("-").isdecimal() and len(key) < 16
    return not is_number, float(key) if is_number else 0.0, key
