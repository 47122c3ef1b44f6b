"""Hub ids → the sizes in their config.json, for a plan without files: models that people ask for. Knows names and numbers.

Those of Qwen3, gpt-oss-20b and Gemma 3 12B stand in the tests and benchmarks, too. The others were read 2026-11-29 in repositories that
took them over from each config.json: litgpt/config.py of github.com/Lightning-AI/litgpt at 0006c97 (with the file's address beside each),
and what the vendors publish: models/sku_list.py of meta-llama/llama-models at 084b88e, gpt_oss/torch/model.py of openai/gpt-oss at 0568dfc,
models/gemma3/convert_gemma3_weights.py of huggingface/transformers at 0d7e95d. A config.json decides.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from holynb.errors import UserError

__all__ = ["KNOWN", "known_config", "misspelt", "quantized_as", "unknown", "with_organisation"]

_SIZES = ("num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads", "head_dim", "vocab_size")


def _config(family: str, *sizes: int, length: int, tied: bool = False, **more: Any) -> dict[str, Any]:
    own = {"max_position_embeddings": length, "tie_word_embeddings": tied, "dtype": "bfloat16"}
    return {"architectures": [f"{family}ForCausalLM"], **dict(zip(_SIZES, sizes, strict=True)), **own, **more}


def _gpt_oss(layers: int, experts: int) -> dict[str, Any]:
    more: dict[str, Any] = {"num_local_experts": experts, "num_experts_per_tok": 4, "quantization_config": {"quant_method": "mxfp4"}}
    return _config("GptOss", layers, 2880, 2880, 64, 8, 64, 201088, length=131072, sliding_window=128, **more)


_A3B: dict[str, Any] = {"num_experts": 128, "num_experts_per_tok": 8, "moe_intermediate_size": 768}

#: A model's name as the hub has it, without what stands for its tuning (Instruct, it) and its files (FP8, AWQ).
KNOWN: Mapping[str, Mapping[str, Any]] = {
    "Qwen/Qwen3-0.6B": _config("Qwen3", 28, 1024, 3072, 16, 8, 128, 151936, length=40960, tied=True),
    "Qwen/Qwen3-1.7B": _config("Qwen3", 28, 2048, 6144, 16, 8, 128, 151936, length=40960, tied=True),
    "Qwen/Qwen3-4B": _config("Qwen3", 36, 2560, 9728, 32, 8, 128, 151936, length=40960, tied=True),
    "Qwen/Qwen3-8B": _config("Qwen3", 36, 4096, 12288, 32, 8, 128, 151936, length=40960),
    "Qwen/Qwen3-14B": _config("Qwen3", 40, 5120, 17408, 40, 8, 128, 151936, length=40960),
    "Qwen/Qwen3-32B": _config("Qwen3", 64, 5120, 25600, 64, 8, 128, 151936, length=40960),
    "Qwen/Qwen3-30B-A3B": _config("Qwen3Moe", 48, 2048, 6144, 32, 4, 128, 151936, length=40960, **_A3B),
    "Qwen/Qwen3-Coder-30B-A3B": _config("Qwen3Moe", 48, 2048, 6144, 32, 4, 128, 151936, length=262144, **_A3B),
    "openai/gpt-oss-20b": _gpt_oss(24, 32),
    # gpt_oss/torch/model.py: 36 layers, 128 experts, 4 of them a token
    "openai/gpt-oss-120b": _gpt_oss(36, 128),
    # models/sku_list.py and litgpt; 3.3 has the sizes of 3.1 (litgpt)
    "meta-llama/Llama-3.1-8B": _config("Llama", 32, 4096, 14336, 32, 8, 128, 128256, length=131072),
    "meta-llama/Llama-3.1-70B": _config("Llama", 80, 8192, 28672, 64, 8, 128, 128256, length=131072),
    "meta-llama/Llama-3.3-70B": _config("Llama", 80, 8192, 28672, 64, 8, 128, 128256, length=131072),
    "google/gemma-3-12b": _config("Gemma3", 48, 3840, 15360, 16, 8, 256, 262208, length=131072, tied=True, sliding_window=1024),
    # convert_gemma3_weights.py and litgpt: 262,144 tokens, to which the file adds 64
    "google/gemma-3-27b": _config("Gemma3", 62, 5376, 21504, 32, 16, 128, 262208, length=131072, tied=True, sliding_window=1024),
    # litgpt, v0.1 and v0.3. The Mistral of v0.1 and v0.2 knows 768 tokens fewer, and that of v0.1 has a window of 4,096.
    "mistralai/Mixtral-8x7B": _config(
        "Mixtral", 32, 4096, 14336, 32, 8, 128, 32000, length=32768, num_local_experts=8, num_experts_per_tok=2
    ),
    "mistralai/Mistral-7B": _config("Mistral", 32, 4096, 14336, 32, 8, 128, 32768, length=32768, sliding_window=None),
    # litgpt
    "microsoft/phi-4": _config("Phi3", 40, 5120, 17920, 40, 10, 128, 100352, length=16384),
}

#: What a mixture of experts is called by its sizes alone.
_BY_SIZES = {"30b-a3b": "Qwen/Qwen3-30B-A3B"}

#: Words after a name that change no size.
_TUNING = re.compile(r"[-_.](instruct|base|chat|it|pt|v0\.[1-3]|2507|thinking|hf)$", re.IGNORECASE)

#: The last word of a name → how such files usually lie: what their quantization_config says.
_FILES: Mapping[str, Mapping[str, Any]] = {
    "fp8": {"quant_method": "fp8", "weight_block_size": [128, 128], "activation_scheme": "dynamic"},
    "awq": {"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True, "version": "gemm"},
    "gptq": {"quant_method": "gptq", "bits": 4, "group_size": 128, "desc_act": False, "sym": True},
}
_FILES_WORD = re.compile(r"[-_](fp8|awq|gptq)(?:[-_](?:int4|4bit|dynamic|int8|8bit))?$", re.IGNORECASE)
_UNREAD = re.compile(r"[-_](\d+[-_]?bit|bnb|int8|mlx|exl2)\b", re.IGNORECASE)


def quantized_as(word: str) -> Mapping[str, Any] | None:
    """What the quantization_config of files of this name says; None where the name tells of none. Raises UserError for ones not read."""
    files = _FILES_WORD.search(word)
    if files and not re.search(r"(int8|8bit)$", word, re.IGNORECASE):
        return _FILES[files[1].lower()]
    if unread := _UNREAD.search(word):
        raise UserError(
            f"{word} is named {unread[1]}, and how its files lie is not known from that; "
            "a folder with its config.json alone gives the real figures. Four bits are read of AWQ, GPTQ and GGUF files."
        )
    return None


def known_config(word: str) -> tuple[str, dict[str, Any]] | None:
    """(the known model, what its config.json says as far as it decides a plan) of `org/name`; None where it is not known.

    Copies by others, quantised ones mostly, keep the name after the organisation's. Raises UserError.
    """
    files, known = quantized_as(word), _known(_FILES_WORD.sub("", word).rpartition("/")[2])
    if known is None:
        return None
    longer = {"max_position_embeddings": 262144} if "-2507" in word else {}
    return known, {**KNOWN[known], **longer, **({"quantization_config": dict(files)} if files else {})}


def with_organisation(word: str) -> str:
    """`Qwen/Qwen3-8B` of `qwen3-8b`: the same MODEL for a plan and for a start.

    As it is: a path that is there, what has an organisation or is not known, and quantized files, which many make.
    """
    if "/" in word or Path(word).expanduser().exists():
        return word
    if word.lower() in _BY_SIZES:
        return _BY_SIZES[word.lower()]
    if (known := _known(word)) is None or not word.lower().startswith(_bare(known).lower()):
        return word
    return known + word[len(_bare(known)) :]


def misspelt(word: str) -> str:
    """`" Did you mean Qwen/Qwen3-8B?"` of `Qwen/Qwne3-8B`: a known name of the same numbers; empty where none is near.

    A name that holds a known one in full is no mistake: it is somebody's own of that model.
    """
    name = _FILES_WORD.sub("", word).rpartition("/")[2].lower()
    while (shorter := _TUNING.sub("", name)) != name:
        name = shorter
    numbers = re.findall(r"\d+", name)
    same = {_bare(known).lower(): known for known in KNOWN if re.findall(r"\d+", _bare(known)) == numbers}
    return "" if any(known in name for known in same) else _did_you_mean(name, same, 0.75)


def unknown(word: str, *others: str) -> str:
    """What to do next where `word` names nothing that can be planned. `others`: names that can be, besides those here."""
    names = {name.lower(): known for known in (*KNOWN, *others) for name in (known, _bare(known))}
    near = _did_you_mean(word.lower(), names, 0.6)
    if "/" not in word and _FILES_WORD.search(word) and _known(_FILES_WORD.sub("", word)):
        near = f" Name whose files they are: ORGANISATION/{word}."
    return (
        f"{word} is neither a folder with config.json, nor a size such as 70B, nor org/name of a model that is known here "
        f"or has its size in its name.{near} A folder with its config.json alone is enough for a plan."
    )


def _bare(known: str) -> str:
    return known.rpartition("/")[2]


def _known(name: str) -> str | None:
    """The id of a name without its organisation, whatever its tuning; Llama's names began with Meta, and copies of them do."""
    ids = {_bare(known).lower(): known for known in KNOWN}
    while (known := ids.get(name.lower().removeprefix("meta-"))) is None and (shorter := _TUNING.sub("", name)) != name:
        name = shorter
    return known


def _did_you_mean(word: str, names: Mapping[str, str], cutoff: float) -> str:
    """The full id at once, whichever part of it was typed."""
    near = get_close_matches(word, names, n=1, cutoff=cutoff)
    return f" Did you mean {names[near[0]]}?" if near else ""
