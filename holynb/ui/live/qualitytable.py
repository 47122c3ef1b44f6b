"""A table of how good answers are, as the page is sent it. A type alone."""

from __future__ import annotations

from typing import Literal, TypedDict

__all__ = ["QualityTable"]


class QualityTable(TypedDict):
    """A table of figures. kind: classes or matrix, whose cells are counts."""

    title: str
    kind: Literal["classes", "matrix"]
    head: list[str]
    rows: list[list[str]]
