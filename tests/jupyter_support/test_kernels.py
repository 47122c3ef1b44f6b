"""Real kernels: what is started in a session of its own survives interrupt, restart, kill and shutdown of the kernel that started it."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from jupyter_client.manager import KernelManager
from pool_fake import byte_model

from holynb import pools
from kernels_support.jupyter import spec
from kernels_support.jupyter.process import Process


@pytest.fixture(autouse=True)
def fake(fake_pools: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))


class Kernel:
    """A kernel of this Python, and its cells."""

    def __init__(self, name: str | None = None) -> None:
        self.manager = KernelManager(kernel_name=name) if name else KernelManager()
        self.manager.kernel_spec.argv[0] = sys.executable
        self.manager.start_kernel()
        self.client = self.manager.client()
        self._open()

    def _open(self) -> None:
        self.client.start_channels()
        self.client.wait_for_ready(timeout=60)

    def cell(self, code: str) -> str:
        """What the cell printed, and the name of its error."""
        said: list[str] = []

        def hear(message: dict) -> None:  # type: ignore[type-arg]
            kind, content = message["header"]["msg_type"], message["content"]
            if kind == "stream":
                said.append(content["text"])
            elif kind == "error":
                said.append(content["ename"])

        self.client.execute_interactive(code, timeout=60, output_hook=hear, allow_stdin=False)
        return "".join(said).strip()

    def interrupt(self) -> None:
        """Interrupt the cell that runs, and wait for its end. The cell must not stop on errors: for a moment after one, what comes next would be aborted."""
        self.manager.interrupt_kernel()
        # Answers to `wait_for_ready`, which asks more than once, may still come before it.
        while self.client.get_shell_msg(timeout=20)["header"]["msg_type"] != "execute_reply":
            pass

    def end(self) -> None:
        self.client.stop_channels()
        if self.manager.is_alive():
            self.manager.shutdown_kernel(now=True)
        self.manager.cleanup_resources()


@pytest.fixture
def kernels() -> Iterator[list[Kernel]]:
    made: list[Kernel] = []
    yield made
    for kernel in made:
        kernel.end()


def test_a_pool_outlives_interrupt_restart_and_kill_and_two_kernels_share_it(kernels: list[Kernel], tmp_path: Path) -> None:
    model = str(byte_model(tmp_path / "bytes"))
    start = f"from holynb import pools; print(pools.start({model!r}).pid)"
    first = Kernel()
    kernels.append(first)
    pid = int(first.cell(start))
    pool = Process.of(pid)
    assert pool is not None

    first.client.execute("import time; time.sleep(30)", stop_on_error=False)
    time.sleep(0.3)
    first.interrupt()
    assert first.cell("print('awake')").endswith("awake")
    assert pool.alive

    first.manager.restart_kernel(now=True)
    first.client.wait_for_ready(timeout=60)
    assert pool.alive
    assert first.cell(start) == str(pid), "found again, not started again"

    second = Kernel()
    kernels.append(second)
    assert second.cell("from holynb import pools; print(pools.status('bytes').pid, pools.status('bytes').state)") == f"{pid} ready"

    kernel = Process.of(first.manager.provisioner.pid)  # type: ignore[union-attr]
    assert kernel is not None
    kernel.signal(9)
    assert kernel.wait(30)
    second.manager.shutdown_kernel(now=False)
    assert pool.alive
    assert pools.stop("bytes") == ["bytes"]
    assert not pool.alive


def test_a_cell_that_is_interrupted_while_it_waits_for_a_pool_leaves_the_pool_starting(
    kernels: list[Kernel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOLYNB_FAKE_LOAD", "3")
    model = str(byte_model(tmp_path / "bytes"))
    kernel = Kernel()
    kernels.append(kernel)
    kernel.client.execute(f"from holynb import pools; pools.start({model!r})", stop_on_error=False)
    end = time.monotonic() + 20
    while pools.find("bytes") is None:
        assert time.monotonic() < end
        time.sleep(0.05)
    kernel.interrupt()
    assert kernel.cell("print('free')").endswith("free")
    assert pools.start(model).state == "ready"


def test_the_installed_kernelspec_starts_a_kernel_with_the_extension_loaded(
    kernels: list[Kernel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "share" / "jupyter"))
    spec.install(spec.KernelSpec("holynb-test", "Python 3 (holynb)", "holynb"), prefix=tmp_path)
    kernel = Kernel("holynb-test")
    kernels.append(kernel)
    loaded = "'infer' in get_ipython().magics_manager.magics['cell']"
    assert kernel.cell(f"print({loaded})") == "True"
    kernel.manager.restart_kernel(now=True)
    kernel.client.wait_for_ready(timeout=60)
    assert kernel.cell(f"print({loaded})") == "True", "a restart keeps it"
