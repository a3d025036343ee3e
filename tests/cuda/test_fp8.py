"""cuda/gemm/fp8.cu and fp8_sm90a.cu on the CPU, beside the oracle."""

from __future__ import annotations

from collections.abc import Callable

import ml_dtypes
import numpy as np
import pytest

from subbyte.cuda.gemm.float8 import block
from tests.cuda.test_emulated import add
from tests.emulator import Banks, Emulated
from tests.oracles.case import Case
from tests.oracles.decode_minifloat import magnitude
from tests.oracles.fp8 import case, cases, cut_bound, fp8

ROWS = (16, 64)
HOPPER = (64, 128)  # of tiles of fp8_sm90a
ONE = {"e4m3fn": 0x38, "e5m2": 0x3C}


@pytest.fixture(scope="module")
def emulated(emulate: Callable[[str], Emulated]) -> Emulated:
    return emulate("fp8")


@pytest.fixture(scope="module")
def hopper(emulate: Callable[[str], Emulated]) -> Emulated:
    return emulate("fp8_sm90a")


def run(
    emulated: Emulated,
    given: Case,
    rows: int,
    summed: Emulated | None = None,
    depth: int = 0,
    wgmma: bool = False,
    **options: bool,
) -> tuple[np.ndarray, Banks]:
    x, weight, x_scale, w_scale, format, bias = given.args
    m, n, k = len(x), len(weight), x.shape[1]
    y = np.zeros((m, n), np.float32)
    grids = [(*scale.shape, 1 if len(scale) == count else 128) for scale, count in ((x_scale, m), (w_scale, n))]
    slices = -(-k // depth) if depth else 1
    parts = np.zeros((slices, m, n), np.float32) if slices > 1 else None
    args = [x, weight, x_scale, w_scale, bias, y, parts, m, n, k, *grids[0], *grids[1], depth or -(-k // 128) * 128]
    grid, of = (-(-m // rows) * -(-n // 128), slices, 1), block("fp8", format, rows, wgmma=wgmma)
    threads, out = (of.threads, 1, 1), [y] if parts is None else [parts]
    banks = emulated.launch(of.entry, grid, threads, args, out=out, shared=of.shared, **options)
    if summed is not None and parts is not None:
        add(summed, parts, y)
    return y, banks


@pytest.mark.parametrize("given", cases(), ids=str)
def test_agrees_with_the_oracle(emulated: Emulated, given: Case) -> None:
    expected = given.oracle(*given.args)
    for rows in ROWS:
        got, _ = run(emulated, given, rows, reverse=rows == 64)
        assert (abs(got - expected) <= given.bound).all()


def test_more_stages_than_the_ring_holds(emulated: Emulated) -> None:
    given = case(2, 9, 1100, (1, 128), (128, 128))
    got, _ = run(emulated, given, 16)
    assert (abs(got - given.oracle(*given.args)) <= given.bound).all()


@pytest.mark.parametrize("biased", [False, True])
def test_slices_of_k(emulated: Emulated, emulate: Callable[[str], Emulated], biased: bool) -> None:
    given = case(3, 9, 600, (1, 128), (128, 128), biased=biased)
    got, _ = run(emulated, given, 16, emulate("sum"), depth=256)
    assert (abs(got - given.oracle(*given.args)) <= given.bound).all()


@pytest.mark.parametrize("format", ["e4m3fn", "e5m2"])
def test_every_code(emulated: Emulated, hopper: Emulated, format: str) -> None:
    """Products with one: subnormals and zeros exactly, NaN and infinity in their rows alone."""
    x, scale = np.arange(256, dtype=np.uint8)[:, None], np.ones((1, 1), np.float32)
    given = Case("", (x, np.full((9, 1), ONE[format], np.uint8), scale, scale, format, None), {}, lambda: 0)
    want = np.float32([(-1) ** (code >> 7) * magnitude(code & 127, format) for code in range(256)])
    for got in (run(emulated, given, 64)[0], run(hopper, given, 128, wgmma=True)[0]):
        np.testing.assert_array_equal(got, np.broadcast_to(want[:, None], got.shape))


@pytest.mark.parametrize("rows", ROWS)
def test_bank_conflicts(emulated: Emulated, rows: int) -> None:
    _, banks = run(emulated, case(rows, 128, 128), rows, count=True)
    assert banks.wavefronts > 100
    assert banks.conflicts == 0


#: Scales of tensors, tokens, channels and blocks; odd everywhere, full tiles, one stage to more than the ring holds.
SHAPES = [
    ((1, 1, 1), (0, 0), (0, 0)),
    ((3, 5, 17), (1, 0), (1, 0)),
    ((65, 130, 144), (1, 128), (128, 128)),
    ((130, 3, 400), (128, 128), (1, 128)),
    ((64, 128, 384), (1, 128), (1, 128)),
    ((2, 9, 1100), (1, 0), (128, 128)),
]


@pytest.mark.parametrize("rows", HOPPER)
@pytest.mark.parametrize("format", ["e4m3fn", "e5m2"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_wgmma_agrees_with_the_oracle(hopper: Emulated, shape: tuple, format: str, rows: int) -> None:
    """All codes within the bound of sums that are cut, and as closely as f32 allows those whose sums are not."""
    for whole in (False, True):
        given = case(*shape[0], *shape[1:], format, biased=shape[0][0] == 3, whole=whole)
        got, _ = run(hopper, given, rows, wgmma=True, reverse=whole)
        bound = given.bound if whole else cut_bound(given)
        assert (abs(got - given.oracle(*given.args)) <= bound).all()


def test_wgmma_errs_no_more_where_k_is_long(hopper: Emulated) -> None:
    """Of normal numbers, against all of y: what is cut does not add up over K, as totals are f32."""
    errors = []
    for k in (128, 2048):
        rng = np.random.default_rng(1)
        x, weight = (rng.standard_normal((64, k)) for _ in range(2))
        scales = [(abs(each).max(1, keepdims=True) / 448).astype(np.float32) for each in (x, weight)]
        pairs = zip((x, weight), scales, strict=True)
        given = [(each / scale).astype(ml_dtypes.float8_e4m3fn).view(np.uint8) for each, scale in pairs]
        one = Case("", (*given, *scales, "e4m3fn", None), {}, fp8)
        got, want = run(hopper, one, 64, wgmma=True)[0], fp8(*one.args)
        errors.append(np.linalg.norm(got - want) / np.linalg.norm(want))
    assert 5e-5 < errors[1] < 1.2 * errors[0] < 2e-4


def test_wgmma_of_no_columns(hopper: Emulated) -> None:
    given = case(2, 3, 0, biased=True)
    got, _ = run(hopper, given, 64, wgmma=True)
    assert np.array_equal(got, given.oracle(*given.args))


@pytest.mark.parametrize("rows", HOPPER)
def test_wgmma_slices_of_k(hopper: Emulated, emulate: Callable[[str], Emulated], rows: int) -> None:
    given = case(3, 9, 600, (1, 128), (128, 128), biased=True, whole=True)
    got, _ = run(hopper, given, rows, emulate("sum"), depth=256, wgmma=True)
    assert (abs(got - given.oracle(*given.args)) <= given.bound).all()


def test_wgmma_rows_and_columns_do_not_touch(hopper: Emulated) -> None:
    """NaN of a code, and of a scale, stays in its row or column; infinity less infinity is NaN."""
    given = case(70, 66, 300, (1, 128), (1, 128), "e5m2")
    x, weight, x_scale, w_scale, *_ = given.args
    weight[:, :2] = ONE["e5m2"]
    clean, _ = run(hopper, given, 64, wgmma=True)
    x[5, 299], x[8, :2], weight[7, 100] = 0x7F, (0x7C, 0xFC), 0xFD
    x_scale[66, 2], w_scale[9, 0] = np.nan, np.nan
    got, _ = run(hopper, given, 64, wgmma=True)
    spoilt = np.zeros(got.shape, bool)
    spoilt[[5, 8, 66]], spoilt[:, [7, 9]] = True, True
    assert np.array_equal(np.isnan(got), spoilt)
    assert np.array_equal(got[~spoilt], clean[~spoilt])


@pytest.mark.parametrize("rows", HOPPER)
def test_wgmma_bank_conflicts(hopper: Emulated, rows: int) -> None:
    """What threads read beside it, the scales."""
    _, banks = run(hopper, case(rows, 128, 128, (1, 128), (1, 128)), rows, wgmma=True, count=True)
    assert banks.wavefronts > 100
    assert banks.conflicts == 0


def test_every_instance_is_covered(emulated: Emulated, hopper: Emulated) -> None:
    assert len(emulated.entries) == 2 * len(ROWS)
    assert len(hopper.entries) == 2 * len(HOPPER)
