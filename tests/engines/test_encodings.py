"""Answers in other encodings: compressed, with a byte order mark, in another charset. They are read or said, never text with holes in it."""

from __future__ import annotations

import asyncio
import gzip
import json
import zlib
from collections.abc import AsyncIterator

import pytest
from servers.asking import ask, endpoint, refuse, request
from servers.exact import END, Exact, chunk, reply, stream_head
from servers.golden import OPENAI, TEXT, openai_chunk

import holynb
from holynb.engines import encodings
from holynb.engines.http import MAX_BODY_BYTES
from holynb.errors import Fault

WHOLE = json.dumps(OPENAI.whole, ensure_ascii=False)
STREAM = "".join(
    f"data: {json.dumps(e, ensure_ascii=False)}\n\n"
    for e in (*map(openai_chunk, ("안녕하세요 ", "🍵 <b>tea</b>")), openai_chunk(finish="stop"))
)


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


def members(data: bytes) -> bytes:
    return gzip.compress(data[:100]) + gzip.compress(data[100:]) + b"\0\0\0"


def text_of(body: bytes, *, stream: bool, **headers: str) -> str:
    """The answer of a server that sends this body."""
    with Exact(_steps(body, stream=stream, **headers)) as server:
        return ask(endpoint(server.base), request(stream=stream))[1].text


def fault_of(body: bytes, *, stream: bool, status: int = 200, **headers: str) -> Fault:
    with Exact(_steps(body, stream=stream, status=status, **headers)) as server:
        return refuse(endpoint(server.base), request(stream=stream))


def _steps(body: bytes, *, stream: bool, status: int = 200, **headers: str) -> list[bytes | float | str]:
    if not stream:
        return [reply(body, status, **{"content_type": "application/json"} | headers)]
    return [
        stream_head(headers.pop("content_type", "text/event-stream"), **headers),
        *[chunk(body[i : i + 7]) for i in range(0, len(body), 7)],
        END,
    ]


# -- compressed ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("coding", "pack"),
    [
        ("gzip", gzip.compress),
        ("GZIP", gzip.compress),
        ("x-gzip", members),
        ("deflate", zlib.compress),
        ("deflate", raw_deflate),
        ("identity", bytes),
    ],
)
def test_what_every_server_knows_is_read(coding: str, pack: object, stream: bool):
    body = pack((STREAM if stream else WHOLE).encode())  # type: ignore[operator]
    assert text_of(body, stream=stream, content_encoding=coding) == TEXT


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("coding", ["br", "zstd", "gzip, br", "compress", "aws-chunked"])
def test_any_other_coding_is_said_at_once(coding: str, stream: bool):
    fault = fault_of(b"\x0b\x02\x80hello\x03" * 20, stream=stream, content_encoding=coding)
    assert (fault.kind, fault.retry, fault.stops) == ("server", False, True)
    assert f"compressed as {coding.rpartition(' ')[2]!r}, which cannot be read" in fault.message
    assert "\ufffd" not in fault.message


@pytest.mark.parametrize(("status", "kind"), [(401, "auth"), (429, "rate_limit"), (503, "server"), (404, "not_found")])
@pytest.mark.parametrize(
    "headers",
    [{"content_encoding": "br"}, {"content_type": "application/json; charset=klingon"}, {"content_type": "text/html; charset=utf-16"}],
)
def test_a_refusal_that_cannot_be_read_is_still_one(status: int, kind: str, headers: dict[str, str]):
    assert fault_of(b"\x0b\x02\x80hello\x03", stream=False, status=status, **headers).kind == kind


@pytest.mark.usefixtures("keyed")
def test_a_server_that_compresses_costs_one_request():
    with Exact([reply(b"\x0b\x02\x80hello\x03", content_encoding="br")]) as server:
        run = holynb.infer([f"row {i}" for i in range(20)], "openai/gpt-4.1-mini", api_base=server.base, cache=False)
        with pytest.raises(holynb.InferError, match="compressed as 'br'"):
            run.wait(30)
        assert len(server.asked) == 1


def test_a_small_body_does_not_unpack_to_gigabytes_at_once():
    bomb = gzip.compress(b"\0" * (MAX_BODY_BYTES + 2**20), 9)
    assert len(bomb) < 2**18
    pieces = unpacked({"content-encoding": "gzip"}, bomb)
    assert max(map(len, pieces)) <= encodings.STEP_BYTES
    with Exact([reply(bomb, content_encoding="gzip")]) as server:
        assert "more than 64 MB" in refuse(endpoint(server.base)).message


def test_a_body_that_is_not_what_it_says():
    for coding in ("gzip", "deflate"):
        fault = fault_of(b"nothing of the kind", stream=False, content_encoding=coding)
        assert (fault.kind, fault.retry) == ("truncated", True)


# -- charsets ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("charset", ["utf-16", "utf-16le", "UTF-16BE", '"utf-32"', "gb18030", "utf-8", "UTF8"])
def test_a_charset_that_is_named_is_read(charset: str, stream: bool):
    body = (STREAM if stream else WHOLE).encode(charset.strip('"'))
    kind = "text/event-stream" if stream else "application/json"
    assert text_of(body, stream=stream, content_type=f"{kind}; charset={charset}") == TEXT


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("charset", "text"),
    [("euc-kr", "안녕하세요"), ("Shift_JIS", "こんにちは"), ("gbk", "联通"), ("iso-8859-1", "Äpfel, très"), ("windows-1252", "“Äpfel”")],
)
def test_charsets_of_one_script(charset: str, text: str, stream: bool):
    body = (STREAM.replace("안녕하세요 ", text).replace("🍵 <b>tea</b>", "") if stream else WHOLE.replace(TEXT, text)).encode(charset)
    kind = "text/event-stream" if stream else "application/json"
    assert text_of(body, stream=stream, content_type=f"{kind};charset={charset}") == text


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("charset", ["iso-8859-1", "us-ascii", "windows-1252"])
def test_utf_8_under_the_name_of_a_servers_default_is_utf_8(charset: str, stream: bool):
    kind = "text/event-stream" if stream else "application/json"
    assert text_of((STREAM if stream else WHOLE).encode(), stream=stream, content_type=f"{kind}; charset={charset}") == TEXT


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_json_says_itself_in_which_of_unicodes_it_is(encoding: str):
    assert text_of(WHOLE.encode(encoding), stream=False) == TEXT


def test_a_byte_order_mark_before_a_stream():
    assert text_of(STREAM.encode("utf-8-sig"), stream=True) == TEXT


@pytest.mark.parametrize(
    ("stream", "encoding"), [(False, "cp949"), (True, "cp949"), (True, "utf-16"), (True, "utf-16-le"), (True, "utf-16-be")]
)
def test_a_charset_that_is_not_named_is_said(stream: bool, encoding: str):
    body = (STREAM if stream else WHOLE).replace("🍵", "").encode(encoding)
    fault = fault_of(body, stream=stream)
    assert (fault.kind, fault.retry) == ("server", False)
    assert "is not UTF-8, and its content-type names no charset" in fault.message
    assert "\ufffd" not in fault.message


@pytest.mark.parametrize(
    ("charset", "words"),
    [
        ("klingon", "'klingon', which cannot be read"),
        ("zlib", "'zlib', which cannot be read"),
        ("utf-7", "'utf-7'"),
        ("utf-16", "not the utf-16 it says"),
    ],
)
def test_a_charset_that_does_not_hold_is_said(charset: str, words: str):
    fault = fault_of(WHOLE.encode() + b" ", stream=False, content_type=f"application/json; charset={charset}")
    assert (fault.kind, fault.retry) == ("server", False)
    assert words in fault.message


@pytest.mark.parametrize(
    "headers",
    [
        {"content-encoding": "gzip"},
        {"content-encoding": "deflate"},
        {"content-type": "a/b; charset=utf-16"},
        {"content-type": "a/b; charset=latin1"},
    ],
)
def test_pieces_may_be_cut_anywhere(headers: dict[str, str]):
    text = "안녕 🍵 Äpfel"
    packed = {"gzip": gzip.compress, "deflate": zlib.compress}.get(headers.get("content-encoding", ""))
    body = packed(text.encode()) if packed else text.encode("utf-16") if "utf-16" in str(headers) else text.encode()
    for size in (1, 2, 3, 5):
        assert b"".join(unpacked(headers, body, size)).decode() == text


def test_latin_1_is_noticed_late():
    body = b"a" * 10 + "Ä".encode("latin-1") + b"b" * 10
    for size in (1, 4, 100):
        assert b"".join(unpacked({"content-type": "text/plain; charset=iso-8859-1"}, body, size)).decode() == "a" * 10 + "Ä" + "b" * 10


def unpacked(headers: dict[str, str], body: bytes, size: int = 2**20) -> list[bytes]:
    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(body), size):
            yield body[start : start + size]

    async def read() -> list[bytes]:
        return [piece async for piece in encodings.text(headers, pieces(), "host", strict=True)]

    return asyncio.run(read())
