"""The body of a reply as UTF-8: decompressed, and out of the charset that its headers name. Knows no JSON and opens no socket.

What is sent is asked for uncompressed (`accept-encoding: identity`), so other codings than gzip and deflate, which every server knows, are
said and not guessed at. A piece of a body unpacks in pieces: a small one may hold gigabytes.
"""

from __future__ import annotations

import codecs
import re
import zlib
from collections.abc import AsyncIterable, AsyncIterator, Iterator, Mapping

from holynb.errors import Fault

__all__ = ["is_plain", "text"]

#: Most bytes that one step unpacks.
STEP_BYTES = 2**18

_GZIP, _ZLIB, _RAW = 16 + zlib.MAX_WBITS, zlib.MAX_WBITS, -zlib.MAX_WBITS
_CODINGS: Mapping[str, int] = {"gzip": _GZIP, "x-gzip": _GZIP, "deflate": _ZLIB}
_CHARSET = re.compile(r";\s*charset\s*=\s*\"?([^\s;\"]+)", re.IGNORECASE)
_UTF8 = ("utf-8", "utf8")
_GZIP_MAGIC = b"\x1f"
#: How Python's names of charsets begin; others (utf-7, zlib, idna) are no charset of a reply.
_CHARSETS = ("ascii", "big5", "cp", "euc", "gb", "iso8859", "iso2022", "johab", "koi8", "shift_jis", "utf-16", "utf-32")
#: Charsets that servers name by default, also where they send UTF-8: the bytes decide.
_DEFAULTS = ("ascii", "iso8859-1", "iso8859-15", "cp1252")


def is_plain(headers: Mapping[str, str]) -> bool:
    """Whether a body is UTF-8 as it comes. Asked for every reply."""
    content_type = headers.get("content-type", "")
    return headers.get("content-encoding", "identity") == "identity" and (";" not in content_type or _charset(content_type) is None)


def text(headers: Mapping[str, str], body: AsyncIterable[bytes], host: str, *, strict: bool) -> AsyncIterator[bytes]:
    """The body's pieces as UTF-8. Raises Fault.

    `strict`: what cannot be read is an error, as an answer has to be whole. Of a refusal the status says enough: there it is left out.
    """
    for coding in (c.strip().lower() for c in headers.get("content-encoding", "").split(",")):
        if coding not in ("", "identity"):
            body = _unpacked(coding, body, host) if coding in _CODINGS else _unreadable(coding, body, host, strict=strict)
    charset = _charset(headers.get("content-type", ""))
    return aiter(body if charset is None else _transcoded(charset, body, host, strict=strict))


def _charset(content_type: str) -> str | None:
    """The charset that is named, where it is not UTF-8."""
    match = _CHARSET.search(content_type)
    return None if match is None or match.group(1).strip("'").lower() in _UTF8 else match.group(1).strip("'")


async def _unreadable(coding: str, body: AsyncIterable[bytes], host: str, *, strict: bool) -> AsyncIterator[bytes]:
    if strict:
        raise Fault(
            "server",
            f"{host} sent its answer compressed as {coding[:20]!r}, which cannot be read: holynb asks for no compression. A proxy or gateway "
            "in between must not compress it.",
            retry=False,
            stops=True,
        )
    async for _ in body:
        yield b""


async def _unpacked(coding: str, body: AsyncIterable[bytes], host: str) -> AsyncIterator[bytes]:
    unpacker = _Unpacker(_CODINGS[coding])
    async for data in body:
        try:
            for piece in unpacker.pieces(data):
                yield piece
        except zlib.error as exc:
            raise Fault("truncated", f"{host} sent a compressed answer that does not unpack.") from exc


class _Unpacker:
    """Gzip or deflate, in steps of at most STEP_BYTES."""

    def __init__(self, bits: int) -> None:
        self._bits = bits
        self._unpack = zlib.decompressobj(bits)
        self._begun = False

    def pieces(self, data: bytes) -> Iterator[bytes]:
        """What these bytes unpack to. Raises zlib.error."""
        rest = data
        while rest:
            try:
                piece = self._unpack.decompress(rest, STEP_BYTES)
            except zlib.error:
                if self._begun or self._bits != _ZLIB:
                    raise
                self._bits, self._unpack = _RAW, zlib.decompressobj(_RAW)  # some servers leave out deflate's own header
                continue
            self._begun = True
            if piece:
                yield piece
            rest = self._unpack.unconsumed_tail
            if self._unpack.eof:  # gzip may come in members, one after the other; anything else there is padding
                rest = self._unpack.unused_data if self._unpack.unused_data.startswith(_GZIP_MAGIC) else b""
                self._unpack = zlib.decompressobj(self._bits)


async def _transcoded(charset: str, body: AsyncIterable[bytes], host: str, *, strict: bool) -> AsyncIterator[bytes]:
    name = _codec(charset) or (None if strict else "utf-8")
    if name is None:
        raise Fault("server", f"{host} answered in the charset {charset[:40]!r}, which cannot be read.", retry=False)
    named = codecs.getincrementaldecoder(name)("strict" if strict else "replace")
    # As long as the bytes are UTF-8 they are taken for that, where the charset may be no more than a server's default.
    plain = codecs.getincrementaldecoder("utf-8")() if name in _DEFAULTS else None
    try:
        async for data in body:
            if plain is not None:
                held = plain.getstate()[0]
                try:
                    yield plain.decode(data).encode()
                    continue
                except UnicodeDecodeError:
                    plain, data = None, held + data  # noqa: PLW2901 - what was held back belongs to it
            yield named.decode(data).encode()
        yield named.decode(b"" if plain is None else plain.getstate()[0], final=True).encode()
    except UnicodeError as exc:
        if strict:
            raise Fault("server", f"{host} answered in something that is not the {charset[:40]} it says.", retry=False) from exc
        async for _ in body:
            yield b""


def _codec(charset: str) -> str | None:
    """Python's name of a charset; None where it is none that text is written in."""
    try:
        name = codecs.lookup(charset).name
    except LookupError:
        return None
    return name if name.startswith(_CHARSETS) else None
