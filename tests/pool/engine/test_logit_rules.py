"""Rows with penalties, bias, minimum length and log probabilities, against transformers' processors on the same random model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ranks
import tiny

torch = pytest.importorskip("torch")

from holynb.pool.engine.cache import BlockAllocator  # noqa: E402
from holynb.pool.engine.logit_rules import apply_rules  # noqa: E402
from holynb.pool.engine.runner import Runner  # noqa: E402
from holynb.pool.engine.sample import CPU, SamplingDevice, sample_rows, sampling_params  # noqa: E402
from holynb.pool.engine.scheduler import BatchScheduler  # noqa: E402
from holynb.pool.engine.sequence import Seq  # noqa: E402
from holynb.pool.fit.limits import BatchLimits  # noqa: E402
from holynb.pool.protocol import Emit, Job, LogitRules, job_values  # noqa: E402
from kernels_support.gpu.sampling import SamplingParams  # noqa: E402

VOCAB = 320


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("llama")
    return folder, tiny.make("llama", folder)


def runner(folder: Path, blocks: int = 64, **limits: int) -> Runner:
    made = Runner(folder)
    made.limits = BatchLimits(**{"batch": 8, "chunk": 64, "max_len": 256} | limits)
    made.blocks = BlockAllocator(blocks, 16)
    made.scheduler = BatchScheduler(made.blocks, made.limits)
    return made


def emitted(made: Runner, jobs: list[Job]) -> dict[int, list[Emit]]:
    out: dict[int, list[Emit]] = {j.id: [] for j in jobs}
    for job in jobs:
        made.add(job)
    while not made.idle:
        for emit in made.step():
            out[emit.id].append(emit)
    return out


def tokens(emits: list[Emit]) -> list[int]:
    return [t for e in emits for t in e.tokens]


def sequence(ids: list[int], answer: list[int], rules: LogitRules, **more: Any) -> Seq:
    """As the engine has it when the next token is chosen: one is pending."""
    seq = Seq(Job(1, tuple(ids), 50, rules=rules, **more))
    seq.tokens += answer
    seq.pending = 1
    return seq


def generated(reference: Any, ids: list[int], count: int, **settings: Any) -> list[int]:
    """transformers' greedy answer under its own processors."""
    with torch.no_grad():
        out: list[int] = reference.generate(
            torch.tensor([ids]), attention_mask=torch.ones(1, len(ids)), max_new_tokens=count, do_sample=False, pad_token_id=0, **settings
        )[0, len(ids) :].tolist()
    return out


def test_logits_are_exactly_what_transformers_makes_of_them() -> None:
    from transformers import MinNewTokensLengthLogitsProcessor, RepetitionPenaltyLogitsProcessor

    torch.manual_seed(1)
    logits = torch.randn(3, VOCAB) * 5
    ids, said = [5, 6, 7, 6, 300], [9, 5, 9]
    rules = [LogitRules(repetition_penalty=1.7), LogitRules(repetition_penalty=0.6, min_tokens=4), LogitRules(min_tokens=3)]
    seqs = [sequence(ids, said, r, eos=(2, 11), stop_ids=(7,)) for r in rules]
    ours = logits.clone()
    apply_rules(ours, seqs, CPU.send)
    everything = torch.tensor([ids + said])
    theirs = logits.clone()
    theirs[0:1] = RepetitionPenaltyLogitsProcessor(1.7)(everything, logits[0:1])
    theirs[1:2] = RepetitionPenaltyLogitsProcessor(0.6)(everything, logits[1:2])
    theirs[1:2] = MinNewTokensLengthLogitsProcessor(len(ids), 4, [2, 11, 7])(everything, theirs[1:2])
    assert torch.equal(ours, theirs)


def test_penalties_over_the_answer_and_bias_as_openai_defines_them() -> None:
    logits = torch.zeros(2, VOCAB)
    rules = LogitRules(presence_penalty=0.5, frequency_penalty=0.25, bias=((9, 2.0), (9, 1.0), (40, -100.0)))
    apply_rules(logits, [sequence([5, 9], [9, 5, 9], rules), sequence([1], [1], LogitRules(allowed=(3, 4)))], CPU.send)
    expected = torch.zeros(VOCAB)
    expected[9], expected[5], expected[40] = 3.0 - 2 * 0.25 - 0.5, -0.25 - 0.5, -100.0
    assert torch.equal(logits[0], expected)
    assert logits[1].isfinite().nonzero()[:, 0].tolist() == [3, 4]


def test_end_tokens_that_are_ignored_need_no_mask() -> None:
    logits = torch.zeros(1, VOCAB)
    apply_rules(logits, [sequence([1], [], LogitRules(min_tokens=1), eos=(2,), stop_ids=(7,), ignore_eos=True)], CPU.send)
    assert logits.isinf().nonzero()[:, 1].tolist() == [7]


@pytest.mark.parametrize("min_p", [0.02, 0.3])
def test_min_p_keeps_what_transformers_keeps(min_p: float) -> None:
    from transformers import MinPLogitsWarper, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

    torch.manual_seed(2)
    logits = torch.randn(1, VOCAB) * 2
    kept = TemperatureLogitsWarper(0.7)(None, logits)
    for warper in (TopKLogitsWarper(40), TopPLogitsWarper(0.9), MinPLogitsWarper(min_p)):
        kept = warper(None, kept)
    seqs = []
    for seed in range(3000):
        seq = sequence([1], [], LogitRules(min_p=min_p), temperature=0.7, top_k=40, top_p=0.9, seed=seed)
        seqs.append(seq)
    drawn = sample_rows(logits.expand(3000, VOCAB).clone(), seqs, sampling_params(seqs), CPU)
    assert set(drawn.tolist()) <= set(kept[0].isfinite().nonzero()[:, 0].tolist())
    frequencies = torch.bincount(drawn, minlength=VOCAB) / 3000
    assert torch.allclose(frequencies, kept[0].softmax(-1), atol=0.03)


SETTINGS: list[tuple[LogitRules, dict[str, Any]]] = [
    (LogitRules(repetition_penalty=1.8), {"repetition_penalty": 1.8}),
    (LogitRules(repetition_penalty=0.5), {"repetition_penalty": 0.5}),
    (LogitRules(bias=((17, 30.0), (99, -50.0))), {"sequence_bias": {(17,): 30.0, (99,): -50.0}}),
    (LogitRules(repetition_penalty=1.3, bias=((17, 9.0),)), {"repetition_penalty": 1.3, "sequence_bias": {(17,): 9.0}}),
]


def test_greedy_answers_are_transformers_own(model: tuple[Path, Any]) -> None:
    folder, reference = model
    prompts = tiny.prompts(len(SETTINGS), longest=40)
    jobs = [Job(i, tuple(p), 12, rules=rules, ignore_eos=True) for i, (p, (rules, _)) in enumerate(zip(prompts, SETTINGS, strict=True))]
    plain = [Job(100 + i, tuple(p), 12, ignore_eos=True) for i, p in enumerate(prompts)]
    said = emitted(runner(folder), jobs + plain)
    for job, ids, (_, settings) in zip(jobs, prompts, SETTINGS, strict=True):
        expected = generated(reference, ids, 12, min_new_tokens=12, eos_token_id=None, **settings)
        assert tokens(said[job.id]) == expected
        assert tokens(said[100 + job.id]) == tiny.greedy(reference, ids, 12), "a row beside it says what it says alone"
    assert any(tokens(said[j.id]) != tokens(said[100 + j.id]) for j in jobs), "the rules do something"


def test_min_tokens_and_stop_ids_end_where_transformers_does(model: tuple[Path, Any]) -> None:
    folder, reference = model
    ids = tiny.prompts(1)[0]
    free = tiny.greedy(reference, ids, 12)
    stop = free[2]
    jobs = [
        Job(1, tuple(ids), 12, stop_ids=(stop,), ignore_eos=True),
        Job(2, tuple(ids), 12, eos=(stop,), rules=LogitRules(min_tokens=6)),
    ]
    said = emitted(runner(folder), jobs)
    assert tokens(said[1]) == free[: free.index(stop)]
    assert said[1][-1].finish == "stop"
    expected = generated(reference, ids, 12, min_new_tokens=6, eos_token_id=stop)
    assert tokens(said[2]) == expected[: expected.index(stop) if stop in expected else None]
    assert len(tokens(said[2])) >= 6


def test_log_probabilities_are_the_models_own(model: tuple[Path, Any]) -> None:
    """Of prompt and answer, whatever the rules then do, in pieces of a prompt and after a preemption too."""
    folder, reference = model
    prompts = tiny.prompts(4, longest=90)
    jobs = [
        Job(i, tuple(p), 6, ignore_eos=True, logprobs=i, prompt_logprobs=i % 2 == 0, rules=LogitRules(bias=((17, 30.0),)) if i else None)
        for i, p in enumerate(prompts)
    ]
    for made in (runner(folder), runner(folder, blocks=12, chunk=16, batch=4)):
        said = emitted(made, jobs)
        for job in jobs:
            emits = said[job.id]
            whole = [*job.ids, *tokens(emits)]
            with torch.no_grad():
                logs = reference(torch.tensor([whole])).logits[0].float().log_softmax(-1)
            scores = [s for e in emits for s in e.scores]
            assert [s[0] for s in scores] == tokens(emits)
            prompt = [s for e in emits for s in e.prompt_scores]
            assert [s[0] for s in prompt] == (list(job.ids[1:]) if job.prompt_logprobs else [])
            first = 1 if prompt else len(job.ids)
            for position, (token, own, top) in enumerate([*prompt, *scores], first):
                assert own == pytest.approx(logs[position - 1, token].item(), abs=1e-3)
                assert len(top) == job.logprobs
                best = logs[position - 1].topk(max(1, len(top))).values.tolist()
                assert [v for _, v in top] == pytest.approx(best[: len(top)], abs=1e-3)
                assert dict(top).get(token, own) == own, "exactly: whoever compares them finds the token among them"
        assert made.blocks.free == made.blocks.total


def test_the_end_token_is_scored_too(model: tuple[Path, Any]) -> None:
    folder, reference = model
    ids = tiny.prompts(1)[0]
    end = tiny.greedy(reference, ids, 1)[0]
    (emit,) = [e for e in emitted(runner(folder), [Job(1, tuple(ids), 5, eos=(end,), logprobs=1)])[1] if e.finish]
    assert (emit.tokens, emit.finish, emit.scores[0][0]) == ((), "stop", end)


def test_a_prompts_log_probabilities_are_not_cut_short_by_the_prefix_cache(model: tuple[Path, Any]) -> None:
    folder, _ = model
    ids = tuple(range(5, 85))
    made = runner(folder)
    emitted(made, [Job(1, ids, 2, ignore_eos=True)])
    emits = emitted(made, [Job(2, ids, 2, ignore_eos=True, logprobs=0, prompt_logprobs=True)])[2]
    assert sum(len(e.prompt_scores) for e in emits) == len(ids) - 1


@pytest.mark.parametrize("cut", [{"tensor": 2}, {"pipe": 2}])
def test_a_divided_model_chooses_and_scores_alike(model: tuple[Path, Any], cut: dict[str, int]) -> None:
    """A pipeline's last stage computes log probabilities, and its first one, on the other end, emits them."""
    folder, _ = model
    prompts = [tuple(p) for p in tiny.prompts(4, longest=30)]
    jobs = [
        Job(1, prompts[0], 5, rules=LogitRules(repetition_penalty=1.8, bias=((17, 3.0),)), ignore_eos=True),
        Job(2, prompts[1], 5, logprobs=2, prompt_logprobs=True, ignore_eos=True),
        Job(3, prompts[2], 5, rules=LogitRules(frequency_penalty=1.5, min_tokens=3), eos=(17,), logprobs=0),
        Job(4, prompts[3], 5, ignore_eos=True),
    ]
    emits = emitted(runner(folder), jobs)
    said = ranks.answers(folder, [job_values(j) for j in jobs], **cut)
    for job in jobs:
        scores = [s[1] for e in emits[job.id] for s in (*e.prompt_scores, *e.scores)]
        assert said[job.id] == (pytest.approx(scores, abs=1e-3) if scores else tokens(emits[job.id]))


def test_only_rows_that_need_more_are_sampled_once_more() -> None:
    calls: list[int] = []

    def counted(logits: Any, params: SamplingParams, min_p: Any) -> Any:
        calls.append(len(logits))
        return CPU.sample(logits, params, min_p)

    seqs = [sequence([1], [], LogitRules(bias=((3, 9.0),))), Seq(Job(2, (1,), 5)), Seq(Job(3, (1,), 5, logprobs=2))]
    logits = torch.randn(3, VOCAB)
    before = logits.clone()
    sample_rows(logits, seqs, sampling_params(seqs), SamplingDevice(counted, CPU.send))
    assert calls == [3, 1]
    assert torch.equal(logits, before)


def test_what_the_scheduler_must_wait_for() -> None:
    job = Job(1, (1,), 5)
    assert job.plain
    assert not job.sequential
    for rules, sequential in (
        (LogitRules(repetition_penalty=1.1), True),
        (LogitRules(frequency_penalty=0.1), True),
        (LogitRules(bias=((1, 1.0),), min_tokens=3, min_p=0.1), False),
    ):
        assert replace(job, rules=rules).sequential is sequential
        assert not replace(job, rules=rules).plain
