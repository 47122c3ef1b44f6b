"""How well a colour is told from what it stands on (WCAG 2)."""

from __future__ import annotations

import re

Colour = tuple[float, float, float]


def parts(colour: str) -> tuple[Colour, float]:
    """Red, green, blue and opacity, 0 to 1, of `rgb(…)`, `rgba(…)` or `color(srgb …)`."""
    numbers = [float(v) for v in re.findall(r"[\d.]+(?:e-?\d+)?", colour.partition("(")[2])]
    scale = 1 if colour.startswith("color(") else 255
    return (numbers[0] / scale, numbers[1] / scale, numbers[2] / scale), numbers[3] if len(numbers) > 3 else 1.0


def luminance(colour: Colour) -> float:
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in colour]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(ink: str, back: str) -> float:
    """From 1 to 21. Ink that is partly clear is mixed with what it stands on, which is not."""
    (mine, share), (under, _) = parts(ink), parts(back)
    red, green, blue = (m * share + u * (1 - share) for m, u in zip(mine, under, strict=True))
    high, low = sorted((luminance((red, green, blue)), luminance(under)), reverse=True)
    return (high + 0.05) / (low + 0.05)
