"""Thumbnails of a live view's rows: made on a thread that ends, sent once, within a number of characters. Knows no widget."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from holynb import attachments
from holynb.attached import Attachment

__all__ = ["Pictures"]

#: Of one view in all; pictures of one message; rows from the first that have one before somebody scrolls.
MAX_CHARS, MAX_OF_MESSAGE, FIRST_ROWS = 100_000, 8, 24


class Pictures:
    """Of one view. `of`: the attachments of a row. Called from one thread; the thumbnails themselves are made on another."""

    def __init__(self, of: Callable[[int], Sequence[Attachment]] | None, n: int) -> None:
        self._of, self._n = of, n
        self._left = MAX_CHARS
        self._sent: dict[int, str] = {}
        self._maker: threading.Thread | None = None

    def all(self) -> list[tuple[int, str]]:
        """What a page that opens is sent at once: all that was sent before."""
        return [(row, address) for row, address in self._sent.items() if address]

    def take(self, visible: range) -> list[tuple[int, str]]:
        """The rows whose thumbnails are there now, and their addresses: a few at a time."""
        if self._of is None:
            return []
        ready, lacking = list[tuple[int, str]](), list[Attachment]()
        for row in dict.fromkeys([*visible, *range(min(self._n, FIRST_ROWS))]):
            if row in self._sent or len(ready) >= MAX_OF_MESSAGE:
                continue
            attached = self._of(row)[:1]
            address = attachments.ready(attached[0]) if attached else ""
            if address is None:
                lacking += attached
            elif len(address) <= self._left:
                self._left -= len(address)
                self._sent[row] = address
                if address:
                    ready.append((row, address))
        if lacking and (self._maker is None or not self._maker.is_alive()):
            self._maker = threading.Thread(target=_make, args=(lacking,), name="holynb-thumbnails", daemon=True)
            self._maker.start()
        elif not lacking and not ready:
            self._maker = None
        return ready

    @property
    def pending(self) -> bool:
        """Whether some are being made, or were made and not sent yet."""
        return self._maker is not None


def _make(lacking: Sequence[Attachment]) -> None:
    for attachment in lacking:
        attachments.thumbnail(attachment)
