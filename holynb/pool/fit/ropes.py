"""config.json → rotary settings, of the old names (rope_theta, rope_scaling) and the new one (rope_parameters). Names and numbers only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from holynb.pool.fit.families import FULL, SLIDING, VLLM, DecoderFamily, UnknownModel
from holynb.pool.modelfiles import real, truth, whole

__all__ = ["by_kind", "rope_of", "rotary_dim"]

#: Ways to stretch rotary positions that we compute. Others change the answer, so they are refused.
ROPES = ("default", "linear", "llama3", "yarn", "longrope")

#: The numbers that each of them needs.
_ROPE_NUMBERS: Mapping[str, tuple[str, ...]] = {
    "default": (),
    "linear": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
    "yarn": ("factor", "original_max_position_embeddings"),
    "longrope": ("original_max_position_embeddings",),
}

_MAX_POSITIONS = 2**31 - 1


def by_kind(config: Mapping[str, Any], row: DecoderFamily) -> tuple[Mapping[str, Any], Mapping[str, Any] | None]:
    """config.json with the rotary settings of full layers alone, and those of sliding ones, where the family tells them apart."""
    if row.local_rope is None:
        return config, None
    given = config.get("rope_parameters")
    if given is not None and (not isinstance(given, Mapping) or not set(given) <= {FULL, SLIDING}):
        raise UnknownModel(f"config.json's rope_parameters are not by kind of layer ({FULL}, {SLIDING}), as this family has them. {VLLM}")
    full, local = ((given or {}).get(kind) or {} for kind in (FULL, SLIDING))
    scaling = config.get("rope_scaling") or {}
    return {**config, "rope_scaling": None, "rope_parameters": {**full, **scaling}}, {**row.local_rope(config), **local}


def rope_of(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Rotary settings: type, theta, and the numbers of the type. rope_scaling goes before rope_parameters, as in transformers."""
    given = config.get("rope_scaling") or config.get("rope_parameters") or {}
    if not isinstance(given, Mapping):
        raise TypeError("its rope settings are no object")
    kind = given.get("rope_type") or given.get("type") or "default"
    if config["architectures"][0] == "Phi3ForCausalLM" and kind in ("su", "yarn"):  # its older names of one thing
        kind = "longrope"
    if kind not in ROPES:
        raise UnknownModel(f"The native engine knows the rope types {', '.join(ROPES)}, not {kind}. {VLLM}")
    theta = real(given, "rope_theta", 1e-9, 1e30, real(config, "rope_theta", 1e-9, 1e30, 10000.0))
    # As transformers has it: the number beside the rope settings goes before the one in them.
    trained = config.get("original_max_position_embeddings") or given.get("original_max_position_embeddings")
    trained = trained or config.get("max_position_embeddings")
    numbers = {**given, "original_max_position_embeddings": trained}
    if kind == "yarn" and given.get("factor") is None and "factor" in given:
        numbers["factor"] = whole(config, "max_position_embeddings", 1, _MAX_POSITIONS) / real(
            numbers, "original_max_position_embeddings", 1, 1e12
        )
    rope = {name: real(numbers, name, 1e-9, 1e12) for name in _ROPE_NUMBERS[kind]}
    more = _yarn(given) if kind == "yarn" else _longrope(config, numbers) if kind == "longrope" else {}
    return {"type": kind, "theta": theta, **rope, **more}


def rotary_dim(config: Mapping[str, Any], head_dim: int) -> int:
    """How many numbers of a head are rotated, the first ones."""
    given = config.get("rope_scaling") or config.get("rope_parameters") or {}
    share = real(given, "partial_rotary_factor", 0, 1, real(config, "partial_rotary_factor", 0, 1, 1.0))
    size = int(head_dim * share)
    if share < 1 and (size < 2 or size % 2):
        raise ValueError(f"partial_rotary_factor {share:g} of a head of {head_dim:,} is no even number")
    return size


def _longrope(config: Mapping[str, Any], given: Mapping[str, Any]) -> Mapping[str, Any]:
    """What each frequency is divided by, in a pool of contexts up to what the model was first trained with, and beyond."""
    sets = {}
    for name in ("short_factor", "long_factor"):
        factors = given.get(name)
        if not isinstance(factors, list):
            raise UnknownModel(f"config.json's longrope has no list of numbers {name}. Fetch the model again, or fix the file.")
        sets[name] = tuple(real({name: one}, name, 1e-6, 1e12) for one in factors)
    trained = real(given, "original_max_position_embeddings", 1, 1e12)
    factor = given.get("factor")
    factor = (
        whole(config, "max_position_embeddings", 1, _MAX_POSITIONS, 1) / trained if factor is None else real(given, "factor", 1e-9, 1e12)
    )
    attention = None if given.get("attention_factor") is None else real(given, "attention_factor", 0, 1e12)
    return {"factor": factor, "attention_factor": attention, **sets}


def _yarn(given: Mapping[str, Any]) -> Mapping[str, Any]:
    """What yarn has beside its two numbers; a 0 is the same as left out, as in transformers."""
    numbers = {n: real(given, n, 0, 1e12, 0) for n in ("beta_fast", "beta_slow", "mscale", "mscale_all_dim")}
    factor = None if given.get("attention_factor") is None else real(given, "attention_factor", 0, 1e12)
    return {**numbers, "attention_factor": factor, "truncate": truth(given, "truncate", default=True)}
