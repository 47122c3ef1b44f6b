"""Packed matrices say what plain ones say, and are used only where they do."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from kernels_support.gpu.dense import linear, pack_onednn  # noqa: E402


@pytest.mark.parametrize("rows", [1, 5, 40])
@pytest.mark.parametrize("with_bias", [True, False])
def test_packed_says_the_same(rows: int, with_bias: bool) -> None:
    weight, x, bias = torch.randn(70, 33), torch.randn(rows, 33), torch.randn(70) if with_bias else None
    packed, plain = linear(x, pack_onednn(weight), bias), torch.nn.functional.linear(x, weight, bias)
    torch.testing.assert_close(packed, plain, rtol=1e-5, atol=1e-5)


def test_other_dtypes_stay_as_they_are() -> None:
    weight = torch.randn(8, 8, dtype=torch.bfloat16)
    assert pack_onednn(weight) is weight


def test_a_library_that_says_something_else_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    if not pack_onednn(torch.randn(8, 8)).is_mkldnn:
        pytest.skip("no oneDNN in this torch")
    monkeypatch.setattr("kernels_support.gpu.dense.linear", lambda x, weight: torch.zeros(len(x), len(weight)))
    weight = torch.randn(8, 8)
    assert pack_onednn(weight) is weight
