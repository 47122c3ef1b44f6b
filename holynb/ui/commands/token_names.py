"""Names of a class, typed or one a line in a file: each once, composed, and in UTF-8. Makes no token."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Sequence

from holynb import port_tokens, typed_path
from holynb.errors import BadOption
from holynb.words import composed

__all__ = ["names"]

#: How Windows begins a file that it calls "Unicode".
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def names(typed: Sequence[str], file: str | None = None) -> list[str]:
    """The names that were typed, then those of the file. Raises BadOption for one that stands twice, or cannot be a name."""
    places = [(name, "") for name in typed]
    if file is not None:
        lines = _text(file).splitlines()
        places += [(name, f"line {number}") for number, line in enumerate(lines, 1) if (name := line.strip())]
        if len(places) == len(typed):
            raise BadOption(f"--file {file} is empty: it takes a name in each line.")
    for name, place in places:
        try:
            port_tokens.check_name(name)
        except port_tokens.TokenNameError as exc:
            raise BadOption(f"{file}, {place}: {exc} Nothing was changed." if place else str(exc)) from exc
    _refuse_twice(places, file)
    return [composed(name) for name, _ in places]


def _refuse_twice(places: Iterable[tuple[str, str]], file: str | None) -> None:
    """Two students of one name would share a token, and one of them would not know."""
    seen: dict[str, list[str]] = {}
    for name, place in places:
        seen.setdefault(composed(name), []).append(place)
    for name, where in seen.items():
        if len(where) > 1:
            at = ", ".join(f"{file}, {place}" if place else "on the line" for place in where)
            raise BadOption(f"{name} stands {len(where)} times ({at}): each token has a name of its own. Nothing was changed.")


def _text(file: str) -> str:
    """The text of a file in UTF-8. Raises BadOption."""
    try:
        raw = typed_path.typed(file).read_bytes()
    except OSError as exc:
        raise BadOption(f"--file {file} cannot be read: {exc.strerror or exc}.") from exc
    as_utf8 = f"--file {file} is not in UTF-8, but in {{}}. Save it as UTF-8 (in Excel: CSV UTF-8; in Notepad: Save as, Encoding UTF-8)."
    if raw.startswith(_UTF16) or b"\0" in raw:
        raise BadOption(as_utf8.format("UTF-16"))
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        raise BadOption(as_utf8.format("another encoding, such as CP949 or Latin-1")) from exc
