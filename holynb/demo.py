"""`holynb demo`: a real job on whatever machine this is. The summaries of the installed distributions are shortened and sorted by topic.

Twice: through the local pool, and over real HTTP to the pool's own OpenAI-compatible port. The topics are scored against the distributions'
own `Topic ::` classifiers, beside what naming the commonest topic every time would score. Knows runs and pools; knows no notebook.
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

#: A distribution's own classifier → the word that the model is asked for.
LABELS = {"Text Processing": "text", "Scientific/Engineering": "science", "Internet": "web"}

#: Examples are turns of a chat: of the ways that were tried (in the system prompt, in the question), the one this model follows. None is
#: an installed distribution. They and their order were chosen on an environment like this one, so the score flatters a little.
TOPIC_SYSTEM = "You name the topic of a text."
TOPIC_ASK = "{}\nTopic (text, science or web)?"
TOPIC_TURNS = (
    ("Serve static files over HTTP", "web"),
    ("Fundamental algorithms for scientific computing", "science"),
    ("Parse and write XML", "text"),
    ("Turn HTML into plain text", "text"),
    ("Solve differential equations", "science"),
    ("Send e-mail over SMTP", "web"),
)
SHORT_ASK = "Shorten to a few words: {}"
SHORT_TURNS = (
    ("A very fast and easy library for parsing dates", "parsing dates"),
    ("Simple HTTP server written in pure Python", "HTTP server"),
    ("The missing tool for drawing maps in notebooks", "drawing maps in notebooks"),
)

ROWS, LONGEST = 44, 200
POOL = "demo"
KEY = "HOLYNB_DEMO_TOKEN"
#: Dollars per million tokens for the HTTP pass. Invented, so that there is something to count; said to be so where it is shown.
PRICE = {"input": 0.1, "output": 0.4}


@dataclass(frozen=True, slots=True)
class Distribution:
    """One installed distribution. `topics`: which of our words its own classifiers name; empty where none, and then it is not scored."""

    name: str
    summary: str
    topics: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Score:
    """How many topics were right, of those that can be known, and how many the commonest one alone would get."""

    right: int
    known: int
    majority: int
    commonest: str

    def line(self) -> str:
        share, base = (100 * n / self.known if self.known else 0.0 for n in (self.right, self.majority))
        return (
            f"{self.right} of {self.known} topics agree with the distributions' own classifiers ({share:.0f} %); "
            f"always saying {self.commonest!r} would give {self.majority} ({base:.0f} %)."
        )


def rows(most: int | None = None) -> list[Distribution]:
    """The installed distributions that have a summary, those whose topic is known first, by name; 44 of them unless said otherwise."""
    found: dict[str, Distribution] = {}
    for dist in distributions():
        name, summary = dist.metadata["Name"], " ".join(" ".join(dist.metadata.get_all("Summary") or []).split())
        if name and summary and summary.upper() != "UNKNOWN":
            said = {c.split("::")[1].strip() for c in dist.metadata.get_all("Classifier") or [] if c.startswith("Topic ::")}
            topics = tuple(word for topic, word in LABELS.items() if topic in said)
            found.setdefault(name.lower(), Distribution(name, clip(clean(summary), LONGEST), topics))
    ordered = sorted(found.values(), key=lambda s: (not s.topics, s.name.lower()))
    return ordered[: ROWS if most is None else most]


def topic_prompts(sources: Sequence[Distribution]) -> list[dict[str, Any]]:
    """What is asked for the topics: `prompts` of `holynb.infer`."""
    return [{"messages": _turns(TOPIC_SYSTEM, TOPIC_ASK, TOPIC_TURNS, s.summary.rstrip("."))} for s in sources]


def shorten_prompts(sources: Sequence[Distribution]) -> list[dict[str, Any]]:
    """What is asked for the short forms."""
    return [{"messages": _turns(None, SHORT_ASK, SHORT_TURNS, s.summary)} for s in sources]


def score(sources: Sequence[Distribution], answers: Sequence[Any]) -> Score:
    """Answers against the distributions' own classifiers; where one has two, either is right. Rows without any are left out."""
    known = [(s.topics, str(a).strip().lower()) for s, a in zip(sources, answers, strict=True) if s.topics]
    counts = Counter(topic for topics, _ in known for topic in topics)
    commonest, majority = counts.most_common(1)[0] if counts else ("", 0)
    return Score(sum(answer in topics for topics, answer in known), len(known), majority, commonest)


def main(most: int | None = None, *, keep: bool = False) -> pd.DataFrame:
    """Run it all, telling as it goes; the last frame. `most` rows; `keep` leaves the pool running. Raises UserError, InferError."""
    from holynb import pools

    began = time.monotonic()
    sources = rows(most)
    print(f"{len(sources)} summaries of distributions installed here; {sum(bool(s.topics) for s in sources)} name a topic of their own.")
    print("\n1. A local pool with the embedded model, SmolLM2-135M-Instruct (Apache-2.0), in a process of its own")
    info = pools.start(pools.EMBEDDED, notice=_say, name=POOL, port=0)
    try:
        frame = _job(sources, info)
    finally:
        if keep:
            print(f"\nThe pool goes on: holynb pool stop {POOL}")
        else:
            pools.stop(POOL)
    print("\n5. Failures, from a simulator that needs no network")
    _failures()
    print(f"\nDone in {time.monotonic() - began:.0f} s. In a notebook: %load_ext holynb, then %%infer?")
    return frame


def _job(sources: Sequence[Distribution], info: PoolInfo) -> pd.DataFrame:
    print(f"   ready: pid {info.pid}, on {', '.join(info.devices)}, and at {info.base_url}")
    print(f"\n2. Shorten and label, as pool/{info.name}")
    shorts, topics = _pass(sources, f"pool/{info.name}")
    frame = shorts.frame()[["text"]].rename(columns={"text": "short"})
    frame.insert(0, "name", [s.name for s in sources])
    frame["topic"] = topics.frame()["text"]
    frame["own"] = ["/".join(s.topics) for s in sources]
    print(
        grid(
            ["name", "summary", "short", "topic", "own topic"],
            [
                [s.name, s.summary, short, topic, "/".join(s.topics)]
                for s, short, topic in list(zip(sources, frame["short"], frame["topic"], strict=True))[:12]
            ],
            {1: 46},
        )
    )
    print(f"   … {len(frame)} rows in all")
    print(f"   {score(sources, list(frame['topic'])).line()}")
    print(f"   {_shortened(sources, list(frame['short']))}")

    print(
        f"\n3. The same over HTTP, through the OpenAI wire, with a token, priced at ${PRICE['input']} and ${PRICE['output']} per million tokens (invented)"
    )
    route = _wire(info)
    shorts, topics = _pass(sources, route)
    wire = topics.frame()
    same = int((wire["text"] == frame["topic"]).sum()) + int((shorts.frame()["text"] == frame["short"]).sum())
    print(f"   {same} of {2 * len(sources)} answers are the same as before. {score(sources, list(wire['text'])).line()}")

    print("\n4. The same topics again: answered from the run log")
    again = _infer(topic_prompts(sources), route, max_tokens=4)
    again.wait()
    print(f"   {again.summary().line()}")
    frame["cost"] = wire["cost"] + shorts.frame()["cost"]
    return frame


def _pass(sources: Sequence[Distribution], route: str) -> tuple[Run, Run]:
    """Both tasks at once, asked anew: two runs share the pool's batches."""
    shorts = _infer(shorten_prompts(sources), route, max_tokens=16, refresh=True)
    topics = _infer(topic_prompts(sources), route, max_tokens=4, refresh=True)
    for name, run in (("short forms", shorts), ("topics", topics)):
        run.wait()
        print(f"   {name}: {run.summary().line()}")
    return shorts, topics


def _infer(prompts: list[dict[str, Any]], route: str, **options: Any) -> Run:
    from holynb.run import infer

    return infer(prompts, route, temperature=0, **options)


def _wire(info: PoolInfo) -> str:
    """Make the pool's port a provider of its own, for this process: address, the variable that holds its token, a price."""
    from holynb.config import settings

    if info.token is not None:
        os.environ[KEY] = info.token.reveal()
    route = f"demo/{info.model}"
    settings.override(provider={"demo": {"base": info.base_url, "key": KEY}}, price={route: PRICE})
    return route


def _failures() -> None:
    from holynb.run import infer

    prompts = [f"row {i}" for i in range(40)]
    once = infer(prompts, "sim/flaky", retries=0, cache=False)
    print(f"   no retries:    {_one_line(once.wait())}")
    print(f"   three retries: {_one_line(infer(prompts, 'sim/flaky', cache=False).wait())}")
    limited = infer(prompts, "sim/echo", cache=False, p={"fault": "429", "times": 1, "retry_after": 1})
    print(f"   429 for all:   {_one_line(limited.wait())}")


def _one_line(run: Run) -> str:
    return run.summary().line().replace("\n", " · ")


def _shortened(sources: Sequence[Distribution], shorts: Sequence[Any]) -> str:
    pairs = [(s.summary.strip(" ."), str(t).strip(" .")) for s, t in zip(sources, shorts, strict=True)]
    shorter = [(long, short) for long, short in pairs if len(short) < len(long)]
    kept = sum(set(short.lower().split()) <= set(long.lower().split()) for long, short in shorter)
    return f"{len(shorter)} of {len(pairs)} short forms are shorter than the summary, {kept} of them in its own words alone."


def _turns(system: str | None, ask: str, turns: Sequence[tuple[str, str]], text: str) -> list[dict[str, str]]:
    said = [{"role": "system", "content": system}] if system else []
    for question, answer in turns:
        said += [{"role": "user", "content": ask.format(question)}, {"role": "assistant", "content": answer}]
    return [*said, {"role": "user", "content": ask.replace("{}", text)}]


def _say(text: str) -> None:
    print(f"   {text}")
