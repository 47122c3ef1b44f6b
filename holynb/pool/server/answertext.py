"""The tokens of one answer → what is thought and what is said, as text, and how many tokens the thought has. Knows tokens; no streams."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from holynb.pool.server.tokenizer import ChatTokenizer, Detokenizer

__all__ = ["AnswerText"]


class AnswerText:
    """`split`: thoughts are told from the text; else all is text, tags too. `prompt`: the prompt's tokens; `guided`: it has a grammar.

    Where tags are tokens of the model, they are found as such: what only looks like one is text, and a tag that does not stand at the
    answer's head is left out, as special tokens are.
    """

    def __init__(self, tokenizer: ChatTokenizer, prompt: Sequence[int], *, split: bool, guided: bool) -> None:
        self._detokenizer = Detokenizer(tokenizer)
        self._model = tokenizer.thinking if split else None
        self._splitter = None
        self._seen = self._closed = 0
        self._at_head = True
        """Only blanks have come, and the prompt has not ended a thought: one may begin, as the rank that follows it sees it, too."""
        if self._model is not None:
            ends = tokenizer.prompt_ends(prompt)
            self._at_head = ends != "closed"
            # A grammar that cannot wait for the thought's end leaves no room for one; tags that are no tokens are text behind it.
            if self._model.ends or not (guided or ends == "closed"):
                self._splitter = self._model.splitter(begun=ends == "begun")

    @property
    def thinking(self) -> bool:
        """What came last is thought."""
        return self._splitter is not None and self._splitter.thinking

    @property
    def over(self) -> bool:
        """The answer has ended, whatever tokens may come."""
        return self._splitter is not None and self._splitter.over

    @property
    def thought(self) -> int:
        """Tokens before the answer, tags included."""
        return self._seen if self.thinking else self._closed

    def push(self, ids: Sequence[int], *, last: bool = False) -> tuple[str, str]:
        """What the next tokens add to the thought and to the text."""
        splitter, model = self._splitter, self._model
        if splitter is None or model is None:
            self._seen += len(ids)
            return "", self._detokenizer.push(ids, last=last)
        if model.marks and model.marks.keys().isdisjoint(ids):  # nearly always
            self._seen += len(ids)
            self._at_head = self._at_head and all(i in model.blanks for i in ids)
            return splitter.push(self._detokenizer.push(ids, last=last), last=last)
        thoughts, text = "", ""
        for part, mark in self._parts(ids):
            closings = splitter.closings
            piece = self._detokenizer.push(part, last=mark is not None)
            thought, words = splitter.push(piece + (mark or ""))
            thoughts, text, self._seen = thoughts + thought, text + words, self._seen + len(part) + (mark is not None)
            if splitter.closings > closings or (splitter.headed and not self._closed):
                self._closed = self._seen
        if last:
            thought, words = splitter.push(self._detokenizer.push((), last=True), last=True)
            thoughts, text = thoughts + thought, text + words
        return self._clean(thoughts), self._clean(text)

    def _parts(self, ids: Sequence[int]) -> Iterator[tuple[Sequence[int], str | None]]:
        """The tokens in parts of which none goes on behind a mark, each with the mark behind it: None where there is none."""
        model, splitter = self._model, self._splitter
        assert model is not None and splitter is not None  # noqa: S101, PT018 - for the type checker
        if model.marks:
            start = 0
            for i, token in enumerate(ids):
                if (mark := model.marks.get(token)) is not None:
                    stray = token == model.begins and not self._at_head
                    yield ids[start:i], "" if stray else mark
                    start = i + 1
                self._at_head = self._at_head and token in model.blanks
            yield ids[start:], None
            return
        at = 0
        while at < len(ids):  # tags that are made of several tokens: one at a time, so that each is counted on its side
            end = len(ids) if splitter.answering else at + 1
            yield ids[at:end], None
            at = end

    def _clean(self, text: str) -> str:
        """The text without tags that stand where none can."""
        tags = self._model.tags if self._model is not None and self._model.marks else None
        return text if tags is None else text.replace(tags.opening, "").replace(tags.closing, "")
