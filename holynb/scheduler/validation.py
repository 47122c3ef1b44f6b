"""Validation of a run's answers against its schema: how each route receives it, and what follows an invalid answer. Pure.

To the scheduler an invalid answer is a fault like any other: after the first the model is asked to repair it at once; the second ends the
row, or moves it to its next tier or to the route that a router escalates to.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

from holynb.errors import Fault
from holynb.full_context import is_full
from holynb.scheduler.failover import WorkItem
from holynb.schema import Schema
from holynb.types import Completion, Endpoint, Message, Request, Route

__all__ = ["ResponseValidator", "supports_schema"]

#: The wires that carry a schema beside the prompt.
NATIVE_WIRES = ("openai", "responses", "azure", "azure-responses", "anthropic", "gemini", "vertex", "bedrock", "pool")
#: Error messages of servers that do not support structured output, or not this schema. Grammars and samplers are llama.cpp's and TGI's
#: words, "requested parameters" OpenRouter's, "JSON mode" Google's, "for format" Ollama's.
SCHEMA_UNSUPPORTED = re.compile(
    r"response[ _]?format|schema|structured|output[ _]?(?:config|format)|text[ _]?format|grammar|initialize samplers|json[ _]mode|requested parameters"
    r"|required for format",
    re.IGNORECASE,
)
#: The kinds of fault that carry such a message: OpenRouter answers 404, Ollama 500.
UNSUPPORTED_KINDS = ("bad_request", "not_found", "server")
#: Finish reasons that say why an answer is none of the schema.
_WHY = {"length": " (it was cut off{})", "refusal": " (the model refused to answer)"}
#: Groq's error code for a generation that it validated itself, found invalid and returns inside the error.
INVALID_GENERATION = "json_validate_failed"


def supports_schema(endpoint: Endpoint) -> bool:
    """Whether this endpoint takes a schema beside the prompt. `options = { structured = false }` of a provider overrides it."""
    structured = endpoint.options.get("structured")
    if isinstance(structured, bool):
        return structured
    if endpoint.wire == "sim":
        return endpoint.route.model == "json"
    if endpoint.wire == "sagemaker":
        return endpoint.options.get("schema", "openai") == "openai" and not endpoint.options.get("request")
    return endpoint.wire in NATIVE_WIRES


@dataclass(slots=True)
class ResponseValidator:
    """One run's schema. `prompted_routes` get it as text in the prompt; a route whose server refuses it otherwise is added.

    `escalations`: route → the tier that a row goes to once its answer stays invalid; `what`: is held to the schema;
    `longer`: what makes it longer. Owned by the io loop.
    """

    schema: Schema
    prompted_routes: set[Route] = field(default_factory=set)
    escalations: Mapping[Route, str] = field(default_factory=dict)
    what: str = "the answer"
    longer: str = ": --max-tokens"

    @classmethod
    def of(cls, schema: Schema, endpoints: Iterable[Endpoint], escalations: Mapping[Route, str]) -> Self:
        """A judge that knows which of these endpoints take a schema."""
        return cls(schema, {e.route for e in endpoints if not supports_schema(e)}, escalations)

    def prepare(self, request: Request, route: Route, repair: tuple[Message, ...] | None = None) -> Request:
        """The request as sent to `route`: the schema beside the prompt, or in it. `repair`: the conversation that asks for a repair."""
        if request.schema is None:
            return request
        if repair is not None:  # its text holds the schema, too
            return replace(request, messages=repair, schema=None if route in self.prompted_routes else request.schema)
        return replace(request, messages=self.schema.instruct(request.messages), schema=None) if route in self.prompted_routes else request

    def check(self, item: WorkItem, completion: Completion) -> None:
        """Raises Fault (invalid_output) for an invalid answer, and sets `repair_messages` on the item the first time."""
        problem = self.schema.check(completion.text).error if item.request.schema is not None else None
        if problem is None:
            return
        full = is_full(completion.finish_reason, completion.note)
        cut = f" ({completion.note})" if full else _WHY.get(completion.finish_reason, "").format(self.longer)
        facts: dict[str, Any] = {"usage": completion.usage, "model": completion.model, "raw": completion.text[:2000]}
        facts["reasoning"] = completion.reasoning
        raise self._invalid_output(item, completion.text, problem, f"{self.what} does not match the schema{cut}: {problem}", facts)

    def _invalid_output(self, item: WorkItem, text: str, problem: str, message: str, facts: Mapping[str, Any]) -> Fault:
        """The Fault of an invalid answer: the first is retried with a repair, the second ends the row or moves it on."""
        if item.repair_messages is None:
            item.repair_messages = self.schema.repair(item.request.messages, text, problem)
            item.faults -= 1  # a repair does not count as a retry
            return Fault("invalid_output", message, retry=True, wait=0.0, **facts)
        item.repair_messages = None
        self._escalate(item)
        return Fault("invalid_output", message, retry=False, **facts)

    def _escalate(self, item: WorkItem) -> None:
        """Where a router names a stronger route, the item may go there after all others."""
        stronger = self.escalations.get(item.request.route)
        if stronger is not None and stronger not in item.chain:
            item.chain = (*item.chain, stronger)

    def translate(self, item: WorkItem, route: Route, sent: Request, fault: Fault) -> Fault:
        """The fault as the scheduler handles it: a server without structured output is retried with the schema in the prompt."""
        if fault.kind == "invalid_output" and not fault.retry:
            self._escalate(item)
        if fault.kind not in UNSUPPORTED_KINDS or fault.status is None or sent.schema is None:
            return fault
        if INVALID_GENERATION in fault.message:
            facts = {"status": fault.status, "raw": fault.raw, "usage": fault.usage}
            return self._invalid_output(item, _failed_generation(fault.raw), "it is not JSON that matches the schema", fault.message, facts)
        if not SCHEMA_UNSUPPORTED.search(fault.message):
            return fault
        self.prompted_routes.add(route)
        item.faults -= 1
        message = f"{fault.message} (asked again with the schema in words)"
        return Fault("bad_request", message, retry=True, wait=0.0, status=fault.status, raw=fault.raw)


def _failed_generation(raw: str | None) -> str:
    """The answer inside an error's JSON; empty where that is cut off or has none."""
    try:
        generation = json.loads(raw or "")["error"]["failed_generation"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return ""
    return generation if isinstance(generation, str) else ""
