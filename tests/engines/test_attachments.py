"""Attachments on every wire: each part against the official SDK's own body or types, what is read when, and what ends a row alone."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import anthropic
import openai as openai_sdk
import pictures
import pytest
from google import genai
from google.genai import types as genai_types
from openai.types.responses import response_create_params
from pictures import JPEG, MP3, PDF, PNG, WAV, attached, said_with
from pydantic import TypeAdapter
from servers import aws, golden
from servers.asking import KEY, ask, endpoint, refuse, request
from servers.exact import Exact, reply

from holynb import attachments
from holynb.attached import Attachment
from holynb.engines import bedrock, gemini, loading, openai, parts, responses
from holynb.engines.parts import Part
from holynb.types import Message, Request


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def with_messages(*messages: Message, **options: Any) -> Request:
    return replace(request(**options), messages=messages)


def body(sent: Request, wire: str, module: Any) -> Any:
    """The JSON that goes out."""

    async def once() -> Any:
        async with loading.written(sent, wire, lambda ready: json.dumps(module.body(ready)).encode()) as written:
            return json.loads(bytes(written))

    return asyncio.run(once())


# -- each wire's part ----------------------------------------------------------------------------------------------------
def both(wire: str, sent: Request, theirs: Callable[[str], Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The bodies that the SDK and we send."""
    answer = next(w for w in golden.WIRES if w.wire == wire)
    with Exact([reply(answer.whole)]) as server:
        theirs(server.base)
        ask(endpoint(server.base, wire), sent)
        first, second = server.asked
    assert first.path.replace("/v1/", "/v1beta/" if wire == "gemini" else "/v1/") == second.path
    return first.json, second.json


def test_openai_parts_are_the_sdks():
    content: list[Any] = [
        {"type": "text", "text": "Compare"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{b64(PNG)}"}},
        {"type": "text", "text": " with "},
        {"type": "file", "file": {"filename": "b.pdf", "file_data": f"data:application/pdf;base64,{b64(PDF)}"}},
        {"type": "input_audio", "input_audio": {"data": b64(WAV), "format": "wav"}},
        {"type": "input_audio", "input_audio": {"data": b64(MP3), "format": "mp3"}},
    ]

    def theirs(base: str) -> None:
        with openai_sdk.OpenAI(api_key=KEY, base_url=base, max_retries=0) as client:
            client.chat.completions.create(model="gpt-4.1-mini", messages=[{"role": "user", "content": content}])

    where = [attached(PNG, at=7), attached(PDF, "b.pdf", at=13), attached(WAV, at=13), attached(MP3)]
    first, second = both("openai", with_messages(said_with(*where, text="Compare with ")), theirs)
    assert first == second


def test_responses_parts_are_the_sdks():
    content: list[Any] = [
        {"type": "input_file", "filename": "b.pdf", "file_data": f"data:application/pdf;base64,{b64(PDF)}"},
        {"type": "input_text", "text": "What is it?"},
        {"type": "input_image", "image_url": f"data:image/png;base64,{b64(PNG)}", "detail": "auto"},
    ]

    def theirs(base: str) -> None:
        with openai_sdk.OpenAI(api_key=KEY, base_url=base, max_retries=0) as client:
            client.responses.create(model="gpt-4.1-mini", input=[{"role": "user", "content": content}], store=False)

    first, second = both("responses", with_messages(said_with(attached(PNG), attached(PDF, "b.pdf"))), theirs)
    assert first == second
    sent = body(with_messages(said_with(attached(PNG), attached(PDF))), "responses", responses)
    TypeAdapter(response_create_params.ResponseInputParam).validate_python(sent["input"], strict=False)


def test_anthropic_parts_are_the_sdks_and_come_before_the_text():
    content: list[Any] = [
        {"type": "image", "source": {"type": "base64", "media_type": "image/jpeg", "data": b64(JPEG)}},
        {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": b64(PDF)}},
        {"type": "text", "text": "What is it?"},
    ]

    def theirs(base: str) -> None:
        with anthropic.Anthropic(api_key=KEY, base_url=base, max_retries=0) as client:
            client.messages.create(model="gpt-4.1-mini", max_tokens=9, messages=[{"role": "user", "content": content}])

    sent = with_messages(said_with(attached(JPEG), attached(PDF)), sampling={"max_tokens": 9})
    first, second = both("anthropic", sent, theirs)
    assert first == second


def test_turns_of_one_role_are_joined_with_their_attachments():
    from holynb.engines import anthropic as wire

    sent = with_messages(Message("user", "a"), said_with(attached(PNG), text="b"), Message("user", "c"))
    (turn,) = body(sent, "anthropic", wire)["messages"]
    assert [block.get("text", block["type"]) for block in turn["content"]] == ["a", "image", "b", "c"]
    (turn,) = body(sent, "bedrock", bedrock)["messages"]
    assert [block.get("text", next(iter(block))) for block in turn["content"]] == ["a", "image", "b\n\nc"]


@pytest.mark.filterwarnings("ignore")  # the SDK's own
def test_gemini_parts_are_the_sdks():
    def theirs(base: str) -> None:
        options = genai_types.HttpOptions(base_url=base)
        client = genai.Client(api_key=KEY, http_options=options)
        part = genai_types.Part.from_bytes
        client.models.generate_content(
            model="gpt-4.1-mini",
            contents=[
                genai_types.Content(
                    role="user",
                    parts=[
                        part(data=PNG, mime_type="image/png"),
                        part(data=PDF, mime_type="application/pdf"),
                        part(data=MP3, mime_type="audio/mpeg"),
                        genai_types.Part.from_text(text="What is it?"),
                    ],
                )
            ],
        )
        client.close()

    first, second = both("gemini", with_messages(said_with(attached(PNG), attached(PDF), attached(MP3))), theirs)
    inline = [p["inlineData"] for p in first["contents"][0]["parts"][:-1]]
    for data in inline:  # the SDK writes the other alphabet of base64, and proto's own name; Google's servers read both
        data["data"] = data["data"].replace("-", "+").replace("_", "/")
        data["mimeType"] = data.pop("mime_type", None) or data["mimeType"]
    assert first == second


def test_converse_parts_are_what_botocore_writes():
    from botocore.loaders import Loader
    from botocore.model import ServiceModel
    from botocore.serialize import create_serializer

    service = ServiceModel(Loader().load_service_model("bedrock-runtime", "service-2"), "bedrock-runtime")
    content = [
        {"image": {"format": "png", "source": {"bytes": PNG}}},
        {"document": {"format": "pdf", "name": "document 1", "source": {"bytes": PDF}}},
        {"document": {"format": "pdf", "name": "document 2", "source": {"bytes": PDF}}},
        {"audio": {"format": "mp3", "source": {"bytes": MP3}}},
        {"text": "What is it?"},
    ]
    theirs = create_serializer("rest-json").serialize_to_request(
        {"modelId": "m", "messages": [{"role": "user", "content": content}]}, service.operation_model("Converse")
    )
    sent = with_messages(said_with(attached(PNG), attached(PDF, "a"), attached(PDF, "b"), attached(MP3)))
    assert body(sent, "bedrock", bedrock) == json.loads(theirs["body"])


def test_an_address_is_sent_as_it_is_where_the_wire_takes_one_and_somebody_allowed_it():
    at = "https://example.com/a.png?x=1"
    sent = replace(with_messages(said_with(attached(at))), attach_urls=True)
    assert body(sent, "openai", openai)["messages"][0]["content"][-1] == {"type": "image_url", "image_url": {"url": at}}
    assert body(sent, "responses", responses)["input"][0]["content"][-1]["image_url"] == at
    assert body(sent, "gemini", gemini)["contents"][0]["parts"][0] == {"fileData": {"mimeType": "image/png", "fileUri": at}}
    paper = replace(with_messages(said_with(attached("https://example.com/b.PDF"))), attach_urls=True)
    assert body(paper, "responses", responses)["input"][0]["content"][0]["file_url"] == "https://example.com/b.PDF"
    assert parts.as_address("openai", "https://example.com/b.pdf") is None
    assert parts.as_address("bedrock", at) is None


@pytest.mark.parametrize("wire", [w for w in golden.WIRES if w.wire in parts.TAKES], ids=str)
@pytest.mark.parametrize("size", [30, 700])
def test_every_wire_sends_what_was_attached_small_and_large(wire: golden.Golden, size: int, monkeypatch: pytest.MonkeyPatch):
    aws.set_keys(monkeypatch)
    data = pictures.noise(size, size)
    with Exact([reply(wire.whole)]) as server:
        key = None if wire.wire == "bedrock" else KEY  # a signature is of the whole body
        ask(endpoint(server.base + wire.path, wire.wire, options=wire.options), with_messages(said_with(attached(data))), key=key)
        (came,) = server.asked
    assert b64(data) in came.body.decode()
    assert (len(came.body) >= loading.LEAST_MAPPED) is (size == 700)


def test_every_wire_with_parts_is_known_to_take_them():
    from holynb.engines import WIRES

    assert set(WIRES) - set(parts.TAKES) == {"pool", "sagemaker"}
    assert set(parts.TAKES) <= set(WIRES)


# -- order ---------------------------------------------------------------------------------------------------------------
def test_parts_stand_where_they_were_put():
    def at(text: str, *places: int | None) -> list[str]:
        them = tuple(Attachment("image/png", str(i), "n", at=p, source=Part("image/png", str(i))) for i, p in enumerate(places))
        return [p if isinstance(p, str) else f"<{p.name}>" for p in parts.in_order(Message("user", text, them))]

    assert at("ab", 1) == ["a", "<0>", "b"]
    assert at("ab", 1, 1, None, 0) == ["<2>", "<3>", "a", "<0>", "<1>", "b"]
    assert at(" \n", 0) == ["<0>"]
    assert at("", None) == ["<0>"]


# -- what ends a row alone -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("value", "wire", "words"),
    [
        ("/no/such.png", "openai", "/no/such.png cannot be read: no such file or directory"),
        (pictures.pdf(trailer=b"/Encrypt 5 0 R"), "openai", "photo is a PDF with a password"),
        (WAV, "anthropic", "photo is a WAV sound, which this provider does not take"),
        (b"dear model", "openai", "photo is text"),
        (17, "openai", "photo is an int"),
        ("s3://bucket/a.png", "openai", "is not read"),
        ("http://127.0.0.1:1/a.png", "openai", "inside this machine or network"),
    ],
)
def test_a_row_ends_with_what_is_wrong_with_its_attachment_and_nothing_is_sent(value: Any, wire: str, words: str):
    with Exact([reply(golden.OPENAI.whole)]) as server:
        fault = refuse(endpoint(server.base, wire), with_messages(said_with(attached(value))))
    assert words in fault.message
    assert (fault.kind, fault.retry, fault.stops, server.asked) == ("bad_request", False, False, [])


def test_a_picture_of_300_mb_is_not_read(tmp_path: Path):
    path = tmp_path / "a.png"
    with path.open("wb") as file:
        file.write(PNG)
        file.truncate(300 * 10**6)
    one = attached(path)
    assert one.problem == "has 300 MB; an attachment has 50 MB at most: make it smaller first"
    assert f"{path} has 300 MB" in refuse(endpoint("http://127.0.0.1:1"), with_messages(said_with(one))).message


def test_a_file_that_changes_after_it_was_looked_at_is_not_sent(tmp_path: Path):
    path = tmp_path / "a.png"
    path.write_bytes(PNG)
    one = attached(path)
    path.write_bytes(pictures.noise(seed=1))
    assert "has changed since the run began" in refuse(endpoint("http://127.0.0.1:1"), with_messages(said_with(one))).message
    assert attachments.renewed(one).digest == attached(path).digest != one.digest


def test_what_a_wire_does_not_take_goes_as_png_where_pillow_reads_it():
    data = gif()
    assert attached(data).kind == "image/gif"
    part = body(with_messages(said_with(attached(data))), "gemini", gemini)["contents"][0]["parts"][0]["inlineData"]
    assert (part["mimeType"], base64.b64decode(part["data"])[:4]) == ("image/png", b"\x89PNG")


def gif() -> bytes:
    import io

    from PIL import Image

    out = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(out, "GIF")
    return out.getvalue()


def test_a_picture_is_scaled_before_it_is_sent():
    sent = body(with_messages(said_with(attached(pictures.noise(400, 200), longest=100))), "gemini", gemini)
    assert attached(base64.b64decode(sent["contents"][0]["parts"][0]["inlineData"]["data"])).pixels == (100, 50)


# -- memory --------------------------------------------------------------------------------------------------------------
def test_only_so_many_bytes_are_read_at_once(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(loading, "MAX_IN_FLIGHT", 3 * 5000)
    now, most = 0, 0

    async def one(i: int) -> None:
        nonlocal now, most
        sent = with_messages(said_with(attached(pictures.noise(seed=i % 7))))
        if i == 5:  # given up while it waits: its place goes to the next
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0), loading.written(sent, "openai", lambda r: b""):
                    pass
            return
        async with loading.written(sent, "openai", lambda r: b""):
            now += 1
            most = max(most, now)
            await asyncio.sleep(0.001)
            now -= 1

    async def all_of_them() -> None:
        await asyncio.gather(*map(one, range(20)))
        large = with_messages(said_with(attached(pictures.noise(200, 200))))
        async with asyncio.timeout(5), loading.written(large, "openai", lambda r: b""):
            pass  # larger than all the room there is

    asyncio.run(all_of_them())
    assert most == 3
