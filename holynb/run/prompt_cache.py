"""What of a run's prompts is kept in the providers' prompt caches: the beginning that all rows share, and whether that pays. Sends nothing.

The beginning is the longest that the prompts really have in common, as they are sent: the system prompt and the part of a template before
its first column, and what a column has in common in all rows, too. Of many rows a sample is compared; a row that begins otherwise is sent
unmarked.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from holynb.config import prompt_caches
from holynb.config.prompt_caches import PromptCacheRules
from holynb.engines import cache_marks
from holynb.pricing import prices
from holynb.prompts import tokens
from holynb.results import dollars
from holynb.run.plan import Plan
from holynb.scheduler import CacheHead, CacheTerms, PromptCache, ResponseValidator
from holynb.types import Endpoint, Message, Request
from holynb.words import counted

__all__ = ["cache_for", "line", "terms"]

#: Rows that are compared: of more, every so many-th.
COMPARED = 512
#: Shorter beginnings are not worth a wait, whatever a provider keeps.
MIN_TOKENS = 512


def cache_for(plan: Plan, endpoint: Endpoint, validator: ResponseValidator | None) -> PromptCache | None:
    """The prompt cache of an endpoint; None where it is left to itself."""
    known = terms(plan, endpoint, validator)
    return None if known is None else PromptCache(known)


def terms(plan: Plan, endpoint: Endpoint, validator: ResponseValidator | None) -> CacheTerms | None:
    """What holds between this run and an endpoint's cache."""
    rules = (
        prompt_caches.find(endpoint.route.provider, endpoint.route.model) if plan.options.prompt_cache and not plan.options.embed else None
    )
    if rules is None:
        return None
    sample = [r if validator is None else validator.prepare(r, endpoint.route) for r in _sample(plan.rows.requests)]
    if len(sample) < 2 or any(cache_marks.NAMES & r.sampling.extra.keys() for r in sample):
        return None
    head = _head(sample)
    size = 0 if head is None else sum(tokens.count_typical(m.content) for m in head.turns) + tokens.count_typical(head.text)
    spared = rules.how == "breakpoints" and max(_typical(r) for r in sample) >= rules.minimum
    if head is None or size < max(rules.minimum, MIN_TOKENS):
        return CacheTerms(None, spared=True) if spared else None
    return CacheTerms(
        head,
        size,
        **_shares(rules, endpoint, size, batch=plan.options.batch),
        lifetime=float(rules.lifetime),
        hour=rules.hour,
        marked=rules.how in ("marks", "breakpoints"),
        spared=spared,
        gap=_gap(plan, sample),
        # Bedrock's streams need a permission of their own, and OpenAI's a verified organization.
        streams_first=rules.how == "marks" and endpoint.wire in ("anthropic", "openai"),
    )


def line(plan: Plan, due: Sequence[Request], validator: ResponseValidator | None) -> str:
    """What a dry run says of it: which part is read from the cache by how many rows, and what that saves; empty where nothing is kept."""
    lines = []
    for endpoint in plan.targets.endpoints:
        cache, rows = terms(plan, endpoint, validator), sum(r.route == endpoint.route for r in due)
        if cache is None or cache.head is None or not cache.pays(rows - 1, hour=False):
            continue
        price = prices.list_price(endpoint.route)
        rate = None if price is None else price.rates_for(cache.tokens).input
        won = Decimal((rows - 1) * (1 - cache.read) * cache.tokens - cache.premium(hour=False))
        saves = f", which saves about {dollars(won * rate / prices.MILLION)}" if rate else ""
        lines.append(
            f"Prompt cache of {endpoint.route}: all rows begin with the same {cache.tokens:,} tokens. One row goes first, and "
            f"{counted(rows - 1, 'row')} {'reads' if rows == 2 else 'read'} them from the cache{saves} (--no-prompt-cache)."
        )
    return "\n".join(lines)


def _sample(requests: Sequence[Request | None]) -> list[Request]:
    """The rows that are compared: all, or evenly spread over all."""
    step = max(1, len(requests) // COMPARED)
    return [r for i in range(0, len(requests), step) if (r := requests[i]) is not None]


def _typical(request: Request) -> int:
    return sum(tokens.count_typical(m.content) for m in request.messages)


def _gap(plan: Plan, sample: Sequence[Request]) -> float:
    """Seconds between two requests at `--rpm` and `--tpm`."""
    rpm, tpm = plan.options.rpm, plan.options.tpm
    return max(60 / rpm if rpm else 0.0, 60 * _typical(sample[0]) / tpm if tpm else 0.0)


def _shares(rules: PromptCacheRules, endpoint: Endpoint, size: int, *, batch: bool) -> dict[str, float]:
    """What reading and writing cost, as shares of the price of input: by the price that is known, else as the vendor says."""
    price = prices.list_price(endpoint.route)
    price = price.service.get("batch") if batch and price is not None else price
    rates = None if price is None else price.rates_for(size)
    if rates is None or not rates.input or rates.cached is None:
        return {"read": rules.read, "write": rules.write, "write_1h": rules.write_1h}
    write = rates.input * Decimal(str(rules.write)) if rates.cache_write is None else rates.cache_write
    hour = rates.input * Decimal(str(rules.write_1h)) if rates.cache_write_1h is None else rates.cache_write_1h
    return {name: float(rate / rates.input) for name, rate in (("read", rates.cached), ("write", write), ("write_1h", hour))}


# -- what requests have in common ----------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class _Common:
    turns: tuple[Message, ...]
    role: str = ""
    text: str = ""


def _head(requests: Sequence[Request]) -> CacheHead | None:
    """The beginning that these requests have in common; None where there is none, or where a cache could not tell them apart."""
    prompts = [r.messages for r in requests]
    common = _common(prompts)
    end = len(common.turns) + bool(common.text)
    # Wires put system prompts first, wherever they stand: one behind the mark would be before it there.
    late = any(m.role == "system" for prompt in prompts for m in prompt[end:])
    blank = any(not m.content.strip() for m in common.turns)
    if not end or late or blank:
        return None
    parts = [*(part for m in common.turns for part in (m.role, m.content)), common.role, common.text]
    key = hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:32]
    return CacheHead(common.turns, common.role, common.text, requests[0].sampling.think, key)


def _common(prompts: Sequence[Sequence[Message]]) -> _Common:
    first, least = prompts[0], min(map(len, prompts))
    whole = next((i for i in range(least) if first[i].attachments or any(p[i] != first[i] for p in prompts)), least)
    turns = tuple(first[:whole])
    # Some wires put what is attached before the text of its turn.
    if whole == least or any(p[whole].role != first[whole].role or p[whole].attachments for p in prompts):
        return _Common(turns)
    contents = [p[whole].content for p in prompts]
    low, high = min(contents), max(contents)  # what these two have in common, all have
    text = _at_a_word(low[: next((i for i, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), min(len(low), len(high)))])
    return _Common(turns, first[whole].role if text else "", text)


def _at_a_word(text: str) -> str:
    """The common beginning, cut before white space: a word, and the space before it, are tokens together."""
    if not text or text[-1].isspace():
        return text.rstrip()
    words = text.rsplit(None, 1)
    return words[0] if len(words) == 2 else ""
