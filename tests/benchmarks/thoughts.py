"""What it costs to tell thoughts from text, in microseconds for each piece of a stream: `python tests/benchmarks/thoughts.py`."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[1])]

import thinking_models as models  # noqa: E402

from holynb.pool.server.answertext import AnswerText  # noqa: E402
from holynb.pool.server.tokenizer import ChatTokenizer, Detokenizer  # noqa: E402
from holynb.thoughts import ChannelSplitter, HeadSplitter, TagSplitter  # noqa: E402

TEXT = "The answer is that one and one are two, since x < y and so on. " * 40
ANALYSIS = "<|channel|>analysis<|message|>"
FINAL = "a<|end|><|start|>assistant<|channel|>final<|message|>"


def cost(make: Callable[[], Any], pieces: Sequence[Any], head: Any = None) -> float:
    """The least of 30 rounds."""
    best = float("inf")
    for _ in range(30):
        reader = make()
        if head:
            reader.push(head)
        began = time.perf_counter()
        for piece in pieces:
            reader.push(piece)
        best = min(best, time.perf_counter() - began)
    return best / len(pieces) * 1e6


def main() -> None:
    words = [f"{word} " for word in TEXT.split()]
    for name, make, head in (
        ("answer without thinking", TagSplitter, ""),
        ("inside a thought", TagSplitter, "<think>"),
        ("answer behind a thought", TagSplitter, "<think>a</think>b"),
        ("the same, of a server of which nothing is known", HeadSplitter, "<think>a</think>b"),
        ("inside harmony's analysis", ChannelSplitter, ANALYSIS),
        ("inside harmony's final", ChannelSplitter, ANALYSIS + FINAL),
    ):
        print(f"parser alone, {name}: {cost(make, words, head):.2f} µs")
    tokenizer = ChatTokenizer(models.thinking_model(Path(tempfile.mkdtemp())))
    ids = tokenizer.encode(TEXT, special=False)
    pieces = [ids[i : i + 4] for i in range(0, len(ids), 4)]
    alone = cost(lambda: Detokenizer(tokenizer), pieces)
    for name, first in (("answer without thinking", []), ("inside a thought", [257, 65]), ("answer behind a thought", [257, 65, 258, 66])):
        whole = cost(lambda: AnswerText(tokenizer, (65,), split=True, guided=False), pieces, first)
        print(f"in the pool, {name}: {whole - alone:.2f} µs beside {alone:.2f} of decoding 4 tokens")


if __name__ == "__main__":
    main()
