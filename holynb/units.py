"""How measured figures are said, the same everywhere: rates, memory, durations. Pure; assets/page.js says them alike in the page."""

from __future__ import annotations

import math

__all__ = ["memory", "seconds", "three_digits"]

#: Memory below this is said in MB.
_LEAST_GB = 0.1


def three_digits(value: float) -> str:
    """`89,600`, `12.3`, `0.0512`: a measured figure, of which no more is true. Zeros at its end are left out."""
    if not value or not math.isfinite(value):
        return "0" if not value else "?"
    rounded = float(f"{value:.3g}")
    digits = max(0, 2 - math.floor(math.log10(abs(rounded))))
    text = f"{rounded:,.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def memory(size: float) -> str:
    """Bytes as `24 GB`, `0.18 GB`, `64 MB`, `86 kB`: powers of ten, as sizes of models and of disks are."""
    gigabytes = size / 1e9
    if not size or gigabytes >= _LEAST_GB:
        return f"{three_digits(gigabytes)} GB"
    return f"{size / 1e6:,.0f} MB" if size >= 1e6 else f"{size / 1e3:,.0f} kB"


def seconds(value: float | None) -> str:
    """`0 s`, `4.2 ms`, `0.42 s`, `12 s`, `3 min 20 s`, `2 h 5 min`; `?` where unknown."""
    if value is None or not math.isfinite(value):
        return "?"
    if 0 < value < 0.0995:
        return f"{value * 1000:.{1 if value < 0.00995 else 0}f} ms"
    if not value:
        return "0 s"
    if value < 9.95:
        return f"{value:.2f} s" if value < 0.995 else f"{value:.1f} s"
    whole = round(value)
    if whole < 120:
        return f"{whole} s"
    if whole < 7200:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
