"""Requests' prompts → token ids, in threads of its own, so that every stream goes on meanwhile. Knows requests and ids; no HTTP.

What cannot fit is refused by its bytes, before anything is computed.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from holynb.pool.server.api import ApiRequest
from holynb.pool.server.apierror import ApiError
from holynb.pool.server.tokenizer import ChatTokenizer, TemplateError, strings_of

__all__ = ["PromptEncoder"]

Ids = tuple[int, ...]

#: Prompts up to so many bytes are never refused by bytes: their tokens can be counted in a moment.
_SMALL_BYTES = 1_000_000
#: Longer ones, one at a time, do not delay the short ones.
_SHORT_BYTES = 100_000
#: Rows of one request: prompts times choices.
_MAX_ROWS = 4096


class PromptEncoder:
    """Two threads for short prompts and one for long ones. Owned by the server's loop."""

    def __init__(self) -> None:
        self._short = ThreadPoolExecutor(2, "holynb-prompts")
        self._long = ThreadPoolExecutor(1, "holynb-long-prompts")

    async def encode(self, request: ApiRequest, tokenizer: ChatTokenizer, max_len: int) -> list[Ids]:
        """The ids of each prompt. Raises ApiError 400."""
        rows = (1 if request.chat else len(request.prompts)) * request.n
        if rows > _MAX_ROWS:
            raise ApiError(400, f"A request asks for at most {_MAX_ROWS:,} answers, not {rows:,}.", param="n" if request.chat else "prompt")
        longest = max((_bytes(p) for p in ([[request.messages, request.template]] if request.chat else request.prompts)), default=0)
        most = max(_SMALL_BYTES, max_len * tokenizer.longest_token)
        if longest > most:
            raise ApiError(
                400,
                f"This model's maximum context length is {max_len} tokens, which are at most {most:,} bytes. "
                f"However, your prompt has {longest:,} bytes.",
                param="messages" if request.chat else "prompt",
                code="context_length_exceeded",
            )
        executor = self._short if longest <= _SHORT_BYTES else self._long
        try:
            return await asyncio.get_running_loop().run_in_executor(executor, _encode, request, tokenizer)
        except TemplateError as exc:
            raise ApiError(400, str(exc), param="messages") from exc


def _bytes(prompt: object) -> int:
    """Bytes of a prompt's texts; one that is ids already has none."""
    return sum(len(text.encode()) for text in strings_of(prompt))


def _encode(request: ApiRequest, tokenizer: ChatTokenizer) -> list[Ids]:
    if request.chat:
        ids = [tuple(tokenizer.encode_chat(request.messages, request.template))]
    else:
        ids = [tuple(tokenizer.encode(p, special=request.special)) if isinstance(p, str) else p for p in request.prompts]
    if any(not one or max(one) >= tokenizer.size for one in ids):
        raise ApiError(
            400, f"The prompt holds no tokens, or ids beyond this model's {tokenizer.size}.", param="messages" if request.chat else "prompt"
        )
    return ids if request.truncate is None else [one[-request.truncate :] for one in ids]
