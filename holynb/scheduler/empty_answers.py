"""An answer without a word, or with a refusal for one: which fault that is, and what to change. Pure; holds for every engine."""

from __future__ import annotations

from typing import Any

from holynb.config.model_traits import SHORT_TOKENS, ModelTraits
from holynb.errors import Fault
from holynb.full_context import is_full
from holynb.scheduler.failover import WorkItem
from holynb.types import Completion, Done, Request, Sampling, Usage
from holynb.words import counted

__all__ = ["check_empty"]

#: A longest answer in which most models think and still answer.
ROOMY_TOKENS = 4096
#: How much of a refusal is quoted.
MAX_REFUSAL = 300


def check_empty(item: WorkItem, request: Request, done: Done, traits: ModelTraits) -> None:
    """Raises Fault for an answer that holds nothing but white space, or that the server marks as a refusal. `traits`: of its model.

    Ended by length it is `truncated`, and asked again would be the same; otherwise it is `invalid_output`, and is asked once more.
    """
    answer = done.completion
    if answer.vectors is not None:
        _check_vectors(request, answer)
        return
    usage = answer.usage if answer.usage != Usage() else None
    facts: dict[str, Any] = {"usage": usage, "model": answer.model, "limits": done.limits, "finish_reason": answer.finish_reason}
    facts |= {"reasoning": answer.reasoning, "tier": answer.tier}
    if answer.finish_reason == "refusal":
        words = " ".join(answer.text.split())[:MAX_REFUSAL]
        raise Fault(
            "content_filter", f"the model refused{f' ({words})' if words else ''}: rephrase the prompt, or use another model", **facts
        )
    if answer.text and not answer.text.isspace():
        item.empty_answers = 0
        return
    item.thought = answer.thinking
    why = f" ({answer.note})" if answer.note else ""
    if is_full(answer.finish_reason, answer.note):
        raise Fault("context_length", _without_room(request.sampling, answer, traits), retry=False, **facts)
    if answer.finish_reason == "length":
        raise Fault("truncated", _cut(request.sampling, answer, traits), retry=False, **facts)
    if answer.finish_reason == "tool":
        words = "the model called a tool and wrote no answer; holynb does not run tools: leave them out (-p tools, -p tool_choice)"
        raise Fault("invalid_output", words, retry=False, **facts)
    item.empty_answers += 1
    again = item.empty_answers > 1
    raise Fault("invalid_output", f"the answer is empty{why}{_change(request.sampling, answer)}", retry=not again, wait=0.0, **facts)


def _change(sampling: Sampling, answer: Completion) -> str:
    """What to change where an answer has no word: `--stop`, where it may be that a string of it came first."""
    if sampling.stop and answer.finish_reason == "stop":
        maybe = "" if answer.note else ", and --stop may have ended it before its first word"
        return f"{maybe}; leave --stop out, or change it or the prompt"
    return "; change the prompt, or use another model"


def _check_vectors(request: Request, answer: Completion) -> None:
    """Raises Fault where there is not one for each text, all of one length: the wrong row would have the wrong one."""
    vectors, texts = answer.vectors or (), len(request.messages)
    sizes = {len(v) // 4 for v in vectors}
    facts: dict[str, Any] = {"usage": answer.usage if answer.usage != Usage() else None, "model": answer.model}
    if len(vectors) != texts:
        raise Fault("server", f"the server sent {counted(len(vectors), 'vector')} for {counted(texts, 'text')}", **facts)
    if len(sizes) != 1 or 0 in sizes:
        raise Fault("server", f"the server sent vectors of {' and '.join(map(str, sorted(sizes)))} numbers", **facts)


def _without_room(sampling: Sampling, answer: Completion, traits: ModelTraits) -> str:
    """What happened to an answer whose thoughts, or whose first tokens, left no room in the model's context, and what to change."""
    quieter = traits.quieter(sampling.think, short=False) if answer.thinking else None
    think = f"thinking took all that was left: --think {quieter}; " if quieter else ""
    return f"no answer began; {think}{answer.note}"


def _cut(sampling: Sampling, answer: Completion, traits: ModelTraits) -> str:
    """What happened to an answer that reached the token limit before its first word, and what to change."""
    named = {n: v for n, v in sampling.extra.items() if "tokens" in n.lower() and isinstance(v, int) and not isinstance(v, bool)}
    name, limit = next(iter(named.items()), (None, sampling.max_tokens))
    short = limit is not None and limit <= SHORT_TOKENS
    quieter = traits.quieter(sampling.think, short=short) if answer.thinking else None
    changes = [_more(name, limit, traits), f"--think {quieter}" if quieter else ""]
    change = " or ".join(c for c in changes if c) or "shorten the prompt, or use another model"
    spent = answer.usage.tokens_out or limit
    if answer.thinking:
        return f"all {spent or 'its'} tokens went to thinking; {change}"
    return f"the token limit was reached{f', after {spent} tokens,' if spent else ''} before the answer began; {change}"


def _more(name: str | None, limit: int | None, traits: ModelTraits) -> str:
    """`--max-tokens 4096`; nothing where the model answers no longer than it may already."""
    more = ROOMY_TOKENS if limit is None or limit < ROOMY_TOKENS else 2 * limit
    most = traits.model.output if traits.model is not None else None
    if most is not None and limit is not None and limit >= most:
        return ""
    more = more if most is None else min(more, most)
    return f"--max-tokens {more}" if name is None else f"-p {name}={more}"
