"""OpenAI's wire format on the way in: request bodies → `ApiRequest`. Pure; knows no sockets and no processes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from holynb import poolfields
from holynb.pool.protocol import LogitRules
from holynb.pool.server.apierror import ApiError
from holynb.pool.server.guides import Guide, guide_of
from holynb.pool.server.messages import Message, parse_messages, parse_prompts

__all__ = ["ApiError", "ApiRequest", "parse_request"]


@dataclass(frozen=True, slots=True)
class ApiRequest:
    """A validated request. `messages` for a chat, `prompts` (texts or ids) for plain completions. None: not given."""

    chat: bool
    messages: tuple[Message, ...] = ()
    template: Mapping[str, Any] = field(default_factory=dict)
    """What the chat template gets beside the messages."""
    effort: str | None = None
    """How much the model is to think."""
    budget: int | None = None
    """Tokens after which a thought is ended."""
    notes: tuple[str, ...] = ()
    """What is not as it was asked for."""
    prompts: tuple[str | tuple[int, ...], ...] = ()
    special: bool = True
    """The tokenizer puts its own special tokens around a prompt that is text."""
    truncate: int | None = None
    """Of a prompt, the last tokens that are kept."""
    n: int = 1
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    stop_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    rules: LogitRules | None = None
    given: frozenset[str] = frozenset()
    """Which of `rules` the request says, even where it says what changes nothing."""
    logprobs: int | None = None
    """Alternatives to give log probabilities of, beside each token's own; None: no log probabilities."""
    echo: bool = False
    ids_for_tokens: bool = False
    """Log probabilities name tokens by their ids."""
    stream: bool = False
    usage_chunk: bool = False
    model: str = ""
    guide: Guide | None = None
    """What the answer must look like."""

    @property
    def min_tokens(self) -> int:
        return self.rules.min_tokens if self.rules is not None else 0


def parse_request(body: Any, *, chat: bool) -> ApiRequest:
    """The request of a JSON body. Raises ApiError 400, naming the field."""
    if not isinstance(body, dict):
        raise ApiError(400, "The body must be a JSON object.")
    try:
        poolfields.check(body, chat=chat)
    except poolfields.FieldError as exc:
        code = "unsupported_parameter" if exc.unsupported else None
        raise ApiError(400, str(exc), param=exc.param, code=code) from exc
    limit = body.get("max_completion_tokens") if chat else None
    stop = body.get("stop")
    stream = bool(body.get("stream"))
    return ApiRequest(
        chat,
        messages=parse_messages(body.get("messages")) if chat else (),
        template=_template(body),
        effort=body.get("reasoning_effort"),
        budget=_budget(body),
        prompts=() if chat else parse_prompts(body.get("prompt")),
        special=body.get("add_special_tokens") is not False,
        truncate=body.get("truncate_prompt_tokens"),
        n=body.get("n") or 1,
        max_tokens=_first(limit, body.get("max_tokens"), None if chat else 16),
        temperature=body.get("temperature"),
        top_p=body.get("top_p"),
        top_k=body.get("top_k"),
        seed=body.get("seed"),
        stop=(stop,) if isinstance(stop, str) else tuple(stop or ()),
        stop_ids=tuple(body.get("stop_token_ids") or ()),
        ignore_eos=bool(body.get("ignore_eos")),
        rules=_rules(body),
        given=frozenset(name for name in ("repetition_penalty", "min_p", "min_tokens") if body.get(name) is not None),
        logprobs=_logprobs(body, chat=chat),
        echo=bool(body.get("echo")),
        ids_for_tokens=bool(body.get("return_tokens_as_token_ids")),
        stream=stream,
        usage_chunk=stream and bool((body.get("stream_options") or {}).get("include_usage")),
        model=body.get("model") or "",
        guide=guide_of(body),
    )


def _first(*values: Any) -> Any:
    """The first value that is given."""
    return next((v for v in values if v is not None), None)


def _template(body: Mapping[str, Any]) -> dict[str, Any]:
    values = dict(body.get("chat_template_kwargs") or {})
    return values if body.get("add_generation_prompt") is None else values | {"add_generation_prompt": body["add_generation_prompt"]}


def _budget(body: Mapping[str, Any]) -> int | None:
    """The budget; by the name that vLLM has for it, -1 is none."""
    value = _first(body.get("thinking_budget"), body.get("thinking_token_budget"))
    return None if value == -1 else value


def _logprobs(body: Mapping[str, Any], *, chat: bool) -> int | None:
    value = body.get("logprobs")
    if value is None or value is False:
        return None
    return body.get("top_logprobs") or 0 if chat else value


def _rules(body: Mapping[str, Any]) -> LogitRules | None:
    """What changes the logits, None where nothing does."""
    rules = LogitRules(
        repetition_penalty=_first(body.get("repetition_penalty"), 1.0),
        presence_penalty=body.get("presence_penalty") or 0.0,
        frequency_penalty=body.get("frequency_penalty") or 0.0,
        min_p=body.get("min_p") or 0.0,
        min_tokens=body.get("min_tokens") or 0,
        bias=tuple((int(token), float(bias)) for token, bias in (body.get("logit_bias") or {}).items()),
        allowed=tuple(body.get("allowed_token_ids") or ()),
    )
    return None if rules == LogitRules() else rules
