"""What our code does to few rows, against plain torch."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from kernels_support.cpu import machine_code, rows  # noqa: E402
from kernels_support.gpu.norms import add_rms_norm_reference  # noqa: E402
from kernels_support.gpu.rotary import Heads, rotate_and_store_reference  # noqa: E402
from kernels_support.gpu.silu_mul import silu_mul_reference  # noqa: E402

pytestmark = pytest.mark.skipif(not machine_code.lanes(), reason="no code of ours runs on this machine")


def random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.mark.parametrize("columns", [8, 56, 576])
def test_norm_and_sum(columns: int) -> None:
    x, residual, weight = random(3, columns + 8)[:, :columns], random(4, columns)[1:], random(columns)
    for more in (residual, None):
        for ours, plain in zip(rows.add_rms_norm(x, more, weight, 1e-5), add_rms_norm_reference(x, more, weight, 1e-5), strict=True):
            assert torch.allclose(ours, plain, rtol=1e-5, atol=1e-6)


def test_silu_of_every_size() -> None:
    gate = torch.cat(
        [torch.linspace(-300, 300, 1200), torch.linspace(-9, 9, 1192), torch.tensor([0.0, -0.0, 1e-30, -1e-30, 8e4, -8e4, 1, -1])]
    )
    both = torch.cat([gate, random(len(gate))])[None].repeat(2, 1)
    exact = silu_mul_reference(both.double())
    # Below e⁻⁸⁷ it is as good as zero.
    assert ((rows.silu_mul(both) - exact).abs() <= 2e-6 * exact.abs() + 1e-33).all()
    assert rows.silu_mul(torch.full((1, 16), torch.nan)).isnan().all()


@pytest.mark.parametrize(("heads", "kv", "size", "rotated"), [(9, 3, 64, 64), (4, 2, 32, 16), (2, 2, 16, 0)])
def test_heads_are_turned_and_stored(heads: int, kv: int, size: int, rotated: int) -> None:
    qkv, rope, slots = random(3, (heads + 2 * kv) * size), random(3, max(rotated, 1)), torch.tensor([5, 2, 7])
    (keys, values), (our_keys, our_values) = torch.zeros(2, kv, 10, size), torch.zeros(2, kv, 10, size)
    plain = rotate_and_store_reference(qkv, Heads(heads, kv, size, rotary=rotated), rope, slots, keys, values)
    ours = rows.rotate_and_store(qkv, (heads, kv, size, rotated), rope, slots, our_keys, our_values)
    for one, other in ((ours, plain), (our_keys, keys), (our_values, values)):
        assert torch.allclose(one, other, rtol=1e-5, atol=1e-6)


def test_what_it_does_not_take(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    assert rows.takes(random(rows.FEW, 8), 8, 16)
    assert not rows.takes(random(rows.FEW + 1, 8), 8)
    assert not rows.takes(random(2, 12), 12)
    assert not rows.takes(random(2, 8).half(), 8)
    assert not rows.takes(random(0, 8), 8)
    assert not rows.takes(random(2, 8).to("meta"), 8)
    monkeypatch.setattr(rows, "lanes", lambda: 0)
    assert not rows.takes(random(2, 8), 8)
