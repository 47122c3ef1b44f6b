"""A shell with the extension, for the tests of what a cell says; and a kernel with it, for those of what a page gets."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from ui.kernels import Kernel, kernel
from ui.shells import Here, shell


@pytest.fixture
def here() -> Iterator[Here]:
    with shell() as ip:
        ip.extension_manager.load_extension("holynb")
        yield Here(ip)


@pytest.fixture(scope="session")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    """A kernel with the extension and without a key, whose front end shows widgets. Modules share it, and what others left in it."""
    with ExitStack() as running:
        with pytest.MonkeyPatch.context() as environment:  # the kernel's alone: this process starts other kernels after it
            environment.setenv("VSCODE_PID", "1")
            environment.setenv("PYTHON_KEYRING_BACKEND", "keyring.backends.null.Keyring")
            environment.delenv("OPENAI_API_KEY", raising=False)
            loaded = running.enter_context(kernel(tmp_path_factory.mktemp("home")))
        assert loaded("%load_ext holynb\nimport holynb, holynb.ui.live.widget").content["status"] == "ok"
        yield loaded
