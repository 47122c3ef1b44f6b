"""What a run will do, settled before it starts: prompts, routes, requests. Sends nothing; every mistake of the user is found here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from holynb import files, pools, schema
from holynb.config import Options, keys, settings
from holynb.config.model_traits import ModelTraits
from holynb.errors import BadOption
from holynb.prompts import chunking
from holynb.prompts.blanks import Blanks
from holynb.results import frame
from holynb.run import attaching, embedding, inputs, judge, labels, out_path, routing, service_tiers, stored_requests
from holynb.run.chunk_plan import long_rows
from holynb.run.keys import RequestKeys
from holynb.run.prompt_spool import empties
from holynb.run.reach import check_prices, reached, route_notes, traits
from holynb.run.request_fields import check_extra, check_wires
from holynb.run.stored_requests import attaching_rows, kinds
from holynb.types import Endpoint, Outcome, Prompt, Request, Route, Sampling, Secret, Timeouts

__all__ = [
    "Continued",
    "Plan",
    "Rows",
    "Targets",
    "check_prices",
    "make",
    "reached",
    "route_notes",
    "traits",
]


@dataclass(frozen=True, slots=True)
class Rows:
    """What is asked. `requests[i]` is None where row i is skipped; `index` and `source`: the input's index, and the input itself.

    `long`: the rows that `--chunk` asks in chunks. `given`: the input where it is another library's table, of which `source` is made.
    `origin`: of a run that the log alone goes on with, where its input was read again.
    """

    prompts: Sequence[Prompt]
    requests: Sequence[Request | None]
    index: Any = None
    source: Any = None
    long: Mapping[int, chunking.ChunkPlan] = field(default_factory=dict)
    given: files.Given | None = None
    origin: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Targets:
    """Where rows may go. `endpoints`: all of them, the first row's first; `secrets`: the key of each. `given`: the cell's own route,
    whose provider `--api-base` is about.

    `decisions[i]`: why row i goes where it goes, with `--router`; `escalate`: where a row goes from its route whose answer stays invalid.
    """

    endpoints: Sequence[Endpoint]
    secrets: Mapping[Route, Secret | None] = field(default_factory=dict)
    given: Route | None = None
    decisions: Sequence[routing.Decision] = ()
    escalate: Route | None = None


@dataclass(frozen=True, slots=True)
class Continued:
    """The earlier run that this one goes on with: its id, in the run log too, and the outcomes by row that are not asked for again.

    `rows`: how many it had, where a name or --resume points at it.
    """

    run: str | None = None
    kept: Mapping[int, Outcome] = field(default_factory=dict)
    rows: int | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything a run needs. `schema`: what answers are held to; `notes`: for a person to read. `keys` follow from the rest.

    `labels`: what answers are compared with; `judge`: who grades them. `variable`: the notebook's, which the cell gives its result.
    `addresses`: what answers on each route, as far as a request's identity has it: a URL, or a pool's model and files.
    """

    rows: Rows
    targets: Targets
    options: Options
    earlier: Continued = field(default_factory=Continued)
    schema: schema.Schema | None = None
    notes: Sequence[str] = ()
    labels: labels.Labels | None = None
    judge: judge.Judge | None = None
    variable: str | None = None
    addresses: Mapping[Route, str] = field(init=False, repr=False, compare=False)
    keys: RequestKeys = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        addresses = {e.route: pools.identity(e.route.model) if e.wire == "pool" else e.base_url for e in self.targets.endpoints}
        object.__setattr__(self, "addresses", addresses)
        object.__setattr__(self, "keys", RequestKeys(self.rows.requests, addresses, chunk=self.options.chunk, long=self.rows.long))

    @property
    def route(self) -> Route:
        """Where the rows go first."""
        return self.targets.endpoints[0].route

    def tiers(self, route: Route) -> Sequence[Sequence[Route]]:
        """The failover chain of a row that asks `route`: it and the equal routes of `--spread`, then each `--fallback`."""
        equal = [route, *(settings.route(r) for r in self.options.spread)]
        rest = [[settings.route(r)] for r in self.options.fallback]
        return [list(dict.fromkeys(equal)), *(r for r in rest if r[0] not in equal)]

    @property
    def extra(self) -> list[str]:
        """Columns that stand beside the answers, and go along with `--into`."""
        scores = ["score", "score_reason"] if self.judge else []
        return [*([c.name for c in self.schema.columns] if self.schema else []), *scores]

    @property
    def price_as(self) -> Route | None:
        """The route of `--price-as`."""
        return settings.route(self.options.price_as) if self.options.price_as else None

    @property
    def timeouts(self) -> Timeouts:
        return service_tiers.timeouts(self.options)

    def billed(self, route: Route) -> tuple[str, ...]:
        """The service tiers that a request to `route` may be billed at; empty without `--tier` and `--batch`."""
        return service_tiers.of_route(self.targets.endpoints, self.options, route)


def make(
    what: Any,
    route: str | None,
    options: Options,
    *,
    variables: Mapping[str, Any] | None = None,
    addressed: Route | None = None,
) -> Plan:
    """A plan from a cell's body (`variables` given) or from the `prompts` of `holynb.infer` (a template where a frame is given).

    `addressed`: the route whose provider `--api-base` is about, where that is not the plan's own.

    Raises UserError. No request is sent; a socket is opened only for `--chunk auto`, to ask for a context length that nobody publishes.
    """
    embedding.check(options)
    out_path.check(options)
    source, table = inputs.source(options, variables)
    if options.into is not None:
        frame.check_into(source, options.into)
    # --compare and --spread name all routes: the default does not join several of them unasked, but one alone.
    several = options.compare or options.spread
    given = settings.route(route or (several[0] if len(several) > 1 else None))
    compared = list(dict.fromkeys([given, *(settings.route(r) for r in options.compare)]))
    if options.compare and len(compared) == 1 and (options.samples or 1) == 1:
        words = f"--compare names {given} alone, so nothing is compared. Name another route, or ask one several times: --samples 3."
        raise BadOption(words)
    blanks = Blanks()
    prompts = inputs.prompts(what, options, source, variables, len(compared) * (options.samples or 1), blanks=blanks)
    decisions, notes, escalate = _routed(prompts, given, options, source)
    held_to = None if options.schema is None else schema.load(options.schema, variables)
    asked_of = [[d.route] for d in decisions] or [compared] * len(prompts)
    # A route that no row goes to needs neither a key nor a pool that runs.
    by_row = zip(empties(prompts), asked_of, strict=True)
    routes = list(dict.fromkeys(r for empty, of_row in by_row if not empty for r in of_row)) or [given]
    escalate = escalate if held_to is not None and any(r != escalate for r in routes) else None
    endpoints = reached([*routes, *([escalate] if escalate else [])], addressed or given, options)
    # A dry run says what a key is missing, among the rest; what a job costs is often asked before there is one.
    service_tiers.check(endpoints, options.tier)
    graded = judge.of(options, held_to, traits)
    everyone = endpoints if graded is None else reached([*(e.route for e in endpoints), graded.route], addressed or given, options)
    secrets = {} if options.dry_run else {e.route: keys.resolve(e) for e in everyone}
    check_prices(everyone, options)
    index = None if source is None else source.index
    if options.compare or options.samples:
        if options.into is not None:
            raise BadOption("--into takes one answer a row; --compare and --samples make several. Leave one of them out.")
        index = frame.cross_index(index, len(prompts), [str(r) for r in asked_of[0]], options.samples or 1)
    samplings = {r: _Samplings.of(options, traits(r)) for r in dict.fromkeys(r for several in asked_of for r in several)}

    def request_of(row: int, prompt: Prompt, route: Route, sample: int) -> Request | None:
        one = request(row, prompt, route, options, sample, samplings=samplings[route])
        return one if one is None or held_to is None else replace(one, schema=held_to.wire)

    row_prompts, requests = stored_requests.crossed(prompts, asked_of, options.samples or 1, request_of)
    check_wires(endpoints, kinds(requests))
    attaching.check(attaching_rows(requests), endpoints, options)
    long, chunk_notes = long_rows(requests, endpoints, options, secrets)
    expected = labels.load(options, source, held_to, prompts=len(prompts), each=max(1, len(requests) // max(1, len(prompts))))
    notes = [
        *blanks.lines(options),
        *notes,
        *chunk_notes,
        *attaching.notes(requests if options.attach else attaching_rows(requests), options),
        *route_notes(endpoints, requests),
    ]
    notes += [*labels.notes(expected, what, held_to), *judge.notes(graded, routes, attached=bool(options.attach))]
    return Plan(
        Rows(row_prompts, requests, index, source, long, table),
        Targets(everyone, secrets, addressed or given, decisions, escalate),
        options,
        schema=held_to,
        notes=notes,
        labels=expected,
        judge=graded,
    )


def _routed(
    prompts: Sequence[Prompt], given: Route, options: Options, source: Any
) -> tuple[list[routing.Decision], list[str], Route | None]:
    """Where `--router` sends each prompt, what to say of rules that decided nothing, and where it escalates to; nothing without it."""
    if options.router is None:
        return [], [], None
    if conflicts := [f"--{name}" for name in ("compare", "samples", "spread") if getattr(options, name)]:
        raise BadOption(f"--router chooses one route per row, but {conflicts[0]} asks for several. Leave one of them out.")
    router = routing.load(options.router, [] if source is None else [str(c) for c in source.columns])
    decisions = [routing.decide(router, prompt, given) for prompt in prompts]
    tasks = dict.fromkeys(rule.task for rule in routing.unused(router, decisions))
    notes = [f"A rule of --router {options.router} for {task} matched no row." for task in tasks]
    return decisions, notes, router.escalated(given)


#: What a row sets for itself alone, of most rows.
_NOTHING = Sampling()


@dataclass(frozen=True, slots=True)
class _Samplings:
    """How a route is asked. `usual`: one object for all rows that set nothing for themselves, by which their keys are made in common; and
    `seeded`, by sample, where a seed is given: with the same one all answers to a prompt would be the same.
    """

    known: ModelTraits
    run: Sampling
    usual: Sampling
    seeded: dict[int, Sampling] = field(default_factory=dict)

    @classmethod
    def of(cls, options: Options, known: ModelTraits) -> _Samplings:
        run = Sampling(options.max_tokens, options.temperature, options.top_p, options.stop, options.seed, options.p, options.think)
        return cls(known, run, _with_longest(run, known))

    def over(self, own: Sampling, sample: int) -> Sampling:
        """A row's, for this sample of its answers."""
        sampling = self.usual if own == _NOTHING else _with_longest(own.over(self.run), self.known)
        if not sample or sampling.seed is None:
            return sampling
        if sampling is not self.usual:
            return replace(sampling, seed=sampling.seed + sample)
        if sample not in self.seeded:
            self.seeded[sample] = replace(sampling, seed=sampling.seed + sample)
        return self.seeded[sample]


def _with_longest(sampling: Sampling, known: ModelTraits) -> Sampling:
    return sampling if sampling.max_tokens is not None else replace(sampling, max_tokens=known.longest(sampling.think))


def request(row: int, prompt: Prompt, route: Route, options: Options, sample: int, *, samplings: _Samplings) -> Request | None:
    """The request of one row; None where its prompt is empty and so nothing is asked. `samplings`: of the route."""
    if prompt.empty:
        return None
    if options.embed:
        return embedding.request(row, prompt, route, options)
    sampling = samplings.over(prompt.sampling, sample)
    if sampling.extra:
        check_extra(sampling.extra, route, schema=options.schema is not None)
    return Request(
        row,
        prompt.messages,
        route,
        sampling,
        sample,
        bool(options.stream),
        tiers=options.tier,
        default_limit=options.max_tokens is None and prompt.sampling.max_tokens is None,
        attach_urls=options.attach_urls,
    )
