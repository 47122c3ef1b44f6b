"""What every test gets: a home of its own, no keys, no network but this machine, and no process left behind."""

from __future__ import annotations

import errno
import gc
import math
import os
import re
import shutil
import signal
import socket
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from itertools import count
from pathlib import Path

import pytest
from leftovers import end_pools
from process_state import forget, restored

ROOT = Path(__file__).parent.parent
#: Files of few tests that take a browser as long as so many of its others (44 and 36 s).
LONG = {"test_axe.py": 15, "test_figures.py": 12}
_numbers = count()
LOCAL = ("127.", "::1", "localhost", "0.0.0.0", "::ffff:127.")

# Threads of torch that wait take a core away from whatever else runs: read when torch loads, here and in each process that a test starts.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# An image that keeps no compiled Python would have each of a thousand processes, and each of three workers, compile all that it imports: half of most starts.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

with suppress(ImportError):  # a machine that tries the kernels alone needs none of it
    import hypothesis

    # How long an example takes is up to what else the machine does: a test that asserts a time would fail for that alone.
    hypothesis.settings.register_profile("any machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
    hypothesis.settings.load_profile("any machine")

with suppress(ImportError):
    from holynb.schema import validators

    validators.library()  # before nbformat and others load jsonschema with the grammar that it makes


def rewrite_own_part(config: pytest.Config) -> None:
    """In a fresh checkout each worker would rewrite the assertions of every file at the same time: each does its part, and reads the others'."""
    from _pytest.assertion import rewrite

    worker = config.workerinput  # type: ignore[attr-defined]
    number, count = int(worker["workerid"].removeprefix("gw")), worker["workercount"]
    for path in sorted((ROOT / "tests").rglob("test_*.py"))[number::count]:
        kept = rewrite.get_cache_dir(path) / f"{path.stem}{rewrite.PYC_TAIL}"
        if not kept.exists():
            kept.parent.mkdir(exist_ok=True)
            source_hash, code = rewrite._rewrite_test(path, config)
            rewrite._write_pyc(config.stash[rewrite.assertstate_key], code, source_hash, kept)


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session) -> Iterator[None]:
    """Ten thousand tests and the modules that they need stay: to look through them for garbage, again and again, finds none."""
    gc.disable()
    try:
        if hasattr(session.config, "workerinput"):
            with suppress(OSError, ImportError, AttributeError, TypeError):  # of a tree that nobody may write to, or another pytest
                rewrite_own_part(session.config)
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The browser's tests come last: while Playwright is open its event loop counts as running, and no other test could start one.

    Of these the longest file comes first: workers that take a file each then end at nearly the same time.
    """
    sizes = Counter(item.path for item in items if item.get_closest_marker("browser"))
    sizes |= {path: LONG.get(path.name, 0) for path in sizes}
    items.sort(key=lambda item: -sizes[item.path] if sizes[item.path] else -math.inf)


@pytest.fixture(scope="session")
def models(request: pytest.FixtureRequest) -> Path:
    """Where tests keep converted models between runs: pytest's cache, or the folder HOLYNB_TEST_MODELS names."""
    named = os.environ.get("HOLYNB_TEST_MODELS")
    folder = Path(named) if named else Path(request.config.cache.mkdir("models"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture
def tmp_path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for each test, as pytest's own, which reads through the folders of all tests before it to find a number: of thousands, each time."""
    named = re.sub(r"\W", "_", request.node.name)[:24]
    folder = tmp_path_factory.getbasetemp() / f"{named}-{next(_numbers)}"
    folder.mkdir(mode=0o700)
    return folder


@pytest.fixture(autouse=True)
def as_if_first() -> Iterator[None]:
    """A test finds nothing that another one set, typed or learned in this process."""
    forget()
    with restored():
        yield


@pytest.fixture(autouse=True)
def home(as_if_first: None, tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """HOLYNB_HOME, empty but for the models that tests share. Runs and pools that a test started there end with it."""
    folder = tmp_path / "holynb-home"
    folder.mkdir(mode=0o700)
    (folder / "models").symlink_to(models, target_is_directory=True)
    monkeypatch.setenv("HOLYNB_HOME", str(folder))
    yield folder
    if (loop := sys.modules.get("holynb.loop")) is not None:
        loop.close()
    end_pools(tmp_path)
    if (current := sys.modules.get("holynb.runlog.current")) is not None:
        for path in [path for path in current._logs if path.is_relative_to(folder)]:
            current._logs.pop(path).close()  # its thread and three open files; thousands of tests share this process


@pytest.fixture(autouse=True)
def bare_environment(as_if_first: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """No key, no base URL and no proxy of the person who runs the tests reaches a test."""
    for name in list(os.environ):
        if name.upper().endswith(("_API_KEY", "_BASE_URL", "_PROXY", "AZURE_OPENAI_ENDPOINT")) or name.startswith("AWS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "keyring.backends.null.Keyring")


@pytest.fixture(scope="session", autouse=True)
def only_this_machine() -> Iterator[None]:
    """A connection to anywhere else fails at once, as if the cable were out."""
    connect, connect_ex = socket.socket.connect, socket.socket.connect_ex

    def outside(sock: socket.socket, address: object) -> bool:
        return sock.family in (socket.AF_INET, socket.AF_INET6) and not str(address[0]).startswith(LOCAL)  # type: ignore[index]

    def guarded(sock: socket.socket, address: object) -> None:
        if outside(sock, address):
            raise OSError(errno.ENETUNREACH, f"tests reach only this machine, not {address}")
        connect(sock, address)

    with pytest.MonkeyPatch.context() as cable:
        cable.setattr(socket.socket, "connect", guarded)
        cable.setattr(socket.socket, "connect_ex", lambda s, a: errno.ENETUNREACH if outside(s, a) else connect_ex(s, a))
        yield


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Interrupts reach this process, also where the tests are a background job of a shell, which ignores them."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def keyed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The key that local servers of the tests are asked with, and nothing learned of them before."""
    from servers.asking import KEY

    from holynb import loop
    from holynb.engines import hosted

    monkeypatch.setattr(hosted, "_traits_by_model", {})
    for name in ("OPENAI", "ANTHROPIC", "GEMINI"):
        monkeypatch.setenv(f"{name}_API_KEY", KEY)
    yield
    loop.close()


@pytest.fixture
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run waits a fiftieth of its time before it tries again: for tests of what is tried, not of when."""
    from holynb.scheduler import Policy

    monkeypatch.setattr("holynb.run.run.Policy", partial(Policy, backoff_scale=0.02))


@pytest.fixture
def no_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A working directory with no project above it, and no setting overridden."""
    from holynb.config import settings

    monkeypatch.chdir(tmp_path)
    settings.reset()
    yield
    settings.reset()


@pytest.fixture
def ended() -> Iterator[None]:
    """Runs of this process end with the test: its loop and its run log are closed."""
    from holynb import loop, runlog

    yield
    loop.close()
    runlog.close()


@pytest.fixture
def fake_pools(monkeypatch: pytest.MonkeyPatch, home: Path) -> Iterator[None]:
    """Pools that are started run the fake runner, and end with the test."""
    from holynb import pools

    monkeypatch.setenv("HOLYNB_POOL_RUNNER", "fake_runner:Runner")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT / "tests"), str(ROOT)]))
    yield
    pools.stop("all")


@pytest.fixture
def model(tmp_path: Path) -> str:
    """The folder of the fake runner's model."""
    from pool_fake import byte_model

    return str(byte_model(tmp_path / "bytes"))


@pytest.fixture(scope="session")
def chromium() -> str:
    """Path of the browser; tests that need one are skipped where there is none."""
    path = next((p for n in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(n))), None)
    return path or pytest.skip("no Chromium on this machine; tests/run installs it")
