"""What a run by batch cannot be combined with, and the prices it needs. Checked before anything is sent."""

from __future__ import annotations

from collections.abc import Sequence

from holynb import batches
from holynb.config import Options
from holynb.errors import BadOption, BadSetting
from holynb.pricing import prices
from holynb.types import Endpoint

__all__ = ["check"]

#: Option → why it means nothing to a batch, and what to do.
WITHOUT = {
    "stream": "the answers of a batch come when it is done, so there is nothing to stream. Leave one of them out.",
    "tier": "a batch is a tier of its own, at its own price. Leave one of them out.",
    "spread": "a batch goes to one route. Name it alone, or run without --batch.",
    "chunk": "the parts of a row that is too long follow each other, each after the last answer. Run without --batch.",
    "deadline": "a batch takes as long as its provider takes, up to a day. %infer stop cancels it there.",
    "rpm": "a batch is not held to limits a minute. Leave one of them out.",
    "tpm": "a batch is not held to limits a minute. Leave one of them out.",
}


def check(endpoints: Sequence[Endpoint], options: Options) -> None:
    """Raises BadOption for what cannot go together, BadSetting where `--budget` has no price to go by."""
    if not options.batch:
        return
    for name, why in WITHOUT.items():
        if getattr(options, name):
            raise BadOption(f"--batch with --{name}: {why}")
    aside = set(options.fallback)
    for endpoint in endpoints:
        route = endpoint.route
        if str(route) in aside:
            continue  # rows that --fallback repairs are sent one by one
        if route.provider not in batches.table():
            has = ", ".join(batches.table())
            raise BadOption(f"--batch: {route.provider} has no batch API that holynb speaks. {has} have one; run {route} without --batch.")
        if options.budget is not None and prices.worst_case(route, (), 1, tiers=("batch",)) is None:
            where = f"{route} by batch"
            raise BadSetting(f"--budget needs a price for {where}, but none is known. {prices.how_to_set(route, 'batch')}")
