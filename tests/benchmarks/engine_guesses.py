"""Prompt lookup on one GPU, on and off in turns. A line of JSON a figure.

    python tests/benchmarks/engine_guesses.py [--sizes 0.6b,8b] [--device cpu --sizes tiny] [--limit 140]

Weights: of Qwen3's shapes, bfloat16. "successor": random, but the head holds for each token the embedding of the one before it, and what layers
add to the stream is scaled to 1e-4, so that each token has a fixed successor, whatever rounding does; every product and all attention run as
always. Tokens below CYCLED go round in circles of CIRCLE (an answer then repeats its prompt for ever: it quotes all of it), the others in one
large circle (an answer repeats nothing). "random": as they are.
Guesses: "lookup" is the real index. "oracle P" knows the answer and says each token right with probability P, independently: no real text, a
set rate. "always wrong" guesses after each token and never right: the worst case. Times are from first to last token, prompts left out.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import statistics
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

said = argparse.ArgumentParser()
said.add_argument("--device", default="cuda:0")
said.add_argument("--sizes", default="0.6b,8b")
said.add_argument("--rounds", type=int, default=3)
said.add_argument("--new", type=int, default=256)
said.add_argument("--limit", type=float, default=140.0, help="seconds after which nothing more is begun")
args = said.parse_args()
BEGIN = time.time()
sys.path.insert(0, str(Path(__file__).parents[2]))

import engine_gpu  # noqa: E402
import torch  # noqa: E402

from holynb.pool.engine.guesses import NgramIndex  # noqa: E402
from holynb.pool.engine.load import random_weights  # noqa: E402
from holynb.pool.engine.runner import Runner  # noqa: E402
from holynb.pool.fit import read_spec  # noqa: E402
from holynb.pool.protocol import Job  # noqa: E402

CUDA = args.device != "cpu"
engine_gpu.SIZES["tiny"] = {"hidden_size": 256, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
                            "head_dim": 16, "vocab_size": 4000, "eos_token_id": 3999}  # fmt: skip
TINY = "tiny" in args.sizes
CIRCLE, CYCLED = (48, 1920) if TINY else (48, 48000)
real_guess = NgramIndex.guess


def show(**what: Any) -> None:
    print(json.dumps({"s": round(time.time() - BEGIN, 1)} | what, default=str), flush=True)


def successors(vocab: int) -> torch.Tensor:
    after = torch.arange(1, vocab + 1)
    after[-1] = CYCLED
    low = torch.arange(CYCLED)
    after[:CYCLED] = low // CIRCLE * CIRCLE + (low + 1) % CIRCLE
    return after


def weights(spec: Any, device: str, dtype: torch.dtype, kind: str) -> Any:
    plain = random_weights(spec, device, dtype)
    if kind == "random":
        return plain
    table = torch.empty(spec.vocab, spec.hidden, dtype=dtype, device=device).normal_(
        std=0.02, generator=torch.Generator(device).manual_seed(5)
    )
    before = torch.empty(spec.vocab, dtype=torch.int64)
    before[successors(spec.vocab)] = torch.arange(spec.vocab)
    before = before.to(device)

    def read(name: str, rows: Any = None, columns: Any = None) -> Any:
        if "embed_tokens" in name or "lm_head" in name:
            whole = table if "embed" in name else table[before] * (10 if TINY else 1)  # few dimensions tell tokens apart badly
            whole = whole[rows[0] : rows[1]] if rows else whole
            return whole[:, columns[0] : columns[1]].contiguous() if columns else whole.clone()
        tensor = plain(name, rows, columns)
        return tensor.mul_(1e-4) if tensor is not None and ("o_proj" in name or "down_proj" in name) else tensor

    return read


def runner_of(size: str, kind: str, dtype: str = "bfloat16", layers: int | None = None, memory: float = 0.5) -> Runner:
    gc.collect()
    if CUDA:
        torch.cuda.empty_cache()
    path = Path(tempfile.mkdtemp()) / size
    path.mkdir()
    config = engine_gpu.COMMON | engine_gpu.SIZES[size] | {"tie_word_embeddings": False}
    config |= {"num_hidden_layers": layers} if layers else {}
    (path / "config.json").write_text(json.dumps(config))
    spec = read_spec(path)
    wide = torch.float32 if dtype == "float32" or not CUDA else torch.bfloat16
    runner = Runner(
        path, device=args.device, dtype=dtype if CUDA else None, max_len=2112, memory=memory, source=weights(spec, args.device, wide, kind)
    )
    if CUDA:
        runner._use_kernels(None)  # no step of plain torch: it rounds otherwise
        for rows in (1, 2, 4, 8, 16, 32):
            runner.executor.graph(rows)
    show(size=size, weights=kind, dtype=runner.dtype, layers=spec.layers, ready=True)
    return runner


def prompts(rows: int, length: int, *, quoting: bool, seed: int, vocab: int) -> list[tuple[int, ...]]:
    """Quoting: random tokens, a circle, random tokens, and the circle's beginning. Else random ones of those that repeat nothing."""
    dice, out = random.Random(seed), []
    for _ in range(rows):
        noise = [dice.randrange(CYCLED, vocab - 4 * args.new) for _ in range(length)]
        if quoting:
            base = dice.randrange(CYCLED // CIRCLE) * CIRCLE
            circle = [base + (i + 11) % CIRCLE for i in range(CIRCLE)]
            noise = (noise[: length - CIRCLE - 12] + circle + noise[-8:] + circle[:4])[-length:]
        out.append(tuple(noise))
    return out


def run(runner: Runner, asked: list[Job], on: bool) -> dict[str, Any]:
    """Tokens by job, and milliseconds a token and row from the first token to the last."""
    speculation = runner.scheduler.speculation
    speculation.most = 32 if on else 0
    before = speculation.guessed, speculation.accepted
    tokens: dict[int, list[int]] = {j.id: [] for j in asked}
    for job in asked:
        runner.add(job)
    steps = verified = 0

    def counted(step: Any) -> None:
        nonlocal steps, verified
        steps, verified = steps + 1, verified + bool(step.guesses)

    runner.before_step, first = counted, 0.0
    while not runner.idle:
        for emit in runner.step():
            tokens[emit.id] += emit.tokens
        if not first and all(tokens.values()):
            first, least = time.perf_counter(), sum(map(len, tokens.values()))
    wall = time.perf_counter() - first
    runner.before_step = None
    assert all(len(tokens[j.id]) == j.max_new for j in asked), "every token, once"
    new = sum(map(len, tokens.values())) - least
    return {"ms": 1e3 * wall * len(asked) / new, "tokens": tokens, "steps": steps, "verified": verified,
            "guessed": speculation.guessed - before[0], "accepted": speculation.accepted - before[1]}  # fmt: skip


def follows(answers: dict[tuple[int, ...], list[int]], vocab: int) -> bool:
    after = successors(vocab).tolist()
    return all(after[a] == b for ids, answer in answers.items() for a, b in zip([ids[-1], *answer[:-1]], answer, strict=True))


def oracle(answers: dict[tuple[int, ...], list[int]], right: float) -> Any:
    dice = random.Random(9)

    def guess(index: NgramIndex, count: int) -> tuple[int, ...]:
        index.match, tokens = 4, index._tokens
        ids = next(ids for ids in answers if tokens[: len(ids)] == list(ids))
        at = len(tokens) - len(ids)
        return tuple(t if dice.random() < right else t ^ 1 for t in answers[ids][at : at + count])

    return guess


def compare(runner: Runner, name: str, *, rows: int, length: int, quoting: bool, right: float | None = None, heat: float = 0.6) -> None:
    if time.time() - BEGIN > args.limit:
        show(figure=name, skipped="time is up")
        return
    try:
        figures: dict[bool, list[dict[str, Any]]] = {True: [], False: []}
        equal = True
        for turn in range(args.rounds + 1):
            ids = prompts(rows, length, quoting=quoting, seed=100 * turn + rows, vocab=runner.spec.vocab)
            asked = [Job(i, p, args.new, heat, seed=i, ignore_eos=True) for i, p in enumerate(ids)]
            NgramIndex.guess = real_guess
            plain = run(runner, asked, on=False)  # prompts are in the cache from here on, for both
            answers = {p: plain["tokens"][i] for i, p in enumerate(ids)}
            if not follows(answers, runner.spec.vocab):
                show(figure=name, wrong="the weights do not make each token's successor follow")
            for on in (True, False) if turn % 2 else (False, True):
                NgramIndex.guess = oracle(answers, right) if on and right is not None else real_guess
                came = run(runner, asked, on)
                equal = equal and came["tokens"] == plain["tokens"]
                if turn:  # the first round captures graphs and measures steps
                    figures[on].append(came)
        off_ms, on_ms = (statistics.median(f["ms"] for f in figures[on]) for on in (False, True))
        last = figures[True][-1]
        show(figure=name, rows=rows, prompt=length, new=args.new, guesses="lookup" if right is None else f"oracle {right}" if right else "always wrong",
             ms_off=round(off_ms, 4), ms_on=round(on_ms, 4), times_as_fast=round(off_ms / on_ms, 3), same_tokens=equal,
             all_off=[round(f["ms"], 4) for f in figures[False]], all_on=[round(f["ms"], 4) for f in figures[True]],
             **{k: last[k] for k in ("steps", "verified", "guessed", "accepted")})  # fmt: skip
    except Exception as exc:
        show(figure=name, error=repr(exc), where=traceback.format_exc()[-700:])
        raise
    finally:
        NgramIndex.guess = real_guess


def costs(runner: Runner, name: str) -> None:
    """What steps were measured to take: milliseconds by (guesses?, captured size)."""
    kinds = runner.scheduler.speculation.times._kinds
    show(
        figure=name,
        ms={
            f"{'guesses' if g else 'plain'} {n}": round(1e3 * statistics.median(k.times), 4)
            for (g, n), k in sorted(kinds.items())
            if k.times
        },
    )


def agreement(runner: Runner, name: str, *, heat: float, rows: int = 4) -> None:
    """Random weights: tokens until the first that differs, on and off; prompts that repeat themselves, whose greedy answers soon do, too."""
    if time.time() - BEGIN > args.limit:
        show(figure=name, skipped="time is up")
        return
    try:
        dice = random.Random(3)
        heads = [[dice.randrange(5, runner.spec.vocab) for _ in range(40)] for _ in range(rows)]
        asked = [Job(i, tuple(h * 3), min(args.new, 200), heat, seed=i, ignore_eos=True) for i, h in enumerate(heads)]
        off = run(runner, asked, on=False)["tokens"]
        NgramIndex.guess = oracle(
            {j.ids: off[j.id] for j in asked}, 0.8
        )  # so that guesses are accepted and refused, whatever the model says
        on = run(runner, asked, on=True)
        alike = {i: next((k for k, (a, b) in enumerate(zip(off[i], on["tokens"][i], strict=True)) if a != b), len(off[i])) for i in off}
        NgramIndex.guess = real_guess
        again = run(runner, asked, on=True)
        show(figure=name, heat=heat, equal_oracle=on["tokens"] == off, tokens_alike=alike, guessed=on["guessed"], accepted=on["accepted"],
             equal_lookup=again["tokens"] == off, lookup_accepted=again["accepted"], lookup_guessed=again["guessed"],
             all_again=run(runner, asked, on=False)["tokens"] == off)  # fmt: skip
    except Exception as exc:  # noqa: BLE001
        show(figure=name, error=repr(exc), where=traceback.format_exc()[-700:])
    finally:
        NgramIndex.guess = real_guess


def table(size: str, *, whole: bool) -> None:
    runner = runner_of(size, "successor")
    try:
        compare(runner, f"{size} quotes all", rows=1, length=128, quoting=True)
        compare(runner, f"{size} nothing to guess", rows=1, length=128, quoting=False)
        compare(runner, f"{size} always wrong", rows=1, length=128, quoting=False, right=0.0)
        compare(runner, f"{size} oracle", rows=1, length=128, quoting=False, right=0.7)
        compare(runner, f"{size} nothing to guess", rows=8, length=128, quoting=False)
        compare(runner, f"{size} always wrong", rows=8, length=128, quoting=False, right=0.0)
        compare(runner, f"{size} quotes all", rows=8, length=128, quoting=True)
        if whole:
            compare(runner, f"{size} oracle", rows=1, length=128, quoting=False, right=0.9)
            compare(runner, f"{size} oracle", rows=8, length=128, quoting=False, right=0.9)
            compare(runner, f"{size} quotes all", rows=4, length=128, quoting=True)
            compare(runner, f"{size} quotes all, long", rows=1, length=1800, quoting=True)
            compare(runner, f"{size} nothing to guess, long", rows=1, length=1800, quoting=False)
    except Exception:  # noqa: BLE001 - said already; a runner in the midst of a step is of no more use
        pass
    costs(runner, f"{size} steps")


def main() -> None:
    show(device=torch.cuda.get_device_name() if CUDA else "cpu", torch=torch.__version__)
    sizes = args.sizes.split(",")
    table(sizes[0], whole=True)
    runner = runner_of(sizes[0], "random", "float32", layers=2 if TINY else 6, memory=0.3)
    agreement(runner, f"float32 {sizes[0]}, few layers, greedy", heat=0.0)
    agreement(runner, f"float32 {sizes[0]}, few layers, sampled", heat=0.3)
    del runner
    if CUDA:
        runner = runner_of(sizes[0], "random", memory=0.3)
        agreement(runner, f"bfloat16 {sizes[0]}, greedy", heat=0.0)
        agreement(runner, f"bfloat16 {sizes[0]}, sampled", heat=0.6)
        del runner
    for size in sizes[1:]:
        args.new, args.rounds = 128, 2
        table(size, whole=False)
    show(done=True)


main()
