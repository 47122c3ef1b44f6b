"""How text is cut before its bytes are merged, by GGUF's word for it (tokenizer.ggml.pre). Data; each is held against llama.cpp's answers.

A word that is not here is refused: a text cut elsewhere is other tokens, and nothing would show it. The expressions are those of the
models' own tokenizer.json, in Oniguruma's syntax.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["PRE_TOKENIZERS", "PreTokenizer"]

_CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_SMALL_CONTRACTIONS = "'s|'t|'re|'ve|'m|'ll|'d"
_TAIL = r"\s*[\r\n]+|\s+(?!\S)|\s+"

_GPT2 = rf"{_SMALL_CONTRACTIONS}| ?\p{{L}}+| ?\p{{N}}+| ?[^\s\p{{L}}\p{{N}}]+|\s+(?!\S)|\s+"
_DIGIT = r"\p{N}"


def _gpt4(digits: str, *, first: str = rf"{_CONTRACTIONS}|", marks: str = "", punctuation: str = r"[\r\n]*") -> str:
    """The expression of GPT-4's tokenizer, which many models vary."""
    letters = rf"[\p{{L}}{marks}]+" if marks else r"\p{L}+"
    return rf"{first}[^\r\n\p{{L}}\p{{N}}]?{letters}|{digits}| ?[^\s\p{{L}}{marks}\p{{N}}]+{punctuation}|{_TAIL}"


_UPPER, _LOWER = r"\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}", r"\p{Ll}\p{Lm}\p{Lo}\p{M}"


def _gpt4o(digits: str, last: str = "") -> str:
    """The expression of GPT-4o's tokenizer: words begin at capitals."""
    word = rf"[^\r\n\p{{L}}\p{{N}}]?[{_UPPER}]*[{_LOWER}]+{last}|[^\r\n\p{{L}}\p{{N}}]?[{_UPPER}]+[{_LOWER}]*{last}"
    return rf"{word}|{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_TAIL}"


_DEEPSEEK = (
    r"\p{N}{1,3}",
    r"[一-龥぀-ゟ゠-ヿ]+",
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|" + _TAIL,
)
_FINNISH = r" ?[^(\s|.,!?…。，、।۔،)]+"


@dataclass(frozen=True, slots=True)
class PreTokenizer:
    """Expressions that cut a text one after the other. `whole`: a piece that is a token is taken as one, whatever the merges say.

    `bos`: a text begins with the token of its beginning, where the file does not say.
    """

    expressions: tuple[str, ...]
    whole: bool = False
    bos: bool = False

    def steps(self) -> list[dict[str, Any]]:
        """The parts of tokenizer.json's pre_tokenizer, but for the bytes."""
        return [{"type": "Split", "pattern": {"Regex": e}, "behavior": "Isolated", "invert": False} for e in self.expressions]


def _table() -> Mapping[str, PreTokenizer]:
    llama3, qwen2 = _gpt4(r"\p{N}{1,3}"), _gpt4(_DIGIT)
    ways = {
        "default": PreTokenizer((r"[\p{P}\$\+<=>\^~\|]+", _GPT2, r"\p{N}+", "[0-9][0-9][0-9]")),
        "gpt-2 phi-2 jina-es jina-de gigachat jina-v2-es jina-v2-de jina-v1-en jina-v2-code roberta-bpe a.x-4.0 mellum modern-bert exaone4 mpt "
        "olmo jais trillion granite-docling": PreTokenizer((_GPT2,)),
        "starcoder refact command-r smollm codeshell exaone minerva-7b mellum2": PreTokenizer((_DIGIT, _GPT2)),
        "falcon": PreTokenizer((r"[\p{P}\$\+<=>\^~\|`]+", _GPT2, "[0-9][0-9][0-9]")),
        "llama3 llama-v3 llama-bpe falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano": PreTokenizer((llama3,), whole=True, bos=True),
        "dbrx smaug-bpe chatglm-bpe": PreTokenizer((llama3,)),
        "glm4 glm5": PreTokenizer((llama3,), whole=True),
        "qwen2 deepseek-r1-qwen kormo f2llmv2 megrez stablelm2 hunyuan solar-open grok-2": PreTokenizer((qwen2,)),
        "qwen35": PreTokenizer((_gpt4(_DIGIT, marks=r"\p{M}"),)),
        "ufakzeka": PreTokenizer((_gpt4(_DIGIT, first=""),)),
        "minicpm5": PreTokenizer((r"\p{N}{1,3}", _gpt4(r"\p{N}+")), whole=True),
        "seed-coder": PreTokenizer((rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1}}| ?[^\s\p{{L}}\p{{N}}\r\n]+|{_TAIL}",)),
        "bailingmoe bailingmoe2 llada-moe": PreTokenizer(
            (r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+",)
        ),
        "laguna": PreTokenizer((r"[^\n]+|[\n]+", qwen2)),
        "tekken": PreTokenizer((_gpt4o(_DIGIT),), whole=True, bos=True),
        "gpt-4o llama4 kanana2 talkie minimax-m2": PreTokenizer((_gpt4o(r"\p{N}{1,3}", f"{_CONTRACTIONS}?"),)),
        "deepseek-v3 hunyuan-dense joyai-llm hy_v4": PreTokenizer(_DEEPSEEK),
        "deepseek-coder": PreTokenizer((r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", r"[一-龥ࠀ-一가-퟿]+", _DIGIT)),
        "poro-chat bloom gpt3-finnish": PreTokenizer((_FINNISH,)),
        "viking": PreTokenizer((_FINNISH, _DIGIT)),
    }
    return {name: way for names, way in ways.items() for name in names.split()}


#: By llama.cpp's word.
PRE_TOKENIZERS = _table()
