"""What a server says is masked and cleaned where it enters: every string of an answer, of a refusal, of a list, on every wire."""

from __future__ import annotations

import copy
import json
import traceback
from collections.abc import Iterator
from dataclasses import fields, make_dataclass
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from servers import golden
from servers.asking import ask, endpoint, request
from servers.exact import END, Exact, chunk, reply, stream_head
from servers.golden import MODEL, PIECES, Golden

from holynb.engines import entry, servers
from holynb.errors import Fault
from holynb.secret import Mask, Secret
from holynb.types import Completion, Done, Limits, Usage

KEY = "sk-test-Zq7RwX2vK9mTb4YhNc8LpDs3GfJe"
MASK = Mask((Secret(KEY),))
ESCAPES = "\x1b]0;owned\x07\x1b[31mred\x9b2J\u202etxt.exe\u2066"


@pytest.fixture(params=golden.WIRES, ids=str)
def wire(request: pytest.FixtureRequest) -> Golden:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture(autouse=True)
def keys_of_aws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIA" + "TESTTESTTEST1234")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", KEY)
    monkeypatch.setenv("AWS_SESSION_TOKEN", f"session-{KEY[::-1]}")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")


def said(server: Exact, wire: Golden, *, stream: bool = False) -> str:
    """All that comes of a request: pieces and answer, or the Fault with its fields."""
    where = endpoint(server.base + wire.path, wire.wire, options=wire.options)
    try:
        deltas, completion = ask(where, request(stream=stream), key=KEY)
    except Fault as fault:
        return repr((str(fault), vars(fault), fault.__cause__, fault.__context__))
    return f"{''.join(deltas)} {completion!r}"


def told(text: str, key: str = KEY, length: int = 8) -> list[str]:
    return [key[i : i + length] for i in range(len(key) - length + 1) if key[i : i + length] in text]


def in_pieces(wire: Golden, secret: str) -> bytes:
    """The wire's stream with a key in the place of its words, a part in each event."""
    if wire.wire == "bedrock":
        size = -(-len(secret) // len(PIECES))
        parts = [golden.bedrock_delta({"text": secret[i * size : (i + 1) * size]}) for i in range(len(PIECES))]
        return b"".join((*parts, golden.bedrock_frame("messageStop", {"stopReason": "end_turn"})))
    stream = golden.OPENAI.stream if wire.wire == "sagemaker" else wire.stream
    size = -(-len(secret) // len(PIECES))
    for i, piece in enumerate(PIECES):
        for escaped in (json.dumps(piece)[1:-1], json.dumps(piece, ensure_ascii=False)[1:-1]):
            stream = stream.replace(f'"{escaped}"'.encode(), json.dumps(secret[i * size : (i + 1) * size]).encode())
    return golden.frames(stream) if wire.wire == "sagemaker" else stream


def test_a_key_over_several_pieces_of_a_stream(wire: Golden):
    with Exact([stream_head(wire.kind), chunk(in_pieces(wire, KEY)), END]) as server:
        text = said(server, wire, stream=True)
    assert text.startswith("sk-*** ")
    assert not told(text, length=4)


def test_aws_keys_in_an_answer():
    wire = next(w for w in golden.WIRES if w.wire == "sagemaker")
    token = f"session-{KEY[::-1]}"
    with Exact([stream_head(wire.kind), chunk(in_pieces(wire, token)), END]) as server:
        assert not told(said(server, wire, stream=True), token, 9)


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where the strings of a JSON value are."""
    if isinstance(value, str):
        yield path
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from leaves(inner, (*path, key))


def with_leaf(value: Any, path: tuple[Any, ...], text: str) -> Any:
    out = copy.deepcopy(value)
    place = out
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = text
    return out


def test_no_string_of_an_answer_tells_the_key(wire: Golden):
    paths = list(leaves(wire.whole))
    with Exact(lambda _, n: [reply(with_leaf(wire.whole, paths[n], f"{ESCAPES} {KEY}"))]) as server:
        texts = [said(server, wire) for _ in paths]
    assert len(texts) >= 3
    assert [path for path, text in zip(paths, texts, strict=True) if told(text)] == []
    assert any("***" in text for text in texts)


def test_no_string_of_a_stream_tells_the_key(wire: Golden):
    if wire.wire == "sagemaker":
        pytest.skip("its frames hold OpenAI's events")
    if wire.wire == "bedrock":
        pytest.skip("its frames are not lines: test_bedrock.py")
    events = [line for line in wire.stream.decode().split("\n\n") if line]
    cases = [
        (n, path)
        for n, event in enumerate(events)
        if not event.endswith("[DONE]")
        for path in leaves(json.loads(event.partition("data: ")[2]))
    ]

    def script(_: Any, number: int) -> list[Any]:
        n, path = cases[number]
        head, mark, body = events[n].partition("data: ")
        changed = [*events[:n], f"{head}{mark}{json.dumps(with_leaf(json.loads(body), path, f'{ESCAPES} {KEY}'))}", *events[n + 1 :]]
        return [stream_head(wire.kind), chunk("".join(f"{e}\n\n" for e in changed).encode()), END]

    with Exact(script) as server:
        texts = [said(server, wire, stream=True) for _ in cases]
    assert [case for case, text in zip(cases, texts, strict=True) if told(text)] == []


def test_no_string_of_a_refusal_tells_the_key(wire: Golden):
    error = {"message": f"{ESCAPES} {KEY}", "type": KEY, "code": KEY, "param": KEY, "status": KEY, "details": [{"reason": KEY}], "id": KEY}
    with Exact([reply({"error": error, "Message": KEY, "__type": f"#{KEY}"}, 400, x_request_id=KEY, x_amzn_errortype=KEY)]) as server:
        text = said(server, wire)
    assert told(text) == []
    assert "\\x1b" not in text.partition("'raw'")[0]
    assert "\\u202e" not in text.partition("'raw'")[0]


def test_a_fault_that_is_kept_keeps_no_frame_that_read_the_reply(wire: Golden):
    """A scheduler holds the last Fault of a row, which may stay as long as its run."""
    error = {"error": {"message": f"You sent {KEY}", "type": "server_error", "code": "x"}}
    for response in (reply(error), reply(error, 400)):
        with Exact([response]) as server, pytest.raises(Fault) as caught:
            ask(endpoint(server.base + wire.path, wire.wire, options=wire.options), request(), key=KEY)
        modules = {Path(frame.f_code.co_filename).stem for frame, _ in traceback.walk_tb(caught.value.__traceback__)}
        assert "hosted" in modules
        assert not modules & {"openai", "anthropic", "gemini", "azure", "aws_errors", "classify", "answer"}


def test_names_are_cleaned_and_text_is_not():
    done = Done(Completion(f"{ESCAPES} tea", f"{ESCAPES}stop", f"{ESCAPES}{MODEL}", note=f"{ESCAPES}!"))
    c = entry.admit(done, None).completion
    assert c.text == f"{ESCAPES} tea"
    assert (c.finish_reason, c.model, c.note) == (f"redtxt.exe{'stop'}", f"redtxt.exe{MODEL}", "redtxt.exe!")


def test_what_needs_nothing_is_the_same_object():
    done = Done(Completion("an answer\nof two lines", "stop", MODEL, Usage(1, 2)), Limits(1, 2))
    assert entry.admit(done, MASK) is done
    assert entry.admit(done, None) is done


def test_a_name_that_was_seen_before_builds_nothing_anew():
    mask = Mask([Secret("sk-secret-0123456789")])
    for _ in range(2):  # a reader makes each reply's strings anew
        done = Done(Completion("text", "stop", json.loads('"gpt-6-luna"'), Usage(1, 2)), Limits())
        assert entry.admit(done, mask) is done


def test_every_string_of_what_enters_is_masked():
    """The types as they are today: whoever adds a field need not think of it. (The pieces of a stream are masked over their join, below.)"""
    for kind in (Completion, Limits, Usage, servers.ServedModel, servers.ServerLoad):
        hints = get_type_hints(kind)
        wordy = [f.name for f in fields(kind) if "str" in repr(hints[f.name])]
        needed = {f.name: f"x {KEY}" if f.name in wordy else None for f in fields(kind)}
        value: Any = entry.admit(kind(**needed), MASK)
        assert told(repr(value)) == []
        assert repr(value).count("***") == len(wordy)


def test_a_field_that_is_new_is_masked():
    inner = make_dataclass("Inner", [("words", str)], frozen=True)
    kind = make_dataclass(
        "Later",
        [("n", int), ("new", str), ("maybe", str | None), ("many", tuple[str, ...]), ("table", dict[str, Any]), ("inner", inner)],
        bases=(Completion,),
        frozen=True,
        kw_only=True,
    )
    value = kind(text="t", finish_reason="stop", n=1, new=KEY, maybe=KEY, many=(KEY,), table={KEY: [{"a": KEY}]}, inner=inner(KEY))
    admitted = entry.admit(value, MASK)
    assert told(repr(admitted)) == []
    assert (admitted.n, admitted.new, admitted.many, admitted.table) == (1, "***", ("***",), {"***": [{"a": "***"}]})


def test_every_string_of_a_fault_is_masked():
    fault = Fault("server", KEY, raw=f"{ESCAPES}\n{KEY}", model=KEY)
    fault.later = KEY  # type: ignore[attr-defined]
    entry.admit_fault(fault, MASK)
    assert told(repr((vars(fault), fault.args, str(fault)))) == []
    assert fault.raw == "redtxt.exe\n***"
    assert fault.kind == "server"


@pytest.mark.parametrize("between", ["\x00", "\x1b[0m", "\u202e", "\x9b0m"])
def test_what_is_taken_out_joins_no_key(between: str):
    apart = between.join(KEY)
    fault = Fault("server", apart, raw=apart, model=apart)
    entry.admit_fault(fault, MASK)
    done = entry.admit(Done(Completion("t", apart, apart, note=apart)), MASK)
    assert told(repr((vars(fault), fault.args, done))) == []


def test_names_of_models_that_a_server_lists():
    async def listed(base: str) -> Any:
        return await servers.models(endpoint(base), Secret(KEY))

    import asyncio

    with Exact([reply({"data": [{"id": f"\x1b]0;x\x07m-{KEY}", "max_model_len": 7}]})]) as server:
        assert asyncio.run(listed(server.base)) == [servers.ServedModel("m-***", 7)]
