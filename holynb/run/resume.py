"""Plans that continue an earlier run, of this session or of the run log: `--resume`, `--only failed`, a `--name` used before."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from holynb import runlog, schema
from holynb.config import Options, keys, settings
from holynb.errors import BadOption, closest
from holynb.results import frame
from holynb.run import attaching, embedding, judge, logged_rows, out_input, session, unfinished_rows
from holynb.run.chunk_plan import long_rows
from holynb.run.labels import stored as stored_labels
from holynb.run.plan import Continued, Plan, Rows, Targets, check_prices, reached, route_notes, traits
from holynb.run.stored_requests import attaching_rows, has_attachments, kinds
from holynb.runlog import BrokenLog, RunRecord, StoredRow
from holynb.types import Outcome, Request
from holynb.words import counted

__all__ = ["continued", "failed_again", "resumed", "stored", "unfinished"]

#: How many runs back one that did not end is looked for.
LOOKED_THROUGH = 50


def stored(name: str) -> RunRecord:
    """The run of this name or id in the log, or BadOption with the closest one."""
    if (record := runlog.log().find(name)) is None:
        known = [w for r in runlog.log().runs() for w in (r.name, r.id) if w]
        raise BadOption(f"There is no run {name!r} in the run log.{closest(name, known)} %infer runs lists them.")
    return record


def continued(plan: Plan) -> Plan:
    """The plan as a continuation of the run that `--resume`, `--only failed` or a `--name` used before point at; else as it is.

    With `--only failed`, what did not fail then is kept, by position.
    """
    options = plan.options
    if options.only is not None:
        run, rows = _earlier(options.resume or options.name)
        if len(rows) != len(plan.rows.prompts):
            raise BadOption(
                f"--only failed: that run had {counted(len(rows), 'row')} and this cell has {len(plan.rows.prompts):,}. "
                "Run the same rows, or drop it."
            )
        return replace(plan, earlier=Continued(run, logged_rows.chosen(rows, _is_good)))
    if options.resume is not None:
        record = stored(options.resume)
        unfinished_rows.check(plan, record)
        return replace(plan, earlier=Continued(record.id, rows=record.n))
    if options.name is not None:
        with suppress(BrokenLog):  # the run itself says so, and goes on without one
            if (named := runlog.log().find(options.name)) is not None and named.name == options.name:
                unfinished_rows.check(plan, named)
                return replace(plan, earlier=Continued(named.id, rows=named.n))
    return plan


def failed_again(name: str | None = None, options: Mapping[str, Any] | None = None) -> Plan:
    """A plan that sends a run's failed rows again (`%infer run --only failed`). `options` change how they are sent, not what they ask."""
    run = session.find(name) if name else session.last()
    if run is None:
        plan = resumed(name or _newest(), options)
        return replace(plan, earlier=Continued(plan.earlier.run, logged_rows.chosen(_earlier(plan.earlier.run)[1], _is_good)))
    changes = Options.parse(options or {})
    chosen = replace(run.plan.options, **{name: getattr(changes, name) for name in options or {}})
    rows, targets = run.plan.rows, run.plan.targets
    endpoints = reached([e.route for e in targets.endpoints], targets.given or run.route, chosen)  # another --fallback may be given now
    check_prices(endpoints, chosen)
    secrets = {e.route: keys.resolve(e) for e in endpoints}  # anew: the one of then may have been refused, or its address changed
    kept = logged_rows.chosen(run.rows(), _is_good)
    requests = attaching.renewed(rows.requests, kept) if has_attachments(rows.requests) else rows.requests
    long, notes = long_rows(requests, endpoints, chosen, secrets)
    return replace(
        run.plan,
        rows=replace(rows, requests=requests, long=long),
        targets=replace(targets, endpoints=endpoints, secrets=secrets),
        options=chosen,
        earlier=Continued(run.id, kept),
        notes=[*notes, *attaching.notes(attaching_rows(requests), chosen, kept), *route_notes(endpoints, requests)],
    )


def resumed(name: str, options: Mapping[str, Any] | None = None) -> Plan:
    """A plan made from the log alone: the run's own requests on their own routes (`%infer resume RUN`).

    Of a run of this session its input goes along, so that the value is what its cell would have given.
    """
    record = stored(name)
    here = session.find(record.id)
    stored_options = {
        k: v for k, v in record.spec.get("options", {}).items() if k not in ("only", "resume", "into", "file", "where", "limit")
    }
    chosen = Options.parse({**stored_options, **(options or {})})
    source, given_table, out_notes = None, None, []
    if here is not None:
        source, given_table = here.plan.rows.source, here.plan.rows.given
        chosen = replace(chosen, into=here.plan.options.into)
    if source is None and chosen.out is not None and "input" in record.spec:
        source, into = out_input.again(record.spec, record.n)
        chosen = replace(chosen, into=into) if source is not None else replace(chosen, out=None)
        if source is None:
            out_notes = [
                (
                    f"{stored_options['out']} has the columns of an input that the run log does not: run the cell again, it sends nothing twice "
                    "and completes the file."
                )
            ]
    variable, unfilled = _variable(record, lacks_input=chosen.into is None and "into" in record.spec.get("options", {}))
    held_to = schema.load(record.spec["schema"]) if "schema" in record.spec else None
    first, given = settings.route(record.route), settings.route(record.spec.get("given") or record.route)

    def request(row: StoredRow) -> Request:
        if row.route is None and any(record.spec.get("options", {}).get(option) for option in ("router", "compare")):
            raise BadOption(
                f"{name} was made by an older holynb, which did not keep where each row went. Run its cell again with --resume {name}."
            )
        one = Request(
            row.row,
            attaching.restored(row.messages),
            first if row.route is None else settings.route(row.route),
            row.sampling,
            row.sample,
            bool(chosen.stream),
            held_to.wire if held_to else None,
            embedding=embedding.of(chosen),
            attach_urls=chosen.attach_urls,
        )
        return replace(one, default_limit=_is_default(one, chosen))

    rows = logged_rows.read(runlog.log(), record, request)
    requests = rows.requests
    escalate = settings.route(record.spec["escalate"]) if held_to and "escalate" in record.spec else None
    routes = [r.route for r in kinds(requests) if r] + ([escalate] if escalate else [])
    graded = judge.of(chosen, held_to, traits)
    endpoints = reached(list(dict.fromkeys([first, *routes, *([graded.route] if graded else [])])), given, chosen)
    check_prices(endpoints, chosen)
    index = frame.restore_index(rows.labels, record.spec.get("index")) if here is None else here.plan.rows.index
    if (
        here is None and "index" not in record.spec and (chosen.compare or chosen.samples) and getattr(index, "nlevels", 1) > 2
    ):  # an older log
        index.names = [*index.names[:-2], "asked_route", "sample"]
    secrets = {e.route: keys.resolve(e) for e in endpoints}
    long, notes = long_rows(requests, endpoints, chosen, secrets)
    attached = requests if chosen.attach else attaching_rows(requests)
    return Plan(
        Rows(rows.prompts, requests, index, source, long, given_table, None if source is None else record.spec.get("input")),
        Targets(endpoints, secrets, given, escalate=escalate),
        chosen,
        Continued(record.id),
        held_to,
        [*out_notes, *unfilled, *notes, *attaching.notes(attached, chosen, _answered(record, requests)), *route_notes(endpoints, requests)],
        stored_labels(chosen, rows.expected, record.n, held_to),
        graded,
        variable,
    )


def _variable(record: RunRecord, *, lacks_input: bool) -> tuple[str | None, list[str]]:
    """The variable that the run's cell fills, None where its value cannot be made whole, and then why not."""
    variable = record.spec.get("variable")
    if variable is None or not lacks_input:
        return variable, []
    return None, [
        f"{variable} stays as it is: the columns of its input are not in the run log. Run its cell again; it sends nothing twice."
    ]


def _answered(record: RunRecord, requests: Sequence[Request | None]) -> Collection[int]:
    """The rows that the log answers, where that is worth asking: what is wrong with their attachments is no matter any more."""
    if not has_attachments(requests):
        return ()
    return logged_rows.chosen(logged_rows.outcomes(runlog.log(), record.id, record.n), lambda outcome: outcome.status == "ok").keys()


def unfinished() -> str:
    """The id of the newest run that was stopped or killed before its end, and that nobody continues now. Raises BadOption."""
    running = {run.id for run in session.runs() if not run.done}
    for record in runlog.log().runs(LOOKED_THROUGH):
        if record.id not in running and unfinished_rows.ended_early(record):
            return record.id
    raise BadOption("There is no unfinished run. %infer runs lists all; %infer resume RUN sends what one of them lacks.")


def _is_default(request: Request, options: Options) -> bool:
    """Whether nobody said how long the answer may be: the log keeps the number alone."""
    sampling = request.sampling
    if request.embedding is not None:
        return False
    return options.max_tokens is None and sampling.max_tokens == traits(request.route).longest(sampling.think)


def _newest() -> str:
    newest = runlog.log().runs(1)
    if not newest:
        raise BadOption("There is no run yet. Start one with %%infer.")
    return newest[0].id


def _earlier(name: str | None) -> tuple[str, Sequence[Outcome | None]]:
    """The id and the outcomes by row of a run of the session or of the log; the last one where no name is given."""
    run = session.find(name) if name else session.last()
    if run is not None:
        return run.id, run.rows()
    record = stored(name or _newest())
    return record.id, logged_rows.outcomes(runlog.log(), record.id, record.n)


def _is_good(outcome: Outcome) -> bool:
    """Whether a row needs no other: skipped, or ok with a text; in an older log, one without is ok, too."""
    return outcome.status == "skipped" or (outcome.status == "ok" and bool((outcome.text or "").strip()))
