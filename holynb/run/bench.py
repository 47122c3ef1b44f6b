"""The same prompts over several routes, side by side: what each was measured to do, what it costs, what it takes to set up.

One route after the other, so that they do not share this machine; first one row alone (a pool starts, connections open: the cold row),
then all of them, streamed and never answered from the run log. Knows runs; shows nothing.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from holynb.config import Options, settings
from holynb.config.model_traits import HOSTED_MAX_TOKENS
from holynb.errors import BadOption, BadPrompt, HolynbError
from holynb.events import Ended, Started
from holynb.quality.intervals import wilson
from holynb.quality.matching import fold
from holynb.results import frame
from holynb.run import chunk_plan, plan
from holynb.run.labels import Labels, compared
from holynb.run.run import Run
from holynb.types import SIMULATED, Endpoint, Outcome, Route

if TYPE_CHECKING:
    import pandas as pd

    from holynb.run.plan import Plan

__all__ = ["COLUMNS", "PROMPTS", "Bench", "Measured", "measure", "measured", "plans", "setup", "table"]

#: What every route is asked where nothing else is said: short and long, four languages, four kinds of work.
REVIEWS = (
    "The parcel came two days late, but support answered within minutes and refunded the postage.",
    "Battery died after a week. The shop says it is my fault. Never again.",
    "배송은 빨랐지만 포장이 엉망이라 상자가 찌그러져 왔어요. 제품은 멀쩡합니다.",
    "Genau wie beschrieben, leise und sparsam. Nur die Anleitung ist unlesbar.",
    "箱を開けたら部品が一つ足りませんでした。連絡したらすぐ送ってくれました。",
)
TASKS = (
    "Is this review positive, negative or mixed? Answer with one word.\n\n{}",
    "Summarise this review in one short sentence.\n\n{}",
    "Write a friendly answer of three sentences to the author of this review.\n\n{}",
    "List what this review praises and what it criticises, as JSON with the keys praise and criticism.\n\n{}",
)
PROMPTS = tuple(task.format(review) for review in REVIEWS for task in TASKS)

#: Longest answer by default, in tokens.
MAX_TOKENS = 64
#: The load that a month is priced for: requests a day, and days.
REQUESTS_PER_DAY, DAYS_PER_MONTH = 10_000, 30

#: By provider, then by wire: what a person does before the first answer.
SETUP_STEPS: dict[str, tuple[str, ...]] = {
    "sim": (),
    "pool": ("%infer pool start MODEL (weights from a folder or the hub; it says whether they fit)",),
    "vllm": ("a machine with GPUs that the model fits on", "vllm serve MODEL", "VLLM_BASE_URL, or --api-base"),
    "ray": ("a cluster with GPUs", "an LLMConfig, and serve run", "RAY_BASE_URL, or --api-base"),
    "azure": ("an Azure subscription and an OpenAI resource", "a deployment of the model", "AZURE_OPENAI_ENDPOINT", "AZURE_OPENAI_API_KEY"),
    "vertex": (
        "a Google Cloud project, with the Vertex AI API",
        "pip install 'holynb[google]'",
        "gcloud auth application-default login",
        "GOOGLE_CLOUD_PROJECT",
    ),
    "sagemaker": (
        "an AWS account and its credentials",
        "pip install 'holynb[aws]'",
        "a model deployed to an endpoint on GPUs that you pay by the hour",
        "its request schema and response path in config.toml",
    ),
    "bedrock": (
        "an AWS account, with access to the model in its region",
        "AWS_BEARER_TOKEN_BEDROCK, or AWS credentials and pip install 'holynb[aws]'",
        "AWS_DEFAULT_REGION",
    ),
}


@dataclass(frozen=True, slots=True)
class Bench:
    """What to measure. `options`: sampling, timeouts, concurrency of a cell; `per_day`: requests a day that a month is priced for.
    `labels`: what each prompt should be answered.

    The address and the key name among the options hold for the first route's provider, as they hold for that of a cell.
    """

    routes: Sequence[str]
    prompts: Sequence[Any] = PROMPTS
    options: Options = field(default_factory=Options)
    per_day: int = REQUESTS_PER_DAY
    labels: Labels | None = None


@dataclass(frozen=True, slots=True)
class Measured:
    """One route. Seconds and dollars; None where nothing was measured or known. `cold_s`: the first row, a pool's start included.

    Of a bench with labels: `compared` answers, of which `accuracy` are right (95 %: `accuracy_low` to `accuracy_high`), and `failed` rows,
    which are in neither.
    """

    route: str
    rows: int
    ok: int
    error: str | None = None
    rows_per_s: float | None = None
    tokens_per_s: float | None = None
    cold_s: float | None = None
    ttft_p50_s: float | None = None
    ttft_p95_s: float | None = None
    latency_p50_s: float | None = None
    latency_p95_s: float | None = None
    tokens_in: float | None = None
    tokens_out: float | None = None
    context: int | None = None
    cost_1000: float | None = None
    cost_month: float | None = None
    simulated: bool = False
    steps: int = 0
    setup: str = ""
    compared: int | None = None
    accuracy: float | None = None
    accuracy_low: float | None = None
    accuracy_high: float | None = None
    failed: int | None = None


#: Dtypes of the frame, whatever was measured.
COLUMNS = {
    f.name: "string"
    if f.name in ("route", "error", "setup")
    else "boolean"
    if f.name == "simulated"
    else "Int64"
    if f.name in ("rows", "ok", "context", "steps", "compared", "failed")
    else "Float64"
    for f in fields(Measured)
}


def plans(bench: Bench) -> list[tuple[Plan, Plan]]:
    """For each route the plan of its cold row and the plan of all rows. Raises UserError for every mistake, before anything is sent."""
    routes = list(dict.fromkeys(settings.route(r) for r in bench.routes))
    if not routes:
        raise BadOption("A bench needs routes: R1,R2 (provider/model, or aliases).")
    if not bench.prompts:
        raise BadPrompt("A bench needs at least one prompt.")
    rows = bench.options.limit or len(bench.prompts)
    texts = [bench.prompts[i % len(bench.prompts)] for i in range(rows)]
    pairs = []
    for route in routes:
        options = replace(bench.options, limit=None, stream=True, cache=False, max_tokens=bench.options.max_tokens or _limit(route))
        cold, whole = (plan.make(some, str(route), options, addressed=routes[0]) for some in (texts[:1], texts))
        pairs.append((cold, whole))
    return pairs


def _limit(route: Route) -> int | None:
    """The longest answer by default. A model that thinks gets its own: in so few tokens it would come to none."""
    return None if plan.traits(route).longest() > HOSTED_MAX_TOKENS else MAX_TOKENS


def measure(bench: Bench) -> Iterator[Measured]:
    """Measure route after route, blocking. `error` says why nothing could be done on a route. Raises UserError before the first."""
    for pair in plans(bench):
        runs = []
        for each in pair:
            runs.append(Run(each).start())
            try:
                runs[-1].wait()
            except HolynbError:
                break
        yield measured(runs, bench)


def measured(runs: Sequence[Run], bench: Bench) -> Measured:
    """What the runs of one route (the cold row, then all rows; the last alone where the first failed) came to."""
    cold, run = runs[0], runs[-1]
    endpoint = run.plan.targets.endpoints[0]
    steps = setup(endpoint)
    facts = Measured(
        str(run.route),
        run.n,
        0,
        context=chunk_plan.context(endpoint),
        steps=len(steps),
        setup=" → ".join(steps),
        simulated=run.route.provider in SIMULATED,
    )
    facts = _with_quality(facts, run.rows(), bench.labels)
    good = [o for o in run.rows() if o is not None and o.status == "ok"]
    if not good:
        return replace(facts, error=_reason(run))
    seconds = _seconds(run)
    costs = [o.cost for o in good if o.cost is not None]
    each = float(sum(costs, Decimal(0))) / len(good) if len(costs) == len(good) else None
    out = [o.usage.tokens_out for o in good if o.usage.tokens_out is not None]
    return replace(
        _with_latencies(facts, good),
        ok=len(good),
        error=_reason(run),
        rows_per_s=len(good) / seconds if seconds else None,
        tokens_per_s=sum(out) / seconds if seconds and len(out) == len(good) else None,
        cold_s=_seconds(cold, whole=True),
        tokens_in=_mean([o.usage.tokens_in for o in good]),
        tokens_out=_mean(out),
        cost_1000=None if each is None else each * 1000,
        cost_month=None if each is None else each * bench.per_day * DAYS_PER_MONTH,
    )


def setup(endpoint: Endpoint) -> tuple[str, ...]:
    """What a person does before the first answer of this endpoint, as data."""
    if str(endpoint.route) == settings.EMBEDDED:
        return ()
    if (known := SETUP_STEPS.get(endpoint.route.provider, SETUP_STEPS.get(endpoint.wire))) is not None:
        return known
    key = f"a key from {endpoint.key_page}" if endpoint.key_page else "a key"
    return (key, f"%infer key {endpoint.route.provider}") if endpoint.key_name and not endpoint.key_optional else ()


def table(results: Sequence[Measured]) -> pd.DataFrame:
    """A line for each route, in the order they were asked."""
    return frame.from_columns({name: (dtype, [getattr(m, name) for m in results]) for name, dtype in COLUMNS.items()}, "route")


# -- figures -----------------------------------------------------------------------------------------------------------
def _seconds(run: Run, *, whole: bool = False) -> float | None:
    """From the first request to the last answer; `whole`: from the start of the run, so that a pool's start counts."""
    events, _ = run.journal.events_since(0)
    begun = run.started if whole else min((e.at for e in events if isinstance(e, Started)), default=None)
    ended = max((e.at for e in events if isinstance(e, Ended)), default=None)
    return None if begun is None or ended is None else max(ended - begun, 1e-6)


def _with_latencies(facts: Measured, good: Sequence[Outcome]) -> Measured:
    first = [o.ttft_s for o in good if o.ttft_s is not None]
    whole = [o.latency_s for o in good if o.latency_s is not None]
    return replace(
        facts,
        ttft_p50_s=_percentile(first, 50),
        ttft_p95_s=_percentile(first, 95),
        latency_p50_s=_percentile(whole, 50),
        latency_p95_s=_percentile(whole, 95),
    )


def _with_quality(facts: Measured, rows: Sequence[Outcome | None], labels: Labels | None) -> Measured:
    """Answers against the labels; prompts that are asked again are compared again."""
    if labels is None:
        return facts
    hits = answers = failed = 0
    for row, outcome in enumerate(rows):
        label = labels.of(row % len(labels.values))
        if label is None or outcome is None:
            continue
        answer = compared(outcome, labels, None, exact=labels.exact)
        answers += answer is not None
        hits += answer == fold(label, exact=labels.exact)
        failed += outcome.status in ("error", "cancelled")
    low, high = wilson(hits, answers) or (None, None)
    share = hits / answers if answers else None
    return replace(facts, compared=answers, accuracy=share, accuracy_low=low, accuracy_high=high, failed=failed)


def _percentile(values: Sequence[float], percent: int) -> float | None:
    """The percentile, linear between neighbours; None of nothing."""
    if len(values) < 2:
        return values[0] if values else None
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


def _mean(values: Sequence[int | None]) -> float | None:
    known = [v for v in values if v is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None


def _reason(run: Run) -> str | None:
    """Why rows are missing, in a line; None where none is."""
    if run.error is not None:
        return str(run.error)
    summary = run.summary()
    first = next((o for o in run.journal.rows if o is not None and o.status == "error"), None)
    if first is None:
        return "stopped" if summary.ok < summary.n else None
    return f"{summary.error} of {summary.n} failed: {first.error_type}: {first.error}"
