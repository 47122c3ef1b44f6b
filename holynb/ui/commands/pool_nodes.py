"""The nodes of a pool on Ray, as status and dash say them. Knows what a pool says of itself; asks nobody."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from holynb.ui.output import ago
from holynb.words import counted

if TYPE_CHECKING:
    from holynb.pools import PoolInfo

__all__ = ["nodes"]


def nodes(info: PoolInfo) -> list[str]:
    """Of a pool on Ray, each node with its replicas and GPUs; of a lost one, when its rows moved."""
    out = []
    for node in info.nodes:
        held = ", ".join(str(n) for n in node["replicas"])
        gpus = [device for device in node.get("devices", ()) if device != "cpu"]
        on = f" on {', '.join(gpus)}" if gpus else ""
        now = f"replica{'s' if len(node['replicas']) > 1 else ''} {held}{on}" if node["alive"] and held else "no replica"
        lost = f", lost one {ago(node['lost_at'], time.time())}, {counted(node['moved'], 'row')} moved" if node.get("lost_at") else ""
        out.append(f"{node['address']} {now}{lost}")
    return out
