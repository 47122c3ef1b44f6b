"""A generation as its reader sees it: admitted, in pieces, quiet, begun again, cut, broken off. No process and no socket."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import pytest
from pool_fake import byte_model

from holynb.pool.protocol import Job
from holynb.pool.server import detokenize
from holynb.pool.server.api import ApiRequest
from holynb.pool.server.detokenize import TextPiece, TextReader
from holynb.pool.server.replica import Generation, GenerationLost
from holynb.pool.server.tokenizer import ChatTokenizer


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> ChatTokenizer:
    return ChatTokenizer(byte_model(tmp_path_factory.mktemp("model")))


class Scene:
    """A generation, somebody who reads it, and what was cancelled."""

    def __init__(self, words: ChatTokenizer, stops: Sequence[str] = (), *, stream: bool = True) -> None:
        self.generation = Generation(Job(1, (1,), 100))
        self.reader = TextReader(self.generation, words, ApiRequest(chat=False, stop=tuple(stops), stream=stream))
        self.cancelled: list[Generation] = []

    def write(self, text: str | bytes, finish: str | None = None) -> None:
        self.generation.admitted = True
        self.generation.tokens += list(text.encode() if isinstance(text, str) else text)
        self.generation.finish = finish
        self.generation.notify(time.monotonic())

    async def read(self) -> list[TextPiece]:
        return [piece async for piece in self.reader.pieces(self.cancelled.append)]


def text_of(pieces: list[TextPiece]) -> str:
    return "".join(p.text for p in pieces)


def play(scene: Scene, *acts: Any) -> list[TextPiece]:
    """Read while the acts happen, one every 10 ms."""

    async def main() -> list[TextPiece]:
        task = asyncio.create_task(scene.read())
        for act in acts:
            await asyncio.sleep(0.01)
            act()
        return await asyncio.wait_for(task, 10)

    return asyncio.run(main())


def test_a_stream_is_admitted_joined_and_ended(words: ChatTokenizer) -> None:
    scene = Scene(words)
    many = [lambda i=i: scene.write(str(i % 10)) for i in range(30)]
    pieces = play(scene, *many, lambda: scene.write("끝", "stop"))
    assert pieces[0].kind == "admitted"
    assert text_of(pieces) == "0123456789" * 3 + "끝"
    assert pieces[-1] == TextPiece("end", finish="stop", tokens=33)
    assert 3 <= sum(p.kind == "text" for p in pieces) <= 15, "30 tokens in 300 ms are about six pieces"
    assert scene.cancelled == []


def test_a_character_of_two_writes_comes_whole(words: ChatTokenizer) -> None:
    scene = Scene(words)
    raw = "😀".encode()
    pieces = play(scene, lambda: scene.write(raw[:2]), lambda: scene.write(raw[2:], "length"))
    assert [p.text for p in pieces if p.text] == ["😀"]


def test_without_a_stream_the_reader_is_woken_once(words: ChatTokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(words, stream=False)
    waits: list[float] = []
    wait_update = Generation.wait_update

    async def counted(self: Generation, due: float) -> None:
        waits.append(due)
        await wait_update(self, due)

    monkeypatch.setattr(Generation, "wait_update", counted)
    pieces = play(scene, *[lambda: scene.write("x")] * 20, lambda: scene.write("y", "stop"))
    assert text_of(pieces) == "x" * 20 + "y"
    assert len(waits) <= 2


def test_a_stop_string_cancels_the_rest(words: ChatTokenizer) -> None:
    scene = Scene(words, ["END"], stream=False)
    pieces = play(scene, lambda: scene.write("one E"), lambda: scene.write("ND tail"), lambda: scene.write("more"))
    assert text_of(pieces) == "one "
    assert (pieces[-1].finish, pieces[-1].tokens) == ("stop", len("one END")), "what came along behind it is nobody's"
    assert scene.cancelled == [scene.generation]


@pytest.mark.parametrize("size", [1, 3, 16, 40])
@pytest.mark.parametrize("stream", [False, True])
def test_a_stop_string_counts_the_same_however_many_tokens_come_at_once(words: ChatTokenizer, size: int, stream: bool) -> None:
    text = "a first 끝 part\n\nand another that nobody asked for"
    scene, raw = Scene(words, ["\n\n"], stream=stream), text.encode()
    pieces = play(scene, *[lambda at=at: scene.write(raw[at : at + size]) for at in range(0, len(raw), size)])
    assert text_of(pieces) == "a first 끝 part"
    assert (pieces[-1].finish, pieces[-1].tokens) == ("stop", raw.index(b"\n\n") + 2)


def test_without_a_hit_all_tokens_count_also_the_last_that_come_together(words: ChatTokenizer) -> None:
    scene = Scene(words, ["never"])
    pieces = play(scene, lambda: scene.write("one nev"), lambda: scene.write("e 끝 nev", "length"))
    assert text_of(pieces) == "one neve 끝 nev"
    assert (pieces[-1].finish, pieces[-1].tokens) == ("length", len("one neve 끝 nev".encode()))


def test_signs_of_life_while_nothing_comes(words: ChatTokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detokenize, "KEEPALIVE_S", 0.02)
    scene = Scene(words)
    pieces = play(scene, *[lambda: None] * 10, lambda: scene.write("x", "stop"))
    assert sum(p.kind == "quiet" for p in pieces) >= 2
    assert [p.kind for p in pieces[-3:]] == ["admitted", "text", "end"]


def test_begun_again_it_forgets_what_was_read(words: ChatTokenizer) -> None:
    scene = Scene(words, ["nowhere"], stream=False)
    pieces = play(scene, lambda: scene.write("half an ans"), scene.generation.restart, lambda: scene.write("whole", "stop"))
    kinds = [p.kind for p in pieces]
    assert text_of(pieces[kinds.index("again") :]) == "whole"
    assert pieces[-1].tokens == 5


def test_an_error_is_raised_and_closing_early_cancels(words: ChatTokenizer) -> None:
    scene = Scene(words)

    def lose() -> None:
        scene.generation.error = GenerationLost("gone")
        scene.generation.notify(time.monotonic())

    with pytest.raises(GenerationLost, match="gone"):
        play(scene, lambda: scene.write("x"), lose)
    assert scene.cancelled == []

    async def leave() -> list[Generation]:
        other = Scene(words)
        other.write("x")
        pieces = other.reader.pieces(other.cancelled.append)
        await anext(pieces)
        await pieces.aclose()
        return other.cancelled

    assert len(asyncio.run(leave())) == 1


def test_tokens_that_came_too_early_for_a_piece_are_not_forgotten(words: ChatTokenizer) -> None:
    """The last tokens before a long pause go out when their time comes, not with the next ones."""

    async def main() -> float:
        scene = Scene(words)
        scene.write("a")
        pieces = scene.reader.pieces(scene.cancelled.append)
        while (await anext(pieces)).kind != "text":
            pass
        scene.write("b")
        began = time.monotonic()
        assert (await asyncio.wait_for(anext(pieces), 5)).text == "b"
        took = time.monotonic() - began
        await pieces.aclose()
        return took

    assert asyncio.run(main()) < 1.0
