"""What vLLM says, as we say it: its log as progress, its last words as a reason, its metrics as a replica's figures. Pure text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, cast

from holynb.pool.server import ReplicaStats

__all__ = ["progress", "reason", "stats"]

#: `(EngineCore pid=14887) INFO 11-23 06:42:27 [core.py:133] ` before each line, or parts of it.
_HEAD = re.compile(r"^(\((\w+) pid=\d+\) )?((INFO|WARNING|ERROR|DEBUG) [\d-]+ [\d:]+ \[[^\]]*\] ?)?")
_SHARE = re.compile(r"(\d+)% Completed")
_CAUSE = re.compile(r"^(?!.*Engine core initialization failed)([\w.]*(Error|Exception)\b.*: .+|error: .+|.*No module named .+)")
_SAMPLE = re.compile(r"^(vllm:\w+)\{([^}]*)\} (\S+)$", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="([^"]*)"')


def progress(lines: Sequence[str]) -> tuple[str, float | None]:
    """The last line that tells a person something, and the share of the weights that are in, where it says that."""
    for line in reversed(lines):
        text = _HEAD.sub("", line).strip()
        if found := _SHARE.search(text):
            return "vLLM: loading the weights", int(found[1]) / 100
        told = " INFO " in line[:80] and not re.search(r"Route: |[█▄▀]|non-default args|Available routes", text)
        if told and text:
            return f"vLLM: {text if len(text) <= 100 else text[:99] + '…'}", None
    return "starting vLLM", None


def reason(lines: Sequence[str]) -> str:
    """Why it ended, as its log tells: the first error that names a cause, or else the last lines."""
    plain = [_HEAD.sub("", line).strip() for line in lines]
    causes = list(dict.fromkeys(text for text in plain if _CAUSE.match(text)))
    last = causes[:1] + causes[-1:] if causes else plain[-3:]
    words = " | ".join(text if len(text) <= 300 else text[:299] + "…" for text in dict.fromkeys(last) if text)
    return f"Its last words: {words}" if words else "It said nothing."


def stats(page: str) -> list[ReplicaStats]:
    """A replica's figures for each engine on the page of /metrics (data-parallel ones are several). What it does not say is left out."""
    found: dict[str, dict[str, Any]] = {}
    names = {
        "vllm:num_requests_running": "running",
        "vllm:num_requests_waiting": "waiting",
        "vllm:kv_cache_usage_perc": "used",
        "vllm:gpu_cache_usage_perc": "used",
        "vllm:prompt_tokens_total": "tokens_in",
        "vllm:generation_tokens_total": "tokens_out",
    }
    for name, labels, value in _SAMPLE.findall(page):
        said = dict(_LABEL.findall(labels))
        one = found.setdefault(said.get("engine", "0"), {})
        if name in names:
            number = float(value)
            one[names[name]] = number if names[name] == "used" else int(number)
        elif name == "vllm:cache_config_info":
            one |= _cache(said)
    for one in found.values():
        share, total = one.pop("used", None), one.get("kv_total")
        if share is not None and total is not None:
            one["kv_used"] = round(share * total)
    return [cast("ReplicaStats", found[k]) for k in sorted(found)]


def _cache(said: dict[str, str]) -> dict[str, int]:
    """Tokens that the KV cache holds, and its bytes, where this version says so."""
    out = {}
    blocks, size = said.get("num_gpu_blocks", ""), said.get("block_size", "")
    if said.get("kv_cache_size_tokens", "").isdigit():
        out["kv_total"] = int(said["kv_cache_size_tokens"])
    elif blocks.isdigit() and size.isdigit():
        out["kv_total"] = int(blocks) * int(size)
    if said.get("kv_cache_memory_bytes", "").isdigit():
        out["kv_bytes"] = int(said["kv_cache_memory_bytes"])
    return out
