"""A run whose answers are held to a schema: how each route is asked for one, and what follows an answer that does not hold. Pure.

An answer that does not hold is a fault like any other to the scheduler: the first is asked to be repaired at once, the second ends the row,
moves it to its next stop, or to the route that a router escalates to.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from holynb.errors import Fault
from holynb.scheduler.failover import WorkItem
from holynb.schema import Schema
from holynb.types import Completion, Endpoint, Message, Request, Route

__all__ = ["ResponseValidator", "native"]

#: The wires that carry a schema beside the prompt.
NATIVE = ("openai", "azure", "anthropic", "gemini", "pool")
#: How a server says that it does not know what it was asked with, or that this schema is too much for it. Grammars and samplers are
#: llama.cpp's and TGI's words, "requested parameters" OpenRouter's, "JSON mode" Google's, "for format" Ollama's.
UNKNOWN = re.compile(
    r"response[ _]?format|schema|structured|output[ _](?:config|format)|grammar|initialize samplers|json[ _]mode|requested parameters"
    r"|required for format",
    re.IGNORECASE,
)
#: The faults that such words may come as: OpenRouter answers 404, Ollama 500.
MAYBE = ("bad_request", "not_found", "server")
#: Groq's word for an answer that it made, found invalid and kept to itself.
KEPT_BACK = "json_validate_failed"


def native(endpoint: Endpoint) -> bool:
    """Whether this endpoint takes a schema beside the prompt; `options = { structured = false }` of a provider says that it does not."""
    said = endpoint.options.get("structured")
    if isinstance(said, bool):
        return said
    if endpoint.wire == "sim":
        return endpoint.route.model == "json"
    if endpoint.wire == "sagemaker":
        return endpoint.options.get("schema", "openai") == "openai" and not endpoint.options.get("request")
    return endpoint.wire in NATIVE


@dataclass(slots=True)
class ResponseValidator:
    """One run's schema. `words` are the routes that get it as words in the prompt; a server that refuses it otherwise joins them.

    `stronger` names the stop that a row goes to from its route once its answer stays invalid. Owned by the io loop.
    """

    schema: Schema
    words: set[Route] = field(default_factory=set)
    stronger: Mapping[Route, str] = field(default_factory=dict)

    @classmethod
    def of(cls, schema: Schema, endpoints: Iterable[Endpoint], stronger: Mapping[Route, str]) -> ResponseValidator:
        """A judge that knows which of these endpoints take a schema."""
        return cls(schema, {e.route for e in endpoints if not native(e)}, stronger)

    def asked(self, request: Request, route: Route, again: tuple[Message, ...] | None = None) -> Request:
        """The request as it goes to `route`: the schema beside it, or in its words. `again`: the conversation that asks for a repair."""
        if request.schema is None:
            return request
        if again is not None:  # says the schema in words, too
            return replace(request, messages=again, schema=None if route in self.words else request.schema)
        return replace(request, messages=self.schema.instruct(request.messages), schema=None) if route in self.words else request

    def hold(self, job: WorkItem, said: Completion) -> None:
        """Raise Fault (invalid_output) where an answer does not hold; the first time the job is made to ask again."""
        wrong = self.schema.check(said.text).error if job.request.schema is not None else None
        if wrong is None:
            return
        cut = " (it was cut off: --max-tokens)" if said.finish_reason == "length" else ""
        facts: dict[str, Any] = {"usage": said.usage, "model": said.model, "raw": said.text[:2000]}
        raise self._invalid(job, said.text, wrong, f"the answer does not hold to the schema{cut}: {wrong}", facts)

    def _invalid(self, job: WorkItem, text: str, wrong: str, message: str, facts: Mapping[str, Any]) -> Fault:
        """The fault of an answer that does not hold: the first is to be repaired, the second ends the row or moves it on."""
        if job.again is None:
            job.again = self.schema.repair(job.request.messages, text, wrong)
            job.faults -= 1  # a repair is none of --retries
            return Fault("invalid_output", message, retry=True, wait=0.0, **facts)
        job.again = None
        stronger = self.stronger.get(job.request.route)
        if stronger is not None and stronger not in job.chain:
            job.chain = (*job.chain, stronger)
        return Fault("invalid_output", message, retry=False, **facts)

    def refused(self, job: WorkItem, route: Route, sent: Request, fault: Fault) -> Fault:
        """The fault as the scheduler is to see it: a server that does not know structured output is asked again, in words."""
        if fault.kind not in MAYBE or fault.status is None or sent.schema is None:
            return fault
        if KEPT_BACK in fault.message:
            facts = {"status": fault.status, "raw": fault.raw, "usage": fault.usage}
            return self._invalid(job, _kept_back(fault.raw), "it is not JSON of the schema", fault.message, facts)
        if not UNKNOWN.search(fault.message):
            return fault
        self.words.add(route)
        job.faults -= 1
        message = f"{fault.message} (asked again with the schema in words)"
        return Fault("bad_request", message, retry=True, wait=0.0, status=fault.status, raw=fault.raw)


def _kept_back(raw: str | None) -> str:
    """The answer that an error holds; nothing where it is cut, or has none."""
    try:
        said = json.loads(raw or "")["error"]["failed_generation"]
    except (ValueError, LookupError, TypeError):
        return ""
    return said if isinstance(said, str) else ""
