"""Log probabilities in OpenAI's two shapes, for chats and for completions. Knows the tokenizer; no HTTP."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from holynb.pool.protocol import TokenScore
from holynb.pool.server.api import ApiRequest
from holynb.pool.server.detokenize import TextPiece
from holynb.pool.server.tokenizer import ChatTokenizer

__all__ = ["LogprobWriter"]


class LogprobWriter:
    """Of one choice, piece by piece. `prompt`: its prompt's ids."""

    def __init__(self, request: ApiRequest, tokenizer: ChatTokenizer, prompt: Sequence[int]) -> None:
        self._chat, self._top, self._as_ids = request.chat, request.logprobs, request.ids_for_tokens
        self._tokenizer, self._first = tokenizer, prompt[0]
        self._offset = 0

    def write(self, piece: TextPiece) -> dict[str, Any] | None:
        """The `logprobs` of a piece; None where none were asked for, or it has none."""
        if self._top is None or not (piece.scores or piece.prompt):
            return None
        if self._chat:
            return {"content": [self._content(s) for s in piece.scores], "refusal": None}
        return self._columns(piece)

    @staticmethod
    def join(parts: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
        """The parts of one choice as one; None where there are none."""
        if not parts:
            return None
        return {k: None if v is None else [x for part in parts for x in part[k]] for k, v in parts[0].items()}

    def _content(self, score: TokenScore) -> dict[str, Any]:
        token, own, top = score
        return self._entry(token, own) | {"top_logprobs": [self._entry(other, value) for other, value in top]}

    def _entry(self, token: int, value: float) -> dict[str, Any]:
        return {"token": self._name(token), "logprob": value, "bytes": list(self._tokenizer.token_bytes(token))}

    def _columns(self, piece: TextPiece) -> dict[str, Any]:
        tokens: list[str] = []
        values: list[float | None] = []
        tops: list[dict[str, float] | None] = []
        offsets: list[int] = []
        rows: list[tuple[int, float | None, Any]] = [(self._first, None, ())] if piece.prompt else []
        for token, own, top in [*rows, *piece.scores]:
            name = self._name(token)
            tokens.append(name)
            values.append(own)
            tops.append(None if own is None else self._by_name((*top, (token, own))))
            offsets.append(self._offset)
            self._offset += len(self._tokenizer.decode([token], special=True))
        return {"tokens": tokens, "token_logprobs": values, "top_logprobs": tops, "text_offset": offsets}

    def _by_name(self, scores: Sequence[tuple[int, float]]) -> dict[str, float]:
        """Log probabilities by token. Two tokens may be written alike: the first, more probable one stands."""
        named: dict[str, float] = {}
        for token, value in scores:
            named.setdefault(self._name(token), value)
        return named

    def _name(self, token: int) -> str:
        """A token's text; where its bytes are none by themselves, the bytes, as OpenAI writes them."""
        if self._as_ids:
            return f"token_id:{token}"
        raw = self._tokenizer.token_bytes(token)
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{b:02x}" for b in raw)
