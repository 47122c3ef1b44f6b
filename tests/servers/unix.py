"""A plain HTTP client of a Unix socket, as a pool has one."""

from __future__ import annotations

import http.client
import json
import socket
from pathlib import Path
from typing import Any


def connect(path: str | Path, timeout: float = 20.0) -> http.client.HTTPConnection:
    """An open connection; the caller closes it. timeout: in seconds, for each step."""
    connection = http.client.HTTPConnection("pool", timeout=timeout)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(timeout)
    connection.sock.connect(str(path))
    return connection


def chat(path: str | Path, body: dict[str, Any], timeout: float = 300.0) -> tuple[int, Any]:
    """Status and answer of one chat completion: the body, or the chunks of a stream."""
    connection = connect(path, timeout)
    try:
        connection.request("POST", "/v1/chat/completions", json.dumps(body).encode())
        answer = connection.getresponse()
        raw = answer.read()
    finally:
        connection.close()
    if body.get("stream"):
        return answer.status, [json.loads(e[6:]) for e in raw.decode().split("\n\n") if e.startswith("data: {")]
    return answer.status, json.loads(raw)
