"""An answer without a word: which fault that is, and what to change. Pure; holds for every engine."""

from __future__ import annotations

from typing import Any

from holynb.errors import Fault
from holynb.scheduler.failover import WorkItem
from holynb.types import Done, Request, Sampling, Usage

__all__ = ["check"]

#: A longest answer in which most models think and still answer.
ROOMY_TOKENS = 4096


def check(item: WorkItem, request: Request, done: Done) -> None:
    """Raises Fault for an answer that holds nothing but white space.

    Ended by length it is `truncated`, and asked again would be the same; otherwise it is `invalid_output`, and is asked once more.
    """
    answer = done.completion
    if answer.text and not answer.text.isspace():
        item.empty_answers = 0
        return
    counted = answer.usage if answer.usage != Usage() else None
    facts: dict[str, Any] = {"usage": counted, "model": answer.model, "limits": done.limits, "finish_reason": answer.finish_reason}
    why = f" ({answer.note})" if answer.note else ""
    if answer.finish_reason == "length":
        raise Fault("truncated", _cut(request.sampling, answer.usage.tokens_out, thinking=answer.thinking), retry=False, **facts)
    if answer.finish_reason == "tool":
        words = "the model called a tool and wrote no answer; holynb runs no tools: leave them out (-p tools, -p tool_choice)"
        raise Fault("invalid_output", words, retry=False, **facts)
    item.empty_answers += 1
    again, words = item.empty_answers > 1, f"the answer is empty{why}; change the prompt, or ask another model"
    raise Fault("invalid_output", words, retry=not again, wait=0.0, **facts)


def _cut(sampling: Sampling, tokens_out: int | None, *, thinking: bool) -> str:
    """What happened to an answer that reached the token limit before its first word, and what to change."""
    named = {n: v for n, v in sampling.extra.items() if "tokens" in n.lower() and isinstance(v, int) and not isinstance(v, bool)}
    name, limit = next(iter(named.items()), (None, sampling.max_tokens))
    more = ROOMY_TOKENS if limit is None or limit < ROOMY_TOKENS else 2 * limit
    change = f"--max-tokens {more}" if name is None else f"-p {name}={more}"
    spent = tokens_out or limit
    if thinking:
        return f"all {spent or 'its'} tokens went to thinking; {change}"
    return f"the token limit was reached{f', after {spent} tokens,' if spent else ''} before the answer began; {change}"
