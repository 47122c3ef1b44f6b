"""What holynb says of money, held against what servers billed. Every figure of the money issue in one table.

    python tests/benchmarks/money.py [--runs 200] [--seeds 5] [--quick]

Everything runs over real sockets against local servers, which count tokens and keep the bill themselves. Exits 1 where a target is missed.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [p for p in (str(HERE.parent), str(HERE.parent.parent)) if p not in sys.path]

from routing_prompts import FIXTURE, UNSEEN  # noqa: E402
from servers.exact import Asked, Exact, Step, reply  # noqa: E402
from servers.reader import FACT, LIMIT, Reader, book  # noqa: E402

import holynb  # noqa: E402
from holynb import loop, runlog  # noqa: E402
from holynb.config import settings  # noqa: E402
from holynb.config.options import Options  # noqa: E402
from holynb.run import billing, plan, quote, routing  # noqa: E402
from holynb.scheduler.budget import Money  # noqa: E402
from holynb.ui.commands import roi as roi_command  # noqa: E402
from holynb.ui.commands import roi_report  # noqa: E402

MILLION = Decimal(1_000_000)
#: Runs under way at once: their retries wait beside each other.
TOGETHER = 10
KINDS = ("Classify this review as good or bad: {}", "Summarise in one sentence:\n\n{}", '{{"task": "extract", "text": "{}"}}')
WORDS = [
    "the",
    "parcel",
    "came",
    "late",
    "but",
    "support",
    "was",
    "kind",
    "and",
    "price",
    "fair",
    "배송이",
    "늦었지만",
    "고객센터가",
    "친절했어요",
    "품질이",
]
ARTICLE = {
    "gpt-4.1": "$800 to $1,600",
    "claude-sonnet-4": "$1,500 to $3,000",
    "gemini-2.5-flash": "$250 to $500",
    "deepseek-v3.2": "$42 to $84",
}


@dataclass(frozen=True)
class Figure:
    """One line of the table."""

    what: str
    target: str
    measured: str
    held: bool


@contextmanager
def place() -> Iterator[None]:
    """A HOLYNB_HOME of its own and a key, for as long as it takes."""
    with tempfile.TemporaryDirectory() as folder:
        before = {name: os.environ.get(name) for name in ("HOLYNB_HOME", "OPENAI_API_KEY")}
        os.environ.update(HOLYNB_HOME=folder, OPENAI_API_KEY="sk-test-0123456789abcdef")
        settings.reset()
        try:
            yield
        finally:
            loop.close()
            runlog.close()
            settings.reset()
            for name, value in before.items():
                os.environ.pop(name) if value is None else os.environ.update({name: value})


def pieces(text: str) -> int:
    """Tokens, by a tokenizer that nobody but this server has: four letters, a syllable of Hangul, or a mark."""
    return len(re.findall(r"[가-힣]|[a-z]{1,4}|[^\sa-z가-힣]", text.lower())) + 7


def answer(text: str, tokens_in: int, tokens_out: int) -> Step:
    """A whole chat completion, with usage."""
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
    return reply({"model": "m", "choices": [choice], "usage": {"prompt_tokens": tokens_in, "completion_tokens": tokens_out}})


# -- the budget ------------------------------------------------------------------------------------------------------------
@dataclass
class Shop:
    """A server with prices. Of a run it fails some requests, bills some of those failures all the same, and keeps each run's bill."""

    prices: dict[str, tuple[Decimal, Decimal]] = field(default_factory=dict)
    faults: dict[str, float] = field(default_factory=dict)
    billed: dict[str, Decimal] = field(default_factory=dict)

    def __call__(self, request: Asked, number: int) -> Sequence[Step]:
        said = request.json
        model, longest = said["model"], said["max_completion_tokens"]
        rng = random.Random(request.body + bytes([number % 251]))
        read = sum(pieces(m["content"]) for m in said["messages"])
        wrote = rng.randint(1, longest)
        fate = rng.random() / self.faults[model] if self.faults[model] else 2.0
        if fate < 0.05:
            return [0.001, reply({"error": {"message": "slow down", "type": "rate_limit_error"}}, 429, retry_after_ms="20")]
        if fate < 0.5:
            self._bill(model, read, rng.choice((0, wrote, longest)))  # it breaks in the middle of its work, and says nothing of tokens
            return [reply({"error": {"message": "boom", "type": "server_error"}}, 503, retry_after_ms="5")]
        if fate < 1:
            self._bill(model, read, wrote)
            whole = answer("cut", read, wrote)
            assert isinstance(whole, bytes)
            return [whole[:-20], "EOF"]
        self._bill(model, read, wrote)
        return [rng.random() / 200, answer("fine", read, wrote)]

    def _bill(self, model: str, read: int, wrote: int) -> None:
        a, b = self.prices[model]
        self.billed[model] = self.billed.get(model, Decimal(0)) + (read * a + wrote * b) / MILLION


def budgets(runs: int, seed: int = 1) -> list[Figure]:
    """Random prices, lengths, failures and concurrency: what was billed, what was counted, and the budget."""
    rng, shop = random.Random(seed), Shop()
    rows: list[tuple[float, float, float, bool]] = []
    kept, real = {}, billing.money

    def money(planned: plan.Plan, notice: Callable[[str], None], *paid: Any) -> Money:
        kept[planned.options.name] = real(planned, notice, *paid)
        return kept[planned.options.name]

    billing.money = money
    try:
        with place(), Exact(shop) as server:
            for start in range(0, runs, TOGETHER):
                names = [f"m{i}" for i in range(start, min(runs, start + TOGETHER))]
                made = [_budgeted(name, rng, shop, server) for name in names]
                for name, (run, cap, full) in zip(names, made, strict=True):
                    with suppress(holynb.InferError):
                        run.wait(120)
                    budget = kept[name].budget
                    assert budget is not None
                    refused = "budget" in set(run.frame()["error_type"].dropna())
                    rows.append((float(shop.billed.get(name, 0) / cap), float(budget.spent / cap), float(full / cap), refused))
                    assert budget.reserved == 0
                    assert budget.overrun == 0
    finally:
        billing.money = real
    billed, counted = max(r[0] for r in rows), max(r[1] for r in rows)
    scarce = [used for _, used, full, refused in rows if refused and full >= 1]
    least = min(scarce, default=0.0)
    return [
        Figure(f"budget, {runs} random runs: most billed, share of the budget", "<= 100 %", f"{billed:.1%}", billed <= 1),
        Figure("budget: most counted as spent, share of the budget", "<= 100 %", f"{counted:.1%}", counted <= 1),
        Figure(
            f"budget: least counted as spent where rows were left unsent ({len(scarce)} runs)",
            ">= 90 %",
            f"{least:.1%}",
            least >= 0.9 and bool(scarce),
        ),
    ]


def _budgeted(name: str, rng: random.Random, shop: Shop, server: Exact) -> tuple[Any, Decimal, Decimal]:
    """Start a run. Also its budget, and what its rows would cost if each were answered once at the mean length."""
    a, b = Decimal(rng.randint(1, 2000)) / 100, Decimal(rng.randint(1, 6000)) / 100
    shop.prices[name], shop.faults[name] = (a, b), rng.choice((0.0, 0.1, 0.3))
    settings.override(price={f"openai/{n}": {"input": float(x), "output": float(y)} for n, (x, y) in shop.prices.items()})
    longest = rng.choice((8, 32, 128))
    texts = [f"{i} " + " ".join(rng.choices(WORDS, k=rng.randint(1, rng.choice((10, 80, 300))))) for i in range(rng.randint(60, 160))]
    full = sum((pieces(t) * a + Decimal(longest + 1) / 2 * b) / MILLION for t in texts)
    cap = (full * Decimal(str(rng.choice((0.3, 0.5, 0.8, 3))))).quantize(Decimal("1e-9"))
    run = holynb.infer(
        texts,
        f"openai/{name}",
        api_base=server.base,
        name=name,
        budget=cap,
        max_tokens=longest,
        concurrency=rng.randint(1, 48),
        retries=rng.randint(0, 3),
    )
    return run, cap, full


# -- estimate and bill -----------------------------------------------------------------------------------------------------
def count(request: Asked, number: int) -> Sequence[Step]:
    """Answers as its kind of prompt asks."""
    body = request.json
    text, rng = body["messages"][-1]["content"], random.Random(request.body)
    wrote = (
        rng.randrange(1, 4)
        if text.startswith("Classify")
        else rng.randrange(20, 45)
        if text.startswith("Summarise")
        else rng.randrange(30, 70)
    )
    return [answer("fine", pieces(text), min(wrote, body["max_completion_tokens"]))]


def estimates(seeds: int, rows: int = 500) -> list[Figure]:
    """The range that a dry run shows after 20 rows were sent, for each kind of prompt and for all together, against the bill."""
    inside, widths = [], []
    with Exact(count) as server:
        for seed in range(seeds):
            for kinds in ([KINDS[0]], [KINDS[1]], [KINDS[2]], list(KINDS)):
                with place():
                    rng = random.Random(seed)
                    texts = [rng.choice(kinds).format(" ".join(rng.choices(WORDS, k=rng.randrange(20, 200)))) for _ in range(rows + 20)]
                    said = {"api_base": server.base, "max_tokens": 60}
                    holynb.infer(texts[:20], "openai/gpt-4.1", **said).wait(60)
                    made = plan.make(texts, "openai/gpt-4.1", Options.parse(said))
                    shown = quote.quote(made)
                    run = holynb.infer(texts, "openai/gpt-4.1", **said).wait(120)
                    bill = sum((o.cost for o in run.rows() if o is not None and o.cost is not None), Decimal(0))
                    low, high = shown.range or (Decimal(0), Decimal(0))
                    assert shown.rows == rows
                    inside.append(low <= bill <= high)
                    widths.append(float(high / low))
    return [
        Figure(
            f"estimate, {rows} rows, {len(inside)} runs of three kinds: bill inside the range",
            "all",
            f"{sum(inside)} of {len(inside)}",
            all(inside),
        ),
        Figure("estimate: widest range, high over low", "<= 2", f"{max(widths):.2f}", max(widths) <= 2),
    ]


# -- routing ---------------------------------------------------------------------------------------------------------------
def routes() -> list[Figure]:
    """The labelled prompts: the class that is heard, and where the dry run and the run send each."""
    right = [(routing.classify(text)[0] or "other") == task for task, text in FIXTURE]
    korean = [ok for ok, (_, text) in zip(right, FIXTURE, strict=True) if re.search("[가-힣]{2}", text)]
    with place():
        settings.override(router={"mine": {"routes": {"classification": "sim/echo", "analysis": "sim/stream"}, "other": "sim/echo"}})
        texts = [text for _, text in FIXTURE]
        dry = [
            str(d.route)
            for d in plan.make(texts, "sim/flaky", Options.parse({"router": "mine", "max_tokens": 2, "dry_run": True})).targets.decisions
        ]
        ran = holynb.infer(texts, "sim/flaky", router="mine", max_tokens=2).wait(120).frame()["route"].tolist()
    agree = sum(a == b for a, b in zip(dry, ran, strict=True))
    later = [(routing.classify(text)[0] or "other") == task for task, text in UNSEEN]
    share, unseen = sum(right) / len(right), sum(later) / len(later)
    return [
        Figure(f"routing, {len(right)} labelled prompts: class right", ">= 90 %", f"{share:.1%}", share >= 0.9),
        Figure(
            f"routing: class right among the {len(korean)} Korean ones",
            ">= 90 %",
            f"{sum(korean) / len(korean):.1%}",
            sum(korean) >= 0.9 * len(korean),
        ),
        Figure(f"routing: class right among {len(later)} written after the rules", ">= 90 %", f"{unseen:.1%}", unseen >= 0.9),
        Figure("routing: dry run and run agree, row by row", "all", f"{agree} of {len(dry)}", agree == len(dry) == len(FIXTURE)),
    ]


# -- long prompts ----------------------------------------------------------------------------------------------------------
def chunks(pages: int = 200) -> list[Figure]:
    """A book with a fact on each page, through `--chunk` on a server that refuses what is longer than it takes."""
    reader = Reader()
    with place(), Exact(reader) as server:
        text = f"List every code in the text below, in order.\n\n{book(pages)}"
        began = time.perf_counter()
        run = holynb.infer([text], "openai/gpt-4.1-mini", api_base=server.base, max_tokens=200, chunk=str(LIMIT)).wait(300)
        took = time.perf_counter() - began
    parts = run.chunks().xs(1, level="round")["prompt"]
    facts = list(dict.fromkeys(f for p in parts for f in FACT.findall(p)))
    wanted = [f"K{i:04}" for i in range(pages)]
    said = str(run.frame()["text"].iloc[0]).split()
    return [
        Figure(
            f"--chunk, {pages} pages ({len(text):,} characters): parts, and seconds in all",
            "",
            f"{len(parts)}, {took:.1f} s",
            len(parts) > 1,
        ),
        Figure(
            f"--chunk: requests refused as too long, longest accepted of {LIMIT:,} tokens",
            "0",
            f"{reader.refused}, {max(reader.sizes):,}",
            not reader.refused,
        ),
        Figure("--chunk: facts in some part, in order", "all", f"{len(facts)} of {pages}", facts == wanted),
        Figure("--chunk: facts in the answer put together, in order", "all", f"{len(said)} of {pages}", said == wanted),
    ]


# -- --schema --------------------------------------------------------------------------------------------------------------
HELD = {
    "type": "object",
    "properties": {"label": {"enum": ["good", "bad"]}, "stars": {"type": "integer", "minimum": 1, "maximum": 5}},
    "required": ["label", "stars"],
}
#: The ways in which an answer breaks: torn off, a word too many, a figure out of its range, a property left out.
BROKEN = ('{"label": "good", "st', "I would say good.", '{"label": "good", "stars": 7}', '{"label": "good"}')


def schemas(rows: int = 2000, share: float = 0.1) -> list[Figure]:
    """A server without structured output that breaks a share of its answers, by what it is asked; repairs no less than others.

    So a row fails with the probability of `share` squared, and at a tenth the target is what is to be expected.
    """
    seen = {"broken": 0, "asked": 0}

    def clerk(request: Asked, number: int) -> Sequence[Step]:
        seen["asked"] += 1
        dice = random.Random("".join(m["content"] for m in request.json["messages"]))
        broken = dice.random() < share
        seen["broken"] += broken
        text = dice.choice(BROKEN) if broken else f'{{"label": "{dice.choice(("good", "bad"))}", "stars": {dice.randint(1, 5)}}}'
        message = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
        return [reply({"model": "clerk", "choices": [message], "usage": {"prompt_tokens": 50, "completion_tokens": 9, "total_tokens": 59}})]

    with place(), Exact(clerk) as server:
        settings.override(provider={"clerk": {"base": server.base, "options": {"structured": False}}})
        frame = holynb.infer([f"Review number {i}" for i in range(rows)], "clerk/clerk", schema=HELD).wait().frame()
    valid, attempts = int(frame["stars"].notna().sum()), int(frame["attempts"].sum())
    return [
        Figure(
            f"--schema, {rows:,} rows, {share:.0%} of answers broken: rows valid after one repair",
            ">= 99 %",
            f"{valid / rows:.2%}",
            valid >= 0.99 * rows,
        ),
        Figure("--schema: answers that the server broke", "", f"{seen['broken']:,} of {seen['asked']:,}", seen["broken"] > 0),
        Figure("--schema: attempts counted, requests seen", "equal", f"{attempts:,}, {seen['asked']:,}", attempts == seen["asked"]),
    ]


# -- %infer roi ------------------------------------------------------------------------------------------------------------
def roi() -> list[Figure]:
    """The mission's table, to the dollar range."""
    with place():
        lines = roi_report.as_text(
            roi_command.parse_args(["--requests-per-day", "10000", "--tokens", "333..667", "--provider", "holysheep"])
        ).splitlines()
    told = {m: next((line for line in lines if line.startswith(f"holysheep/{m} ")), "") for m in ARTICLE}
    return [
        Figure(f"%infer roi: {model} a month", span, span if span in told[model] else told[model], span in told[model])
        for model, span in ARTICLE.items()
    ]


def table(figures: Sequence[Figure]) -> str:
    """The figures as a page shows them."""
    width = max(len(f.what) for f in figures)
    return "\n".join(f"{f.what:<{width}}  {f.target:>18}  {f.measured:>18}  {'held' if f.held else 'MISSED'}" for f in figures)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200, help="random runs under a budget")
    parser.add_argument("--seeds", type=int, default=5, help="estimates of each kind of prompt")
    parser.add_argument("--quick", action="store_true", help="a tenth of it: does everything run")
    args = parser.parse_args()
    runs, seeds = (args.runs // 10, 1) if args.quick else (args.runs, args.seeds)
    figures = [*budgets(runs), *estimates(seeds), *routes(), *chunks(), *schemas(200 if args.quick else 2000), *roi()]
    print(table(figures))
    return 0 if all(f.held for f in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
