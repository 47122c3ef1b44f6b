"""The vocabulary of a GGUF file → tokenizer.json, tokenizer_config.json and the tokens that end an answer. Knows tokens; no weights.

Two kinds: pairs of bytes merged in the order of a list (`gpt2`), and pieces of text merged in the order of their scores, as
SentencePiece does (`llama`). Both give the ids that llama.cpp gives.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from enum import IntEnum
from typing import Any

from holynb.pool.models.gguf_facts import ConvertError, Facts
from holynb.pool.models.gguf_pretokenizers import PRE_TOKENIZERS

__all__ = ["Vocabulary"]

_USE_SAFETENSORS = "use the model's safetensors"
_BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
_SPACE = "\u2581"

#: Ends of an answer by their name, whatever the file says of them: older converters wrote no id of theirs, or took them for plain words.
_ENDS = frozenset(
    [
        "<|eot_id|>",
        "<|im_end|>",
        "<|end|>",
        "<|return|>",
        "<|call|>",
        "<|flush|>",
        "<|calls|>",
        "<end_of_turn>",
        "<|endoftext|>",
        "<|eom_id|>",
        "<EOT>",
        "_<EOT>",
        "[EOT]",
        "[EOS]",
        "<|end_of_text|>",
        "<end_of_utterance>",
        "<eos>",
        "<turn|>",
        "<|tool_response>",
        "<｜end▁of▁sentence｜>",
        "[e~[",
        "<|ifm|im_end|>",
    ]
)
#: The same for what fills a gap in code, and what ends one file and names the next: a model that writes these has ended its answer.
_FILLING = frozenset(
    [
        "<|fim_pad|>",
        "<fim-pad>",
        "<fim_pad>",
        "<PAD>",
        "[PAD]",
        "<|fim_repo|>",
        "<|repo_name|>",
        "<fim-repo>",
        "<REPO>",
        "<reponame>",
        "<|file_sep|>",
    ]
)
#: Words of ids that end an answer, the first first.
_END_WORDS = ("eos", "eot", "eom", "fim_pad", "fim_rep", "fim_sep")


class _Kind(IntEnum):
    """tokenizer.ggml.token_type."""

    NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)


class Vocabulary:
    """What a header says about tokens. Raises ConvertError."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self._model = facts.text("tokenizer.ggml.model")
        if self._model not in ("gpt2", "llama"):
            raise ConvertError(f"this GGUF holds a {self._model!r:.60} tokenizer, which is not supported; {_USE_SAFETENSORS}")
        self._pre = str(facts.text("tokenizer.ggml.pre", "default"))
        if self._model == "gpt2" and self._pre not in PRE_TOKENIZERS:
            raise ConvertError(f"this GGUF cuts text the {self._pre!r:.60} way, which is not supported; {_USE_SAFETENSORS}")
        self._words = [word or f"[EMPTY_{i}]" for i, word in enumerate(facts.items("tokenizer.ggml.tokens", str) or [])]
        self._ids = {word: i for i, word in enumerate(self._words)}
        if len(self._ids) < len(self._words):
            twice = next(word for word, count in Counter(self._words).items() if count > 1)
            raise ConvertError(f"tokenizer.ggml.tokens has {twice!r:.60} twice")
        pieces = self._model == "llama"
        self._special = {word: facts.token(word, len(self._words)) for word in ("bos", "eos", "unknown", "padding")}
        if pieces:  # SentencePiece's own ids, where the file says none
            for word, i in (("unknown", 0), ("bos", 1), ("eos", 2)):
                self._special[word] = i if self._special[word] is None and i < len(self._words) else self._special[word]
        # A way to cut that begins with a token begins with none where the file has no such token.
        bos = (pieces or PRE_TOKENIZERS[self._pre].bos) and self._special["bos"] is not None
        self._around = {
            "bos": facts.truth("tokenizer.ggml.add_bos_token", default=bos),
            "eos": facts.truth("tokenizer.ggml.add_eos_token", default=False),
        }
        self._ends = self._read_ends()
        self._kinds = self._read_kinds()

    @property
    def ends(self) -> tuple[int, ...]:
        """The tokens that end an answer: a model may have one for the end of the text and others for the end of a turn."""
        return self._ends

    def tokenizer(self) -> dict[str, Any]:
        """tokenizer.json."""
        from tokenizers import AddedToken, Tokenizer

        model = self._pieces() if self._model == "llama" else self._merged_bytes()
        tokenizer = Tokenizer(model)

        def added(word: str, *, special: bool) -> AddedToken:
            return AddedToken(word, normalized=False, special=special, rstrip=self._takes_spaces(word))

        control = [added(w, special=True) for w, k in self._typed() if k in (_Kind.CONTROL, _Kind.UNKNOWN)]
        tokenizer.add_special_tokens(control)
        tokenizer.add_tokens([added(w, special=False) for w, k in self._typed() if k == _Kind.USER_DEFINED])
        made: dict[str, Any] = json.loads(tokenizer.to_str())
        return made | self._steps() | {"post_processor": self._post_processor()}

    def tokenizer_config(self) -> dict[str, Any]:
        """tokenizer_config.json, the chat template with it."""
        names = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}
        known: dict[str, Any] = {ours: self._words[i] for ours, theirs in names.items() if (i := self._special[theirs]) is not None}
        known |= {f"add_{word}_token": on for word, on in self._around.items()}
        known |= {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
        template = self._facts.text("tokenizer.chat_template")
        named = {n: self._facts.text(f"tokenizer.chat_template.{n}") for n in self._facts.names("tokenizer.chat_template.")}
        if template is not None and named:
            templates = {"default": template, **named}
            known["chat_template"] = [{"name": name, "template": text} for name, text in templates.items()]
        elif template is not None:
            known["chat_template"] = template
        return known

    def _takes_spaces(self, word: str) -> bool:
        """Whether a control token takes the spaces after it: those of Phi-3 do, whose GGUF files do not say so but in their name."""
        name = (self._facts.text("general.name") or "").lower()
        return ("phi-3" in name or "phi3" in name) and word not in ("<unk>", "<s>", "<|endoftext|>")

    def _typed(self) -> list[tuple[str, int]]:
        return list(zip(self._words, self._kinds, strict=True))

    def _read_kinds(self) -> Sequence[int]:
        kinds = self._facts.items("tokenizer.ggml.token_type", int) or [_Kind.NORMAL] * len(self._words)
        if len(kinds) < len(self._words):
            raise ConvertError(f"tokenizer.ggml.token_type has {len(kinds):,} numbers for {len(self._words):,} tokens")
        return [_Kind.CONTROL if self._ends_by_name(i) else kinds[i] for i in range(len(self._words))]

    def _ends_by_name(self, i: int) -> bool:
        return self._words[i] in _ENDS or self._words[i] in _FILLING

    def _read_ends(self) -> tuple[int, ...]:
        said: list[int | None] = [self._special["eos"]]
        said += [self._facts.token(word, len(self._words)) for word in _END_WORDS[1:]]
        said += self._facts.items("tokenizer.ggml.eos_token_ids", int) or []
        found = [i for i in said if i is not None] + [i for i in range(len(self._words)) if self._ends_by_name(i)]
        if beyond := next((i for i in found if not 0 <= i < len(self._words)), None):
            raise ConvertError(f"tokenizer.ggml.eos_token_ids has {beyond}, and there are {len(self._words):,} tokens")
        message_end = self._ids.get("<|end|>") if self._has_channels() else None
        return tuple(dict.fromkeys(i for i in found if i != message_end))

    def _has_channels(self) -> bool:
        """Whether `<|end|>` ends a message of several in an answer, as in harmony (gpt-oss): by what ends the answer there."""
        calls = "<|call|>" in self._ids or "<|calls|>" in self._ids
        return calls and ("<|return|>" in self._ids or "<|flush|>" in self._ids)

    def _merged_bytes(self) -> Any:
        from tokenizers import models

        merges = self._facts.items("tokenizer.ggml.merges", str)
        if merges is None:
            raise ConvertError("the GGUF header lacks tokenizer.ggml.merges, without which its tokenizer joins nothing")
        pairs = [(m[: m.find(" ", 1)], m[m.find(" ", 1) + 1 :]) for m in merges]
        for merge, (left, right) in zip(merges, pairs, strict=True):
            if " " not in merge[1:] or not {left, right, left + right} <= self._ids.keys():
                raise ConvertError(f"tokenizer.ggml.merges has {merge!r:.60}, which joins no two tokens to a third")
        return models.BPE(self._ids, pairs, ignore_merges=PRE_TOKENIZERS[self._pre].whole)

    def _pieces(self) -> Any:
        """Merges in the order of the scores: of all neighbours that make a token, those of the best one are joined first."""
        from tokenizers import models

        scores = self._facts.items("tokenizer.ggml.scores", (int, float))
        if scores is None or len(scores) < len(self._words):
            raise ConvertError("the GGUF header lacks tokenizer.ggml.scores, by which its tokenizer joins")
        missing = next((b for b in range(256) if f"<0x{b:02X}>" not in self._ids), None)
        if missing is not None:
            raise ConvertError(f"tokenizer.ggml.tokens has none for the byte 0x{missing:02X}")
        joined = [i for i, kind in enumerate(self._kinds) if kind in (_Kind.NORMAL, _Kind.UNUSED) and len(self._words[i]) > 1]
        merges = []
        tied: dict[float, str] = {}
        for i in joined:
            word, score = self._words[i], scores[i]
            splits = [(word[:n], word[n:]) for n in range(1, len(word)) if word[:n] in self._ids and word[n:] in self._ids]
            if splits and set(tied.setdefault(score, word) + word) != {word[0]} and tied[score] != word:
                raise ConvertError(f"tokenizer.ggml.scores are the same for {tied[score]!r:.40} and {word!r:.40}: which comes first?")
            merges += [(score, left, right) for left, right in splits]
        # Of equals the leftmost is joined first. Only runs of one character may be equal (Llama's spaces): the longest on the left grows.
        merges.sort(key=lambda merge: (-merge[0], -len(merge[1])))
        pairs = [(left, right) for _, left, right in merges]
        return models.BPE(self._ids, pairs, fuse_unk=True, byte_fallback=True)

    def _steps(self) -> dict[str, Any]:
        """What is done to a text before and after."""
        if self._model == "gpt2":
            steps = [*PRE_TOKENIZERS[self._pre].steps(), _BYTES]
            return {"pre_tokenizer": {"type": "Sequence", "pretokenizers": steps}, "decoder": _BYTES}
        spaces: list[dict[str, Any]] = [{"type": "Replace", "pattern": {"String": " "}, "content": _SPACE}]
        back: list[dict[str, Any]] = [
            {"type": "Replace", "pattern": {"String": _SPACE}, "content": " "},
            {"type": "ByteFallback"},
            {"type": "Fuse"},
        ]
        if self._facts.truth("tokenizer.ggml.add_space_prefix", default=True):
            spaces.insert(0, {"type": "Prepend", "prepend": _SPACE})
            back.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
        return {"normalizer": {"type": "Sequence", "normalizers": spaces}, "decoder": {"type": "Sequence", "decoders": back}}

    def _post_processor(self) -> dict[str, Any] | None:
        """The tokens that a text begins and ends with."""
        around = {word: self._special[word] for word, on in self._around.items() if on}
        if not around:
            return None
        for word, i in around.items():
            if i is None:
                raise ConvertError(f"tokenizer.ggml.add_{word}_token is true and there is no tokenizer.ggml.{word}_token_id")
        special = {word: {"SpecialToken": {"id": self._words[i], "type_id": 0}} for word, i in around.items() if i is not None}
        parts = [special.get("bos"), {"Sequence": {"id": "A", "type_id": 0}}, special.get("eos")]
        tokens = {self._words[i]: {"id": self._words[i], "ids": [i], "tokens": [self._words[i]]} for i in around.values() if i is not None}
        single = [part for part in parts if part]
        return {
            "type": "TemplateProcessing",
            "single": single,
            "pair": [*single, {"Sequence": {"id": "B", "type_id": 0}}],
            "special_tokens": tokens,
        }
