"""The GPU's engine says what the plain one says: the same jobs through feeding, paged attention and sampling kernels.

On a GPU the steps are captured graphs; elsewhere Triton's interpreter runs the same kernels one by one, on tiny models.
"""

from __future__ import annotations

import json
import os
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny
from pool_fake import byte_model

torch = pytest.importorskip("torch")
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read when triton loads
pytest.importorskip("triton")

from holynb.pool.engine import first_steps, sizes  # noqa: E402
from holynb.pool.engine import graphs as module  # noqa: E402
from holynb.pool.engine.cache import BlockAllocator  # noqa: E402
from holynb.pool.engine.graphs import GraphExecutor  # noqa: E402
from holynb.pool.engine.guesses import NgramIndex  # noqa: E402
from holynb.pool.engine.runner import Runner  # noqa: E402
from holynb.pool.engine.scheduler import BatchScheduler  # noqa: E402
from holynb.pool.engine.sequence import PrefillChunk, Seq, Step  # noqa: E402
from holynb.pool.engine.speculation import Speculation  # noqa: E402
from holynb.pool.engine.steptimes import StepTimes  # noqa: E402
from holynb.pool.fit.limits import BatchLimits  # noqa: E402
from holynb.pool.job import JobThinking  # noqa: E402
from holynb.pool.protocol import Emit, Job, LogitRules  # noqa: E402
from holynb.pool.server.grammar import json_grammar  # noqa: E402

DEVICE = "cuda:0" if torch.cuda.is_available() else "cpu"
pytestmark = [
    pytest.mark.kernel,
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


def made(folder: Path, *, fast: bool, blocks: int = 64, **limits: int) -> Runner:
    """A float32 runner, by the GPU's engine or the plain one."""
    runner = Runner(folder, dtype="float32", device=DEVICE if fast else "cpu", memory=0.1 if DEVICE != "cpu" and fast else 0.9)
    runner.limits = BatchLimits(**{"batch": 4, "chunk": 128, "max_len": 256} | limits)
    runner.blocks = BlockAllocator(blocks * runner.blocks.groups, 16, windows=runner.blocks.windows)
    runner.scheduler = BatchScheduler(runner.blocks, runner.limits)
    if fast:
        was: Any = runner.executor
        runner.executor = GraphExecutor(was.model, was.kv, 16, runner.limits)
    return runner


@pytest.fixture(autouse=True)
def few_splits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter takes about a millisecond a program."""
    if DEVICE == "cpu":
        monkeypatch.setattr(module, "splits", lambda batch, heads: 2 if batch < 4 else 1)


def answers(runner: Runner, jobs: list[Job], cancel: int = -1) -> dict[int, list[int]]:
    said: dict[int, list[int]] = {j.id: [] for j in jobs}
    left = list(jobs)
    while left or not runner.idle:
        for job in left[:2]:  # they come two at a time, so that rows join and leave
            runner.add(job)
        left = left[2:]
        for emit in runner.step():
            said[emit.id] += emit.tokens
        if cancel in said and len(said[cancel]) == 3:
            runner.cancel(cancel)
    return said


#: Of each switch that a family may have, one that has it.
MORE = ("llama3", "qwen3-moe", "mistral-windows", "gemma2", "gemma3", "olmo3", "granite", "smollm3")


@pytest.fixture(scope="module", params=["qwen3", *(pytest.param(name, marks=pytest.mark.slow) for name in MORE)])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp(request.param)
    # By the interpreter each layer and head of keys takes its time: two of each are enough to mix up.
    few = {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    tiny.make(request.param, path, **few if DEVICE == "cpu" else {})
    return path


def jobs(count: int = 5, temperature: float = 0.0) -> list[Job]:
    return [
        Job(i, tuple(p), 3 + 2 * i, temperature * (i % 2), seed=i, ignore_eos=True) for i, p in enumerate(tiny.prompts(count, longest=90))
    ]


@pytest.mark.parametrize("temperature", [pytest.param(0.0, marks=pytest.mark.slow), 0.8])  # by 0.8 every second row is greedy, too
def test_the_same_tokens(folder: Path, temperature: float) -> None:
    asked = jobs(temperature=temperature)
    fast = made(folder, fast=True)
    assert fast.executor.lookahead == 1
    assert answers(fast, asked) == answers(made(folder, fast=False), asked)
    assert ("both", True) in kinds(fast), "a prompt's chunk goes along with the rows that decode"


class Free(StepTimes):
    """Guesses cost nothing."""

    def cost(self, rows: int, tokens: int) -> float:
        return 0.5


def test_rows_that_guess_say_the_same(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row's guesses are rows of the same graphs, with its blocks; rows join and leave, and go on without guesses, with a step in flight."""
    asked = [replace(j, max_new=12, temperature=0.8 * (j.id % 2)) for j in jobs(3)]
    expected = answers(made(folder, fast=False), asked)
    dice, rows = random.Random(6), {j.ids: expected[j.id] for j in asked}

    def guess(index: NgramIndex, count: int) -> tuple[int, ...]:
        index.match, tokens = 4, tuple(index._tokens)
        ids = next(ids for ids in rows if tokens[: len(ids)] == ids)
        known = rows[ids][len(tokens) - len(ids) :][: min(3, count)]
        return tuple(t + 1 if dice.random() < 0.2 else t for t in known) if dice.random() < 0.8 else ()

    monkeypatch.setattr(NgramIndex, "guess", guess)
    fast, flights = made(folder, fast=True, batch=8), list[tuple[int, bool]]()
    fast.scheduler.speculation = Speculation(8, Free())
    fast.before_step = lambda step: flights.append((len(fast._in_flight), bool(step.guesses)))
    assert answers(fast, asked) == expected
    assert fast.scheduler.speculation.accepted > 8
    assert (1, False) in flights
    assert (0, True) in flights
    assert (1, True) not in flights
    assert fast.blocks.free == fast.blocks.total


class Compiling:
    """Kernels that are compiled once so many steps were asked about, or somebody waits."""

    def __init__(self, steps: int) -> None:
        self.steps, self.waited = steps, 0

    @property
    def done(self) -> bool:
        self.steps -= 1
        return self.steps < 0

    def wait(self) -> None:
        self.waited += 1
        self.steps = 0


def test_the_first_steps_are_plain_and_the_kernels_go_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = [*jobs(2, temperature=0.8), Job(2, tuple(range(5, 35)), 4, ignore_eos=True)]
    runner, compiling = made(folder, fast=True), Compiling(3)
    first = runner._first = runner.executor = first_steps.FirstSteps(runner.executor, compiling)  # type: ignore[arg-type]
    plain: list[int] = []
    monkeypatch.setattr(first._plain, "launch", lambda step, launch=first._plain.launch: (plain.append(len(step.sampled)), launch(step))[1])
    assert answers(runner, asked) == answers(made(folder, fast=False), asked)
    assert runner.executor is first.kernels
    assert plain == [2, 3, 3]
    assert compiling.waited == 1


@pytest.mark.parametrize(
    ("rows", "before", "chunk", "waits"), [(1, 9, 0, 0), (0, 0, 512, 0), (9, 9, 0, 1), (1, 2049, 0, 1), (0, 0, 513, 1), (0, 2000, 60, 1)]
)
def test_a_step_that_is_large_waits_for_its_kernels(rows: int, before: int, chunk: int, waits: int) -> None:
    def seq() -> Seq:
        made = Seq(Job(0, (1,) * 3000, 4))
        made.cached = before
        return made

    step = Step(decode=[seq() for _ in range(rows)], prefill=[PrefillChunk(seq(), before, chunk)] if chunk else [])
    first = object.__new__(first_steps.FirstSteps)
    compiling = first._compilation = Compiling(1)
    assert first.over(step) is bool(waits)
    assert compiling.waited == waits


@pytest.mark.slow
def test_a_full_cache_and_small_chunks(folder: Path) -> None:
    asked = [Job(j.id, j.ids, 24, ignore_eos=True) for j in jobs()]
    fast = made(folder, fast=True, blocks=10, chunk=32)
    assert answers(fast, asked) == answers(made(folder, fast=False), asked)
    assert fast.scheduler.preempted > 0 or fast.blocks.slides, "what windows leave is free, and enough"
    assert fast.blocks.free == fast.blocks.total


def test_end_tokens_and_cancel(folder: Path) -> None:
    asked = jobs()
    plain = answers(made(folder, fast=False), asked)
    asked = [Job(j.id, j.ids, j.max_new, eos=(plain[j.id][-3],)) for j in asked]
    fast = answers(made(folder, fast=True), asked, cancel=4)
    for job in asked[:4]:
        expected = plain[job.id]
        assert fast[job.id] == expected[: expected.index(job.eos[0])]
    assert fast[4] == plain[4][: len(fast[4])]


@pytest.mark.slow
def test_out_of_memory_begins_anew_from_the_host(folder: Path) -> None:
    asked = [Job(j.id, j.ids, 16, ignore_eos=True) for j in jobs()]
    runner, troubles = made(folder, fast=True), [torch.OutOfMemoryError("CUDA out of memory.")]

    def trouble(step: Step) -> None:
        if troubles and len(step.decode) > 2:
            raise troubles.pop()

    runner.before_step = trouble
    assert answers(runner, asked) == answers(made(folder, fast=False), asked)
    assert runner.scheduler.ooms == 1


@pytest.mark.slow
def test_sizes_prepared_in_the_middle_of_work(folder: Path) -> None:
    """A smaller size is captured after larger chunks went through the same buffers."""
    asked = jobs()
    fast = made(folder, fast=True)
    answers(fast, [Job(99, tuple(range(5, 120)), 3, ignore_eos=True)])
    engine: Any = fast.executor
    assert fast.warm() == len(engine.batches) + (1 + len(engine.mixed_batches)) * len(engine.chunks)
    assert answers(fast, asked) == answers(made(folder, fast=False), asked)


@pytest.mark.slow
def test_rows_with_a_grammar_among_others(folder: Path) -> None:
    """Guided rows say what the plain engine lets them say; steps without one keep their own graphs."""
    pytest.importorskip("llguidance")
    grammar = json_grammar(
        '{"type": "object", "properties": {"a": {"enum": ["x", "yy"]}, "b": {"type": "boolean"}}, "required": ["a", "b"], "additionalProperties": false}'
    )
    byte_model(folder.parent / f"{folder.name}-bytes")
    (folder / "tokenizer.json").write_bytes((folder.parent / f"{folder.name}-bytes" / "tokenizer.json").read_bytes())
    asked = [
        Job(j.id, j.ids, 40 if j.id % 2 else 9, j.temperature, seed=j.id, eos=(256,), grammar=grammar if j.id % 2 else None)
        for j in jobs(4, 0.8)
    ]
    fast = made(folder, fast=True)
    said = answers(fast, asked)
    assert said == answers(made(folder, fast=False), asked)
    assert all(set(json.loads(bytes(said[i]).decode())) == {"a", "b"} for i in (1, 3))
    assert {("rows", False), ("chunk", False), ("rows", True)} <= kinds(fast)
    assert not any(what == "both" and not sampled for what, sampled in kinds(fast)), (
        "the host makes masks while the device computes, for one of them"
    )
    free = made(folder, fast=True)
    answers(free, jobs(2))
    assert all(sampled for _, sampled in kinds(free))
    assert free.executor._logits is None  # type: ignore[attr-defined]


def emits_of(runner: Runner, jobs: list[Job]) -> dict[int, list[Emit]]:
    said: dict[int, list[Emit]] = {j.id: [] for j in jobs}
    left = list(jobs)
    while left or not runner.idle:
        for job in left[:2]:
            runner.add(job)
        left = left[2:]
        for emit in runner.step():
            said[emit.id].append(emit)
    return said


RULES = [
    None,
    LogitRules(repetition_penalty=1.6),
    LogitRules(bias=((17, 25.0), (30, -40.0)), min_tokens=4),
    LogitRules(presence_penalty=1.5, frequency_penalty=0.7, allowed=tuple(range(40, 200))),
    LogitRules(min_p=0.2),
]


@pytest.mark.parametrize(
    "temperatures",
    [(0.8, 0.0, 0.0, 0.8, 0.8), *(pytest.param((heat,) * 5, marks=pytest.mark.slow) for heat in (0.0, 0.8))],
    ids=["mixed", "greedy", "sampled"],
)
def test_rows_with_rules_and_log_probabilities_among_others(folder: Path, temperatures: tuple[float, ...]) -> None:
    """They say what the plain engine lets them say, with the same log probabilities; the others keep their graphs."""
    asked = [
        replace(j, max_new=5, rules=rules, ignore_eos=False, eos=(17,), stop_ids=(44,), temperature=heat)
        for j, rules, heat in zip(jobs(5), RULES, temperatures, strict=True)
    ]
    asked[0] = replace(asked[0], logprobs=3, prompt_logprobs=True)
    asked[2] = replace(asked[2], logprobs=0, prompt_logprobs=True)
    asked[3] = replace(asked[3], logprobs=2)
    fast = made(folder, fast=True, chunk=64)
    ours, theirs = emits_of(fast, asked), emits_of(made(folder, fast=False, chunk=64), asked)
    for job in asked:
        one, other = ours[job.id], theirs[job.id]
        assert [e.tokens for e in one if e.tokens] == [e.tokens for e in other if e.tokens]
        assert [e.finish for e in one][-1] == [e.finish for e in other][-1]
        for kind in ("scores", "prompt_scores"):
            a = [s for e in one for s in getattr(e, kind)]
            b = [s for e in other for s in getattr(e, kind)]
            assert [s[0] for s in a] == [s[0] for s in b]
            assert [s[1] for s in a] == pytest.approx([s[1] for s in b], abs=1e-3)
            assert [v for s in a for _, v in s[2]] == pytest.approx([v for s in b for _, v in s[2]], abs=1e-3)
        expected = len(job.ids) - 1 if job.prompt_logprobs else 0
        assert sum(len(e.prompt_scores) for e in one) == expected
    assert {("rows", False), ("chunk", False)} <= kinds(fast)
    assert not any(what == "both" and not sampled for what, sampled in kinds(fast))
    free = made(folder, fast=True)
    answers(free, jobs(2))
    assert all(sampled for _, sampled in kinds(free))


@pytest.mark.slow
def test_rows_with_bias_alone_keep_a_step_in_flight(folder: Path) -> None:
    """Only what depends on earlier tokens waits for them."""
    asked = [replace(j, rules=LogitRules(bias=((17, 3.0),)), logprobs=1) for j in jobs(3)]
    fast = made(folder, fast=True)
    assert answers(fast, asked) == answers(made(folder, fast=False), asked)
    assert fast.scheduler.constrained == 0


def test_thoughts_end_where_the_plain_engine_ends_them(folder: Path) -> None:
    """With a step in flight a row's last token is not known yet: near the end of its thought it is waited for, and only then."""
    asked = [
        Job(
            i,
            tuple(p),
            10,
            0.8 * (i % 2),
            seed=i,
            ignore_eos=True,
            thinking=JobThinking(None, (301,), (10, 301, 10), 3 * i) if i < 3 else None,
        )
        for i, p in enumerate(tiny.prompts(4, longest=20))
    ]
    plain, fast = made(folder, fast=False), made(folder, fast=True)
    waited: list[bool] = []
    fast.before_step = lambda step: waited.append(bool(fast.scheduler.constrained))
    expected = answers(plain, asked)
    assert answers(fast, asked) == expected
    assert [expected[i][3 * i : 3 * i + 3] for i in range(3)] == [[10, 301, 10]] * 3
    assert 0 < waited.count(True) < len(waited)


def kinds(runner: Runner) -> set[tuple[str, bool]]:
    """What went through the model together, and whether it was sampled there."""
    graphs: Any = runner.executor._graphs  # type: ignore[attr-defined]
    return {("both" if rows and chunk else "rows" if rows else "chunk", sampled) for rows, chunk, sampled in graphs}


def test_every_size_can_be_wanted() -> None:
    assert list(sizes.BATCH_SIZES) == sorted(sizes.BATCH_SIZES)
    assert list(sizes.CHUNK_SIZES) == sorted(sizes.CHUNK_SIZES)
