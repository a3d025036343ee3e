"""cuda/hadamard and cuda/quantize on the CPU, beside the oracles and beside the bits of the Rust kernels."""

from __future__ import annotations

from collections.abc import Callable

import ml_dtypes
import numpy as np
import pytest

from subbyte import kernels
from tests.cuda.test_emulated import pack
from tests.emulator import Banks, Emulated
from tests.oracles import hadamard as hadamard_oracle
from tests.oracles import hadamard_quantize as both_oracle
from tests.oracles import norm_quantize as norm_oracle
from tests.oracles import quantize_tokens as tokens_oracle
from tests.oracles.case import Case
from tests.oracles.encode_minifloat import encode_minifloat, hard

Emulate = Callable[[str], Emulated]


DTYPES = {np.dtype(np.float32): "f32", np.dtype(np.float16): "f16", np.dtype(ml_dtypes.bfloat16): "bf16"}


def bits(array: np.ndarray | None) -> np.ndarray | None:
    """As a kernel is passed it."""
    return array if array is None or (array.dtype.kind == "f" and array.itemsize == 4) else array.view(np.uint16)


def signs_of(order: int, transpose: bool) -> np.ndarray | None:
    """[K, ceil(K / 32)] u32, a bit for each -1."""
    if order == 1:
        return None
    rows = hadamard_oracle.outer(order).T if transpose else hadamard_oracle.outer(order)
    return pack((rows < 0).astype(np.uint8), 1)


def shape_of(n: int) -> tuple[int, int, int]:
    """K, t and the bytes of shared memory of a row."""
    order = hadamard_oracle.order_of(n)
    span = n // order
    return order, span.bit_length() - 1, 4 * order * (span + 2) if order > 1 else 4 * n if n > 256 else 0


def run_hadamard(
    emulated: Emulated, x: np.ndarray, scale: float | None = None, transpose: bool = False, **options: bool
) -> tuple[np.ndarray, Banks]:
    n, y = x.shape[-1], np.full(x.shape, 0, x.dtype)
    (order, log, shared), rows, each = shape_of(n), x.size // n, max(1, 2048 // n)
    factor, out = float(1 / np.sqrt(n) if scale is None else scale), bits(y)
    args = [bits(x), out, signs_of(order, transpose), rows, each, order, log, factor]
    entry, grid = f"hadamard_{'outer_' if order > 1 else ''}{DTYPES[x.dtype]}", (-(-rows // each), 1, 1)
    return y, emulated.launch(entry, grid, (256, 1, 1), args, out=[out], shared=shared * each, **options)


@pytest.mark.parametrize("case", [*hadamard_oracle.cases(), *hadamard_oracle.halves()], ids=str)
def test_hadamard_agrees_with_the_oracle(emulate: Emulate, case: Case) -> None:
    [x] = case.args
    got, _ = run_hadamard(emulate("hadamard"), x, **case.kwargs, reverse=x.size % 3 == 0)
    wide, expected = got.astype(np.float64), case.oracle(x, **case.kwargs).astype(np.float64)
    np.testing.assert_allclose(wide, expected, rtol=0, atol=case.bound)
    if x.shape[-1].bit_count() == 1:
        assert np.array_equal(got, kernels.hadamard(x, case.kwargs["scale"]))


@pytest.mark.parametrize("case", hadamard_oracle.mixed(), ids=str)
def test_hadamard_with_an_outer_matrix(emulate: Emulate, case: Case) -> None:
    [x] = case.args
    got, _ = run_hadamard(emulate("hadamard"), x, **case.kwargs, reverse=case.kwargs["transpose"])
    case.check(got)


@pytest.mark.parametrize("n", [688, 2048, 3072, 32768])
def test_hadamard_of_long_rows_of_bfloat16(emulate: Emulate, n: int) -> None:
    """The same number rounded once; for an outer matrix, whose sums have another order, next to it at most."""
    x = np.random.default_rng(n).standard_normal((2, n)).astype(ml_dtypes.bfloat16)
    got, _ = run_hadamard(emulate("hadamard"), x)
    wide = kernels.hadamard(x.astype(np.float32))
    if n.bit_count() == 1:
        assert np.array_equal(got, wide.astype(got.dtype))
    error, bound = abs(got.astype(np.float64) - wide), 2.0**-8 * abs(wide) + n * 2.0**-23
    assert (error <= bound).all()


def test_hadamard_spreads_nan_over_its_row_alone(emulate: Emulate) -> None:
    for n in (256, 172):
        x = np.ones((3, n), np.float32)
        x[0, 100] = np.nan
        x[2, 7] = np.inf
        got, _ = run_hadamard(emulate("hadamard"), x)
        assert np.isnan(got[0]).all()
        assert np.isfinite(got[1]).all()
        assert not np.isfinite(got[2]).any()


@pytest.mark.parametrize("n", [4096, 32768])
def test_hadamard_of_long_rows(emulate: Emulate, n: int) -> None:
    x = np.random.default_rng(n).standard_normal((2, n)).astype(np.float32)
    assert np.array_equal(run_hadamard(emulate("hadamard"), x)[0], kernels.hadamard(x))


@pytest.mark.parametrize("n", [4096, 12 * 256])
def test_hadamard_has_no_bank_conflicts(emulate: Emulate, n: int) -> None:
    _, banks = run_hadamard(emulate("hadamard"), np.ones((1, n), np.float32), count=True)
    assert banks.wavefronts > 100
    assert banks.conflicts == 0


def tokens(shape: tuple[int, ...], format: str) -> tuple[np.ndarray, np.ndarray]:
    """Room for codes and scales."""
    return np.full(shape, 99, np.int8 if format == "int8" else np.uint8), np.zeros(shape[0], np.float32)


@pytest.mark.parametrize("case", tokens_oracle.cases(), ids=str)
def test_quantize_tokens_agrees_with_the_oracle(emulate: Emulate, case: Case) -> None:
    [x], eps, format = case.args, case.kwargs.get("eps", 1e-5), case.kwargs.get("format", "int8")
    codes, scale = tokens(x.shape, format)
    args, entry = [bits(x), codes, scale, x.shape[1], float(eps)], f"quantize_tokens_{format}_{DTYPES[x.dtype]}"
    for reverse in (False, True):
        emulate("quantize_tokens").launch(entry, (len(x), 1, 1), (256, 1, 1), args, out=[codes, scale], reverse=reverse)
        case.check((codes, scale))


@pytest.mark.parametrize("dtype", DTYPES, ids=DTYPES.values())
@pytest.mark.parametrize("format", tokens_oracle.FORMATS)
def test_quantize_tokens_of_rows_longer_than_a_block(emulate: Emulate, format: str, dtype: np.dtype) -> None:
    x = np.random.default_rng(6).standard_normal((3, 1000)).astype(dtype)
    x[1, 999] = 1e4
    codes, scale = tokens(x.shape, format)
    entry, args = f"quantize_tokens_{format}_{DTYPES[dtype]}", [bits(x), codes, scale, 1000, 1e-5]
    emulate("quantize_tokens").launch(entry, (3, 1, 1), (256, 1, 1), args, out=[codes, scale])
    for got, expected in zip((codes, scale), kernels.quantize_tokens(x.astype(np.float32), format=format), strict=True):
        np.testing.assert_array_equal(got, expected)


def test_every_code_of_e4m3_is_rounded_to(emulate: Emulate) -> None:
    """All values, ties and their neighbours, as quotients of a row whose scale is 1."""
    quotients = hard("e4m3fn")
    x = quotients[abs(quotients) <= 448][None]
    codes, scale = tokens(x.shape, "e4m3fn")
    args = [x, codes, scale, x.shape[1], 1e-5]
    emulate("quantize_tokens").launch("quantize_tokens_e4m3fn_f32", (1, 1, 1), (256, 1, 1), args, out=[codes, scale])
    assert scale[0] == 1
    np.testing.assert_array_equal(codes, encode_minifloat(x, "e4m3fn"))


def run_norm(emulated: Emulated, case: Case, **options: bool) -> tuple[np.ndarray, np.ndarray]:
    (x, weight, bias), format = case.args, case.kwargs.get("format", "int8")
    codes, scale = tokens(x.shape, format)
    epsilons = [float(case.kwargs.get(name, 1e-5)) for name in ("norm_eps", "eps")]
    centred = int(case.kwargs["norm"] == "layer")
    args = [bits(x), bits(weight), bits(bias), codes, scale, x.shape[1], centred, *epsilons]
    entry = f"norm_quantize_{format}_{DTYPES[x.dtype]}"
    emulated.launch(entry, (len(x), 1, 1), (256, 1, 1), args, out=[codes, scale], **options)
    return codes, scale


@pytest.mark.parametrize("case", norm_oracle.cases(), ids=str)
def test_norm_quantize_agrees_with_the_oracle(emulate: Emulate, case: Case) -> None:
    case.check(run_norm(emulate("norm_quantize"), case, reverse=case.args[0].size % 2 == 1))


def test_norm_quantize_of_bfloat16(emulate: Emulate) -> None:
    for format in tokens_oracle.FORMATS:
        case = norm_oracle.case(3, 600, "layer", format, True, ml_dtypes.bfloat16)
        case.check(run_norm(emulate("norm_quantize"), case))


def run_both(emulated: Emulated, case: Case, **options: bool) -> tuple[np.ndarray, np.ndarray]:
    (x, factors), format = case.args, case.kwargs["format"]
    rows, n = x.shape
    (order, log, _), each = shape_of(n), max(1, 2048 // n)
    codes, scales = tokens(x.shape, format)
    signs = signs_of(order, case.kwargs["transpose"])
    args = [bits(x), factors, codes, scales, signs, rows, each, order, log, case.kwargs["scale"], 1e-5]
    entry = f"hadamard_quantize_{'outer_' if order > 1 else ''}{format}_{DTYPES[x.dtype]}"
    shared = 4 * each * order * (n // order + (2 if order > 1 else 0))
    grid = (-(-rows // each), 1, 1)
    emulated.launch(entry, grid, (256, 1, 1), args, out=[codes, scales], shared=shared, **options)
    return codes, scales


@pytest.mark.parametrize("case", both_oracle.cases(), ids=str)
def test_hadamard_quantize_agrees_with_the_oracle(emulate: Emulate, case: Case) -> None:
    case.check(run_both(emulate("hadamard_quantize"), case, reverse=case.args[0].size % 3 == 0))


def test_hadamard_quantize_of_bfloat16(emulate: Emulate) -> None:
    for n in (128, 1024, 12):
        x = np.random.default_rng(n).integers(-8, 9, (3, n)).astype(ml_dtypes.bfloat16)
        options = {"scale": 0.5, "transpose": False, "format": "int8"}
        case = Case("", (x, None), options, both_oracle.hadamard_quantize)
        case.check(run_both(emulate("hadamard_quantize"), case))
