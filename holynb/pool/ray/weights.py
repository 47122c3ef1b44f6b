"""The weights on a pool's nodes: found, fetched or sent; and the small files of the model, which its server reads. Knows seats; no HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ray.exceptions import RayError

from holynb.pool.ray import sending
from holynb.pool.ray.config import RayConfig
from holynb.pool.ray.group import Placement
from holynb.pool.server import Service, lifecycle
from holynb.pool.server.lifecycle import StartError
from holynb.pool.server.pooling import read_pooling
from holynb.pool.server.tokenizer import ChatTokenizer, TokenizerFileError

__all__ = ["NodeWeights"]

#: How long a client may take to send a model.
_SEND_S = 3600.0


class NodeWeights:
    """Of one pool; owned by its server's loop. `key`: of a model that is sent; `groups`: where one may be that has it already."""

    def __init__(self, config: RayConfig, service: Service, key: str, groups: Mapping[int, Placement]) -> None:
        self.needs: dict[str, str] = {}
        """Nodes that lack the model, each with the name of a seat there: a client that has it sends it."""
        self.tokenizer: ChatTokenizer | None = None
        """Once the small files were read."""
        self._config, self._service, self._key, self._groups = config, service, key, groups
        self._delivered = asyncio.Event()
        self._refusal = ""
        self._card = tempfile.TemporaryDirectory(prefix="holynb-card-")

    async def ready(self, groups: list[Placement]) -> None:
        """See to it that each node of these has the model. Raises StartError, RayError."""
        self._service.set_stage("making the weights ready on the nodes")
        telling = asyncio.create_task(self._tell_stage(groups[0].seats[0]))
        try:
            for last in (False, True):
                answers = await asyncio.gather(*(seat.prepare.remote(self._key) for g in groups for seat in g.seats))
                places = [(f["address"], g.seats[i]) for g in groups for i, f in enumerate(g.facts)]
                if error := next((f"{f['error']} (on node {a})" for f, (a, _) in zip(answers, places, strict=True) if "error" in f), None):
                    raise StartError(error)
                lacking = {a: seat for f, (a, seat) in zip(answers, places, strict=True) if "missing" in f}
                if not lacking:
                    break
                if last or not self._key:
                    raise StartError(
                        f"{self._config.model} is no folder on node {', '.join(lacking)}, nor on the machine that asks. "
                        "Give a path that every node has, a hub id (org/name), or a folder of this machine."
                    )
                await self._deliver(lacking, groups)
        finally:
            telling.cancel()
        rest = iter(answers)
        for group in groups:
            group.folders = [next(rest)["folder"] for _ in group.seats]

    async def _deliver(self, lacking: dict[str, Any], groups: list[Placement]) -> None:
        """Send the model to the nodes that lack it, from one that has it, or by a client. Raises StartError, RayError."""
        have = [(g.seats[0], g.folders[0]) for g in self._groups.values() if g.folders and g not in groups]
        if have:
            seat, folder = have[0]
            pieces = await seat.pieces.remote(folder)
            await asyncio.to_thread(
                sending.send, pieces, lambda piece: seat.piece.remote(folder, *piece), [*lacking.values()], self._key, lambda share: None
            )
            return
        names = {f["address"]: f["name"] for g in groups for f in g.facts}
        self._delivered.clear()
        self.needs = {address: names[address] for address in lacking}
        self._service.set_stage(f"waiting for the model on {', '.join(lacking)}")
        try:
            async with asyncio.timeout(_SEND_S):
                await self._delivered.wait()
        except TimeoutError:
            raise StartError(f"nobody sent {self._config.model} to {', '.join(lacking)}") from None
        finally:
            self.needs = {}
        if self._refusal:
            raise StartError(self._refusal)

    def delivered(self, refusal: str) -> None:
        """A client has sent the model to the nodes that lacked it, or says why it cannot."""
        self._refusal = refusal
        self._delivered.set()

    async def _tell_stage(self, seat: Any) -> None:
        with contextlib.suppress(RayError):
            while True:
                await asyncio.sleep(1.0)
                stage, share = await seat.stage.remote()
                if stage != "starting":
                    self._service.set_stage(stage, share)

    async def read_card(self, group: Placement) -> None:
        """Read the model's small files there: `tokenizer`. Raises StartError, RayError."""
        for name, data in (await group.seats[0].card.remote(group.folders[0])).items():
            path = Path(self._card.name) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        try:
            self.tokenizer = await asyncio.to_thread(ChatTokenizer, Path(self._card.name))
        except TokenizerFileError as exc:
            raise StartError(str(exc)) from exc
        self._service.pooling = read_pooling(Path(self._card.name))

    async def check_fits(self, group: Placement) -> None:
        """Say how the model fits on the first node of these. Raises StartError where it does not, RayError."""
        here = group.facts[0]["node"]
        ranks = sum(f["node"] == here for g in self._groups.values() for f in g.facts)
        fit = await group.seats[0].forecast.remote(group.folders[0], ranks)
        if isinstance(fit, str):
            raise StartError(fit)
        if fit is not None:
            self._service.set_stage(fit[0])
            lifecycle.log(fit[1])

    def close(self) -> None:
        self._card.cleanup()
