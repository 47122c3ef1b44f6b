"""The fields of a request for embeddings, as data: an allow-list for the pool's server and for a cell's `-p`. The server reads `input`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from holynb.errors import closest
from holynb.poolfields import checks
from holynb.poolfields.checks import Check, FieldError

__all__ = ["POOLINGS", "check_embedding", "check_embedding_cell"]

#: How the hidden states of a text's tokens become one vector: their mean, or that of the last token.
POOLINGS = ("mean", "last")

FIELDS: Mapping[str, Check] = {
    "model": checks.text,
    "input": checks.anything,
    "dimensions": checks.number(1, whole=True),
    "encoding_format": checks.one_of("float", "base64"),
    "pooling": checks.one_of(*POOLINGS),
    "normalize": checks.flag,
    "add_special_tokens": checks.flag,
    "truncate_prompt_tokens": checks.number(1, whole=True),
    "user": checks.text,
}

#: Fields that a cell sets by itself → how to say it there.
_SAID_OTHERWISE = {
    "model": "name the pool in the cell's route, pool/NAME",
    "input": "the cell's text is the input",
    "dimensions": "say --dimensions N",
    "encoding_format": "a cell reads the vectors itself",
}


def check_embedding(body: Mapping[str, Any]) -> None:
    """Raises FieldError for the first field of the body that this pool does not do, or not with this value."""
    for name, value in body.items():
        if name not in FIELDS:
            near = closest(name, FIELDS)
            raise FieldError(name, f"{name!r:.40} is no field of this pool's embeddings.{near}", unsupported=True)
        if value is not None:
            FIELDS[name](name, value)


def check_embedding_cell(extra: Mapping[str, Any]) -> None:
    """As `check_embedding`, for what a cell adds to its requests by `-p`. Raises FieldError."""
    for name in extra:
        if name in _SAID_OTHERWISE:
            raise FieldError(name, f"-p {name} is not for a cell on a pool: {_SAID_OTHERWISE[name]}.", unsupported=True)
    check_embedding(extra)
