"""How many tokens a request will count for at one endpoint, before it is sent. Learns from what the server counted; knows no tokenizer.

A token of today's vocabularies is about four bytes of UTF-8, in every script: four letters, or a syllable or sign and a third. On five
texts each in English, Korean, Chinese and Japanese 0.23 a byte is within 30 % of what o200k counts (GPT-4o and later). Older ones make up
to twice as many of the last three; so from the first answers on, what the server itself counted decides.
"""

from __future__ import annotations

from holynb import attachments
from holynb.types import Request, Usage

__all__ = ["TokenEstimate"]

#: Tokens of a byte, and what a chat's own marks add to a prompt, until MIN_ANSWERS have told.
PER_BYTE, CHAT = 0.23, 8
#: Assumed length of an answer in tokens, until MIN_ANSWERS have arrived and their mean is used.
DEFAULT_OUTPUT_TOKENS, MIN_ANSWERS = 512, 5
#: Prompts that are taken for a sample of a run's; one that counts for more than a token a byte has something in it that is not its text.
SAMPLED, MOST_PER_BYTE = 64, 1.0


class TokenEstimate:
    """Of one endpoint within a run. Owned by the io thread."""

    def __init__(self) -> None:
        self._answers = self._tokens_out = 0
        self._prompts = self._prompt_bytes = self._tokens_in = 0

    @property
    def wants_prompts(self) -> bool:
        """Whether `record` still learns from prompts."""
        return self._prompts < SAMPLED

    def record(self, usage: Usage, request: Request | None = None) -> None:
        """Learn from an answer: what the server counted, and the request as it was sent."""
        if usage.tokens_out is not None:
            self._answers += 1
            self._tokens_out += usage.tokens_out
        if request is not None and usage.tokens_in:
            self._prompts += 1
            self._prompt_bytes += _size(request)
            self._tokens_in += max(0, usage.tokens_in - _attached(request))

    def of(self, request: Request) -> int:
        """Tokens of prompt and answer: twice the mean answer so far, at most `max_tokens`."""
        size = _size(request)
        if self._prompts >= MIN_ANSWERS and self._prompt_bytes:
            prompt = size * min(MOST_PER_BYTE, self._tokens_in / self._prompt_bytes)
        else:
            prompt = PER_BYTE * size + CHAT
        if request.embedding is not None:
            return int(prompt)  # a vector is no answer in tokens
        max_tokens = request.sampling.max_tokens or DEFAULT_OUTPUT_TOKENS
        likely = 2 * self._tokens_out // self._answers + 32 if self._answers >= MIN_ANSWERS else DEFAULT_OUTPUT_TOKENS
        return int(prompt) + _attached(request) + min(max_tokens, likely)


def _attached(request: Request) -> int:
    """Tokens that attachments are likely to count for: what the vendor's rule gives, or the middle of what its rules do."""
    attached = request.attachments
    return sum([sum(attachments.tokens(request.route.model, a)) // 2 for a in attached]) if attached else 0


def _size(request: Request) -> int:
    """Bytes of the prompt in UTF-8."""
    size = 0
    for message in request.messages:
        content = message.content
        size += len(content) if content.isascii() else len(content.encode("utf-8", "surrogatepass"))
    return size
