"""How a model thinks, as its chat template and its tokenizer tell: where a thought begins and ends, and what the template takes.

Knows texts and token ids; no requests and no replicas.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from holynb import efforts
from holynb.efforts import EFFORTS
from holynb.pool.job import JobThinking
from holynb.pool.server.chat_template import ChatTemplate
from holynb.thoughts import HARMONY, HARMONY_ENDS, TAGS, ChannelSplitter, Tags, TagSplitter, ThoughtSplitter

__all__ = ["ModelThinking", "model_thinking", "tail_of"]

#: Those that gpt-oss was trained with; its template writes whatever it is given.
_HARMONY_EFFORTS = ("low", "medium", "high")
#: A template's variables that turn thinking on and off: most templates'; DeepSeek's, Granite's.
_SWITCHES = ("enable_thinking", "thinking")

#: What stands for a tag that is a token, so that no text can be one: halves of surrogate pairs, which no token is decoded to.
_TOKEN_TAGS = Tags("\ud800", "\udc00")
#: White space that may stand before a thought or behind its tag, as tokens.
_BLANKS = (" ", "\n", "\n\n", "\t", "  ", "\r\n")
#: How far behind the last tag of a prompt its end may be, in tokens.
_TAIL = 16


@dataclass(frozen=True, slots=True)
class ModelThinking:
    """`tags`: as the splitter is given them; None: harmony's channels. `marks`: the tokens that are marks, and what stands for each.

    `begins`, `ends`, `closing`, `blanks`: as in `job.JobThinking`; no `ends`: the tags are no tokens, and a rank cannot follow the thought.
    `head`: tokens before a thought that belong to it. `stops`: marks that end an answer, whether the model's files say so or not.
    `switches`: variables of the template that turn it off; `efforts`: the levels that the template's `reasoning_effort` takes, or none.
    """

    tags: Tags | None = None
    marks: Mapping[int, str] = field(default_factory=dict)
    begins: int | None = None
    ends: tuple[int, ...] = ()
    closing: tuple[int, ...] = ()
    blanks: tuple[int, ...] = ()
    head: int = 0
    stops: tuple[int, ...] = ()
    switches: tuple[str, ...] = ()
    efforts: tuple[str, ...] = ()

    def nearest(self, effort: str) -> str:
        """Of the levels there are the one nearest to this."""
        return efforts.nearest(self.efforts, effort)

    def splitter(self, *, begun: bool) -> ThoughtSplitter:
        """For one answer; `begun`: its prompt ends with the opening tag."""
        return ChannelSplitter() if self.tags is None else TagSplitter((self.tags,), begun=begun)

    def followed(self, prompt_ends: str, budget: int | None, *, guided: bool) -> JobThinking | None:
        """What a rank has to follow, where a thought is to be ended or a grammar begins behind it. `prompt_ends`: see `tail_of`."""
        if not self.ends or prompt_ends == "closed" or (budget is None and not guided):
            return None
        begins = None if prompt_ends == "begun" else self.begins
        budget = None if budget is None else budget + self.head
        return JobThinking(begins, self.ends, self.closing, budget, () if guided else self.blanks)


def tail_of(model: ModelThinking, ids: Sequence[int], tokenizer: Any) -> str:
    """How a prompt ends: `begun` with a thought, `closed` with the end of one (nothing is to be thought), or "" with neither.

    A tag in a message is no tag: only the template writes them as tokens.
    """
    if model.tags is None:
        return ""
    tail = "".join(model.marks.get(i) or str(tokenizer.decode([i], skip_special_tokens=False)) for i in ids[-_TAIL:]).rstrip()
    return "begun" if tail.endswith(model.tags.opening) else "closed" if tail.endswith(model.tags.closing) else ""


def model_thinking(template: ChatTemplate | None, tokenizer: Any) -> ModelThinking | None:
    """How a model with this template and this tokenizer (a `tokenizers.Tokenizer`) thinks; None where the template knows no thinking."""
    if template is None:
        return None
    if "<|channel|>" in template.source and "<|message|>" in template.source:
        return _harmony(template, tokenizer)
    tags = next((t for t in TAGS if t.opening in template.source or t.closing in template.source), None)
    switches = tuple(name for name in _SWITCHES if name in template.variables)
    efforts = _efforts(template, EFFORTS)
    if tags is None:
        return ModelThinking(TAGS[0], switches=switches, efforts=efforts) if switches or efforts else None
    opening, closing = tokenizer.token_to_id(tags.opening), tokenizer.token_to_id(tags.closing)
    if opening is None or closing is None:
        return ModelThinking(tags, switches=switches, efforts=efforts)
    # As models write it: the tag in a line of its own, but for Mistral's.
    spaced = _ids(tokenizer, f"\n{tags.closing}\n\n" if tags.closing.startswith("<") else tags.closing)
    blanks = [ids[0] for blank in _BLANKS if len(ids := _ids(tokenizer, blank)) == 1]
    return ModelThinking(
        _TOKEN_TAGS,
        {opening: _TOKEN_TAGS.opening, closing: _TOKEN_TAGS.closing},
        opening,
        (closing,),
        spaced if spaced.count(closing) == 1 else (closing,),
        tuple(blanks),
        switches=switches,
        efforts=efforts,
    )


def _harmony(template: ChatTemplate, tokenizer: Any) -> ModelThinking:
    marks = {i: mark for mark in HARMONY if (i := tokenizer.token_to_id(mark)) is not None}
    ends, closing, head = (
        _ids(tokenizer, text)
        for text in (
            "<|channel|>final<|message|>",
            "<|end|><|start|>assistant<|channel|>final<|message|>",
            "<|channel|>analysis<|message|>",
        )
    )
    whole = {"<|channel|>", "<|message|>", "<|end|>", "<|start|>"} <= set(marks.values())
    ends, closing = (ends, closing) if whole else ((), ())
    stops = tuple(i for i, mark in marks.items() if mark in HARMONY_ENDS)
    return ModelThinking(None, marks, None, ends, closing, (), len(head), stops, efforts=_efforts(template, _HARMONY_EFFORTS))


def _efforts(template: ChatTemplate, known: Sequence[str]) -> tuple[str, ...]:
    """The levels that a template takes: those that it names, where it names two of them."""
    if "reasoning_effort" not in template.variables:
        return ()
    named = tuple(e for e in EFFORTS if f"'{e}'" in template.source or f'"{e}"' in template.source)
    return tuple(known) if len(known) < len(EFFORTS) or len(named) < 2 else named


def _ids(tokenizer: Any, text: str) -> tuple[int, ...]:
    return tuple(tokenizer.encode(text, add_special_tokens=False).ids)
