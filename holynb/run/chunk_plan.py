"""Which rows are too long for one request, and into what chunks `--chunk` cuts them. Asks a server only for its context length."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from holynb import pools
from holynb.config import Options, models, settings
from holynb.config.providers import OPENAI_WIRES
from holynb.errors import BadRoute, Fault
from holynb.prompts import chunking
from holynb.types import Endpoint, Prompt, Request, Route, Secret
from holynb.words import counted

__all__ = ["context", "long_rows"]

#: Seconds that a server may take to list its models.
LIST_MODELS_TIMEOUT_S = 5.0


def long_rows(
    requests: Sequence[Request | None], endpoints: Sequence[Endpoint], options: Options, secrets: Mapping[Route, Secret | None]
) -> tuple[dict[int, chunking.ChunkPlan], list[str]]:
    """The rows that `--chunk` asks in chunks, each with its chunks, and notes for a person. Raises BadOption where a chunk has no room."""
    if options.chunk is None:
        return {}, []
    lengths = {e.route: context(e) or _listed_context(e, secrets.get(e.route)) for e in endpoints} if options.chunk == "auto" else {}
    sized = [(r, chunking.request_size(options.chunk, lengths.get(r.route), r.sampling.max_tokens or 0)) for r in requests if r is not None]
    plans = {
        (r.messages, size): chunking.plan(Prompt(r.messages), size)
        for r, size in {(r.messages, size): (r, size) for r, size in sized}.values()
    }
    long = {r.row: chunk_plan for r, size in sized if (chunk_plan := plans[r.messages, size]) is not None}
    if not long:
        return {}, []
    sizes = " or ".join(f"{size:,}" for size in sorted({size for r, size in sized if r.row in long}))
    count = sum(len(p.parts) for p in long.values())
    notes = [
        f"{len(long):,} of {counted(len(sized), 'row')}: longer than {sizes} tokens, so asked in {count:,} parts (--chunk), and then for what these say together."
    ]
    unknown = ", ".join(str(route) for route, length in lengths.items() if length is None)
    if unknown:
        notes.append(f"The context length of {unknown} is not known, so parts are short. --chunk N sets their length.")
    return long, notes


def context(endpoint: Endpoint) -> int | None:
    """The largest context in tokens: a running pool's own, else what its provider publishes. None where nobody says."""
    route = endpoint.route
    if endpoint.wire == "pool":
        try:
            if (record := pools.find(route.model)) is not None and (length := pools.status(record.name).max_len):
                return length
        except BadRoute:  # it ended between the two questions
            pass
    provider = settings.providers().get(route.provider)
    listed = provider.models.get(route.model) if provider is not None else None
    known = models.find(route.provider, route.model)  # of more models than are on offer
    return listed or (known.context if known is not None else None)


def _listed_context(endpoint: Endpoint, secret: Secret | None) -> int | None:
    """The context length that a server's own list of models gives; None where there is no such list, or nobody answers."""
    if endpoint.wire not in OPENAI_WIRES:
        return None
    from holynb import loop
    from holynb.engines import servers

    listing = loop.submit(servers.models(endpoint, secret))
    try:
        models = listing.result(LIST_MODELS_TIMEOUT_S)
    except (Fault, TimeoutError):
        listing.cancel()
        return None
    return next((served.context for served in models if served.id == endpoint.route.model), None)
