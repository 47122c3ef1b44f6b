"""Parses what vLLM writes: progress and the reason of its end from its log, a replica's stats from its metrics page. Pure text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, cast

from holynb.pool.server import ReplicaStats

__all__ = ["progress", "reason", "stats"]

#: `(EngineCore pid=14887) INFO 11-23 06:42:27 [core.py:133] ` before each line, or parts of it.
_LOG_PREFIX = re.compile(r"^(\((\w+) pid=\d+\) )?((INFO|WARNING|ERROR|DEBUG) [\d-]+ [\d:]+ \[[^\]]*\] ?)?")
_LOADED_PERCENT = re.compile(r"(\d+)% Completed")
_CAUSE = re.compile(r"^(?!.*Engine core initialization failed)([\w.]*(Error|Exception)\b.*: .+|error: .+|.*No module named .+)")
_SAMPLE = re.compile(r"^(vllm:\w+)\{([^}]*)\} (\S+)$", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="([^"]*)"')


def progress(lines: Sequence[str]) -> tuple[str, float | None]:
    """The last informative line, and the share of the weights that are loaded, where the line has it."""
    for line in reversed(lines):
        text = _LOG_PREFIX.sub("", line).strip()
        if match := _LOADED_PERCENT.search(text):
            return "vLLM: loading the weights", int(match[1]) / 100
        informative = " INFO " in line[:80] and not re.search(r"Route: |[█▄▀]|non-default args|Available routes", text)
        if informative and text:
            return f"vLLM: {text if len(text) <= 100 else text[:99] + '…'}", None
    return "starting vLLM", None


def reason(lines: Sequence[str]) -> str:
    """Why it ended: the first and the last error in the log that name a cause, or else the last lines."""
    plain = [_LOG_PREFIX.sub("", line).strip() for line in lines]
    causes = list(dict.fromkeys(text for text in plain if _CAUSE.match(text)))
    lines_shown = causes[:1] + causes[-1:] if causes else plain[-3:]
    summary = " | ".join(text if len(text) <= 300 else text[:299] + "…" for text in dict.fromkeys(lines_shown) if text)
    return f"Its last words: {summary}" if summary else "It said nothing."


def stats(page: str) -> list[ReplicaStats]:
    """A replica's stats for each engine on a page of /metrics (several with data parallelism). What the page lacks is left out."""
    engines: dict[str, dict[str, Any]] = {}
    names = {
        "vllm:num_requests_running": "running",
        "vllm:num_requests_waiting": "waiting",
        "vllm:kv_cache_usage_perc": "used",
        "vllm:gpu_cache_usage_perc": "used",
        "vllm:prompt_tokens_total": "tokens_in",
        "vllm:generation_tokens_total": "tokens_out",
    }
    for name, labels, value in _SAMPLE.findall(page):
        label = dict(_LABEL.findall(labels))
        figures = engines.setdefault(label.get("engine", "0"), {})
        if name in names:
            number = float(value)
            figures[names[name]] = number if names[name] == "used" else int(number)
        elif name == "vllm:cache_config_info":
            figures |= _cache(label)
    for figures in engines.values():
        share, total = figures.pop("used", None), figures.get("kv_total")
        if share is not None and total is not None:
            figures["kv_used"] = round(share * total)
    return [cast("ReplicaStats", engines[k]) for k in sorted(engines)]


def _cache(labels: dict[str, str]) -> dict[str, int]:
    """The KV cache's size in tokens and bytes, where this version of vLLM has them."""
    out = {}
    blocks, size = labels.get("num_gpu_blocks", ""), labels.get("block_size", "")
    if labels.get("kv_cache_size_tokens", "").isdigit():
        out["kv_total"] = int(labels["kv_cache_size_tokens"])
    elif blocks.isdigit() and size.isdigit():
        out["kv_total"] = int(blocks) * int(size)
    if labels.get("kv_cache_memory_bytes", "").isdigit():
        out["kv_bytes"] = int(labels["kv_cache_memory_bytes"])
    return out
