"""Names of GPUs → their memory and whether they have FP8 units, for a plan of devices that are not here. Knows names and numbers."""

from __future__ import annotations

import re
from dataclasses import replace

from holynb.errors import UserError
from holynb.pool.fit.plan import Device

__all__ = ["card_memory", "has_fp8", "parse_gpus"]

#: Gigabytes of cards that are sold with one size, without what stands before the number (RTX, GeForce).
_CARDS = {"T4": 16, "A10": 24, "A10G": 24, "L4": 24, "3090": 24, "4090": 24, "5090": 32}
_CARDS |= {"A40": 48, "A6000": 48, "L40": 48, "L40S": 48, "H100": 80, "H200": 141}

#: Those of two sizes, so that theirs is to be said: A100-80GB.
_TWO_SIZES = {"A100": (40, 80), "V100": (16, 32)}

#: Cards of generations before Ada and Hopper, which multiply no FP8 numbers: Kepler to Ampere.
_BEFORE_FP8 = re.compile(r"[KMPTV]\d+|A\d+G?|[23]0[5-9]0")

#: How many, a card, its memory where that is said.
_NAMED = re.compile(r"(?:(\d+)\s*[X×*]\s*)?([A-Z][A-Z0-9]*|[2-5]0[5-9]0)(?:[-_ ](\d+)\s*G(?:I?B)?)?")


def parse_gpus(text: str) -> Device:
    """The devices of `4x24GB`, `2xH100`, `2x4090`, `4xA100-80GB`. Raises UserError."""
    if re.search(r"[,+;]", text):
        raise UserError(
            f"--gpus {text} names more than one kind: name one, such as 4x24GB. Of several, the one with the least memory decides."
        )
    if re.fullmatch(r"(\d+\s*[xX×*]\s*)?\d{1,3}", text.strip()) and not _matched(text):
        raise UserError(f"--gpus {text} has no unit. Did you mean {text.strip()}GB?")
    if (match := _matched(text)) and match[2] in _TWO_SIZES and not match[3]:
        ways = " or ".join(f"{match[1] or 1}x{match[2]}-{size}GB" for size in _TWO_SIZES[match[2]])
        raise UserError(f"--gpus {text}: {match[2]} comes with two sizes of memory, so say which: {ways}.")
    return replace(Device.parse(_with_sizes(text)), fp8=has_fp8(text))


def _matched(text: str) -> re.Match[str] | None:
    return _NAMED.fullmatch(re.sub(r"(?i)(nvidia|geforce|tesla|rtx)[-_ ]*", "", text.strip()).upper())


def _with_sizes(text: str) -> str:
    """`2xH100` as `2x80GB`, and `4xA100-80GB` as `4x80GB`; all else as it is."""
    match = _matched(text)
    size = match and (match[3] or _CARDS.get(match[2]))
    return f"{match[1] or 1}x{size}GB" if match and size else text


def has_fp8(kind: str) -> bool:
    """Whether a card of this name multiplies FP8 numbers; as is assumed of a name that does not tell."""
    match = _matched(kind)
    return match is None or _BEFORE_FP8.fullmatch(match[2]) is None


def card_memory(kind: str) -> int | None:
    """Bytes of a card by its kind, such as `H100` or `A100-80G`; None where the name does not tell."""
    size = _with_sizes(kind)
    return None if size == kind else int(size.removeprefix("1x").removesuffix("GB")) * 10**9
