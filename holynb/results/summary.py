"""The summary of a run: counts, tokens, dollars, seconds, and the cost on another route. Folds outcomes, prints nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal

from holynb.pricing import prices
from holynb.results.below_direct import BelowDirect
from holynb.results.cache_savings import CacheSavings, saved_words
from holynb.results.costs import FREE, SIMULATED, UNKNOWN, captioned, cost_text, dollars, in_all, is_pool, is_simulated, is_unsettled
from holynb.results.cut_answers import CutAnswers
from holynb.results.vectors import VectorFacts
from holynb.types import Outcome, Route
from holynb.units import seconds
from holynb.words import counted

__all__ = ["AlternativeCost", "Summary", "Tally", "folded", "refused_by", "summarize"]


@dataclass(frozen=True, slots=True)
class AlternativeCost:
    """What the same tokens cost on another route. `unknown`: answers without a token count."""

    route: Route
    cost: Decimal | None = None
    unknown: int = 0

    def describe(self) -> str:
        """`$0.42 as openai/gpt-6-luna`."""
        return f"{captioned(cost_text(self.cost, unknown=self.unknown))} as {self.route}"


@dataclass(frozen=True, slots=True)
class Summary:
    """Counts of rows by status; `running` have not ended. `cost` sums known costs; `unknown_cost` counts answers without one.

    `saved` is what the cached rows cost when they were first answered. Tokens are sums of the servers' counts.
    """

    n: int
    ok: int = 0
    error: int = 0
    cancelled: int = 0
    skipped: int = 0
    cached: int = 0
    running: int = 0
    cost: Decimal | None = None
    unknown_cost: int = 0
    saved: Decimal | None = None
    tokens_in: int = 0
    tokens_out: int = 0
    elapsed: float = 0.0
    errors: Counter[str] = field(default_factory=Counter)
    stopped: bool = False
    alternative: AlternativeCost | None = None
    in_all: Decimal | None = None
    """What a run that went on has cost, all its attempts; None of one that was begun anew."""
    tokens_in_all: tuple[int, int] | None = None
    """Tokens of the same requests, a judge's among them."""
    retryable: bool = True
    """Whether failed rows can be sent again; those of a recording cannot."""
    tokens_reasoning: int = 0
    """Those of `tokens_out` that are known to have been thought."""
    cut: CutAnswers = field(default_factory=CutAnswers)
    tiers: Counter[str] = field(default_factory=Counter)
    """Answers by the service tier that their servers name."""
    simulated: Decimal | None = None
    """What of `cost` the simulator's answers are."""
    refused: frozenset[str] = frozenset()
    """Providers whose key was refused."""
    pending: int = 0
    """Rows that are in a batch, or wait for one; `running` counts them, too."""
    below_direct: Decimal | None = None
    """How much less the answers of batches cost than the same tokens would have, one by one."""
    answered_by: Counter[str] = field(default_factory=Counter)
    """Rows by the route that answered them."""
    unsettled: int = 0
    """Rows that were sent and have no answer and no cost, though their server may bill one."""
    vectors: str = ""
    """What the vectors of `--embed` are: `1,536 dimensions, normalized`."""
    prompt_cache_saved: Decimal | None = None
    """What providers' prompt caches saved; negative where they cost more than they saved."""

    def failures(self) -> str:
        """`7 of 200 failed: 5 timeout, 2 content_filter. %infer run --only failed`, or `""`. Without the hint where not `retryable`."""
        if not self.error:
            return ""
        kinds = ", ".join(f"{count} {kind}" for kind, count in self.errors.most_common())
        return f"{self.error} of {self.n} failed: {kinds}." + f" {self.remedy()}" * self.retryable

    def nothing_answered(self, reason: str | None) -> str:
        """That every row failed, the first for this reason, and what to do where it is the key."""
        kinds = ", ".join(f"{count} {kind}" for kind, count in self.errors.most_common())
        line = f"no row could be answered ({self.error} of {self.n} failed: {kinds}): {reason}"
        if not self.refused:
            return line
        advised = all(f"%infer key {provider}." in line for provider in self.refused)  # the reason ends with it, for one provider
        return f"{line.rstrip('.')}. {'Then: %infer run --only failed' if advised else self.remedy()}"

    def remedy(self) -> str:
        """What to do about the failures: a key that was refused is set anew first, and what would only fail again is sent otherwise."""
        again = (
            "%infer run --only failed" + " --budget USD" * ("budget" in self.errors) + " --chunk auto" * ("context_length" in self.errors)
        )
        keys = [f"%infer key {provider}" for provider in sorted(self.refused)] if set(self.errors) == {"auth"} else []
        return ", then ".join([*keys, again])

    def cut_off(self) -> str:
        """`12 of 100 answers were cut off …` where they are more than a tenth, or `""`."""
        return self.cut.words(self.ok)

    def service(self) -> str:
        """`12 at flex, 3 at standard` where several service tiers answered, `at flex` where another than the standard one did, or `""`."""
        if len(self.tiers) > 1:
            return ", ".join(f"{count:,} at {tier}" for tier, count in self.tiers.most_common())
        return next((f"at {tier}" for tier in self.tiers if tier != "standard"), "")

    def line(self) -> str:
        """One line for the end of a run, one for its failures, one for answers that were cut off."""
        parts = [f"{self.ok:,} of {counted(self.n, 'row')}" if self.ok != self.n else counted(self.n, "row")]
        if self.cached:
            parts.append(f"{self.cached:,} cached" + (f" (saved {dollars(self.saved)})" if self.saved else ""))
        parts += [f"{count:,} {word}" for word, count in (("skipped", self.skipped), ("cancelled", self.cancelled)) if count]
        if self.pending:
            parts.append(f"{self.pending:,} pending")
        thought = f" ({self.tokens_reasoning:,} thought)" if self.tokens_reasoning else ""
        parts.append(self.vectors)
        tokens = counted(self.tokens_in, "token") if self.vectors else f"{self.tokens_in:,} + {self.tokens_out:,} tokens"
        parts.append(f"{tokens}{thought}")
        parts.append(captioned(self.money()))
        parts.append(in_all(self.in_all if self.in_all != self.cost else None, self.tokens_in_all, (self.tokens_in, self.tokens_out)))
        parts += [saved_words(self.prompt_cache_saved), self.service()]
        parts.append(f"{dollars(self.below_direct)} less than direct" if self.below_direct else "")
        parts.append(self.alternative.describe() if self.alternative else "")
        parts.append(f"{self.elapsed:.1f} s" if self.elapsed >= 1 else seconds(self.elapsed))
        text = " · ".join(p for p in ("stopped" * self.stopped, *parts) if p)
        return "\n".join(line for line in (text, self.failures(), self.cut_off()) if line)

    def money(self) -> str:
        """`$0.42`, `$0.42 partly simulated + 3 unknown`, `?` where no cost is known, `free` where only a pool without a price answered."""
        if not self.cost:  # 0 is of rows that nothing was paid for, which do not tell what the others cost
            unknown = self.unknown_cost or (self.unsettled and not (self.cost is None and self.ok))
            return UNKNOWN if unknown else FREE if self.cost is None and self.ok else dollars(0)
        mark = f" {'' if self.simulated == self.cost else 'partly '}{SIMULATED}" if self.simulated else ""
        return dollars(self.cost) + mark + (f" + {self.unknown_cost:,} unknown" if self.unknown_cost else "")


def summarize(
    rows: Sequence[Outcome | None],
    elapsed: float,
    *,
    saved: Decimal | None = None,
    stopped: bool = False,
    price_as: Route | None = None,
    batch: bool = False,
) -> Summary:
    """Fold outcomes; None has not ended. Skipped rows cost nothing and are not unknown. `price_as`: also compute the cost there.

    `batch`: rows that have not ended are in a batch.
    """
    return folded(rows, price_as, batch=batch).summary(len(rows), elapsed, saved=saved, stopped=stopped)


def folded(rows: Sequence[Outcome | None], price_as: Route | None = None, *, batch: bool = False) -> Tally:
    """The sums of outcomes, as in `summarize`."""
    tally = Tally(price_as, batch=batch)
    for outcome in rows:
        if outcome is not None:
            tally.add(outcome)
    return tally


class Tally:
    """The sums of a summary, outcome by outcome. Written by one thread; read by any. `price_as`, `batch`: as in `summarize`."""

    def __init__(self, price_as: Route | None = None, *, batch: bool = False) -> None:
        self._batch, self._below_direct, self._savings = batch, BelowDirect(), CacheSavings()
        self._price_as = price_as
        self._price = None if price_as is None else prices.list_price(price_as)
        self._status: Counter[str] = Counter()
        self._errors: Counter[str] = Counter()
        self._tiers: Counter[str] = Counter()
        self._answered_by: Counter[str] = Counter()
        self._refused: set[str] = set()
        self._cached = self._unknown = self._unpriced = self._tokens_in = self._tokens_out = self._thought = 0
        self._cut, self._unsettled = CutAnswers(), 0
        self._paid: Decimal | None = None
        self._cached_cost: Decimal | None = None
        self._simulated = Decimal(0)
        self._elsewhere: Decimal | None = None
        self._elsewhere_unknown = 0
        self._vectors = VectorFacts()

    def add(self, outcome: Outcome, times: int = 1) -> None:
        """Add the outcome of one row, or of `times` rows that ended alike and cost nothing."""
        o, ok = outcome, outcome.status == "ok"
        self._status[o.status] += times
        if o.status == "error":
            self._errors[o.error_type or "error"] += times
            self._refused |= {provider for provider in [refused_by(o)] if provider}
        if o.vector:
            self._vectors.add(o.vector)
        if ok and o.route:
            self._answered_by[o.route] += 1
        if not o.cached:
            self._tokens_in += o.usage.tokens_in or 0
            self._tokens_out += o.usage.tokens_out or 0
            self._thought += o.usage.tokens_reasoning or 0
            if ok and o.tier:
                self._tiers[o.tier] += 1
            if ok and self._price_as is not None:
                self._add_elsewhere(o)
            if self._batch:
                self._below_direct.add(o)
            self._savings.add(o)
        self._cached += o.cached
        self._cut.add(o)
        self._unsettled += is_unsettled(o)
        self._add_cost(o)

    def _add_cost(self, o: Outcome) -> None:
        if o.cost is None:
            if o.status == "ok" and (o.attempts or o.cached):
                self._unpriced += 1
                self._unknown += not is_pool(o.route)
            return
        if is_simulated(o.route):
            self._simulated += o.cost
        if o.cached:
            self._cached_cost = (self._cached_cost or Decimal(0)) + o.cost
        elif o.attempts:
            self._paid = (self._paid or Decimal(0)) + o.cost

    def _add_elsewhere(self, o: Outcome) -> None:
        cost = None if self._price is None else self._price.cost(o.usage)
        if cost is None:
            self._elsewhere_unknown += 1
        else:
            self._elsewhere = (self._elsewhere or Decimal(0)) + cost

    def summary(
        self, n: int, elapsed: float, *, saved: Decimal | None = None, stopped: bool = False, in_all: Decimal | None = None
    ) -> Summary:
        """The sums as they stand, of a run of `n` rows."""
        status, cost = self._status, self._paid
        # The zero cost of cached answers must not make the cost of a pool without a price look known.
        if self._cached_cost is not None and not self._unpriced:
            cost = (cost or Decimal(0)) + self._cached_cost
        return Summary(
            n=n,
            ok=status["ok"],
            error=status["error"],
            cancelled=status["cancelled"],
            skipped=status["skipped"],
            cached=self._cached,
            running=n - sum(status.values()),
            cost=cost,
            unknown_cost=self._unknown,
            saved=saved,
            in_all=in_all,
            tokens_in=self._tokens_in,
            tokens_out=self._tokens_out,
            tokens_reasoning=self._thought,
            elapsed=elapsed,
            errors=Counter(self._errors),
            stopped=stopped,
            cut=replace(self._cut),
            tiers=Counter(self._tiers),
            alternative=self._alternative(),
            simulated=self._simulated or None,
            refused=frozenset(self._refused),
            pending=n - sum(status.values()) if self._batch else 0,
            below_direct=self._below_direct.saved,
            answered_by=Counter(self._answered_by),
            unsettled=self._unsettled,
            prompt_cache_saved=self._savings.dollars,
            vectors=self._vectors.described(),
        )

    def _alternative(self) -> AlternativeCost | None:
        """The cost of the answers' tokens at another route's list price. Its tokenizer may count differently, and its answers be longer."""
        if self._price_as is None:
            return None
        nothing = Decimal(0) if not self._elsewhere_unknown else None
        return AlternativeCost(self._price_as, nothing if self._elsewhere is None else self._elsewhere, self._elsewhere_unknown)


def refused_by(outcome: Outcome) -> str | None:
    """The provider that refused the row's key; the simulator has none."""
    if outcome.status != "error" or outcome.error_type != "auth" or is_simulated(outcome.route) or is_pool(outcome.route):
        return None
    return (outcome.route or "").partition("/")[0] or None
