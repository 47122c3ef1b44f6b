"""First steps of a GPU by plain torch, without a GPU: tensors of a device that only their shapes are computed of."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")


def test_plain_torch_keeps_to_the_device_of_its_tensors() -> None:
    """What only a CPU's short cut makes must not meet tensors of a GPU: in float32 a pool's first answer failed there."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    from kernels_support.gpu.lang import plain_torch
    from kernels_support.gpu.norms import add_rms_norm

    with FakeTensorMode(), plain_torch():
        x, residual, weight = (torch.empty(*shape, device="cuda") for shape in ((2, 8), (2, 8), (8,)))
        normed, total = add_rms_norm(x, residual, weight, 1e-6)
    assert normed.device == total.device == x.device
