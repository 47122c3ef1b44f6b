"""Names of GPUs → their memory, for a plan of devices that are not here. Knows names and numbers."""

from __future__ import annotations

import re

__all__ = ["CARDS", "card_memory", "with_sizes"]

#: Gigabytes of cards that are sold with one size; A100 and V100 come with two, so theirs is said: A100-80GB.
CARDS = {"T4": 16, "A10": 24, "A10G": 24, "L4": 24, "RTX3090": 24, "RTX4090": 24, "RTX5090": 32}
CARDS |= {"A40": 48, "L40": 48, "L40S": 48, "H100": 80, "H200": 141}


def with_sizes(text: str) -> str:
    """`2xH100` as `2x80GB`, and `4xA100-80GB` as `4x80GB`; all else as it is."""
    words = re.sub(r"(?i)rtx[-_ ]?", "RTX", text.strip()).upper()
    match = re.fullmatch(r"(?:(\d+)\s*[X×*]\s*)?([A-Z][A-Z0-9]*)(?:[-_ ](\d+)\s*G(?:I?B)?)?", words)
    size = match and (match[3] or CARDS.get(match[2]))
    return f"{match[1] or 1}x{size}GB" if match and size else text


def card_memory(kind: str) -> int | None:
    """Bytes of a card by its kind, such as `H100` or `A100-80G`; None where the name does not tell."""
    size = with_sizes(kind)
    return None if size == kind else int(size.removeprefix("1x").removesuffix("GB")) * 10**9
