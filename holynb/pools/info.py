"""The status of one pool: its rendezvous record, and its `/health` over its private socket. No torch, no httpx."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from holynb.events import Gauge
from holynb.types import Secret
from kernels_support.jupyter.rendezvous import Record

__all__ = ["PoolInfo", "rank_logs", "read_status"]


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
    max_len_asked: int | None = None
    chats: bool = True
    """Whether its model has a chat template, without which cells cannot ask it."""
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
    changes: tuple[Mapping[str, Any], ...] = ()
    """When a replica was lost and when one came back: at, what, why."""
    restarting: int = 0
    """Replicas that are being started again."""
    replicas: tuple[Mapping[str, int], ...] = ()
    """Per replica: running, waiting, batch (the scheduler's current limit of rows), oom (times its memory ran out)."""
    clients: tuple[Mapping[str, Any], ...] = ()
    """Per named token: name, used (tokens of today, of all pools of this machine) and per_day (None: without a limit)."""
    why: str | None = None
    engine: str = "native"
    on: str | None = None
    """The Ray cluster that it runs on; None: this machine alone."""
    nodes: tuple[Mapping[str, Any], ...] = ()
    """On Ray: address, alive, replicas, ranks, and of a lost one lost_at, moved (rows) and why."""
    moves: tuple[Mapping[str, Any], ...] = ()
    """On Ray: what became of replicas: at, replica, nodes, what, why, rows."""

    @property
    def progress(self) -> str:
        """The current stage, for people; its share is rounded down to tenths, so that each change is worth a line."""
        return f"{self.name}: {self.stage}{'' if self.share is None else f' {int(self.share * 10) * 10} %'}"

    @property
    def parallelism(self) -> str:
        """Its flags of parallelism, such as `--dp 2 --tp 2`; empty for one process."""
        return " ".join(f"--{flag} {n}" for flag, n in (("dp", self.dp), ("tp", self.tp), ("pp", self.pp)) if n > 1)

    @property
    def missing(self) -> int:
        """Replicas that a ready pool of this machine has lost; those on Ray follow their queue, and their nodes say what is gone."""
        if self.state != "ready" or self.on is not None or self.engine != "native" or not (self.replicas or self.restarting):
            return 0
        return max(0, self.dp - len(self.replicas))

    @property
    def base_url(self) -> str | None:
        """The URL for other tools; None without `--port`."""
        return None if self.port is None else f"http://127.0.0.1:{self.port}/v1"

    def as_dict(self) -> dict[str, Any]:
        """For `--json`: everything, the port's token in the clear (it is in the rendezvous file, too)."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        memory = [{"device": g.device, "used": g.used, "total": g.total, "ours": g.ours, "parts": dict(g.parts)} for g in self.memory]
        return {
            **values,
            **{name: [dict(one) for one in getattr(self, name)] for name in ("replicas", "clients", "nodes", "moves", "changes")},
            "token": self.token.reveal() if self.token else None,
            "base_url": self.base_url,
            "memory": memory,
        }


def read_status(record: Record) -> PoolInfo:
    """The pool's record and its current health. Waits up to two seconds for an answer."""
    facts: dict[str, Any] = {
        "name": record.name,
        "model": str(record.facts.get("model")),
        "pid": record.process.pid,
        "host": record.host,
        "socket": record.socket,
        "port": record.port,
        "token": Secret(record.token, "pool token") if record.token and record.port else None,
        "started": record.facts.get("started"),
        "devices": tuple(record.facts.get("devices", ())),
        "ranks": tuple(r.pid for r in record.ranks),
        "engine": str(record.facts.get("engine", "native")),
        "on": record.facts.get("on"),
        "max_len_asked": record.facts.get("max_len"),
        **{k: int(record.facts.get(k, 1)) for k in ("dp", "tp", "pp")},
    }
    if not record.here:
        return PoolInfo(state="elsewhere", **facts)
    health = _health(record)
    if health is None:
        return PoolInfo(state="silent", why=f"it does not answer; where it stays so, end it: %infer pool stop {record.name}", **facts)
    current: dict[str, Any] = {
        k: health.get(k) for k in ("state", "stage", "share", "max_len", "requests", "idle_s", "tokens_in", "tokens_out", "why")
    }
    current["chats"] = health.get("chats") is not False
    current["restarting"] = int(health.get("restarting") or 0)
    current.update({k: _total(health, k) for k in ("kv_used", "kv_total")})
    stages = tuple(tuple(r["stages"]) for r in health.get("replicas", []) if r.get("stages"))
    current |= {"memory": _memory(health), "stages": stages, "deaths": tuple(health.get("deaths", ())), "replicas": _replicas(health)}
    current |= {
        name: tuple(one for one in health.get(name, ()) if isinstance(one, dict)) for name in ("clients", "nodes", "moves", "changes")
    }
    return PoolInfo(**facts, **current)


def _total(health: dict[str, Any], key: str) -> int | None:
    """The sum of a figure over the replicas that report it; None where none does."""
    values = [r[key] for r in health.get("replicas", []) if isinstance(r.get(key), int)]
    return sum(values) if values else None


def _replicas(health: dict[str, Any]) -> tuple[dict[str, int], ...]:
    names = ("running", "waiting", "batch", "oom")
    return tuple({n: r[n] for n in names if isinstance(r.get(n), int)} for r in health.get("replicas", []))


def _memory(health: dict[str, Any]) -> tuple[Gauge, ...]:
    """Each rank's device as a gauge for the charts; a device without figures is left out."""
    gauges = []
    for d in health.get("devices", []):
        if d.get("used") is not None and d.get("total"):
            parts = {k: float(d[k]) for k in ("weights", "kv", "rest") if d.get(k) is not None}
            gauges.append(Gauge(str(d["device"]), int(d["used"]), int(d["total"]), time.time(), d.get("ours"), parts))
    return tuple(gauges)


class _Unix(http.client.HTTPConnection):
    """HTTP over a Unix socket; the standard library's, because only `engines/http.py` may load httpx."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("pool", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def rank_logs(record: Record, lines: int) -> list[tuple[str, list[str]]]:
    """Of a pool on Ray, each rank with its node and the last lines of its log; empty where the pool does not answer."""
    entries = _get(record, f"/logs?lines={lines}", 6.0)
    if not isinstance(entries, list):
        return []
    return [(f"rank {e['rank']} on {e['node']}", [str(line) for line in e["lines"]]) for e in entries]


def _health(record: Record) -> dict[str, Any] | None:
    """The body of `/health`; None without an answer within two seconds."""
    health = _get(record, "/health", 2.0)
    return health if isinstance(health, dict) else None


def _get(record: Record, path: str, seconds: float) -> Any:
    """The JSON at this path of the pool; None without an answer in time."""
    connection = _Unix(str(record.socket), seconds)
    try:
        connection.request("GET", path)
        return json.loads(connection.getresponse().read())
    except (OSError, ValueError, http.client.HTTPException):
        return None
    finally:
        connection.close()
