"""What a run will do, settled before it starts: prompts, routes, requests. Sends nothing; every mistake of the user is found here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from holynb import pools, schema
from holynb.config import Options, keys, settings, suggest
from holynb.errors import BadOption, BadRoute, BadSetting, Fault
from holynb.pricing import prices
from holynb.prompts import chunking, render
from holynb.results import frame
from holynb.run import routing
from holynb.types import Endpoint, Outcome, Prompt, Request, Route, Sampling, Secret, Timeouts, Usage
from holynb.words import counted

__all__ = ["HOSTED_MAX_TOKENS", "POOL_MAX_TOKENS", "Plan", "code", "context", "cut_key", "long_rows", "make", "priced", "reached"]

#: Longest answer where nothing is said (contract section 2).
HOSTED_MAX_TOKENS, POOL_MAX_TOKENS = 2048, 512

#: Seconds that a server may take to list its models.
ASK_S = 5.0

#: What `ask` gets: the endpoint whose key is missing. Returns the key, or None.
Ask = Callable[[Endpoint], str | None]


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything a run needs. `requests[i]` is None where row i is skipped; `kept` are outcomes that are not asked for again.

    `decisions[i]` says why row i goes where it goes, with `--router`; `given` is the cell's own route; `notes` are for a person to read.
    `long` are the rows that `--chunk` asks in parts; `schema` is what `--schema` holds answers to, and `escalate` where a row goes from its
    route whose answer stays invalid. `continues` is the id of the earlier run that this one goes on with, in the run log too.
    """

    prompts: Sequence[Prompt]
    requests: Sequence[Request | None]
    endpoints: Sequence[Endpoint]
    options: Options
    secrets: Mapping[Route, Secret | None] = field(default_factory=dict)
    index: Any = None
    source: Any = None
    kept: Mapping[int, Outcome] = field(default_factory=dict)
    continues: str | None = None
    decisions: Sequence[routing.Decision] = ()
    long: Mapping[int, chunking.ChunkPlan] = field(default_factory=dict)
    given: Route | None = None
    schema: schema.Schema | None = None
    escalate: Route | None = None
    notes: Sequence[str] = ()

    @property
    def route(self) -> Route:
        """Where the rows go first."""
        return self.endpoints[0].route

    def stops(self, route: Route) -> Sequence[Sequence[Route]]:
        """The stops on the way of a row that asks `route`: it and the equal routes of `--spread`, then each `--fallback`."""
        equal = [route, *(settings.route(r) for r in self.options.spread)]
        rest = [[settings.route(r)] for r in self.options.fallback]
        return [list(dict.fromkeys(equal)), *(r for r in rest if r[0] not in equal)]

    @property
    def price_as(self) -> Route | None:
        """The route of `--price-as`."""
        return settings.route(self.options.price_as) if self.options.price_as else None

    @property
    def timeouts(self) -> Timeouts:
        return Timeouts(connect=self.options.connect_timeout, silence=self.options.timeout)


def make(what: Any, route: str | None, options: Options, *, variables: Mapping[str, Any] | None = None, ask: Ask | None = None) -> Plan:
    """A plan from a cell's body (`variables` given) or from the `prompts` of `holynb.infer` (a template where a frame is given).

    Raises UserError. No request is sent; a socket is opened only for `--chunk auto`, to ask for a context length that nobody publishes.
    """
    source = _source(options, variables)
    if options.into is not None:
        frame.check_into(source, options.into)
    asked = _prompts(what, options, source, variables)
    # Routes that are named to stand beside each other are all there are: the default does not join them unasked. One alone stands beside it.
    several = options.compare or options.spread
    given = settings.route(route or (several[0] if len(several) > 1 else None))
    decisions, notes, escalate = _routed(asked, given, options, source)
    held = None if options.schema is None else schema.load(options.schema, variables)
    ways = [[d.route] for d in decisions] or [list(dict.fromkeys([given, *(settings.route(r) for r in options.compare)]))] * len(asked)
    # A route that no row goes to needs neither a key nor a pool that runs.
    routes = list(dict.fromkeys(r for p, way in zip(asked, ways, strict=True) if not p.empty for r in way)) or [given]
    escalate = escalate if held is not None and any(r != escalate for r in routes) else None
    endpoints = reached([*routes, *([escalate] if escalate else [])], given, options)
    # A dry run says what a key is missing, among the rest; what a job costs is often asked before there is one.
    secrets = {} if options.dry_run else {e.route: keys.find(e, ask) for e in endpoints}
    priced(endpoints, options)
    index = None if source is None else source.index
    if options.compare or options.samples:
        if options.into is not None:
            raise BadOption("--into takes one answer a row; --compare and --samples make several. Leave one of them out.")
        index = frame.crossed(index, len(asked), [str(r) for r in ways[0]], options.samples or 1)
    crossed = [(p, r, k) for p, way in zip(asked, ways, strict=True) for r in way for k in range(options.samples or 1)]
    requests = shaped([request(i, p, r, options, k) for i, (p, r, k) in enumerate(crossed)], held)
    long, told = long_rows(requests, endpoints, options, secrets)
    return Plan(
        [p for p, _, _ in crossed],
        requests,
        endpoints,
        options,
        secrets,
        index,
        source,
        decisions=decisions,
        long=long,
        given=given,
        schema=held,
        escalate=escalate,
        notes=[*notes, *told],
    )


def reached(routes: Sequence[Route], given: Route, options: Options) -> tuple[Endpoint, ...]:
    """Every endpoint that some row may ask, the first row's first. The cell's address and key name are those of the route it gives."""
    others = [settings.route(r) for r in (*options.spread, *options.fallback)]
    return tuple(
        settings.endpoint(r, *((options.api_base, options.api_key_name) if r == given else ())) for r in dict.fromkeys([*routes, *others])
    )


def shaped(requests: Sequence[Request | None], held: schema.Schema | None) -> list[Request | None]:
    """The requests with what their answers are to hold to."""
    return list(requests) if held is None else [None if r is None else replace(r, schema=held.wire) for r in requests]


def _routed(asked: Sequence[Prompt], given: Route, options: Options, source: Any) -> tuple[list[routing.Decision], list[str], Route | None]:
    """Where `--router` sends each prompt, what to say of rules that decided nothing, and where it escalates to; nothing without it."""
    if options.router is None:
        return [], [], None
    if beside := [f"--{name}" for name in ("compare", "samples", "spread") if getattr(options, name)]:
        raise BadOption(f"--router chooses one route a row, and {beside[0]} asks for several. Leave one of them out.")
    router = routing.load(options.router, [] if source is None else [str(c) for c in source.columns])
    decisions = [routing.decide(router, prompt, given) for prompt in asked]
    tasks = dict.fromkeys(rule.task for rule in routing.unused(router, decisions))
    notes = [f"A rule of --router {options.router} for {task} matched no row." for task in tasks]
    return decisions, notes, router.escalated(given)


def priced(endpoints: Sequence[Endpoint], options: Options) -> None:
    """A budget needs a price for every route that could be asked (`pool` spends nothing), `--price-as` for the one it names."""
    if options.price_as and prices.price(other := settings.route(options.price_as), None, Usage(1, 1)) is None:
        raise BadSetting(
            f"--price-as needs a price for {other}, and none is known.{suggest.model(other, settings.providers())} Set it in config.toml: "
            f'[price."{other}"] input = …, output = … (dollars per million tokens)'
        )
    for endpoint in endpoints:
        prices.list_price(endpoint.route)  # a price of one's own that does not hold is found before the first row
    if options.budget is None:
        return
    for endpoint in endpoints:
        if endpoint.wire != "pool" and prices.worst_case(endpoint.route, (), 1) is None:
            raise BadSetting(
                f"--budget needs a price for {endpoint.route}, and none is known.{suggest.model(endpoint.route, settings.providers())} Set it in config.toml: "
                f'[price."{endpoint.route}"] input = …, output = … (dollars per million tokens)'
            )


def request(row: int, prompt: Prompt, route: Route, options: Options, sample: int = 0) -> Request | None:
    """The request of one row; None where its prompt is empty and so nothing is asked."""
    if prompt.empty:
        return None
    longest = POOL_MAX_TOKENS if route.provider == "pool" else HOSTED_MAX_TOKENS
    run = Sampling(options.max_tokens, options.temperature, options.top_p, options.stop, options.seed, options.p)
    sampling = prompt.sampling.over(run.over(Sampling(max_tokens=longest)))
    return Request(row, prompt.messages, route, sampling, sample, stream=bool(options.stream))


def long_rows(
    requests: Sequence[Request | None], endpoints: Sequence[Endpoint], options: Options, secrets: Mapping[Route, Secret | None]
) -> tuple[dict[int, chunking.ChunkPlan], list[str]]:
    """The rows that `--chunk` asks in parts, with their parts, and what to say of them. Raises BadOption where a part has no room."""
    if options.chunk is None:
        return {}, []
    lengths = {e.route: context(e) or _told(e, secrets.get(e.route)) for e in endpoints} if options.chunk == "auto" else {}
    asked = [(r, chunking.size(options.chunk, lengths.get(r.route), r.sampling.max_tokens or 0)) for r in requests if r is not None]
    made = {
        (r.messages, most): chunking.plan(Prompt(r.messages), most)
        for r, most in {(r.messages, most): (r, most) for r, most in asked}.values()
    }
    long = {r.row: cut for r, most in asked if (cut := made[r.messages, most]) is not None}
    if not long:
        return {}, []
    sizes = sorted({most for r, most in asked if r.row in long})
    said = " or ".join(f"{most:,}" for most in sizes)
    told = f"{len(long):,} of {counted(len(asked), 'row')}: longer than {said} tokens, so asked in {sum(len(p.parts) for p in long.values()):,} parts (--chunk)."
    unknown = ", ".join(str(route) for route, length in lengths.items() if length is None)
    return long, [
        told,
        *([f"The context length of {unknown} is not known, so parts are short. --chunk N says how long."] if unknown else []),
    ]


def cut_key(request: Request, address: str, chunk: str) -> str:
    """What makes two rows the same that are asked in parts: theirs is another answer than that to the whole prompt."""
    return request.key(f"{address} --chunk {chunk}")


def context(endpoint: Endpoint) -> int | None:
    """The largest context in tokens: a running pool's own, else what its provider publishes. None where nobody says."""
    route = endpoint.route
    if endpoint.wire == "pool":
        try:
            if (record := pools.find(route.model)) is not None and (length := pools.status(record.name).max_len):
                return length
        except BadRoute:  # it ended between the two questions
            pass
    known = settings.providers().get(route.provider)
    return (known.models.get(route.model) or None) if known is not None else None


def _told(endpoint: Endpoint, secret: Secret | None) -> int | None:
    """The context length that a server's own list of models gives; None where there is no such list, or nobody answers."""
    if endpoint.wire != "openai":
        return None
    from holynb import loop
    from holynb.engines import servers

    asked = loop.submit(servers.models(endpoint, secret))
    try:
        listed = asked.result(ASK_S)
    except (Fault, TimeoutError):
        asked.cancel()
        return None
    return next((served.context for served in listed if served.id == endpoint.route.model), None)


def _source(options: Options, variables: Mapping[str, Any] | None) -> Any:
    """The frame the rows come from, None where there is none."""
    if options.df is not None and options.file is not None:
        raise BadOption("--df and --file both name the rows. Give one of them.")
    if options.df is not None:
        df = frame.by_name(variables or {}, options.df) if isinstance(options.df, str) else options.df
        frame.check_rows(df, options.df if isinstance(options.df, str) else "df")
    elif options.file is not None:
        df = frame.read(options.file)
        frame.check_rows(df, options.file)
    elif options.where is not None:
        raise BadOption("--where chooses rows of a frame: add --df NAME or --file PATH.")
    else:
        return None
    df = frame.select(df, options.where, options.limit)
    if not len(df):
        raise BadOption(f"--where {options.where!r} leaves no row, so there is nothing to send.")
    return df


def _prompts(what: Any, options: Options, source: Any, variables: Mapping[str, Any] | None) -> list[Prompt]:
    if source is not None:
        if not isinstance(what, str):
            raise BadOption("With df, prompts is one template string, rendered once per row.")
        named = settings.current().router.get(options.router or "", {}).get("column")
        told = replace(options, router=named) if isinstance(named, str) else options
        return render.render(what, rows=frame.records(source), variables=variables or {}, options=told)
    if variables is not None and isinstance(what, str):
        asked = render.render(what, rows=None, variables=variables, options=options)
    else:
        asked = render.of(what, options=options)
    return asked if options.limit is None else asked[: options.limit]


def code(plan_body: Any, route: str | None, options: Options) -> str:
    """The plain Python that does what the cell does (`--show-code`)."""
    default = Options()
    said = {n: getattr(options, n) for n in Options.__slots__ if getattr(options, n) != getattr(default, n)}
    args = [repr(plan_body), *([repr(route)] if route else [])]
    for name, value in said.items():
        if name not in ("show_code", "show", "quiet", "debug"):
            bare = isinstance(value, str) and (name == "df" or (name == "schema" and value.isidentifier()))
            args.append(f"{name}={value if bare else repr(value)}")
    joined = ",\n    ".join(args)
    return f"import holynb\n\nrun = holynb.infer(\n    {joined},\n)\nframe = run.wait().frame()\n"
