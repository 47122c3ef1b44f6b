"""Thumbnails of attachments in output that stays: within a number of bytes for the whole notebook. Reads no network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from holynb import attachments
from holynb.ui.output.html import safe

if TYPE_CHECKING:
    from holynb.attached import Attachment
    from holynb.types import Message

__all__ = ["MAX_NOTEBOOK_CHARS", "as_html", "attached_of", "for_rows"]

#: Of all outputs of a session together, and of one run's.
MAX_NOTEBOOK_CHARS, MAX_RUN_CHARS = 100_000, 50_000

#: Pixels of a picture in a table: all as wide, so that the prompts beside them begin at one place, also of a row that has none.
WIDTH, GAP = 72, 6
BLANK = f'<span style="display:inline-block;width:{WIDTH + GAP}px"></span>'

#: What each run's pictures take, by what they are: a cell that runs again puts its output in the place of what was there.
_taken: dict[str, int] = {}


class _Allowance:
    """What of the notebook's characters one output may take for pictures. `key`: the same for the same pictures."""

    def __init__(self, key: str) -> None:
        self._key = key
        self._left = min(MAX_RUN_CHARS, MAX_NOTEBOOK_CHARS - sum(n for other, n in _taken.items() if other != key))
        self.full = False
        _taken[key] = 0

    def take(self, address: str) -> bool:
        """Whether a picture still fits; it counts from then on."""
        if len(address) > self._left:
            self.full = True  # no more are made: each has to be read and drawn
            return False
        self._left -= len(address)
        _taken[self._key] += len(address)
        return True


def for_rows(of: Callable[[int], Sequence[Attachment]], rows: Sequence[int], height: int = 40) -> dict[int, str]:
    """Row → what goes along with it, as HTML; thumbnails for as many as the notebook has room for."""
    attached = {row: them for row in rows if (them := of(row))}
    if not attached:
        return {}
    allowance = _Allowance(" ".join(a.digest for them in attached.values() for a in them))
    width = WIDTH if len(rows) > 1 else None
    return {row: as_html(attached[row], allowance, height, width) if row in attached else BLANK for row in rows if row in attached or width}


def attached_of(messages: Sequence[Message]) -> tuple[Attachment, ...]:
    """The attachments of a row."""
    return tuple([a for m in messages if m.attachments for a in m.attachments])


def _image(address: str, words: str, height: int, width: int | None) -> str:
    """A picture as HTML. `words`: for who does not see it. width: None: its own."""
    fit = "max-width:96px" if width is None else f"width:{width}px;object-position:0"
    style = f"height:{height}px;{fit};object-fit:contain;vertical-align:middle;margin:0 {GAP}px 2px 0;border-radius:3px"
    return f'<img src="{safe(address)}" alt="{safe(words)}" title="{safe(words)}" style="{style}">'


def as_html(attached: Sequence[Attachment], allowance: _Allowance | None = None, height: int = 48, width: int | None = None) -> str:
    """What goes along with a row: each as its thumbnail where that fits, else in words."""
    out = []
    for one in attached:
        address = "" if allowance is not None and allowance.full else attachments.thumbnail(one)
        fits = address and (allowance is None or allowance.take(address))
        words = attachments.described(one)
        out.append(_image(address, words, height, width) if fits else f'<span class="holynb-note">[{safe(words)}] </span>')
    return "".join(out)
