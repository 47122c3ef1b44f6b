"""Finish reasons: the words of each wire's servers, and what they mean. Tables with their sources; knows no JSON.

Ours are stop, length, tool, content_filter, error, pause_turn and other. Relays pass on the words of the server behind them, in any
spelling (`FinishReason.STOP`, `MAX_TOKENS`, `content-filter`), so every wire is read by all tables. A word that stands in none ends the
answer as `other`, and is told; one that says nothing (null, "", "None") is no reason.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

__all__ = [
    "ADVICE",
    "ANTHROPIC",
    "BEDROCK",
    "CONTEXT_FULL",
    "GEMINI",
    "OPENAI",
    "RESPONSES",
    "SAYS_NOTHING",
    "SERVERS",
    "TGI",
    "Finish",
    "finish",
    "worse",
]

#: openai-python 2.54, types/chat/chat_completion.py.
OPENAI: Mapping[str, str] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool",
    "function_call": "tool",
    "content_filter": "content_filter",
}
#: openai-python 2.54, types/responses/response_status.py and IncompleteDetails: a status, or what made a response incomplete.
RESPONSES: Mapping[str, str] = {
    "completed": "stop",
    "incomplete": "length",  # without a reason beside it: aimock
    "failed": "error",
    "cancelled": "error",
    "max_output_tokens": "length",
    "content_filter": "content_filter",
}
#: anthropic-sdk-python 2.12, types/stop_reason.py.
ANTHROPIC: Mapping[str, str] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool",
    "pause_turn": "pause_turn",
    "refusal": "content_filter",
}
#: python-genai 3.4, types.py, FinishReason.
GEMINI: Mapping[str, str] = {
    "STOP": "stop",
    "MAX_TOKENS": "length",
    "CONTINUATION": "length",
    "OTHER": "other",
    "IMAGE_OTHER": "other",
    "NO_IMAGE": "other",
    "SAFETY": "content_filter",
    "RECITATION": "content_filter",
    "LANGUAGE": "content_filter",
    "BLOCKLIST": "content_filter",
    "PROHIBITED_CONTENT": "content_filter",
    "SPII": "content_filter",
    "MODEL_ARMOR": "content_filter",
    "ESCALATION": "content_filter",
    "PUP_LIMITED_DISABLED": "content_filter",
    "IMAGE_SAFETY": "content_filter",
    "IMAGE_PROHIBITED_CONTENT": "content_filter",
    "IMAGE_RECITATION": "content_filter",
    "MALFORMED_FUNCTION_CALL": "error",
    "MALFORMED_RESPONSE": "error",
    "UNEXPECTED_TOOL_CALL": "error",
    "TOO_MANY_TOOL_CALLS": "error",
    "MISSING_THOUGHT_SIGNATURE": "error",
}
#: text-generation-inference, router/src/lib.rs, FinishReason: of SageMaker's containers, and of DJL after it.
TGI: Mapping[str, str] = {"length": "length", "eos_token": "stop", "stop_sequence": "stop"}
#: botocore 1.44, bedrock-runtime, StopReason; the rest are Anthropic's words.
BEDROCK: Mapping[str, str] = {
    "guardrail_intervened": "content_filter",
    "content_filtered": "content_filter",
    "malformed_model_output": "error",
    "malformed_tool_use": "error",
}
#: Of other servers that speak OpenAI's protocol.
SERVERS: Mapping[str, str] = {
    "insufficient_system_resource": "error",  # DeepSeek, api-docs.deepseek.com, create-chat-completion
    "model_length": "length",  # Mistral, docs.mistral.ai/api
    "error": "error",  # Mistral; OpenRouter, openrouter.ai/docs; vLLM, v1/engine/__init__.py
    "abort": "error",  # vLLM; SGLang
    "aborted": "error",
    "network_error": "error",  # Zhipu, docs.bigmodel.cn; anomalyco/opencode#44376
    "sensitive": "content_filter",  # Zhipu; anomalyco/opencode#44092
    "eos": "stop",  # Together, and relays of it
    "complete": "stop",  # Cohere, docs.cohere.com/reference/chat
    "error_toxic": "content_filter",
    "tool_call": "tool",
}
#: What stands for no reason at all. `unspecified` is Gemini's FINISH_REASON_UNSPECIFIED.
SAYS_NOTHING = frozenset({"", "null", "none", "nil", "undefined", "unspecified"})
#: Words for a context that is full: more --max-tokens would not help.
CONTEXT_FULL = frozenset({"model_context_window_exceeded", "model_length"})
#: What to change after a word that means a filter; the same words go with every wire.
ADVICE: Mapping[str, str] = {
    "recitation": "it repeated a source word for word; rephrase the prompt, or raise --temperature",
    "language": "it does not support this language; use another model",
    "pup_limited_disabled": "the account is restricted for prohibited uses; only the provider can lift that",
    "safety": "rephrase the prompt, or use another model; -p safetySettings=[…] sets the filter of gemini/",
    "guardrail_intervened": "a guardrail of the AWS account stopped it; rephrase the prompt, or change the guardrail",
    "refusal": "the model refused; rephrase the prompt, or use another model",
}
#: How long a word may be: longer ones are no words, and messages quote them.
MAX_CHARS = 60

#: How much a reason that comes after another one counts; with the same weight the first stays.
_WEIGHT: Mapping[str, int] = {"error": 3, "content_filter": 2, "length": 1, "other": -1}
_CASE = re.compile(r"(?<=[a-z])(?=[A-Z])")


class Finish(NamedTuple):
    """Why an answer ended: in our word, and in the server's own, `key` in the spelling of the tables."""

    reason: str
    word: str
    key: str


def finish(word: Any) -> Finish | None:
    """The meaning of a server's word; None where it is no reason."""
    if not word:
        return None
    if isinstance(word, Mapping):  # SGLang: {"type": "length", "length": 16}
        word = word.get("type")
    return _read(str(word)[: 2 * MAX_CHARS])


def worse(new: Finish, old: Finish) -> bool:
    """Whether a reason that comes later is the one that counts: a filter or a limit does, a gateway's closing `stop` does not."""
    return _WEIGHT.get(new.reason, 0) > _WEIGHT.get(old.reason, 0)


@lru_cache(maxsize=256)
def _read(word: str) -> Finish | None:
    key = _key(word)
    return None if key in SAYS_NOTHING else Finish(_MEANING.get(key, "other"), word.strip()[:MAX_CHARS], key)


def _key(word: str) -> str:
    """The word as the tables spell it: the name of an enum's value, in small letters."""
    name = _CASE.sub("_", word.strip().rpartition(".")[2])
    return name.lower().replace("-", "_").replace(" ", "_").removeprefix("finish_reason_")


_MEANING: Mapping[str, str] = {
    _key(word): reason for table in (SERVERS, BEDROCK, TGI, GEMINI, ANTHROPIC, RESPONSES, OPENAI) for word, reason in table.items()
}
