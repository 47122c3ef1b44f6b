"""`--embed`, before anything is sent: which options go with it, which routes embed, and the request of a row. Sends nothing."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

from holynb import poolfields
from holynb.config import BY_NAME, Options, embedding_models
from holynb.errors import BadOption, BadPrompt
from holynb.prompts import tokens
from holynb.types import Embedding, Endpoint, Prompt, Request, Route, Sampling
from holynb.words import counted

__all__ = ["check", "check_endpoints", "notes", "of", "request"]

#: Options that mean for vectors what they mean for answers. Any other is about answers, and is refused.
ALLOWED = frozenset(
    [
        "df",
        "file",
        "where",
        "limit",
        "lines",
        "raw",
        "p",
        "concurrency",
        "timeout",
        "connect_timeout",
        "deadline",
        "retries",
        "cache",
        "refresh",
        "resume",
        "name",
        "only",
        "into",
        "out",
        "bg",
        "api_base",
        "api_key_name",
        "show",
        "format",
        "quiet",
        "debug",
        "show_code",
        "rpm",
        "tpm",
        "fallback",
        "spread",
        "dry_run",
        "embed",
        "dimensions",
        "budget",
        "confirm",
        "price_as",
        "save",
        "use",
        "no_execute",
    ]
)
#: Providers without embeddings → why.
_NONE = {
    "anthropic": "Anthropic has no embedding models",
    "vertex": "embeddings through Vertex are not supported yet",
    "sagemaker": "embeddings of SageMaker's containers are not supported yet",
    "bedrock": "of Bedrock's models Titan (amazon.titan-embed-text-v2:0) and Cohere (cohere.embed-v4:0) are supported",
}


def check(options: Options) -> None:
    """Raises BadOption where an option is not for vectors, or pyarrow is missing."""
    if not options.embed:
        if options.dimensions is not None:
            raise BadOption("--dimensions says how many numbers the vectors of --embed have. Add --embed, or leave it out.")
        return
    default = Options()
    for name in Options.__slots__:
        if name not in ALLOWED and getattr(options, name) != getattr(default, name):
            raise BadOption(f"--embed gives vectors, and {BY_NAME[name].flags[-1]} is about answers. Leave one of them out.")
    if find_spec("pyarrow") is None:
        raise BadOption("--embed needs pyarrow for its column: %pip install 'holynb[files]'")


def check_endpoints(endpoints: Sequence[Endpoint], options: Options) -> None:
    """Raises BadOption for a route that cannot embed, or not so; and for several models, whose vectors cannot be compared."""
    if not options.embed:
        return
    first = endpoints[0].route
    for endpoint in endpoints:
        route, wire = endpoint.route, embedding_models.wire_of(endpoint)
        if wire is None:
            why = _NONE.get(endpoint.wire, f"its wire, {endpoint.wire}, has no embeddings")
            raise BadOption(f"{route} cannot embed: {why}. Ask {embedding_models.ALTERNATIVES}.")
        if _name(route) != _name(first):
            raise BadOption(
                f"--embed takes one model: the vectors of {first} and {route} cannot be compared. "
                f"--fallback and --spread may name {_name(first)} at other providers."
            )
        _check_fields(route, wire, options)


def _check_fields(route: Route, wire: str, options: Options) -> None:
    known = embedding_models.find(wire, route.model)
    if options.dimensions is not None and not known.may_have(options.dimensions):
        raise BadOption(f"{route} gives vectors of {known.offered} dimensions, not {options.dimensions:,}.")
    if "input_type" in options.p and known.input_type is False:
        raise BadOption(f"{route} has no field for what a text is: it embeds documents and queries alike. Leave -p input_type out.")
    if wire == "pool":
        try:
            poolfields.check_embedding_cell(options.p)
        except poolfields.FieldError as exc:
            raise BadOption(f"{route}: {exc}") from exc


def _name(route: Route) -> str:
    return route.model.rpartition("/")[2].lower()


def of(options: Options) -> Embedding | None:
    """What the requests of a cell with these options ask for."""
    return Embedding(options.dimensions) if options.embed else None


def request(row: int, prompt: Prompt, route: Route, options: Options) -> Request:
    """The request of one row, which is one text. Raises BadPrompt for a conversation, and for sampling of its own."""
    if len(prompt.messages) != 1 or prompt.messages[0].role != "user":
        raise BadPrompt(
            f"--embed takes one text a row, and row {row} has {counted(len(prompt.messages), 'message')} (a system prompt is one)."
        )
    if prompt.messages[0].attachments:
        raise BadPrompt(f"--embed embeds text, and row {row} has an attachment. Leave it out.")
    if prompt.sampling != Sampling():
        raise BadPrompt(f"--embed has no sampling, and row {row} sets some (max_tokens, temperature, …).")
    return Request(row, prompt.messages, route, Sampling(extra=options.p), embedding=of(options))


def notes(endpoints: Sequence[Endpoint], requests: Sequence[Request | None]) -> list[str]:
    """What to say of texts that are longer than what a model reads, where it leaves the rest out in silence."""
    if not any(r is not None and r.embedding is not None for r in requests):
        return []
    lines = []
    for endpoint in endpoints:
        wire = embedding_models.wire_of(endpoint)
        known = None if wire is None else embedding_models.find(wire, endpoint.route.model)
        if known is None or not known.cuts or known.longest is None:
            continue
        # Three tokens a character are more than any script takes, so short texts are not counted.
        long = sum(
            r is not None and 3 * len(r.messages[0].content) > known.longest and tokens.count_typical(r.messages[0].content) > known.longest
            for r in requests
        )
        if long:
            lines.append(
                f"{counted(long, 'row')} may be longer than the {known.longest:,} tokens that {endpoint.route} reads of a text. "
                "It leaves out the rest without a word."
            )
    return lines
