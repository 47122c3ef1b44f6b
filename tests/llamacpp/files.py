"""Tiny random GGUF files, one for each row that is held against llama.cpp: the same bytes every time. Knows the format; nothing of holynb."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import gguf
import numpy as np

HIDDEN, HEADS, KV, LAYERS, INNER, HEAD, CONTEXT = 64, 4, 2, 2, 96, 16, 256

#: Text as people have it: contractions, digits, scripts, marks, spaces, line ends, code, and the names of control tokens.
WILD = (
    "Hello world, it's 12345678 o'clock; I'LL say we've 3.14 or 1,000,000!",
    "  two spaces,   three,\ttab\n\nlines\r\nand\r\n\r\n  indented\n",
    "snake_case camelCase XMLHttpRequest HTTPServer2 McDonald's iPhone15ProMax",
    "def f(x):\n    return {'a': [1, 2, 3], \"b\": x**2 + 0x1F}  # done\n\n\n",
    "Größe ÉCOLE naïve Ångström e\u0301te\u0301 ǅ ß ﬁ İstanbul",
    "Привет, мир! Как дела? ЁЛКА 42 КиЛо",
    "こんにちは世界。カタカナ漢字テスト、東京2020年",
    "안녕하세요 세계 한국어 テスト mixed 中文123字",
    "नमस्ते दुनिया १२३ ภาษาไทย ไม่มีวรรค مرحبا بالعالم ١٢٣ שלום",
    "😀👍🏽 👨\u200d👩\u200d👧 ½ ² Ⅻ ① ™ © € £ → ≠ ∑ § ¶",
    "a\u00a0b\u2003c\u3000d\u200be\u2028f\u0085g\x0bh\x0ci",
    "...!!!??? -- --- *** ~~~ `code` ```py``` $x^2$ #tag @you 50% <b>&amp;</b>",
    "https://example.org/a?b=1&c=%20#frag foo@bar.com C:\\dir\\file.txt",
    "Yes<|turn|>No <|turn|> <user> x<user>y <|bos|>",
    " ",
    "\n",
    "     \n     x",
    "aaaaaaaaaaaaa        bbbbbbb",
    "don't DON'T Don'T 'tis 'LL 'sS we'Re",
    "1 12 123 1234 12345 1a2b3c v1.2.3-rc4 +49-30-1234567",
)

#: For pieces alone: runs of spaces, before, between and after.
RUNS = tuple(" " * n + "a" + " " * (n + 1) + "b " + " " * (n // 2) for n in (1, 2, 3, 5, 7, 15, 16, 17, 18, 31, 33, 40))

#: Without those names: what is made of letters is no control token.
_PLAIN = [re.sub("<[|]?[a-z]+[|]?>", "", text) for text in WILD]

_PRINTED = [b for b in range(256) if 33 <= b <= 126 or 161 <= b <= 172 or 174 <= b <= 255]
_CHARS = {b: chr(b) for b in _PRINTED} | {b: chr(256 + i) for i, b in enumerate(b for b in range(256) if b not in _PRINTED)}

Merge = tuple[str, str]


def _joined(sequence: list[str], merge: Merge) -> list[str]:
    out: list[str] = []
    for one in sequence:
        if out and (out[-1], one) == merge:
            out[-1] += one
        else:
            out.append(one)
    return out


def _learned(sequences: list[list[str]], rounds: int = 3, most: int = 260) -> list[Merge]:
    """Merges over whole texts: they cross every place where a text could be cut, so that another cut gives other tokens."""
    merges: list[Merge] = []
    for _ in range(rounds):
        counts: dict[Merge, int] = {}
        for sequence in sequences:
            for pair in pairwise(sequence):
                counts[pair] = counts.get(pair, 0) + 1
        known = {left + right for left, right in merges}
        new = [p for p in sorted(counts, key=lambda p: (-counts[p], p)) if p[0] + p[1] not in known]
        fresh = {left + right: (left, right) for left, right in reversed(new)}
        chosen = [pair for pair in new if fresh[pair[0] + pair[1]] == pair][:most]
        merges += chosen
        for merge in chosen:
            sequences = [_joined(sequence, merge) for sequence in sequences]
    return merges


@cache
def merged_bytes() -> dict[str, Any]:
    """The keys of a vocabulary of bytes (gpt2)."""
    merges = _learned([[_CHARS[b] for b in text.encode()] for text in _PLAIN])
    words = [_CHARS[b] for b in range(256)] + [left + right for left, right in merges]
    control, user = ["<|bos|>", "<|eos|>", "<|turn|>", "<|message_end|>", "<|pad|>"], ["<user>"]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": words + control + user,
        "tokenizer.ggml.token_type": [1] * len(words) + [3] * len(control) + [4],
        "tokenizer.ggml.merges": [f"{left} {right}" for left, right in merges],
        "tokenizer.ggml.bos_token_id": len(words),
        "tokenizer.ggml.eos_token_id": len(words) + 1,
    }


@cache
def pieces() -> dict[str, Any]:
    """The keys of a vocabulary of pieces (llama), as SentencePiece has them. Characters beyond U+0400 are bytes."""
    sequences = [list(("▁" + text).replace(" ", "▁")) for text in _PLAIN]
    chars = sorted({c for s in sequences for c in s if " " < c < "\u0400" or c == "▁"})
    known = [[c for c in s if c in chars] for s in sequences]
    merged = [left + right for left, right in _learned(known)]
    runs = ["▁" * n for n in range(2, 17)]  # as Llama 2 has them, after all others and none before another
    merged = [word for word in merged if word not in runs]
    head, user = ["<unk>", "<s>", "</s>"], ["<|turn|>", "<user>"]
    words = head + [f"<0x{b:02X}>" for b in range(256)] + merged + chars + runs + user
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": words,
        "tokenizer.ggml.token_type": [2, 3, 3] + [6] * 256 + [1] * (len(merged) + len(chars) + len(runs)) + [3, 4],
        "tokenizer.ggml.scores": [0.0] * 259 + [-float(i) for i in range(len(merged) + len(chars))] + [-1e9] * len(runs) + [-1000.0] * 2,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
    }


@cache
def plain_words() -> dict[str, Any]:
    """The keys of a vocabulary of 320 words, each of whole characters: where it is not about tokens."""
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": ["w", "0", "w0", *(f"w{i}" for i in range(1, 318))],
        "tokenizer.ggml.token_type": [1] * 318 + [3, 3],
        "tokenizer.ggml.merges": ["w 0"],
        "tokenizer.ggml.bos_token_id": 318,
        "tokenizer.ggml.eos_token_id": 319,
    }


Tensors = dict[str, Any]


@dataclass(frozen=True)
class Row:
    """One file: what it says besides what all say (None: that it does not), what is done to its tensors, and how weights are stored.

    `experts`: the same of experts, where they are stored otherwise.
    """

    family: str = "llama"
    keys: Mapping[str, Any] = field(default_factory=dict)
    vocabulary: Callable[[], dict[str, Any]] = merged_bytes
    tensors: Callable[[Tensors], Any] | None = None
    stored: str = "F32"
    experts: str | None = None
    tied: bool = False

    def facts(self) -> dict[str, Any]:
        """Its keys. Those of the family begin with a dot."""
        sizes = {
            ".context_length": CONTEXT,
            ".embedding_length": HIDDEN,
            ".block_count": LAYERS,
            ".feed_forward_length": INNER,
            ".attention.head_count": HEADS,
            ".attention.head_count_kv": KV,
            ".attention.layer_norm_rms_epsilon": 1e-5,
            ".rope.freq_base": 10000.0,
        }
        said = self.vocabulary() | sizes | self.keys
        return {f"{self.family}{k}" if k.startswith(".") else k: v for k, v in said.items() if v is not None}

    @property
    def texts(self) -> tuple[str, ...]:
        """What is cut of it."""
        return WILD + (RUNS if self.vocabulary is pieces else ())

    def weights(self) -> Tensors:
        """Its tensors, float32."""
        rng = np.random.default_rng(5)
        facts = self.facts()

        def of(*shape: int, around: float = 0.0, spread: float = 0.25) -> Any:
            return (rng.standard_normal(shape) * spread + around).astype(np.float32)

        words = len(facts["tokenizer.ggml.tokens"])
        kv = facts.get(f"{self.family}.attention.head_count_kv", HEADS)
        rows = (kv if isinstance(kv, int) else kv[0]) * HEAD
        out: Tensors = {"token_embd.weight": of(words, HIDDEN, spread=1.0), "output_norm.weight": of(HIDDEN, around=1.0)}
        if not self.tied:
            out["output.weight"] = of(words, HIDDEN, spread=0.5)
        for i in range(LAYERS):
            at = f"blk.{i}."
            oss = self.family == "gpt-oss"
            out |= {f"{at}{n}_norm.weight": of(HIDDEN, around=1.0) for n in ("attn", "post_attention" if oss else "ffn")}
            out |= {f"{at}attn_q.weight": of(HEADS * HEAD, HIDDEN), f"{at}attn_k.weight": of(rows, HIDDEN)}
            out |= {f"{at}attn_v.weight": of(rows, HIDDEN), f"{at}attn_output.weight": of(HIDDEN, HEADS * HEAD)}
            if count := facts.get(f"{self.family}.expert_count"):
                inner = facts.get(f"{self.family}.expert_feed_forward_length", INNER)
                out |= {f"{at}ffn_{n}_exps.weight": of(count, inner, HIDDEN) for n in ("gate", "up")}
                out |= {f"{at}ffn_down_exps.weight": of(count, HIDDEN, inner), f"{at}ffn_gate_inp.weight": of(count, HIDDEN)}
            else:
                out |= {f"{at}ffn_{n}.weight": of(INNER, HIDDEN) for n in ("gate", "up")} | {f"{at}ffn_down.weight": of(HIDDEN, INNER)}
            if self.family.startswith("qwen3"):
                out |= {f"{at}attn_{n}_norm.weight": of(HEAD, around=1.0) for n in "qk"}
            if self.family == "qwen2" or oss:
                out |= {f"{at}attn_{n}.bias": of(size) for n, size in (("q", HEADS * HEAD), ("k", rows), ("v", rows))}
            if oss:  # gate and up reach their limits
                out |= {f"{at}attn_output.bias": of(HIDDEN), f"{at}attn_sinks.weight": of(HEADS, spread=1.0)}
                out |= {f"{at}ffn_{n}_exps.bias": of(count, inner, spread=4.0) for n in ("gate", "up")}
                out |= {f"{at}ffn_down_exps.bias": of(count, HIDDEN), f"{at}ffn_gate_inp.bias": of(count)}
        if self.tensors is not None:
            self.tensors(out)
        return out

    def write(self, path: Path) -> None:
        writer = gguf.GGUFWriter(path, self.family)
        for name, value in self.facts().items():
            _add(writer, name, value)
        for name, values in self.weights().items():
            stored = self.experts if self.experts and name.endswith("_exps.weight") else self.stored
            kind = gguf.GGMLQuantizationType[stored]
            if stored == "F32" or values.ndim == 1 or name.endswith(("gate_inp.weight", ".bias")):
                writer.add_tensor(name, np.ascontiguousarray(values))
            elif values.shape[-1] % gguf.GGML_QUANT_SIZES[kind][0]:
                writer.add_tensor(name, values.astype(np.float16))
            else:
                writer.add_tensor(name, gguf.quantize(values, kind), raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()


def _add(writer: Any, name: str, value: Any) -> None:
    if name == "general.alignment":
        writer.add_custom_alignment(value)
    elif isinstance(value, bool):
        writer.add_bool(name, value)
    elif isinstance(value, int):
        (writer.add_int32 if name.startswith("general.sampling") else writer.add_uint32)(name, value)
    elif isinstance(value, float):
        writer.add_float32(name, value)
    elif isinstance(value, str):
        writer.add_string(name, value)
    else:
        writer.add_array(name, value)
