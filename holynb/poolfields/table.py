"""The fields of a request to a pool's API: which are done and what each may be, which pass as long as they change nothing.

An allow-list, read by the pool's server and, before anything is sent, by a cell's `-p`. What is not here is refused by name: a field
that is dropped in silence gives another answer than the one asked for. Messages and prompts are read by the server.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from holynb.efforts import EFFORTS
from holynb.errors import closest
from holynb.poolfields import checks
from holynb.poolfields.checks import Check, FieldError

__all__ = ["FIELDS", "GUIDES", "NEUTRAL", "cell_fields", "check", "check_cell"]

MAX_CHOICES = 128
MAX_SEED = 2**63 - 1

_positive = checks.number(1, whole=True)

#: Fields that are done by both paths.
_BOTH: Mapping[str, Check] = {
    "model": checks.text,
    "n": checks.number(1, MAX_CHOICES, whole=True),
    "temperature": checks.number(0, 5),
    "top_p": checks.number(0, 1),
    "top_k": checks.number(-1, whole=True),
    "min_p": checks.number(0, 1),
    "seed": checks.number(-(2**63), MAX_SEED, whole=True),
    "stop": checks.stop,
    "stop_token_ids": checks.token_ids,
    "ignore_eos": checks.flag,
    "min_tokens": checks.number(0, whole=True),
    "repetition_penalty": checks.number(0, above=True),
    "presence_penalty": checks.number(-2, 2),
    "frequency_penalty": checks.number(-2, 2),
    "logit_bias": checks.logit_bias,
    "allowed_token_ids": checks.token_ids,
    "truncate_prompt_tokens": _positive,
    "return_tokens_as_token_ids": checks.flag,
    "stream": checks.flag,
    "stream_options": checks.stream_options,
    "response_format": checks.response_format,
    "structured_outputs": checks.structured_outputs,
    "guided_json": checks.schema,
    "guided_regex": checks.text,
    "guided_choice": checks.choice,
    "guided_grammar": checks.text,
    "grammar": checks.text,
    "user": checks.text,
}

#: Path (chat or not) → its fields that are done, each with what it may be.
FIELDS: Mapping[bool, Mapping[str, Check]] = {
    True: {
        **_BOTH,
        "messages": checks.anything,
        "max_tokens": _positive,
        "max_completion_tokens": _positive,
        "logprobs": checks.flag,
        "top_logprobs": checks.number(0, checks.MAX_TOP_LOGPROBS, whole=True),
        "chat_template_kwargs": checks.template_kwargs,
        "reasoning_effort": checks.one_of(*EFFORTS),
        "thinking_budget": checks.number(0, whole=True),
        "thinking_token_budget": checks.number(-1, whole=True),
        "add_generation_prompt": checks.flag,
    },
    False: {
        **_BOTH,
        "prompt": checks.anything,
        "max_tokens": checks.number(0, whole=True),
        "logprobs": checks.logprobs_count,
        "echo": checks.flag,
        "add_special_tokens": checks.flag,
    },
}

#: Fields that ask for an answer of a certain form.
GUIDES = ("response_format", "structured_outputs", "guided_json", "guided_regex", "guided_choice", "guided_grammar", "grammar")

#: Fields that pass with these values (and null), which change nothing, and are refused with any other. ANY: no value changes the answer.
ANY = object()
NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "audio": (),
    "bad_words": ([],),
    "best_of": (1,),
    "cache_prompt": (ANY,),
    "cache_salt": (),
    "chat_template": (),
    "continue_final_message": (False,),
    "documents": ([],),
    "early_stopping": (False,),
    "function_call": ("none",),
    "functions": ([],),
    "guided_decoding_backend": ("auto",),
    "guided_whitespace_pattern": (),
    "include_reasoning": (True,),
    "include_stop_str_in_output": (False,),
    "length_penalty": (1, 0),
    "metadata": (ANY,),
    "mm_processor_kwargs": ({},),
    "modalities": (["text"],),
    "parallel_tool_calls": (ANY,),
    "prediction": (),
    "priority": (0,),
    "prompt_cache_key": (ANY,),
    "prompt_cache_retention": (ANY,),
    "prompt_logprobs": (False,),
    "request_id": (ANY,),
    "return_token_ids": (False,),
    "safety_identifier": (ANY,),
    "service_tier": ("auto", "default"),
    "skip_special_tokens": (True,),
    "spaces_between_special_tokens": (True,),
    "store": (False,),
    "suffix": ("",),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "typical_p": (1,),
    "use_beam_search": (False,),
    "verbosity": ("medium",),
    "web_search_options": (),
    "xtc_probability": (0,),
}

#: Fields that a cell sets by itself → how to say it there.
_SAID_OTHERWISE = {
    "model": "name the pool in the cell's route, pool/NAME",
    "messages": "the cell's text is the message; --system is the one before it",
    "stream": "say --stream or --no-stream",
    "stream_options": "say --stream or --no-stream",
    "logprobs": "a cell keeps the text alone; the pool's API gives log probabilities, on a pool started with --port",
    "top_logprobs": "a cell keeps the text alone; the pool's API gives log probabilities, on a pool started with --port",
}


def check(body: Mapping[str, Any], *, chat: bool) -> None:
    """Raises FieldError for the first field of the body that this pool does not do, or not with this value."""
    fields = FIELDS[chat]
    for name, value in body.items():
        if name in fields:
            if value is not None:
                fields[name](name, value)
        elif name in NEUTRAL or name in FIELDS[not chat]:
            if value is not None and not _is_neutral(body, name, value):
                raise FieldError(name, f"{name} is not supported by this pool{'' if name in NEUTRAL else ' here'}.", unsupported=True)
        else:
            near = closest(name, [*fields, *NEUTRAL])
            raise FieldError(name, f"{name!r:.40} is no field that this pool knows.{near}", unsupported=True)
    _check_together(body, chat=chat)


def check_cell(extra: Mapping[str, Any], *, schema: bool) -> None:
    """As `check`, for what a cell adds to its requests by `-p`; `schema`: it has one. Raises FieldError."""
    for name, value in extra.items():
        if name in _SAID_OTHERWISE and value not in (None, False, 0):
            raise FieldError(name, f"-p {name} is not for a cell on a pool: {_SAID_OTHERWISE[name]}.", unsupported=True)
    if schema and (guide := next((g for g in GUIDES if _guides(extra, g)), None)):
        raise FieldError(guide, f"-p {guide} and --schema both say what the answer must look like. Leave one of them out.")
    check(extra, chat=True)


def cell_fields() -> dict[str, bool]:
    """The fields that a cell's `-p` can set on a pool → whether each is a switch."""
    return {name: kind is checks.flag for name, kind in FIELDS[True].items() if name not in _SAID_OTHERWISE}


def _is_neutral(body: Mapping[str, Any], name: str, value: Any) -> bool:
    if name == "tools" and body.get("tool_choice") == "none":
        return isinstance(value, list)  # no tool may be called: the answer is checks.text, as without them
    neutral = NEUTRAL.get(name, (False, 0))
    # true is no 1, and false no 0.
    return ANY in neutral or any(value == n and isinstance(value, bool) == isinstance(n, bool) for n in neutral)


def _guides(body: Mapping[str, Any], name: str) -> bool:
    value = body.get(name)
    plain = name == "response_format" and isinstance(value, Mapping) and value.get("type") == "text"
    return value is not None and value not in ("", {}) and not plain


def _check_together(body: Mapping[str, Any], *, chat: bool) -> None:
    """Fields that do not go together."""
    guides = [name for name in GUIDES if _guides(body, name)]
    if len(guides) > 1:
        raise FieldError(guides[1], f"{guides[0]} and {guides[1]} both say what the answer must look like: take one of them.")
    for name in ("ignore_eos", "min_tokens"):
        if guides and body.get(name):
            raise FieldError(name, f"{name} goes on where {guides[0]} ends: take one of them.")
    if guides and body.get("allowed_token_ids"):
        raise FieldError("allowed_token_ids", f"allowed_token_ids may leave no token that {guides[0]} allows: take one of them.")
    if body.get("stream_options") is not None and not body.get("stream"):
        raise FieldError("stream_options", "stream_options needs stream: true.")
    if chat and body.get("top_logprobs") is not None and not body.get("logprobs"):
        raise FieldError("top_logprobs", "top_logprobs needs logprobs: true.")
    if not chat and body.get("max_tokens") == 0 and not body.get("echo"):
        raise FieldError("max_tokens", "max_tokens must be a whole number from 1; 0 is for echo: true, which gives the prompt alone.")
    longest = body.get("max_completion_tokens") or body.get("max_tokens")
    if longest is not None and (body.get("min_tokens") or 0) > longest:
        raise FieldError("min_tokens", f"min_tokens must be at most max_tokens, {longest}.")
    if body.get("allowed_token_ids") == []:
        raise FieldError("allowed_token_ids", "allowed_token_ids must name a token.")
