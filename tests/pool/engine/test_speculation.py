"""Rows that guess say what they would say without it: greedy and sampled, in chunks, in a full cache, behind a shared head, whatever ends them."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import one_rank
import pytest
import tiny
from one_rank import answers

from holynb.pool.engine.cache import BlockAllocator
from holynb.pool.engine.guesses import NgramIndex
from holynb.pool.engine.runner import Runner
from holynb.pool.engine.scheduler import BatchScheduler
from holynb.pool.engine.sequence import Seq, Step
from holynb.pool.engine.speculation import MAX_ROWS, Speculation
from holynb.pool.engine.steptimes import StepTimes
from holynb.pool.fit.limits import BatchLimits
from holynb.pool.job import JobThinking
from holynb.pool.protocol import Emit, Job, LogitRules

torch = pytest.importorskip("torch")

from kernels_support.gpu.sampling import NOT_FINITE  # noqa: E402


class Free(StepTimes):
    """Guesses cost nothing: whoever has some verifies them."""

    def cost(self, rows: int, tokens: int) -> float:
        return 0.5


def guessing(folder: Path, most: int = 32, **limits: Any) -> Runner:
    made = one_rank.runner(folder, **limits)
    made.scheduler.speculation = Speculation(most, Free())
    return made


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model")
    tiny.make("qwen3", path)
    return path


def quoting(count: int = 5, temperature: float = 0.0, new: int = 40, **more: Any) -> list[Job]:
    """Prompts that repeat themselves."""
    heads = tiny.prompts(count, longest=20)
    return [Job(i, tuple(h * 3), new, temperature, seed=i, ignore_eos=True, **more) for i, h in enumerate(heads)]


@pytest.mark.parametrize("temperature", [0.0, 0.15, 0.9])
def test_the_same_tokens_in_fewer_steps(folder: Path, temperature: float) -> None:
    asked, made, steps = quoting(temperature=temperature), guessing(folder), list[int]()
    made.before_step = lambda step: steps.append(step.rows)
    assert answers(made, asked) == answers(one_rank.runner(folder), asked)
    speculation = made.scheduler.speculation
    assert speculation.guessed > 0
    assert made.stats()["tokens_guessed"] == speculation.guessed
    assert made.stats()["tokens_accepted"] == speculation.accepted
    if temperature < 0.5:
        assert speculation.accepted > 40
        assert sum(steps) == 5 * 39 + speculation.guessed - speculation.accepted, "every token that was not accepted came as it always does"
        assert len(steps) < 40
    assert made.blocks.free == made.blocks.total
    assert made.scheduler.tokens_out == 5 * 40


@pytest.mark.parametrize(
    "limits", [{"chunk": 5}, {"batch": 2}, {"blocks": 9}, {"blocks": 9, "chunk": 7, "batch": 3}, {"most": 4, "batch": 2}]
)
def test_chunks_batches_and_a_full_cache_change_nothing(folder: Path, limits: dict[str, int]) -> None:
    asked = quoting(8, temperature=0.1, new=50)
    made = guessing(folder, **limits)
    assert answers(made, asked) == answers(one_rank.runner(folder), asked)
    assert made.scheduler.speculation.accepted > 0
    assert made.blocks.free == made.blocks.total
    if "blocks" in limits:
        assert made.scheduler.preempted > 0


def test_a_shared_head_changes_nothing_and_wrong_guesses_are_never_shared(folder: Path) -> None:
    head = tuple(tiny.prompts(1, longest=20)[0] * 5)[:70]
    asked = [Job(i, (*head, 3 + i % 3), 60, ignore_eos=True) for i in range(6)]
    made, plain = guessing(folder), one_rank.runner(folder, share=False)
    expected = answers(plain, asked)
    assert answers(made, asked) == expected
    assert made.scheduler.tokens_shared > 0
    # Prompts that go on with the answers find those in the cache, and say what they would say anyway.
    further = [Job(10 + j.id, (*j.ids, *expected[j.id]), 30, ignore_eos=True) for j in asked]
    shared = made.scheduler.tokens_shared
    assert answers(made, further) == answers(plain, further)
    assert made.scheduler.tokens_shared - shared > 6 * 80
    assert made.scheduler.speculation.accepted < made.scheduler.speculation.guessed


def knowing(monkeypatch: pytest.MonkeyPatch, asked: list[Job], said: dict[int, list[int]], wrong: float) -> None:
    """Guesses come from who knows the answers, and says so many of the tokens wrong."""
    dice, rows = random.Random(6), {job.ids: said[job.id] for job in asked}

    def guess(index: NgramIndex, count: int) -> tuple[int, ...]:
        index.match, tokens = 4, tuple(index._tokens)
        ids = next(ids for ids in rows if tokens[: len(ids)] == ids)
        at = len(tokens) - len(ids)
        return tuple((t + 1) % 320 if dice.random() < wrong else t for t in rows[ids][at : at + count])

    monkeypatch.setattr(NgramIndex, "guess", guess)


@pytest.mark.parametrize("family", ["gemma3", "qwen3-moe", "gpt-oss", "smollm3"])
def test_windows_and_experts(family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny.make(family, tmp_path)
    asked = [Job(i, tuple(p), 50, 0.5 * (i % 2), seed=i, ignore_eos=True) for i, p in enumerate(tiny.prompts(4))]
    expected = answers(one_rank.runner(tmp_path), asked)
    knowing(monkeypatch, asked, expected, wrong=0.15)
    made = guessing(tmp_path, blocks=24, chunk=40)
    assert answers(made, asked) == expected
    assert 60 < made.scheduler.speculation.accepted < made.scheduler.speculation.guessed - 30
    assert made.blocks.free == made.blocks.total


def emits_of(made: Runner, asked: list[Job]) -> list[Emit]:
    emits: list[Emit] = []
    for job in asked:
        made.add(job)
    while not made.idle:
        step = made.step()
        assert len({(e.id, e.note) for e in step}) == len(step), "a row says its tokens of a step at once"
        emits += step
    return emits


def test_an_answer_ends_in_the_midst_of_what_was_accepted(folder: Path) -> None:
    (job,) = quoting(1, temperature=0.3, new=60)
    said = answers(one_rank.runner(folder), [job])[0]
    ends = [i for i in range(1, 60) if said[i] not in said[:i]]
    assert len(ends) > 5
    for i in ends[::-1][:4]:
        for more in ({"eos": (said[i],), "ignore_eos": False}, {"stop_ids": (said[i],)}):
            emits = emits_of(guessing(folder), [replace(job, **more)])  # type: ignore[arg-type]
            assert [t for e in emits for t in e.tokens] == said[:i]
            assert [e.finish for e in emits if e.finish] == ["stop"]


@pytest.mark.parametrize("new", range(1, 20))
def test_no_token_more_than_asked_for(folder: Path, new: int) -> None:
    (job,) = quoting(1, new=20)
    said = answers(one_rank.runner(folder), [job])[0]
    made = guessing(folder)
    emits = emits_of(made, [replace(job, max_new=new)])
    assert [t for e in emits for t in e.tokens] == said[:new]
    assert [e.finish for e in emits if e.finish] == ["length"]
    assert made.scheduler.tokens_out == new


def test_rows_up_to_the_last_place_of_a_sequence(folder: Path) -> None:
    (job,) = quoting(1)
    made = guessing(folder, max_len=len(job.ids) + 40)
    assert answers(made, [job]) == answers(one_rank.runner(folder), [job])


SPECIAL: dict[str, dict[str, Any]] = {
    "penalty": {"rules": LogitRules(repetition_penalty=1.3)},
    "bias": {"rules": LogitRules(bias=((17, 5.0),))},
    "log probabilities": {"logprobs": 2},
    "the prompt's log probabilities": {"logprobs": 0, "prompt_logprobs": True},
}


@pytest.mark.parametrize("special", SPECIAL)
def test_beside_a_row_that_is_not_plain_nobody_guesses(folder: Path, special: str) -> None:
    asked = quoting(3)
    asked[1] = replace(asked[1], max_new=12, **SPECIAL[special])
    made, guessed = guessing(folder), list[tuple[int, bool]]()
    made.before_step = lambda step: guessed.append((made.scheduler.special, bool(step.guesses)))
    assert answers(made, asked) == answers(one_rank.runner(folder), asked)
    assert (1, False) in guessed
    assert (1, True) not in guessed
    assert (0, True) in guessed, "once it has ended, the others do"


def test_a_thought_ends_where_its_budget_does(folder: Path) -> None:
    for budget in (0, 3, 17, 25):
        asked = [replace(j, thinking=JobThinking(None, (301,), (10, 301, 10), budget)) for j in quoting(3)]
        made = guessing(folder)
        assert answers(made, asked) == answers(one_rank.runner(folder), asked)
        assert made.scheduler.speculation.guessed > 0


def test_more_rows_than_pay_do_not_guess(folder: Path) -> None:
    asked = quoting(MAX_ROWS + 1)
    made, guessed = guessing(folder), list[tuple[int, bool]]()
    made.before_step = lambda step: guessed.append((len(made.scheduler.running), bool(step.guesses)))
    answers(made, [*asked[:-1], replace(asked[-1], max_new=10)])
    assert (MAX_ROWS + 1, False) in guessed
    assert (MAX_ROWS + 1, True) not in guessed
    assert (MAX_ROWS, True) in guessed, "once one has ended, the others do"


def test_out_of_memory_with_guesses_goes_on_without(folder: Path) -> None:
    asked, made = quoting(1), guessing(folder)

    def trouble(step: Step) -> None:
        if step.guesses:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    made.before_step = trouble
    emits = emits_of(made, asked)
    assert [t for e in emits for t in e.tokens] == answers(one_rank.runner(folder), asked)[0]
    assert [e.note for e in emits if e.note] == ["admitted", "oom"]
    assert made.blocks.free == made.blocks.total


@pytest.mark.parametrize("place", [0, 2])
def test_a_row_whose_numbers_are_not_finite_ends_there(folder: Path, monkeypatch: pytest.MonkeyPatch, place: int) -> None:
    asked, made = quoting(2), guessing(folder)
    expected = answers(one_rank.runner(folder), asked)
    steps: list[Step] = []
    real: Any = made.executor.read_back

    def read_back(launched: Any) -> list[int]:
        tokens: list[int] = real(launched)
        step = steps[-1]
        if step.guesses and step.decode[0].job.id == 0 and len(step.guesses[0]) > 2:
            tokens[place] = NOT_FINITE
        return tokens

    made.before_step = steps.append
    monkeypatch.setattr(made.executor, "read_back", read_back)
    emits = emits_of(made, asked)
    said = [t for e in emits if e.id == 0 for t in e.tokens]
    assert said == expected[0][: len(said)]
    assert [(e.finish, e.note) for e in emits if e.id == 0][-1] == ("error", "not_finite")
    assert [t for e in emits if e.id == 1 for t in e.tokens] == expected[1], "the other goes on"
    assert made.blocks.free == made.blocks.total


def test_a_cancelled_row_leaves_nothing(folder: Path) -> None:
    asked, made = quoting(3), guessing(folder)
    expected = answers(one_rank.runner(folder), asked)
    said: dict[int, list[int]] = {j.id: [] for j in asked}
    for job in asked:
        made.add(job)
    for _ in range(4):
        for emit in made.step():
            said[emit.id] += emit.tokens
    made.cancel(1)
    while not made.idle:
        for emit in made.step():
            said[emit.id] += emit.tokens
    assert said[0] == expected[0]
    assert said[1] == expected[1][: len(said[1])]
    assert said[2] == expected[2]
    assert made.blocks.free == made.blocks.total


def test_what_is_sampled_is_distributed_as_the_model_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three tokens of a row, of which the last two are guessed in one step: each triple as often as its probability, by chi-square."""
    stats = pytest.importorskip("scipy.stats")
    model, prompt, rows, top = tiny.make("qwen3", tmp_path, num_hidden_layers=2), [5, 6, 7, 8, 9], 1600, 3
    heat = 4.0

    def after(ids: list[int]) -> dict[int, float]:
        with torch.no_grad():
            values, tokens = model(torch.tensor([ids])).logits[0, -1].topk(top)
        return dict(zip(tokens.tolist(), torch.softmax(values / heat, 0).tolist(), strict=True))

    exact = {
        (a, b, c): p * q * r
        for a, p in after(prompt).items()
        for b, q in after([*prompt, a]).items()
        for c, r in after([*prompt, a, b]).items()
    }
    # Guesses that are now the most, now the least probable; never those of the row itself.
    likely, turns = sorted(exact, key=exact.__getitem__), itertools.count()

    def guess(index: NgramIndex, count: int) -> tuple[int, ...]:
        index.match = 4
        return likely[-1 - next(turns) % 9][1:][:count]

    monkeypatch.setattr(NgramIndex, "guess", guess)
    made = guessing(tmp_path, batch=MAX_ROWS)
    asked = [Job(i, tuple(prompt), 3, heat, top_k=top, seed=i, ignore_eos=True) for i in range(rows)]
    waiting = list(asked)
    said: dict[int, list[int]] = {j.id: [] for j in asked}
    while waiting or not made.idle:
        if made.idle:
            for job in waiting[:MAX_ROWS]:
                made.add(job)
            waiting = waiting[MAX_ROWS:]
        for emit in made.step():
            said[emit.id] += emit.tokens
    speculation = made.scheduler.speculation
    assert 250 < speculation.accepted < speculation.guessed - 250
    found = Counter(tuple(s) for s in said.values())
    assert set(found) <= set(exact)
    common = [triple for triple, p in exact.items() if p * rows >= 5]
    observed = [found[t] for t in common] + [rows - sum(found[t] for t in common)]
    expected = [exact[t] * rows for t in common] + [rows * (1 - sum(exact[t] for t in common))]
    if expected[-1] < 5:  # too few to stand alone
        observed[-2:], expected[-2:] = [sum(observed[-2:])], [sum(expected[-2:])]
    assert len(expected) > 12
    assert stats.chisquare(observed, [e * sum(observed) / sum(expected) for e in expected]).pvalue > 0.001


# -- the policy, over models that answer with arithmetic --


class Timed:
    """A model and a device: a step takes as long as `cost` says of its tokens, and `truth` is what the model says at a place."""

    def __init__(self, truth: Callable[[Seq, int], int], cost: Callable[[int], float], rows: int, new: int, ahead: int = 1) -> None:
        self.now, self.ahead, self.truth, self.cost = 0.0, ahead, truth, cost
        self.batch = BatchScheduler(BlockAllocator(4000, 16), BatchLimits(batch=64, chunk=512, max_len=4096), 1, 1)
        self.batch.speculation = Speculation(64, StepTimes(lambda: self.now))
        self.jobs = [Job(i, tuple(truth(Seq(Job(i, (0,), 1)), k) for k in range(64)), new, ignore_eos=True) for i in range(rows)]

    def run(self) -> float:
        """Time of all answers, prompts left out. The device works on one step while the next is planned; guesses are waited for."""
        slots: dict[int, int] = {}
        said: dict[int, list[int]] = {j.id: [] for j in self.jobs}
        for job in self.jobs:
            self.batch.add(job)
        under_way: list[tuple[Step, list[int]]] = []
        begin = 0.0
        while not self.batch.idle or under_way:
            step = self.batch.plan()
            if step is not None:
                under_way.append((step, self.tokens(step, slots)))
            keep = self.ahead if step is not None and not step.guesses else max(0, len(under_way) - 1)
            while len(under_way) > keep:
                done, tokens = under_way.pop(0)
                self.now += self.cost(done.rows) if done.decode else 0.0
                self.now += 0.1 * bool(done.guesses)
                for emit in self.batch.commit(done, tokens):
                    said[emit.id] += emit.tokens
        for job in self.jobs:
            seq = Seq(job)
            assert said[job.id] == [self.truth(seq, 64 + i) for i in range(job.max_new)]
        assert self.batch.blocks.free == self.batch.blocks.total
        return self.now - begin

    def tokens(self, step: Step, slots: dict[int, int]) -> list[int]:
        guesses = step.guesses or [()] * len(step.decode)
        rows = [(s, s.cached - 1, (self.known(s, s.cached - 1), *g)) for s, g in zip(step.decode, guesses, strict=True)]
        rows += [(c.seq, c.start, tuple(c.seq.tokens[c.start : c.start + c.count])) for c in step.prefill]
        out = []
        for seq, start, ids in rows:
            for at, token in enumerate(ids, start):
                slots[seq.blocks[at // 16] * 16 + at % 16] = token
            for at in range(start if start % 16 == 0 else 0):
                assert slots[seq.blocks[at // 16] * 16 + at % 16] == self.truth(seq, at), "no wrong guess is left in what is read"
            if seq in step.decode:
                out += [self.truth(seq, start + 1 + i) for i in range(len(ids))]
        return out + [self.truth(c.seq, c.start + c.count) for c in step.prefill if c.samples]

    def known(self, seq: Seq, at: int) -> int:
        return seq.tokens[at] if at < len(seq.tokens) else self.truth(seq, at)


def periodic(seq: Seq, at: int) -> int:
    return (at + seq.job.id) % 24 + 5


def trap(seq: Seq, at: int) -> int:
    """Four tokens that stood there before, and then another one each time."""
    return at % 5 + 5 if at % 5 < 4 else 1000 + at


def free(seq: Seq, at: int) -> int:
    return drawn(seq.job.id, at)


@cache
def drawn(number: int, at: int) -> int:
    return random.Random(at * 64 + number).randrange(5, 10**6)


@pytest.mark.parametrize("rows", [1, 2, 5, 8])
@pytest.mark.parametrize("ahead", [0, 1])
def test_rows_that_repeat_are_much_faster(rows: int, ahead: int) -> None:
    timed = Timed(periodic, lambda tokens: 1 + 0.03 * (tokens - rows), rows, 400, ahead)
    assert timed.run() < 400 / 1.8


@pytest.mark.parametrize("rows", [1, 8])
@pytest.mark.parametrize("truth", [trap, free])
@pytest.mark.parametrize("each", [0.0, 0.1, 0.5, 1.0])
def test_no_row_is_slower_than_three_in_a_hundred(rows: int, truth: Callable[[Seq, int], int], each: float) -> None:
    """Whatever a guess costs, and however often what looks like a quotation is none."""
    timed = Timed(truth, lambda tokens: 1 + each * (tokens - rows) / rows, rows, 400)
    assert timed.run() < 400 / 0.97
    if truth is free:
        assert timed.batch.speculation.guessed == 0


def test_a_row_that_repeats_is_not_paid_for_by_the_others() -> None:
    def mixed(seq: Seq, at: int) -> int:
        return periodic(seq, at) if seq.job.id == 0 else free(seq, at)

    timed = Timed(mixed, lambda tokens: 1 + 0.1 * (tokens - 8), 8, 400)
    assert timed.run() < 400 / 0.97


def test_a_row_begins_to_guess_where_it_begins_to_repeat() -> None:
    def late(seq: Seq, at: int) -> int:
        return free(seq, at) if at < 300 else periodic(seq, at)

    timed = Timed(late, lambda tokens: 1 + 0.05 * (tokens - 1), 1, 536)
    assert timed.run() < 300 - 64 + 300 / 1.8


def test_guesses_that_cost_as_much_as_tokens_end() -> None:
    """As with experts, of which each token reads its own."""
    timed = Timed(periodic, lambda tokens: tokens / 4, 4, 400)
    assert timed.run() < 400 / 0.97
    assert timed.batch.speculation.guessed < 0.15 * 4 * 400


def test_a_whole_model_guesses_by_itself(folder: Path) -> None:
    (job,) = quoting(1, new=200)
    made = Runner(folder)
    assert made.scheduler.speculation.most == 32
    assert answers(made, [job]) == answers(one_rank.runner(folder), [job])
