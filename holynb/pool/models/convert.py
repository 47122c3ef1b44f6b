"""A GGUF file → a folder of safetensors, config and tokenizer, once. Reads with gguf and numpy; knows no torch and no network.

Weights are written in float32, as GGUF's own reader dequantizes them, or kept in their numbers and scales (`gguf_groups.py`,
`gguf_stacked.py`): another format would round what 4 bits and a scale say exactly. One tensor is in memory at a time.
"""

from __future__ import annotations

import json
import re
import struct
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any

from holynb.pool.models.gguf_config import FAMILIES, config_of_facts, generation_of_facts
from holynb.pool.models.gguf_experts import is_router
from holynb.pool.models.gguf_facts import ConvertError, Facts, shown
from holynb.pool.models.gguf_groups import gpu_bits
from holynb.pool.models.gguf_header import GgufError, GgufFile, read_gguf
from holynb.pool.models.gguf_stacked import StackedPiece, in_mxfp4
from holynb.pool.models.gguf_tensors import Piece, check_tensors, pieces_of, rope_factors
from holynb.pool.models.gguf_vocabulary import Vocabulary

__all__ = ["ConvertError", "config_of", "convert"]

_Progress = Callable[[float], None]
_ITEMSIZE = {"U8": 1, "I8": 1, "F16": 2, "F32": 4}

#: As openai's files say it, which other engines read, too.
_EXPERTS_IN_MXFP4 = {
    "quantization_config": {
        "quant_method": "mxfp4",
        "modules_to_not_convert": ["model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"],
    }
}


def convert(source: Path, folder: Path, progress: _Progress = lambda share: None, *, kept: bool = False) -> None:
    """Fill `folder` (which exists) from `source`. `progress` gets shares from 0 to 1. `kept`: matrices stay quantized, and only our own
    engine reads the folder. Raises ConvertError, OSError.
    """
    with _explained(source):
        file, facts = _opened(source)
        config = _config(file, facts)
        vocabulary = Vocabulary(facts)
        pieces = pieces_of(file.tensors, config)
        _write(folder / "config.json", config | (_quantization(pieces) if kept else {}))
        _write(folder / "tokenizer.json", vocabulary.tokenizer())
        _write(folder / "tokenizer_config.json", vocabulary.tokenizer_config())
        _write(folder / "generation_config.json", generation_of_facts(facts, config, vocabulary.ends))
        _write_weights(folder / "model.safetensors", pieces, config, progress, kept=kept)


def config_of(source: Path) -> dict[str, Any]:
    """What its config.json would say where matrices are kept, read from its header alone. Raises ConvertError, OSError."""
    with _explained(source):
        file, facts = _opened(source)
        config = _config(file, facts)
        return config | _quantization(pieces_of(file.tensors, config))


def _quantization(pieces: list[Piece | StackedPiece]) -> dict[str, Any]:
    """What config.json says of matrices that are kept: bits of a number, of a layer's matrices and of the tables, once they are packed."""
    matrices = [piece for piece in pieces if isinstance(piece, Piece) and len(piece.shape) == 2 and not is_router(piece.name)]
    if all(piece.bits is None for piece in matrices):
        return {}
    bits = {}
    for kind, chosen in (("layers", True), ("tables", False)):
        some = [piece for piece in matrices if (".layers." in piece.name) == chosen]
        count, together = max(1, sum(piece.count for piece in some)), defaultdict[str, list[Piece]](list)
        for piece in some:
            together[_together(piece.name)].append(piece)
        bits[kind] = round(sum(piece.count * (piece.bits or 32.0) for piece in some) / count, 3)
        bits[f"gpu_{kind}"] = round(sum(_gpu_bits(pieces) for pieces in together.values()) / count, 3)
    experts = {"experts": "mxfp4"} if any(isinstance(piece, StackedPiece) and piece.four for piece in pieces) else {}
    return {"quantization_config": {"quant_method": "gguf", "group_size": 32, "bits": bits, **experts}}


def _together(name: str) -> str:
    """The same for matrices that are packed as one: those with the same input, of all experts."""
    return re.sub(r"(?:gate|up)_proj|\bw[13]\b", "g", re.sub(r"[qkv]_proj", "q", re.sub(r"\.experts\.\d+\.", ".experts.", name)))


def _gpu_bits(pieces: list[Piece]) -> float:
    """Of all numbers of matrices with the same input; bfloat16 where one of them is plain, for then all are."""
    kinds = [piece.tensor.tensor_type.name for piece in pieces if piece.tensor is not None and piece.bits is not None]
    each = gpu_bits(kinds, pieces[0].shape[1]) if len(kinds) == len(pieces) else 16.0
    return each * sum(piece.count for piece in pieces)


@contextmanager
def _explained(source: Path) -> Iterator[None]:
    """Whatever a file that lies makes the libraries raise, as a ConvertError."""
    try:
        yield
    except (ConvertError, OSError):
        raise
    except MemoryError as exc:
        raise ConvertError(f"{source.name} needs more memory than a file of its size may: it is broken, or no model") from exc
    except Exception as exc:
        reason = " ".join(str(exc).split())[:200] or type(exc).__name__
        raise ConvertError(f"{source.name} is not a readable GGUF file: {reason}") from exc


def _opened(source: Path) -> tuple[GgufFile, Facts]:
    """The file and the facts of its header, nothing of which is refused."""
    try:
        file = read_gguf(source)
    except GgufError as exc:
        raise ConvertError(f"{source.name} is not a readable GGUF file: {exc}. Fetch it again.") from exc
    facts = file.facts
    family = facts.get("general.architecture")
    if not isinstance(family, str) or family not in FAMILIES:
        raise ConvertError(f"GGUF files of the {shown(family)} family are not known here; known are {', '.join(FAMILIES)}.")
    if (parts := facts.get("split.count")) not in (None, 0, 1):
        raise ConvertError(f"it is one of {shown(parts)} parts of a model; join them with llama-gguf-split --merge FIRST-PART WHOLE.gguf")
    known = Facts(facts, family)
    known.check()
    check_tensors([tensor.name for tensor in file.tensors], family)
    return file, known


def _config(file: GgufFile, facts: Facts) -> dict[str, Any]:
    config = config_of_facts(facts, [tensor.name for tensor in file.tensors], rope_factors(file.tensors))
    return config | (_EXPERTS_IN_MXFP4 if facts.family == "gpt-oss" and in_mxfp4(file.tensors) else {})


def _write_weights(path: Path, pieces: list[Piece | StackedPiece], config: dict[str, Any], progress: _Progress, *, kept: bool) -> None:
    """safetensors, streamed: the header is known from the shapes, so no second copy of the weights is ever in memory."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    total = 0
    for piece in pieces:
        for end, dtype, shape in piece.entries(kept=kept):
            size = _ITEMSIZE[dtype] * prod(shape)
            header[piece.name + end] = {"dtype": dtype, "shape": list(shape), "data_offsets": [total, total + size]}
            total += size
    head = json.dumps(header, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)
    done = 0
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(head)) + head)
        for piece in pieces:
            for array in piece.arrays(config, kept=kept):
                file.write(array.data)
                done += array.nbytes
            progress(done / total)


def _write(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1), encoding="utf-8")
