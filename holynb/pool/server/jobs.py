"""A request and the ids of one of its prompts → the jobs of its choices. Knows requests and jobs; no replicas, no HTTP."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace

from holynb.pool.protocol import Job, LogitRules
from holynb.pool.server.api import ApiRequest
from holynb.pool.server.apierror import ApiError
from holynb.pool.server.generation import GenerationDefaults
from holynb.pool.server.tokenizer import ChatTokenizer

__all__ = ["check_token_ids", "completed", "jobs_of", "room_for"]

#: Instead of a top-p of 0, which is greedy.
_SMALLEST_TOP_P = 1e-6


#: Added to the logits of a token that is never taken; a number that JSON has.
_NEVER = -1e30


def completed(request: ApiRequest, defaults: GenerationDefaults) -> ApiRequest:
    """The request with the model's own way to answer, where it says nothing itself."""
    own = request.rules or LogitRules()
    rules = {name: value for name, value in defaults.rules.items() if name not in request.given}
    bias = (*own.bias, *((token, _NEVER) for token in defaults.suppressed))
    filled = replace(own, bias=bias, **rules)  # type: ignore[arg-type]
    sampling = {name: value for name, value in defaults.sampling.items() if getattr(request, name) is None}
    stop = tuple(dict.fromkeys((*request.stop, *defaults.stop)))
    return replace(request, rules=None if filled == LogitRules() else filled, stop=stop, **sampling)  # type: ignore[arg-type]


def check_token_ids(request: ApiRequest, tokenizer: ChatTokenizer) -> None:
    """Raises ApiError 400 where a field names a token that the model does not have."""
    rules = request.rules
    named = {
        "stop_token_ids": request.stop_ids,
        "logit_bias": [] if rules is None else [token for token, _ in rules.bias],
        "allowed_token_ids": () if rules is None else rules.allowed,
    }
    for field, ids in named.items():
        if (beyond := next((i for i in ids if i >= tokenizer.size), None)) is not None:
            raise ApiError(400, f"{field} names the token {beyond}, and this model has {tokenizer.size} (from 0).", param=field)


def room_for(request: ApiRequest, ids: tuple[int, ...], max_len: int) -> int:
    """How many tokens there may be after these of a prompt. Raises ApiError 400 where there is no room for one."""
    room = max_len - len(ids)
    if room < max(1, request.min_tokens):
        what = "messages" if request.chat else "prompt"
        least = f", and min_tokens asks for {request.min_tokens} more" if room >= 1 else ""
        raise ApiError(
            400,
            f"This model's maximum context length is {max_len} tokens. However, your {what} resulted in {len(ids)} tokens{least}.",
            param=what,
            code="context_length_exceeded",
        )
    return room


def jobs_of(
    request: ApiRequest,
    tokenizer: ChatTokenizer,
    ids: tuple[int, ...],
    room: int,
    *,
    grammar: str | None,
    numbers: Iterator[tuple[int, int]],
) -> list[Job]:
    """One job per choice. `numbers`: of jobs, and of the request's choices: where a seed is given, each has it plus its own number."""
    longest = min(room, tokenizer.defaults.room(len(ids)) if request.max_tokens is None else max(1, request.max_tokens))
    thinking = None
    if request.chat and tokenizer.thinking is not None:
        thinking = tokenizer.thinking.followed(tokenizer.prompt_ends(ids), request.budget, guided=grammar is not None)
    out = []
    for number, choice in itertools.islice(numbers, request.n):
        # Signed 64 bits: the largest seed is followed by the smallest.
        seed = None if request.seed is None else (request.seed + choice + 2**63) % 2**64 - 2**63
        job = Job(
            number,
            ids,
            longest,
            temperature=float(1.0 if request.temperature is None else request.temperature),
            top_p=float((1.0 if request.top_p is None else request.top_p) or _SMALLEST_TOP_P),
            top_k=min(max(0, request.top_k or 0), 2**31 - 1),
            seed=seed,
            eos=tokenizer.eos,
            ignore_eos=request.ignore_eos,
            grammar=grammar,
            stop_ids=request.stop_ids,
            rules=request.rules,
            logprobs=request.logprobs,
            prompt_logprobs=request.echo and request.logprobs is not None,
            thinking=thinking,
        )
        out.append(job)
    return out
