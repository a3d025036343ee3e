"""cuda/gemm/int4_fp8.cu and int4_fp8_sm90a.cu on the CPU, beside the oracle."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from subbyte.cuda.gemm.float8 import block
from subbyte.cuda.gemm.int4_fp8 import check
from subbyte.errors import DtypeError, RangeError, ShapeError
from tests.cuda.test_emulated import DTYPES, add
from tests.cuda.test_loader import on_gpu
from tests.emulator import Banks, Emulated
from tests.oracles.case import Case
from tests.oracles.int4_fp8 import E4M3, case, cut_bound

ROWS, SCALES = (16, 64), ("e4m3fn", "bf16")
HOPPER = (64, 128)  # of tiles of int4_fp8_sm90a
#: One of each, odd everywhere, groups of half a stage and of several, more stages than the ring holds.
SHAPES = [(1, 1, 1, -1), (3, 5, 23, -1), (17, 130, 192, 64), (65, 3, 384, 128), (2, 9, 1152, 384), (5, 3, 0, -1)]


@pytest.fixture(scope="module")
def emulated(emulate: Callable[[str], Emulated]) -> Emulated:
    return emulate("int4_fp8")


@pytest.fixture(scope="module")
def hopper(emulate: Callable[[str], Emulated]) -> Emulated:
    return emulate("int4_fp8_sm90a")


def of(scales: str, *shape: int, **options: bool) -> Case:
    """A case with scales of that dtype."""
    given = case(*shape, scales="u1" if scales == "e4m3fn" else "f4", **options)
    *others, w_scale = given.args
    return given if scales == "e4m3fn" else replace(given, args=(*others, w_scale.astype(DTYPES["bf16"])))


def run(
    emulated: Emulated,
    given: Case,
    rows: int,
    depth: int = 0,
    summed: Emulated | None = None,
    wgmma: bool = False,
    **options: bool,
) -> tuple[np.ndarray, Banks]:
    (x, words, x_scale, w_scale), (group, tensor_scale, bias) = given.args, given.kwargs.values()
    (m, k), n = x.shape, len(words)
    y, slices = np.full((m, n), np.nan, np.float32), -(-k // depth) if depth else 1
    parts = np.zeros((slices, m, n), np.float32) if slices > 1 else None
    scales = "e4m3fn" if w_scale.dtype == np.uint8 else "bf16"
    arrays = [x, words.view(np.uint32), x_scale, w_scale.view(f"u{w_scale.itemsize}"), bias, y, parts]
    sizes = [m, n, k, max(k, 1) if group == -1 else group, len(x_scale), float(tensor_scale)]
    grid, out = (-(-m // rows) * -(-n // 128), slices, 1), [y] if parts is None else [parts]
    args = [*arrays, *sizes, depth or max(128, -(-k // 128) * 128)]
    entry = block("int4_fp8", scales, rows, wgmma=wgmma, row_bytes=64)
    threads = (entry.threads, 1, 1)
    banks = emulated.launch(entry.entry, grid, threads, args, out=out, shared=entry.shared, **options)
    if summed is not None and parts is not None:
        add(summed, parts, y)
    return y, banks


@pytest.mark.parametrize("scales", SCALES)
@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_agrees_with_the_oracle(emulated: Emulated, shape: tuple[int, ...], rows: int, scales: str) -> None:
    given = of(scales, *shape, many=shape[0] > 1, biased=shape[0] % 2 == 1)
    got, _ = run(emulated, given, rows, reverse=rows == 64)
    assert (abs(got - given.oracle(*given.args, **given.kwargs)) <= given.bound).all()


def test_slices_of_k(emulated: Emulated, emulate: Callable[[str], Emulated]) -> None:
    given = of("e4m3fn", 3, 9, 640, 320, biased=True)
    got, _ = run(emulated, given, 16, 256, emulate("sum"))
    assert (abs(got - given.oracle(*given.args, **given.kwargs)) <= given.bound).all()


@pytest.mark.parametrize("scales", SCALES)
@pytest.mark.parametrize("rows", HOPPER)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_wgmma_agrees_with_the_oracle(hopper: Emulated, shape: tuple[int, ...], rows: int, scales: str) -> None:
    """All codes within the bound of sums that are cut, and as closely as f32 allows those whose sums are not."""
    for whole in (False, True):
        given = of(scales, *shape, many=shape[0] > 1, biased=shape[0] % 2 == 1, whole=whole)
        got, _ = run(hopper, given, rows, wgmma=True, reverse=whole)
        bound = given.bound if whole else cut_bound(given)
        assert (abs(got - given.oracle(*given.args, **given.kwargs)) <= bound).all()


@pytest.mark.parametrize("rows", HOPPER)
def test_wgmma_slices_of_k(hopper: Emulated, emulate: Callable[[str], Emulated], rows: int) -> None:
    given = of("e4m3fn", 3, 9, 640, 320, biased=True, whole=True)
    got, _ = run(hopper, given, rows, 256, emulate("sum"), wgmma=True)
    assert (abs(got - given.oracle(*given.args, **given.kwargs)) <= given.bound).all()


@pytest.mark.parametrize("wgmma", [False, True])
def test_every_code(emulated: Emulated, hopper: Emulated, wgmma: bool) -> None:
    """Of x, of a scale and of the weight, products with one: exact, and NaN in its row or column alone."""
    at, rows = (hopper, 64) if wgmma else (emulated, 16)
    every, one = np.arange(256, dtype=np.uint8)[:, None], np.ones(1, np.float32)
    options = {"group": -1, "tensor_scale": 1.0, "bias": None}
    nine, unit = np.full((3, 1), 9, np.int32), np.full((3, 1), 0x38, np.uint8)
    want = E4M3.astype(np.float32)
    got, _ = run(at, Case("", (every, nine, one, unit), options, lambda: 0), 64, wgmma=wgmma)
    np.testing.assert_array_equal(got, np.broadcast_to(want[:, None], got.shape))
    got, _ = run(at, Case("", (unit, nine[:1].repeat(256, 0), one, every), options, lambda: 0), rows, wgmma=wgmma)
    np.testing.assert_array_equal(got, np.broadcast_to(want, got.shape))
    words = (np.arange(16, dtype=np.uint32)[:, None] << np.uint32(4) * np.arange(8, dtype=np.uint32)).reshape(-1, 1)
    hot = np.where(np.eye(8, dtype=bool), 0x38, 0).astype(np.uint8)
    args = (hot, words.view(np.int32), one, np.full((128, 1), 0x38, np.uint8))
    got, _ = run(at, Case("", args, options, lambda: 0), rows, wgmma=wgmma)
    code = np.where(np.eye(8, dtype=bool)[:, None], np.arange(16)[:, None], 0)  # [column of x, code, its place]
    np.testing.assert_array_equal(got, code.reshape(8, 128) - 8)


@pytest.mark.parametrize("rows", ROWS)
def test_bank_conflicts(emulated: Emulated, rows: int) -> None:
    _, banks = run(emulated, of("e4m3fn", rows, 128, 128, 64), rows, count=True)
    assert banks.wavefronts > 100
    assert banks.conflicts == 0


@pytest.mark.parametrize("rows", HOPPER)
def test_wgmma_bank_conflicts(hopper: Emulated, rows: int) -> None:
    """What threads read and write beside it: codes, what they turn them into, and scales."""
    _, banks = run(hopper, of("e4m3fn", rows, 128, 128, 64), rows, wgmma=True, count=True)
    assert banks.wavefronts > 100
    assert banks.conflicts == 0


def test_every_instance_is_covered(emulated: Emulated, hopper: Emulated) -> None:
    assert sorted(emulated.entries) == sorted(f"int4_fp8_{scales}_m{rows}" for scales in SCALES for rows in ROWS)
    of_hopper = [block("int4_fp8", scales, rows, wgmma=True).entry for scales in SCALES for rows in HOPPER]
    assert sorted(hopper.entries) == sorted(of_hopper)


def test_what_is_refused() -> None:
    x, words = on_gpu("x", (3, 128), "u8", 1), on_gpu("words", (5, 16), "i32", 4)
    of_x, of_w = on_gpu("x_scale", (3,), "f32", 4), on_gpu("w_scale", (5, 2), "bf16", 2)
    bias = on_gpu("bias", (5,), "f32", 4)
    assert check(x, words, of_x, of_w, 64, 1.0, bias) == (3, 5, 128, 64)
    assert check(x, words, of_x, on_gpu("w_scale", (5, 1), "u8", 1), -1, 1.0, None) == (3, 5, 128, 128)
    for group in (32, 48, 0):
        with pytest.raises(ShapeError, match="a multiple of 64, or -1"):
            check(x, words, of_x, of_w, group, 1.0, None)
    for change in ({"words": (5, 15)}, {"x_scale": (2,)}, {"w_scale": (5, 1)}, {"bias": (4,)}, {"x": (128,)}):
        given = {"x": x, "words": words, "x_scale": of_x, "w_scale": of_w, "bias": bias}
        for name, shape in change.items():
            given[name] = on_gpu(name, shape, given[name].dtype, given[name].itemsize)
        with pytest.raises(ShapeError, match=next(iter(change))):
            check(given["x"], given["words"], given["x_scale"], given["w_scale"], 64, 1.0, given["bias"])
    with pytest.raises(DtypeError, match="w_scale: given f32, expected u8 or bf16"):
        check(x, words, of_x, on_gpu("w_scale", (5, 2), "f32", 4), 64, 1.0, None)
    with pytest.raises(RangeError, match="tensor_scale"):
        check(x, words, of_x, of_w, 64, 0.0, None)
