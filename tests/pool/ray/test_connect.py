"""How a client meets a cluster that refuses it, with Ray's own words for it."""

from __future__ import annotations

import socket
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

BUSY = RuntimeError("Initialization failure from server: RuntimeError: Starting Ray client server failed. See ray_client_server_23000.err")
BEHIND = RuntimeError("Initialization failure from server: RuntimeError: Proxy failed to Connect to backend! Check `ray_client_server.err`")


class Ray:
    """Answers each `init` with the next of these."""

    def __init__(self, *answers: Exception | None) -> None:
        self.answers = list(answers)

    def init(self, *arguments: Any, **options: Any) -> None:
        if (answer := self.answers.pop(0)) is not None:
            raise answer

    def shutdown(self) -> None:
        """There is nothing to end."""


@pytest.fixture(scope="module")
def cluster() -> ModuleType:
    """Loaded by whoever runs these tests, not by each worker that collects them: Ray takes seconds."""
    pytest.importorskip("ray")
    from holynb.pool.ray import cluster

    return cluster


@pytest.mark.parametrize(
    ("answers", "why"),
    [
        ((BUSY, BUSY, BEHIND, None), None),
        ((BUSY, BUSY, BUSY, BUSY), "cannot be used"),
        (
            (RuntimeError("Version mismatch: The cluster was started with:\n Ray: 2.59.0\n Python: 3.12.1"),),
            "of another version.*same Ray and Python",
        ),
        ((ConnectionError("ray client connection timeout"),), "cannot be used: ray client connection timeout"),
    ],
)
def test_a_busy_cluster_is_asked_again_and_any_other_refusal_is_one_line(
    answers: Any, why: str | None, cluster: Any, monkeypatch: pytest.MonkeyPatch
):
    fake = Ray(*answers)
    monkeypatch.setattr(cluster, "ray", fake)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"ray://127.0.0.1:{server.getsockname()[1]}"
        if why is None:
            cluster.connect(address)
        else:
            with pytest.raises(cluster.ClusterRefusal, match=why) as caught:
                cluster.connect(address)
            assert "\n" not in str(caught.value)
    assert not fake.answers


def test_no_cluster_here_says_how_to_start_one(cluster: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cluster, "ray", Ray(ConnectionError("Could not find any running Ray instance.")))
    with pytest.raises(cluster.ClusterRefusal, match="ray start --head"):
        cluster.connect("auto")


@pytest.mark.parametrize(
    ("lacks", "says"),
    [
        (
            "holynb.pool",
            r"its nodes lack holynb\. Install its wheel with .* there, or: .*holynb\[local,ray\] @ file:///PATH/holynb-[\d.]+-py3-none-any\.whl",
        ),
        ("torch", r"its nodes lack torch\. Install torch there"),
    ],
)
def test_nodes_without_a_package_are_told_with_a_way_that_needs_no_index_of_ours(
    lacks: str, says: str, cluster: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    from holynb.pool.ray.config import RayConfig

    def get(*_: object, **__: object) -> Any:
        raise cluster.RayError(f"No module named '{lacks}'")

    fake = SimpleNamespace(get_actor=lambda *_: (_ for _ in ()).throw(ValueError()), nodes=list, remote=lambda _: Server(), get=get)
    monkeypatch.setattr(cluster, "ray", fake)
    with pytest.raises(cluster.ClusterRefusal, match=says):
        cluster.obtain(RayConfig("p", "m", tmp_path, wait=1.0))


class Server:
    """A remote class and its handle, of which nothing is asked."""

    def __getattr__(self, name: str) -> Server:
        return self

    def __call__(self, *_: Any, **__: Any) -> Server:
        return self
