"""A thought that is ended after so many tokens: exactly there, whatever else is in the batch; and a grammar that begins behind it."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import one_rank
import pytest
import ranks
import tiny

from holynb.pool.engine.runner import Runner
from holynb.pool.engine.sequence import Seq, Step
from holynb.pool.engine.thought_state import ThoughtState
from holynb.pool.job import JobThinking
from holynb.pool.protocol import Job, LogitRules, job_from, job_values
from holynb.pool.server.grammar import json_grammar

OPEN, CLOSE, END = 300, 301, 256
CLOSING = (10, CLOSE, 10, 10)


def thinking(budget: int | None, **more: Any) -> JobThinking:
    return JobThinking(**{"begins": None, "ends": (CLOSE,), "closing": CLOSING, "budget": budget} | more)


def walk(job: JobThinking, tokens: list[int]) -> tuple[list[int], ThoughtState]:
    """The tokens as they come: those asked for, unless another one is forced."""
    state, said = ThoughtState(job), []
    for token in tokens:
        said.append(token if state.forced is None else state.forced)
        state.take(said[-1])
    return said, state


@pytest.mark.parametrize("budget", [0, 1, 2, 5])
def test_a_thought_ends_after_its_budget(budget: int) -> None:
    said, state = walk(thinking(budget), [7] * 12)
    assert said == [7] * budget + [*CLOSING] + [7] * (12 - budget - 4)
    assert (state.thinking, state.thought, state.forced) == (False, budget + 4, None)


def test_one_that_ends_by_itself_is_left_alone() -> None:
    said, state = walk(thinking(3), [7, 7, CLOSE, 7, 7, 7, 7])
    assert said == [7, 7, CLOSE, 7, 7, 7, 7]
    assert state.thought == 3
    assert walk(thinking(2), [7, 7, 8, 8, 8, 8, 8])[0] == [7, 7, *CLOSING, 8]
    assert walk(thinking(None), [7] * 50)[1].thinking


def test_what_of_the_closing_was_said_is_not_said_again() -> None:
    assert walk(thinking(3), [7, 7, 10, 9, 9, 9, 9])[0] == [7, 7, 10, CLOSE, 10, 10, 9]
    closing = (1, 2, 3, 4, 5)
    harmony = thinking(4, ends=(4, 5), closing=closing)
    assert walk(harmony, [9, 9, 1, 2, 9, 9, 9, 9])[0] == [9, 9, 1, 2, 3, 4, 5, 9]
    assert walk(harmony, [9, 4, 5, 9, 9, 9])[1].thought == 3


def test_other_tokens_may_stand_before_the_last_that_ends_a_thought() -> None:
    """Harmony's `<|channel|>final <|constrain|>json<|message|>`; another channel's head is no end."""
    job = thinking(None, ends=(1, 2, 3), closing=(8, 1, 2, 3))
    assert walk(job, [1, 7, 3, 9, 1, 2, 6, 5, 3, 9])[1].thought == 9
    assert walk(job, [1, 2, 6, 1, 7, 3, 9, 9])[1].thinking, "it went on with another channel"
    said, state = walk(replace(job, budget=5), [9, 9, 1, 2, 6, 6, 6, 6, 6])
    assert said == [9, 9, 1, 2, 6, 3, 6, 6, 6], "a head that has begun is ended, not begun again"
    assert state.thought == 6


def test_a_thought_that_the_model_begins_is_counted_from_there() -> None:
    job = thinking(2, begins=OPEN, blanks=(10,))
    assert walk(job, [OPEN, 7, 7, 7, 7, 7, 7])[0] == [OPEN, 7, 7, *CLOSING]
    assert walk(job, [10, OPEN, 7, 7, 7, 7, 7, 7])[0] == [10, OPEN, 7, 7, *CLOSING]
    assert walk(job, [7, OPEN, 7, 7, 7, 7])[0] == [7, OPEN, 7, 7, 7, 7], "not at the head: it is no thought"
    _, state = walk(job, [8, 8, 8])
    assert (state.thinking, state.begins, state.thought) == (False, None, 0)


def test_only_near_its_end_does_a_row_wait_for_each_token() -> None:
    state = ThoughtState(thinking(5))
    near = []
    for _ in range(10):
        near.append(state.near(2))
        state.take(7 if state.forced is None else state.forced)
    assert near == [False] * 4 + [True] * 5 + [False], "one before the budget, through its closing, and not with the answer"
    assert not ThoughtState(thinking(None)).near(10)


def test_thinking_goes_to_the_ranks_and_back() -> None:
    job = Job(1, (1, 2), 9, thinking=thinking(3, blanks=(10, 11)))
    assert job_from(json.loads(json.dumps(job_values(job)))) == job
    assert "thinking" not in job_values(Job(1, (1, 2), 9))


# -- with a model ------------------------------------------------------------------------------------------------------
torch = pytest.importorskip("torch")
runner = partial(one_rank.runner, blocks=200)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return one_rank.bytes_model(tmp_path_factory.mktemp("model"))


def answers(made: Runner, jobs: list[Job]) -> dict[int, list[int]]:
    said = one_rank.answers(made, jobs)
    assert (made.scheduler.constrained, made.scheduler.special) == (0, 0)
    return said


def jobs(temperature: float = 0.9) -> list[Job]:
    """Every second one thinks, each as long as its number says; the others are as ever."""
    return [
        Job(i, tuple(p), 30, temperature, seed=i, ignore_eos=True, thinking=thinking(2 * i) if i % 2 else None)
        for i, p in enumerate(tiny.prompts(8))
    ]


@pytest.fixture(scope="module")
def expected(folder: Path) -> dict[int, list[int]]:
    """What one process answers to `jobs()` with nothing in its way."""
    return answers(runner(folder), jobs())


@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_rows_end_their_thoughts_exactly_and_the_others_say_what_they_say_alone(folder: Path, temperature: float) -> None:
    asked = jobs(temperature)
    said = answers(runner(folder), asked)
    plain = [j for j in asked if j.thinking is None]
    assert {j.id: said[j.id] for j in plain} == answers(runner(folder), plain)
    for job in asked[1::2]:
        free = answers(runner(folder), [replace(job, thinking=None)])[job.id]
        assert job.thinking is not None
        expected, state = walk(job.thinking, free)
        assert said[job.id][: state.thought] == expected[: state.thought], "free until then, and closed"
        assert state.thought >= 2 * job.id or CLOSE in free[: 2 * job.id]


@pytest.mark.parametrize("limits", [{"blocks": 12}, {"batch": 2, "chunk": 7}])
def test_preempted_and_chunked_they_end_where_they_did(folder: Path, expected: dict[int, list[int]], limits: dict[str, int]) -> None:
    made = runner(folder, **limits)
    assert answers(made, jobs()) == expected
    assert made.scheduler.preempted > 0 or "blocks" not in limits


def test_out_of_memory_moves_no_end(folder: Path, expected: dict[int, list[int]]) -> None:
    made, troubles = runner(folder), [MemoryError()]

    def trouble(step: Step) -> None:
        if troubles and len(step.decode) > 5 and any(s.thought and s.thought.forced for s in step.decode):
            raise troubles.pop()

    made.before_step = trouble
    assert answers(made, jobs()) == expected
    assert made.scheduler.ooms == 1


@pytest.mark.parametrize("cut", [{"tensor": 2}, {"pipe": 2}])
def test_a_divided_model_ends_them_where_one_process_does(folder: Path, expected: dict[int, list[int]], cut: dict[str, int]) -> None:
    assert ranks.answers(folder, [job_values(j) for j in jobs()], **cut) == expected


def test_log_probabilities_and_penalties_go_with_forced_tokens(folder: Path) -> None:
    rules = LogitRules(repetition_penalty=1.3, min_tokens=25)
    job = Job(1, (5, 6, 7), 20, 0.7, seed=3, eos=(END,), thinking=thinking(4), logprobs=2, rules=rules)
    made = runner(folder)
    made.add(job)
    emits = [e for _ in range(60) if not made.idle for e in made.step() if e.tokens]
    assert [e.scores[0][0] for e in emits] == [e.tokens[0] for e in emits], "each token has its own, the forced ones too"
    assert [e.tokens[0] for e in emits][4:8] == [*CLOSING]


SCHEMA = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"], "additionalProperties": False}


@pytest.mark.parametrize(
    ("thought", "bias", "length"),
    [
        (thinking(6), ((CLOSE, -60.0),), 6 + 4),
        (thinking(3, begins=OPEN), ((OPEN, 60.0),), 1 + 3 + 4),
        (thinking(None, begins=OPEN), ((OPEN, 60.0), (CLOSE, 80.0)), 2),
        (thinking(3, begins=OPEN), ((OPEN, -60.0),), 0),
    ],
)
def test_a_grammar_begins_behind_the_thought(folder: Path, thought: JobThinking, bias: Any, length: int) -> None:
    """Given by the prompt, begun and ended, begun and closed by itself, and none."""
    pytest.importorskip("llguidance")
    grammar, rules = json_grammar(json.dumps(SCHEMA)), LogitRules(bias=bias)
    asked = [
        Job(i, tuple(p), 60, 1.0, seed=i, eos=(END,), grammar=grammar, thinking=thought, rules=rules) for i, p in enumerate(tiny.prompts(4))
    ]
    lengths = set()
    for tokens in answers(runner(folder), asked).values():
        _, state = walk(thought, tokens)
        jsonschema.validate(json.loads(bytes(tokens[state.thought :]).decode()), SCHEMA)
        lengths.add(state.thought)
    assert lengths == {length}


def test_before_its_first_token_a_row_may_also_begin_to_think() -> None:
    from holynb.pool.engine import constrained

    class Owner:
        def masks(self, matchers: list[Any]) -> Any:
            return np.zeros((len(matchers), 10), np.int32)

        def is_digits(self, token: int) -> bool:
            return False

    owner: Any = Owner()
    for begins in (OPEN, 31, 319):
        seqs = [Seq(Job(i, (1,), 5, grammar="x", thinking=thinking(None, begins=begins) if i else None)) for i in range(2)]
        for seq in seqs:
            seq.constraint = constrained.GrammarState(owner, None)
        free, head = constrained.token_masks(seqs).view("uint32")
        assert not free.any()
        assert [i for i in range(320) if head[i // 32] >> i % 32 & 1] == [begins]
