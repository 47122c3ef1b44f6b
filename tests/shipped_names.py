"""Names of models in what ships: README, manual, help, messages, routing.toml. Which of them are not known, have ended, or end soon."""

from __future__ import annotations

import datetime as dt
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

from holynb.config import models, providers
from holynb.pricing import prices
from holynb.types import Route

ROOT = Path(__file__).resolve().parent.parent
#: The tables themselves name what has ended, some of them by patterns.
TABLES = ("models.toml", "prices.toml", "prompt_caches.toml", "embedding_models.toml")
#: Ids of files on the hub, not routes: openai publishes weights under its own name.
HUB_IDS = "holynb/pool/fit/known.py"
PROVIDERS = tuple(name for name, p in providers.table().items() if p.key and not p.key_optional)
NAME = re.compile(rf"(?<![\w./-])({'|'.join(PROVIDERS)})/([A-Za-z0-9][\w.:/-]*\w)")


def named(root: Path = ROOT) -> Iterator[tuple[str, Route]]:
    """Where a model is named, and its route."""
    texts = [
        root / "README.md",
        *(root / "notebooks").glob("*.ipynb"),
        *(root / "notebooks").glob("*.md"),
        *(root / "holynb").rglob("*.py"),
        *(root / "holynb").rglob("*.toml"),
    ]
    for path in sorted(p for p in texts if p.name not in TABLES and p != root / HUB_IDS):
        for provider, model in NAME.findall(path.read_text("utf-8")):
            if any(c.isdigit() for c in model):  # else it is a path: openai/deployments
                yield str(path.relative_to(root)), Route(provider, model)
    routing = root / "holynb" / "run" / "routing.toml"
    for provider, pair in tomllib.loads(routing.read_text("utf-8"))["models"].items():
        yield from ((str(routing.relative_to(root)), Route(provider, model)) for model in pair.values())


def wrong_names(day: dt.date, margin: int = 0, root: Path = ROOT) -> list[str]:
    """What is wrong with the names that ship, on a day; `margin`: days that a model must still live."""
    problems = []
    for where, route in dict.fromkeys(named(root)):
        known = models.find(route.provider, route.model)
        if route.provider == "holysheep":  # the article's list, which has a price for each
            if prices.list_price(route) is None:
                problems.append(f"{where}: {route} is not of the article's list")
        elif known is None:
            problems.append(f"{where}: {route} is not in models.toml")
        elif known.end is not None and known.end.on <= day + dt.timedelta(days=margin):
            problems.append(f"{where}: {route} {models.lifecycle(route, day)}")
    return problems


def old_readings(day: dt.date, limit: int) -> list[str]:
    """Entries of models.toml, and prices of what is offered, that were read more than `limit` days before. Not the article's."""
    problems = []
    for model in (m for m in models.shipped() if not m.article):
        if (day - model.reading.date).days > limit:
            problems.append(f"models.toml: {model.provider} {model.models[0]} was read {model.reading.date}")
        for name in model.offer:
            price = prices.list_price(Route(model.provider, name))
            if price is not None and price.date is not None and (day - price.date).days > limit:
                problems.append(f"prices.toml: {model.provider}/{name} was read {price.date}")
    return problems
