"""Two ranks on two devices: what a tensor group's sums say by reading each other's memory, against the library's all-reduce; again and again, in graphs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(torch.cuda.device_count() < 2, reason="two GPUs are needed")]

HIDDEN, ROWS, ROUNDS = 4096, 256, 200


def rank(number: int, address: str, out: Path) -> None:
    """One rank: chains of sums as a model has them, in a graph that is replayed, beside the same by all-reduce."""
    import os

    from torch import distributed

    from holynb.pool.engine.symmetric import SymmetricMemory, can_read_peers
    from kernels_support.gpu.allreduce_norm import allreduce_rms_norm
    from kernels_support.gpu.norms import add_rms_norm

    device = f"cuda:{number}"
    torch.cuda.set_device(device)
    distributed.init_process_group("cpu:gloo,cuda:nccl", init_method=address, rank=number, world_size=2)
    group: Any = distributed.group.WORLD
    said: list[str] = []
    if not can_read_peers(group, device):
        said.append("unreadable")
    else:
        shared = SymmetricMemory(group, device, (3, ROWS, HIDDEN), torch.bfloat16)
        distributed.barrier(group)
        torch.manual_seed(7)  # weights and residuals are the same on both
        weight = torch.rand(HIDDEN, device=device, dtype=torch.bfloat16)
        for rows in (1, 3, 64, 121, ROWS):
            residual = torch.randn(rows, HIDDEN, device=device, dtype=torch.bfloat16)
            mine = torch.randn(ROUNDS // 10, rows, HIDDEN, device=device, generator=torch.Generator(device).manual_seed(number)).bfloat16()

            def chain(sums: bool, rows: int = rows, residual: Any = residual, mine: Any = mine) -> Any:
                x, stream = None, residual
                for i, part in enumerate(mine):
                    buffer = shared.buffer(0 if i == 0 else 1 + i % 2, rows)
                    # Each part depends on the sum before it, so that a sum that came too early shows in all that follow.
                    torch.add(part, 0 if x is None else x * 0.5, out=buffer)
                    if sums:
                        offset = shared.offset(buffer)
                        assert offset is not None
                        x, stream = allreduce_rms_norm(buffer, offset, shared.peers, stream, weight, 1e-6)
                    else:
                        whole = buffer.float()
                        distributed.all_reduce(whole, group=group)
                        x, stream = add_rms_norm(whole.bfloat16(), stream, weight, 1e-6)
                return x, stream

            wanted, _ = chain(False)
            chain(True)
            torch.cuda.synchronize()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                got, _ = chain(True)
            for _ in range(10):
                got.zero_()
                graph.replay()
                torch.cuda.synchronize()
                wrong = ((got.float() - wanted.float()).norm() / wanted.float().norm()).item()
                if not wrong < 1e-2:
                    said.append(f"{rows} rows: {wrong}")
    (out / str(number)).write_text("\n".join(said))
    os._exit(0)


def test_the_same_sums_as_the_librarys(tmp_path: Path) -> None:
    import torch.multiprocessing as processes

    address = f"file://{tmp_path}/meet"
    made = [processes.get_context("spawn").Process(target=rank, args=(i, address, tmp_path)) for i in range(2)]
    for process in made:
        process.start()
    for process in made:
        process.join(120)
        if process.is_alive():
            process.kill()
    said = [(tmp_path / str(i)).read_text() for i in range(2)]
    if said == ["unreadable"] * 2:
        pytest.skip("these devices do not reach each other's memory")
    assert said == ["", ""]
