"""Rows with a grammar: what they say follows it whatever else happens, and rows without one say what they always said."""

from __future__ import annotations

import json
import threading
from dataclasses import asdict
from functools import partial
from pathlib import Path

import jsonschema
import numpy as np
import one_rank
import pytest
import ranks
import tiny
from one_rank import answers

from holynb.pool.engine.constrained import MAX_DIGIT_TOKENS, GrammarCompiler, token_masks
from holynb.pool.engine.sequence import Seq, Step
from holynb.pool.protocol import Emit, Job
from holynb.pool.server.grammar import json_grammar

torch = pytest.importorskip("torch")
pytest.importorskip("llguidance")

END = 256
runner = partial(one_rank.runner, blocks=200)
SCHEMA = {
    "type": "object",
    "properties": {
        "sort": {"enum": ["bug", "wish", "praise"]},
        "stars": {"type": "integer", "minimum": 1, "maximum": 5},
        "words": {"type": "array", "items": {"type": "string", "maxLength": 4}, "maxItems": 3},
        "sure": {"type": "boolean"},
    },
    "required": ["sort", "stars", "words", "sure"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return one_rank.bytes_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def grammar() -> str:
    return json_grammar(json.dumps(SCHEMA))


def jobs(grammar: str, temperature: float = 0.9) -> list[Job]:
    """Every second one has a grammar."""
    return [
        Job(i, tuple(p), 140 if i % 2 else 30, temperature, top_k=40 * (i % 3), seed=i, eos=(END,), grammar=grammar if i % 2 else None)
        for i, p in enumerate(tiny.prompts(8))
    ]


def check(said: list[int]) -> None:
    jsonschema.validate(json.loads(bytes(said).decode()), SCHEMA)


@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_guided_rows_follow_their_grammar_and_the_others_say_what_they_say_alone(folder: Path, grammar: str, temperature: float) -> None:
    asked = jobs(grammar, temperature)
    said = answers(runner(folder), asked)
    free = [j for j in asked if j.grammar is None]
    assert {j.id: said[j.id] for j in free} == answers(runner(folder), free)
    for job in asked[1::2]:
        check(said[job.id])


@pytest.mark.parametrize("limits", [{"blocks": 12}, {"batch": 2, "chunk": 7}])
def test_preempted_and_chunked_they_say_the_same(folder: Path, grammar: str, limits: dict[str, int]) -> None:
    asked = jobs(grammar)
    made = runner(folder, **limits)
    assert answers(made, asked) == answers(runner(folder), asked)
    assert made.scheduler.preempted > 0 or "blocks" not in limits
    assert made.scheduler.constrained == 0


@pytest.mark.parametrize("cut", [{"tensor": 2}, {"pipe": 2}])
def test_a_divided_model_lets_its_rows_say_the_same(folder: Path, grammar: str, cut: dict[str, int]) -> None:
    """Every rank of a tensor group makes the same masks; of a pipeline the last one does, once the token before is there."""
    asked = jobs(grammar)
    said = ranks.answers(folder, [{**asdict(j), "ids": list(j.ids), "eos": list(j.eos)} for j in asked], **cut)
    assert said == answers(runner(folder), asked)


def test_out_of_memory_loses_nothing_of_a_guided_row(folder: Path, grammar: str) -> None:
    asked = jobs(grammar)
    made, troubles = runner(folder), [MemoryError()]

    def trouble(step: Step) -> None:
        if troubles and len(step.decode) > 5:
            raise troubles.pop()

    made.before_step = trouble
    assert answers(made, asked) == answers(runner(folder), asked)
    assert made.scheduler.ooms == 1


def test_a_row_cut_short_is_the_beginning_of_what_it_would_say(folder: Path, grammar: str) -> None:
    whole = Job(1, (5, 6, 7), 140, eos=(END,), grammar=grammar)
    short = Job(1, (5, 6, 7), 9, eos=(END,), grammar=grammar)
    assert answers(runner(folder), [short])[1] == answers(runner(folder), [whole])[1][:9]


def test_other_rows_go_on_while_a_grammar_is_compiled(folder: Path, grammar: str, monkeypatch: pytest.MonkeyPatch) -> None:
    go, compiled = threading.Event(), GrammarCompiler._compile

    def slowly(self: GrammarCompiler, text: str, eos: tuple[int, ...]) -> object:
        assert go.wait(60)
        return compiled(self, text, eos)

    monkeypatch.setattr(GrammarCompiler, "_compile", slowly)
    made, ended = runner(folder), []
    for job in (
        Job(1, (5, 6), 140, eos=(END,), grammar=grammar),
        Job(2, (5, 6), 4, eos=(END,)),
        Job(3, (7, 8), 9, eos=(END,), grammar=grammar),
    ):
        made.add(job)
    made.cancel(3)
    while not made.idle:
        ended += [e.id for e in made.step() if e.finish]
        if 2 in ended:
            go.set()
    assert ended == [2, 1]


@pytest.mark.parametrize(("grammar", "eos"), [("no grammar at all {", (END,)), (json_grammar('{"type": "object"}'), ())])
def test_what_cannot_be_compiled_is_that_rows_error(folder: Path, grammar: str, eos: tuple[int, ...]) -> None:
    made, emits = runner(folder), list[Emit]()
    made.add(Job(1, (5, 6), 9, eos=eos, grammar=grammar))
    made.add(Job(2, (5, 6), 4, eos=(END,)))
    while not made.idle:
        emits += made.step()
    ends = {e.id: e for e in emits if e.finish}
    assert (ends[1].finish, ends[2].finish) == ("error", "length")
    assert ends[1].note


def test_a_grammar_that_breaks_ends_its_row(folder: Path, grammar: str) -> None:
    """Nothing that is masked can be sampled; if it happened all the same, the row must not go on as if it had not."""
    made = runner(folder)
    made.add(Job(1, (5, 6), 50, eos=(END,), grammar=grammar))
    while not made.scheduler.running:
        made.step()
    made.scheduler.running[0].tokens[-1] = ord("x")
    emits = made.step()
    assert [(e.finish, e.tokens) for e in emits] == [("error", ())]
    assert emits[0].note
    assert made.idle


def test_the_bits_are_the_tokens_that_may_come(folder: Path) -> None:
    states = GrammarCompiler(folder, 320)
    seq = Seq(Job(1, (1, 2), 9, eos=(END,), grammar=json_grammar('{"enum": ["ab", "ac"]}')))
    seq.constraint = states.begin(seq.job)

    def allowed() -> list[int]:
        return np.flatnonzero(np.unpackbits(token_masks([seq]).view(np.uint8), bitorder="little")).tolist()

    for token in b'"a':
        assert allowed() == [token]
        seq.tokens.append(token)
    assert allowed() == [ord("b"), ord("c")]
    seq.tokens += b'c"'
    assert allowed() == [END]


def test_a_number_ends_where_no_number_goes_on(folder: Path) -> None:
    """A row that says nothing but threes: inside a number they end, inside a text they do not."""
    states = GrammarCompiler(folder, 320)

    def said(schema: str, first: bytes) -> bytes:
        seq = Seq(Job(1, (1,), 99, eos=(END,), grammar=json_grammar(schema)))
        seq.constraint = states.begin(seq.job)
        seq.tokens += first
        for _ in range(60):
            may = np.unpackbits(token_masks([seq]).view(np.uint8), bitorder="little")
            seq.tokens.append(ord("3") if may[ord("3")] else int(np.flatnonzero(may)[-1]))
            if seq.tokens[-1] == END:
                break
        return bytes(seq.tokens[1:-1])

    number = said('{"type": "number"}', b"3.")
    assert number.startswith(b"3." + b"3" * (MAX_DIGIT_TOKENS - 1))
    assert len(number) < MAX_DIGIT_TOKENS + 4
    assert json.loads(number) > 3
    assert said('{"type": "string"}', b'"') == b'"' + b"3" * 59
    assert said('{"type": "string", "pattern": "^[0-9]{50}$"}', b'"') == b'"' + b"3" * 50 + b'"'
    assert len(json.dumps(json.loads(said('{"type": "array", "items": {"type": "integer"}, "maxItems": 1}', b"[")))) < MAX_DIGIT_TOKENS + 4
