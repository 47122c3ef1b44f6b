"""`holynb demo`: a real job on any machine. The summaries of the installed distributions are shortened and labelled by topic.

Twice: through the local pool, and over HTTP through the pool's own OpenAI-compatible port. The topics are scored against the distributions'
own `Topic ::` classifiers, beside the baseline that always names the commonest topic. Knows runs and pools; knows no notebook.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import distributions
from typing import TYPE_CHECKING, Any

from holynb.ui.output import clean, clip, grid

if TYPE_CHECKING:
    import pandas as pd

    from holynb.pools import PoolInfo
    from holynb.run import Run

__all__ = ["LABELS", "Distribution", "Score", "main", "rows", "score", "shorten_prompts", "topic_prompts"]

#: Topic of a classifier → the label that the model is asked for.
LABELS = {"Text Processing": "text", "Scientific/Engineering": "science", "Internet": "web"}

#: Examples are turns of a chat: of the ways tried (in the system prompt, in the question), the one that this model follows. None is an
#: installed distribution. They and their order were tuned on an environment like this one, so the score is a little optimistic.
TOPIC_SYSTEM = "You name the topic of a text."
TOPIC_QUESTION = "{}\nTopic (text, science or web)?"
TOPIC_TURNS = (
    ("Serve static files over HTTP", "web"),
    ("Fundamental algorithms for scientific computing", "science"),
    ("Parse and write XML", "text"),
    ("Turn HTML into plain text", "text"),
    ("Solve differential equations", "science"),
    ("Send e-mail over SMTP", "web"),
)
SHORT_QUESTION = "Shorten to a few words: {}"
SHORT_TURNS = (
    ("A very fast and easy library for parsing dates", "parsing dates"),
    ("Simple HTTP server written in pure Python", "HTTP server"),
    ("The missing tool for drawing maps in notebooks", "drawing maps in notebooks"),
)

DEFAULT_ROWS = 44
MAX_SUMMARY_CHARS = 200
POOL_NAME = "demo"
KEY_VARIABLE = "HOLYNB_DEMO_TOKEN"
#: Dollars per million tokens for the HTTP pass. Invented, so that there is a cost to show; the output says so.
INVENTED_PRICE = {"input": 0.1, "output": 0.4}


@dataclass(frozen=True, slots=True)
class Distribution:
    """One installed distribution. `topics`: the labels that its own classifiers name; without any, it is not scored."""

    name: str
    summary: str
    topics: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Score:
    """`correct` of `labelled` topics; always naming `commonest` would get `baseline` of them."""

    correct: int
    labelled: int
    baseline: int
    commonest: str

    def line(self) -> str:
        accuracy, base = (100 * n / self.labelled if self.labelled else 0.0 for n in (self.correct, self.baseline))
        return (
            f"{self.correct} of {self.labelled} topics match the packages' own classifiers ({accuracy:.0f} %); "
            f"always saying {self.commonest!r} would match {self.baseline} ({base:.0f} %)."
        )


def rows(max_rows: int | None = None) -> list[Distribution]:
    """The installed distributions that have a summary, those with a known topic first, then by name; 44 of them by default."""
    by_name: dict[str, Distribution] = {}
    for dist in distributions():
        name, summary = dist.metadata["Name"], " ".join(" ".join(dist.metadata.get_all("Summary") or []).split())
        if name and summary and summary.upper() != "UNKNOWN":
            topics = {c.split("::")[1].strip() for c in dist.metadata.get_all("Classifier") or [] if c.startswith("Topic ::")}
            labels = tuple(label for topic, label in LABELS.items() if topic in topics)
            by_name.setdefault(name.lower(), Distribution(name, clip(clean(summary), MAX_SUMMARY_CHARS), labels))
    ordered = sorted(by_name.values(), key=lambda s: (not s.topics, s.name.lower()))
    return ordered[: DEFAULT_ROWS if max_rows is None else max_rows]


def topic_prompts(sources: Sequence[Distribution]) -> list[dict[str, Any]]:
    """The prompts that ask for the topics, as `holynb.infer` takes them."""
    return [{"messages": _messages(TOPIC_SYSTEM, TOPIC_QUESTION, TOPIC_TURNS, s.summary.rstrip("."))} for s in sources]


def shorten_prompts(sources: Sequence[Distribution]) -> list[dict[str, Any]]:
    """The prompts that ask for the short forms, as `holynb.infer` takes them."""
    return [{"messages": _messages(None, SHORT_QUESTION, SHORT_TURNS, s.summary)} for s in sources]


def score(sources: Sequence[Distribution], answers: Sequence[Any]) -> Score:
    """Compare answers with the distributions' own classifiers. Of two topics either is right; distributions without any do not count."""
    labelled = [(s.topics, str(a).strip().lower()) for s, a in zip(sources, answers, strict=True) if s.topics]
    counts = Counter(topic for topics, _ in labelled for topic in topics)
    commonest, baseline = counts.most_common(1)[0] if counts else ("", 0)
    return Score(sum(answer in topics for topics, answer in labelled), len(labelled), baseline, commonest)


def main(max_rows: int | None = None, *, keep: bool = False) -> pd.DataFrame:
    """Run the demo and print its progress. `keep` leaves the pool running. Returns the final frame. Raises UserError, InferError."""
    from holynb import pools

    started = time.monotonic()
    sources = rows(max_rows)
    print(
        f"{len(sources)} summaries of packages installed here; {sum(bool(s.topics) for s in sources)} of these packages name their topic."
    )
    print("\n1. A local pool with the embedded model, SmolLM2-135M-Instruct (Apache-2.0), in its own process")
    info = pools.start(pools.EMBEDDED, notice=_print_indented, name=POOL_NAME, port=0)
    try:
        frame = _run_tasks(sources, info)
    finally:
        if keep:
            print(f"\nThe pool keeps running. To stop it: holynb pool stop {POOL_NAME}")
        else:
            pools.stop(POOL_NAME)
    print("\n5. Failures and retries, with the built-in simulator")
    _show_failures()
    print(f"\nDone in {time.monotonic() - started:.0f} s. In a notebook: %load_ext holynb, then %%infer?")
    return frame


def _run_tasks(sources: Sequence[Distribution], info: PoolInfo) -> pd.DataFrame:
    print(f"   ready: pid {info.pid}, on {', '.join(info.devices)}, and at {info.base_url}")
    print(f"\n2. Shorten and label the summaries with pool/{info.name}")
    shorts, topics = _shorten_and_label(sources, f"pool/{info.name}")
    frame = shorts.frame()[["text"]].rename(columns={"text": "short"})
    frame.insert(0, "name", [s.name for s in sources])
    frame["topic"] = topics.frame()["text"]
    frame["own"] = ["/".join(s.topics) for s in sources]
    print(
        grid(
            ["name", "summary", "short", "topic", "known topic"],
            [
                [s.name, s.summary, short, topic, "/".join(s.topics)]
                for s, short, topic in list(zip(sources, frame["short"], frame["topic"], strict=True))[:12]
            ],
            {1: 46},
        )
    )
    print(f"   … {len(frame)} rows in all")
    print(f"   {score(sources, list(frame['topic'])).line()}")
    print(f"   {_shortening_line(sources, list(frame['short']))}")

    print(
        "\n3. The same over HTTP, through the OpenAI protocol, with a token, "
        f"priced at ${INVENTED_PRICE['input']} and ${INVENTED_PRICE['output']} per million tokens (made-up prices)"
    )
    route = _add_provider(info)
    shorts, topics = _shorten_and_label(sources, route)
    http_topics = topics.frame()
    same = int((http_topics["text"] == frame["topic"]).sum()) + int((shorts.frame()["text"] == frame["short"]).sum())
    print(f"   {same} of {2 * len(sources)} answers are the same as before. {score(sources, list(http_topics['text'])).line()}")

    print("\n4. The topics again: answered from the run log, nothing is sent")
    again = _infer(topic_prompts(sources), route, max_tokens=4)
    again.wait()
    print(f"   {again.summary().line()}")
    frame["cost"] = http_topics["cost"] + shorts.frame()["cost"]
    return frame


def _shorten_and_label(sources: Sequence[Distribution], route: str) -> tuple[Run, Run]:
    """Both tasks at once, not answered from the run log: the two runs share the pool's batches."""
    shorts = _infer(shorten_prompts(sources), route, max_tokens=16, refresh=True)
    topics = _infer(topic_prompts(sources), route, max_tokens=4, refresh=True)
    for name, run in (("shortened", shorts), ("topics", topics)):
        run.wait()
        print(f"   {name}: {run.summary().line()}")
    return shorts, topics


def _infer(prompts: list[dict[str, Any]], route: str, **options: Any) -> Run:
    from holynb.run import infer

    return infer(prompts, route, temperature=0, **options)


def _add_provider(info: PoolInfo) -> str:
    """Configure the pool's port as the provider `demo` in this process: address, token variable, price. Returns the route."""
    from holynb.config import settings

    if info.token is not None:
        os.environ[KEY_VARIABLE] = info.token.reveal()
    route = f"demo/{info.model}"
    settings.override(provider={"demo": {"base": info.base_url, "key": KEY_VARIABLE}}, price={route: INVENTED_PRICE})
    return route


def _show_failures() -> None:
    from holynb.run import infer

    prompts = [f"row {i}" for i in range(40)]
    no_retries = infer(prompts, "sim/flaky", retries=0, cache=False)
    print(f"   no retries:    {_one_line(no_retries.wait())}")
    print(f"   three retries: {_one_line(infer(prompts, 'sim/flaky', cache=False).wait())}")
    limited = infer(prompts, "sim/echo", cache=False, p={"fault": "429", "times": 1, "retry_after": 1})
    print(f"   429 for all:   {_one_line(limited.wait())}")


def _one_line(run: Run) -> str:
    return run.summary().line().replace("\n", " · ")


def _shortening_line(sources: Sequence[Distribution], shorts: Sequence[Any]) -> str:
    pairs = [(s.summary.strip(" ."), str(t).strip(" .")) for s, t in zip(sources, shorts, strict=True)]
    shorter = [(long, short) for long, short in pairs if len(short) < len(long)]
    extractive = sum(set(short.lower().split()) <= set(long.lower().split()) for long, short in shorter)
    return f"{len(shorter)} of {len(pairs)} shortened texts are shorter than the summary, {extractive} of them using only its words."


def _messages(system: str | None, question: str, examples: Sequence[tuple[str, str]], text: str) -> list[dict[str, str]]:
    messages = [{"role": "system", "content": system}] if system else []
    for example, answer in examples:
        messages += [{"role": "user", "content": question.format(example)}, {"role": "assistant", "content": answer}]
    return [*messages, {"role": "user", "content": question.replace("{}", text)}]


def _print_indented(text: str) -> None:
    print(f"   {text}")
