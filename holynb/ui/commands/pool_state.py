"""The state of a pool, as list, status, start and dash say it: one that lost a replica is not whole. Asks nobody."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from holynb.ui.output import count

if TYPE_CHECKING:
    from holynb.pools import PoolInfo

__all__ = ["changes", "longest", "remedy", "shortened", "stages", "state", "without_chat"]


def state(info: PoolInfo) -> str:
    """Its state, and of a pool that lost replicas how many are left."""
    return f"{info.state}, {info.dp - info.missing} of {info.dp} replicas" if info.missing else info.state


def longest(info: PoolInfo) -> str:
    """The tokens that a row can have, and what was asked for where that is more."""
    more = f" (--max-len {info.max_len_asked} is more than its context)" if _is_shortened(info) else ""
    return f"{count(info.max_len)} tokens{more}"


def shortened(info: PoolInfo) -> str:
    """That rows are shorter than was asked for; empty where they are not."""
    if not _is_shortened(info):
        return ""
    return f"Rows of pool/{info.name} have up to {info.max_len:,} tokens, its context: --max-len {info.max_len_asked} gives no more."


def without_chat(info: PoolInfo) -> str:
    """What can be done with a base model, which cells cannot ask; empty of any other."""
    if info.chats:
        return ""
    token = f"{info.base_url}/completions (its token: holynb pool status {info.name} --json)"
    where = token if info.base_url else "/v1/completions, once it is started with --port 0"
    return (
        "Its model has no chat template, so that cells can ask its instruct version only. "
        f"It makes vectors (%%infer pool/{info.name} --embed), and continues text at {where}."
    )


def _is_shortened(info: PoolInfo) -> bool:
    return bool(info.max_len and info.max_len_asked and info.max_len < info.max_len_asked)


def remedy(info: PoolInfo) -> str:
    """What brings the lost replicas back; empty where none is lost."""
    if not info.missing:
        return ""
    if info.restarting >= info.missing:
        return f"pool/{info.name} lost a replica, which is being started again."
    return (
        f"pool/{info.name} lost a replica and does not start it again. For all {info.dp}: %infer pool stop {info.name}, "
        "and start it as before; with --restart N a lost one comes back by itself."
    )


def changes(info: PoolInfo) -> dict[str, str]:
    """`lost` and `came back`, each with its times; of a pool that tells no times, the reasons alone."""
    lines: dict[str, list[str]] = {"lost": [], "came back": []}
    for one in info.changes:
        at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(float(one["at"])))
        lines.setdefault(str(one["what"]), []).append(f"{at}: {one['why']}" if one.get("why") else at)
    lines["lost"] = lines["lost"] or list(info.deaths)
    return {what: " | ".join(entries) for what, entries in lines.items()}


def stages(info: PoolInfo) -> list[str]:
    """For each replica, the share of time that each stage of its pipeline is busy."""
    return [", ".join(f"stage {n} {share:.0%} busy" for n, share in enumerate(replica)) for replica in info.stages]
