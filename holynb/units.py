"""How measured figures are said, the same everywhere: three digits, memory in GB. Pure; assets/page.js says them alike in the page."""

from __future__ import annotations

import math

__all__ = ["memory", "three_digits"]

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
    """Bytes as `24 GB`, `0.18 GB`, `64 MB`: powers of ten, as sizes of models and of disks are."""
    gigabytes = size / 1e9
    return f"{three_digits(gigabytes)} GB" if gigabytes >= _LEAST_GB else f"{size / 1e6:,.0f} MB" if size else "0 GB"
