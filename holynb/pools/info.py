"""What is known of one pool now: its rendezvous record, and what it says of itself over its private socket. No torch, no httpx."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from holynb.types import Gauge, Secret
from kernels_support.jupyter.rendezvous import Record

__all__ = ["PoolInfo", "look"]


@dataclass(frozen=True, slots=True)
class PoolInfo:
    """One pool, as it is now. state: starting, ready, failed, ended, silent (does not answer) or elsewhere (another machine's)."""

    name: str
    model: str
    state: str
    pid: int
    host: str
    stage: str = ""
    share: float | None = None
    socket: str | None = None
    port: int | None = None
    token: Secret | None = None
    devices: tuple[str, ...] = ()
    ranks: tuple[int, ...] = ()
    dp: int = 1
    tp: int = 1
    pp: int = 1
    started: float | None = None
    max_len: int | None = None
    requests: int | None = None
    idle_s: float | None = None
    tokens_in: int | None = None
    tokens_out: int | None = None
    memory: tuple[Gauge, ...] = ()
    kv_used: int | None = None
    kv_total: int | None = None
    stages: tuple[tuple[float, ...], ...] = ()
    """Per replica, the busy share of each stage of its pipeline; empty without one."""
    deaths: tuple[str, ...] = ()
    replicas: tuple[Mapping[str, int], ...] = ()
    """Per replica what it says of its batch: running, waiting, batch (rows that it allows itself now), oom (times its memory ran out)."""
    why: str | None = None
    engine: str = "native"

    @property
    def progress(self) -> str:
        """What it does now, for people; a share moves in tenths, so that each is worth saying."""
        return f"{self.name}: {self.stage}{'' if self.share is None else f' {int(self.share * 10) * 10} %'}"

    @property
    def divided(self) -> str:
        """How it was started: `--dp 2 --tp 2`; empty for one process."""
        return " ".join(f"--{flag} {n}" for flag, n in (("dp", self.dp), ("tp", self.tp), ("pp", self.pp)) if n > 1)

    @property
    def base_url(self) -> str | None:
        """Where other tools reach it; None without `--port`."""
        return None if self.port is None else f"http://127.0.0.1:{self.port}/v1"

    def as_dict(self) -> dict[str, Any]:
        """For `--json`: everything, the port's token in the clear (who may read the rendezvous file may read this)."""
        said = {f.name: getattr(self, f.name) for f in fields(self)}
        memory = [{"device": g.device, "used": g.used, "total": g.total, "ours": g.ours, "parts": dict(g.parts)} for g in self.memory]
        return {
            **said,
            "replicas": [dict(r) for r in self.replicas],
            "token": self.token.reveal() if self.token else None,
            "base_url": self.base_url,
            "memory": memory,
        }


def look(record: Record) -> PoolInfo:
    known: dict[str, Any] = {
        "name": record.name,
        "model": str(record.facts.get("model")),
        "pid": record.process.pid,
        "host": record.host,
        "socket": record.socket,
        "port": record.port,
        "token": Secret(record.token, "pool token") if record.token else None,
        "started": record.facts.get("started"),
        "devices": tuple(record.facts.get("devices", ())),
        "ranks": tuple(r.pid for r in record.ranks),
        "engine": str(record.facts.get("engine", "native")),
        **{k: int(record.facts.get(k, 1)) for k in ("dp", "tp", "pp")},
    }
    if not record.here:
        return PoolInfo(state="elsewhere", **known)
    health = _health(record)
    if health is None:
        return PoolInfo(state="silent", why=f"it does not answer; where it stays so, end it: %infer pool stop {record.name}", **known)
    said: dict[str, Any] = {
        k: health.get(k) for k in ("state", "stage", "share", "max_len", "requests", "idle_s", "tokens_in", "tokens_out", "why")
    }
    said.update({k: _sum(health, k) for k in ("kv_used", "kv_total")})
    stages = tuple(tuple(r["stages"]) for r in health.get("replicas", []) if r.get("stages"))
    said |= {"memory": _memory(health), "stages": stages, "deaths": tuple(health.get("deaths", ())), "replicas": _replicas(health)}
    return PoolInfo(**known, **said)


def _sum(health: dict[str, Any], key: str) -> int | None:
    """Over the replicas that say so: tokens in their KV caches, or that these hold."""
    found = [r[key] for r in health.get("replicas", []) if isinstance(r.get(key), int)]
    return sum(found) if found else None


def _replicas(health: dict[str, Any]) -> tuple[dict[str, int], ...]:
    names = ("running", "waiting", "batch", "oom")
    return tuple({n: r[n] for n in names if isinstance(r.get(n), int)} for r in health.get("replicas", []))


def _memory(health: dict[str, Any]) -> tuple[Gauge, ...]:
    """Each replica's device as the gauge that the charts read; one that does not say how much it has is left out."""
    found = []
    for d in health.get("devices", []):
        if d.get("used") is not None and d.get("total"):
            parts = {k: float(d[k]) for k in ("weights", "kv", "rest") if d.get(k) is not None}
            found.append(Gauge(str(d["device"]), int(d["used"]), int(d["total"]), time.time(), d.get("ours"), parts))
    return tuple(found)


class _Unix(http.client.HTTPConnection):
    """HTTP over a Unix socket; the standard library's, because only `engines/http.py` may load httpx."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("pool", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def _health(record: Record) -> dict[str, Any] | None:
    """What the pool says of itself; None where it does not answer within two seconds."""
    connection = _Unix(str(record.socket), 2.0)
    try:
        connection.request("GET", "/health")
        said = json.loads(connection.getresponse().read())
    except (OSError, ValueError, http.client.HTTPException):
        return None
    finally:
        connection.close()
    return said if isinstance(said, dict) else None
