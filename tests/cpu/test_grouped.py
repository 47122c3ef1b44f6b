"""Products of whole numbers with scales against the same numbers in float64, by each width of register, with and without OpenMP."""

from __future__ import annotations

import mmap
import platform
from collections.abc import Iterator
from itertools import product as every
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from kernels_support.cpu import grouped, grouped_product, machine_code  # noqa: E402
from kernels_support.cpu.grouped_integers import IntegerWriter  # noqa: E402

pytestmark = pytest.mark.skipif(not machine_code.lanes(), reason="no code of ours runs on this machine")

WIDTHS = [width for width in (8, 16) if width <= machine_code.lanes()]


@pytest.fixture(params=WIDTHS)
def width(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Code for registers of so many numbers; nothing of it stays."""
    known = grouped_product.product, grouped_product.max_rows
    for one in known:
        one.cache_clear()
    monkeypatch.setattr(grouped_product, "lanes", lambda: request.param)
    yield request.param
    for one in known:
        one.cache_clear()


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def numbers(bits: int, n: int, k: int, group: int, *, half: bool, zero: bool) -> grouped.Grouped:
    generator = torch.Generator().manual_seed(n)
    low, high = (0, 16) if bits == 4 else (-128, 128)
    values = torch.randint(low, high, (n, k), generator=generator).to(torch.int8)
    factors = torch.randn(2, n, k // group, generator=generator)
    factors = factors.half().float() if half else factors
    return grouped.Grouped(values, factors[0], factors[1] if zero else None, bits)


def near(product: torch.Tensor, wanted: torch.Tensor) -> bool:
    """As far as 16 bits of x go."""
    return bool((product - wanted).abs().max() < 1e-4 * wanted.abs().max())


def taken(x: torch.Tensor, group: int) -> torch.Tensor:
    """x as it is multiplied in whole numbers of 16 bits, the largest of a group 32512."""
    groups = x.view(len(x), -1, group)
    most = groups.abs().amax(-1, keepdim=True).clamp(min=1e-30)
    return ((groups * (32512 / most)).round().double() * (most * (1 / 32512.0))).view(x.shape)


def test_each_layout_is_multiplied_as_its_values_are(width: int, threads: int) -> None:
    most = grouped_product.max_rows()
    for (bits, group), half, zero in every(((4, 32), (8, 32), (8, 16)), (True, False), (True, False)):
        part = numbers(bits, 100, 96, group, half=half, zero=zero)
        matrix, wanted = grouped.pack_groups([part]), part.dequantized()
        assert torch.equal(grouped.widen(matrix), wanted)
        assert torch.equal(grouped.gather(matrix, torch.tensor([99, 0, 15, 16])), wanted[[99, 0, 15, 16]])
        for rows in (1, 2, 3, most - 1, most, most + 1, 2 * most + 3):
            x = torch.randn(rows, 96, generator=torch.Generator().manual_seed(rows))
            x[0, :32] = 0
            whole = IntegerWriter.takes(matrix.layout, width)
            exact = (taken(x, group) if whole else x.double()) @ wanted.double().t()
            assert (exact - x.double() @ wanted.double().t()).norm() < 1e-4 * exact.norm()
            # What is far from the largest is what float32 rounds of a sum of 96.
            assert (grouped.linear(x, matrix) - exact).abs().max() < 1e-6 * exact.abs().max(), (bits, group, half, zero, rows, threads)


def test_what_is_no_number_stays_so(width: int) -> None:
    matrix = grouped.pack_groups([numbers(4, 16, 64, 32, half=True, zero=True)])
    for wrong in (torch.nan, torch.inf):
        assert not grouped.linear(torch.full((1, 64), wrong), matrix).isfinite().any()


def test_matrices_of_several_layouts_are_one_below_the_other(width: int) -> None:
    parts = [
        numbers(4, 40, 64, 32, half=True, zero=True),
        numbers(8, 24, 64, 16, half=False, zero=False),
        numbers(4, 8, 64, 32, half=True, zero=False),
    ]
    matrix, wanted = grouped.pack_groups(parts), torch.cat([part.dequantized() for part in parts])
    x, bias = torch.randn(3, 64, generator=torch.Generator().manual_seed(1)), torch.randn(72, generator=torch.Generator().manual_seed(2))
    assert matrix.shape == wanted.shape
    assert len(matrix.parts) == 3
    assert near(grouped.linear(x[:, :], matrix, bias), x @ wanted.t() + bias)
    assert near(grouped.linear(x.t().contiguous().t(), matrix), x @ wanted.t())


def test_rows_below_a_thread_are_not_written_over(width: int) -> None:
    """More threads than blocks of rows."""
    before = torch.get_num_threads()
    torch.set_num_threads(5)
    part = numbers(4, 48, 64, 32, half=True, zero=True)
    x = torch.randn(11, 64, generator=torch.Generator().manual_seed(3))
    product = grouped.linear(x, grouped.pack_groups([part]))
    torch.set_num_threads(before)
    assert near(product, x @ part.dequantized().t())


def test_scales_too_fine_for_float16_stay_as_they_are() -> None:
    coarse, fine = torch.randn(16, 64), torch.randn(16, 64) * 1e-7
    for weight, half in ((coarse, True), (fine, False)):
        part = grouped.quantize_groups(weight)
        assert grouped.pack_groups([part]).layout.half == half
        assert (part.dequantized() - weight).norm() < 1e-2 * weight.norm()


@pytest.mark.parametrize(
    ("system", "flags", "wanted"),
    [
        ("Linux", "flags : avx2 fma f16c avx512f avx512vl avx512bw avx512dq", 16),
        ("Linux", "flags : avx2 fma f16c avx512f", 8),
        ("Linux", "flags : avx2 fma", 0),
        ("Linux", "", 0),
        ("Darwin", "flags : avx2 fma f16c", 0),
    ],
)
def test_code_runs_where_the_processor_has_its_instructions(monkeypatch: pytest.MonkeyPatch, system: str, flags: str, wanted: int) -> None:
    monkeypatch.setattr(platform, "system", lambda: system)
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: f"processor : 0\n{flags}\n")
    assert machine_code.lanes.__wrapped__() == wanted


def test_where_no_code_may_be_made_in_memory_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError

    monkeypatch.setattr(mmap, "mmap", refuse)
    assert machine_code.lanes.__wrapped__() == 0
