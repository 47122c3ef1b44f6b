"""A server that reads: it counts tokens itself, refuses what is too long for it, and answers with the facts that it found. And books with facts in."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from typing import Any

from servers.exact import Asked, Step, reply

LIMIT = 4000
TOKEN = re.compile(r"\w{1,6}|[^\w\s]")
FACT = re.compile(r"K\d{4}")


def book(pages: int, seed: int = 7) -> str:
    """Pages of some 450 words with a fact on each, paragraphs and sentences of all lengths, a few of them Korean."""
    rng = random.Random(seed)
    words = [
        "the",
        "of",
        "harbour",
        "model",
        "weather",
        "quietly",
        "1987",
        "engine",
        "measured",
        "although",
        "consider",
        "of-course",
        "light,",
        "(see)",
    ]
    korean = "바다는 그날따라 유난히 고요했고 배는 항구에 머물러 있었다."
    out = []
    for page in range(pages):
        sentences = [" ".join(rng.choices(words, k=rng.randint(4, 30))).capitalize() + "." for _ in range(26)]
        sentences.insert(rng.randrange(26), f"The code of page {page} is K{page:04}.")
        sentences.insert(rng.randrange(26), korean)
        cut = rng.randrange(5, 20)
        out.append(" ".join(sentences[:cut]) + "\n\n" + " ".join(sentences[cut:]))
    return "\n\n".join(out)


class Reader:
    """A server that counts tokens itself, refuses what is longer than `limit`, and answers with the facts that it read, in order."""

    def __init__(self, limit: int = LIMIT, count: Callable[[str], int] = lambda text: len(TOKEN.findall(text)), before: Any = None) -> None:
        self.limit, self.count, self.before = limit, count, before
        self.sizes: list[int] = []
        self.refused = 0

    def __call__(self, request: Asked, number: int) -> Sequence[Step]:
        text = request.json["messages"][-1]["content"]
        size = sum(self.count(m["content"]) + 4 for m in request.json["messages"])
        if self.before is not None and (steps := self.before(text, number)) is not None:
            return steps
        if size > self.limit:
            self.refused += 1
            message = f"This model's maximum context length is {self.limit} tokens. However, your messages resulted in {size} tokens."
            return [reply({"error": {"message": message, "type": "invalid_request_error", "code": "context_length_exceeded"}}, 400)]
        self.sizes.append(size)
        answer = " ".join(dict.fromkeys(FACT.findall(text))) or "nothing"
        return [
            reply(
                {
                    "model": "reader",
                    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": answer}}],
                    "usage": {"prompt_tokens": size, "completion_tokens": self.count(answer), "total_tokens": size + self.count(answer)},
                }
            )
        ]
