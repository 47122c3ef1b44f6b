"""A real kernel over jupyter_client: run cells, read every message, interrupt."""

from __future__ import annotations

import os
import queue
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager
from layout import ROOT

#: No cell of these tests takes longer, however busy the machine.
DEADLINE = 60.0


@dataclass
class Reply:
    """What a cell sent: its reply's content, its messages of iopub with their arrival, and the seconds it took."""

    content: dict[str, Any] = field(default_factory=dict)
    messages: list[tuple[float, dict[str, Any]]] = field(default_factory=list)
    seconds: float = 0.0
    ended: bool = False

    def of(self, *types: str) -> list[dict[str, Any]]:
        return [m["content"] for _, m in self.messages if m["msg_type"] in types]

    def times(self, *types: str) -> list[float]:
        return [t for t, m in self.messages if m["msg_type"] in types]

    @property
    def text(self) -> str:
        """What was printed."""
        return "".join(c["text"] for c in self.of("stream"))

    @property
    def latest(self) -> str:
        """What was shown or printed last, as text."""
        for content in reversed(self.of("stream", "display_data", "update_display_data")):
            return str(content["text"] if "text" in content else content["data"].get("text/plain", ""))
        return ""

    @property
    def shown(self) -> list[dict[str, str]]:
        """What stands on the page at the end: displays, each as last updated, and results."""
        page: dict[str, dict[str, str]] = {}
        for i, content in enumerate(self.of("display_data", "update_display_data", "execute_result")):
            page[content.get("transient", {}).get("display_id") or str(i)] = content["data"]
        return list(page.values())


class Kernel:
    """A kernel and its client."""

    def __init__(self, manager: KernelManager, client: BlockingKernelClient) -> None:
        self.manager = manager
        self.client = client

    def start(self, code: str) -> str:
        """Send a cell off."""
        return self.client.execute(code, stop_on_error=False)

    def until(self, sent: str, holds: Callable[[Reply], object], reply: Reply | None = None) -> Reply:
        """Read what a cell sends until `holds` of all that came, or the cell ends."""
        reply = reply or Reply()
        started = time.monotonic() - reply.seconds
        while time.monotonic() - started < DEADLINE:
            try:
                message = self.client.get_iopub_msg(timeout=1)
            except queue.Empty:
                continue
            if message["parent_header"].get("msg_id") != sent:
                continue
            reply.seconds = time.monotonic() - started
            if message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
                reply.ended = True
                return reply
            reply.messages.append((reply.seconds, message))
            if holds(reply):
                return reply
        raise TimeoutError(f"the kernel was still busy after {DEADLINE} s")

    def finish(self, sent: str, reply: Reply | None = None) -> Reply:
        """Wait for a cell's end and give all that it sent. `reply`: what came so far."""
        reply = self.until(sent, lambda _: False, reply)
        while True:
            answer = self.client.get_shell_msg(timeout=DEADLINE)
            if answer["parent_header"].get("msg_id") == sent:
                reply.content = answer["content"]
                return reply

    def __call__(self, code: str) -> Reply:
        return self.finish(self.start(code))

    def value(self, expression: str) -> str:
        """The repr of an expression."""
        self.client.execute("", user_expressions={"x": expression})
        answer = self.client.get_shell_msg(timeout=DEADLINE)["content"]["user_expressions"]["x"]
        return answer["data"]["text/plain"] if answer["status"] == "ok" else f"{answer['ename']}: {answer['evalue']}"


@contextmanager
def kernel(home: Path) -> Iterator[Kernel]:
    """A python3 kernel whose HOLYNB_HOME is `home`."""
    manager = KernelManager(kernel_name="python3")
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    manager.start_kernel(env={**os.environ, "HOLYNB_HOME": str(home), "PYTHONPATH": path}, cwd=str(home))
    client = manager.client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=DEADLINE)
        yield Kernel(manager, client)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
        manager.cleanup_resources()
