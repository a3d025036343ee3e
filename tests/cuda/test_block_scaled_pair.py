"""cuda/gemm/block_scaled_pair*.cu on the CPU, beside the oracle."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from subbyte import kernels
from subbyte.cuda.gemm.block_scaled import ELEMENTS
from subbyte.cuda.gemm.block_scaled_pair import FORMATS, check, tile
from subbyte.errors import DtypeError, RangeError, ShapeError, UnknownNameError
from tests.cuda.test_emulated import add
from tests.cuda.test_loader import on_gpu
from tests.emulator import Banks, Emulated
from tests.oracles.block_scaled import decoded
from tests.oracles.block_scaled_pair import case
from tests.oracles.case import Case

#: Rows of the tiles of each file, by how its name ends.
TILES = {"": (16, 64), "_sm100a": (128,), "_sm120a": (16, 128)}
KINDS = [(format, native) for format in FORMATS for native in TILES if not (native and format[0] == "int8")]
#: One block, odd everywhere, full tiles, rows that no wide copy may begin at, more stages than the ring holds; none.
SHAPES = [(1, 1, 32), (3, 130, 96), (17, 5, 544), (65, 3, 256), (2, 3, 2080), (2, 3, 0)]

of_each = pytest.mark.parametrize(("format", "native"), KINDS, ids=lambda each: str(each))


@pytest.fixture(scope="module")
def emulated(emulate: Callable[[str], Emulated]) -> dict[str, Emulated]:
    return {native: emulate(f"block_scaled_pair{native}") for native in TILES}


def run(
    emulated: dict[str, Emulated],
    native: str,
    rows: int,
    given: Case,
    summed: Emulated | None = None,
    depth: int = 0,
    **options: bool,
) -> tuple[np.ndarray, Banks]:
    """The result by tiles of that many rows, and the banks."""
    x, words, x_scale, w_scale = given.args
    element, block, scale_dtype, tensor_scale = given.kwargs.values()
    (m, n), k, stage = (len(x), len(words)), x_scale.shape[1] * block, 1024 // ELEMENTS[element]
    depth = depth or max(1, -(-k // stage)) * stage
    slices, entry = -(-k // depth) or 1, tile(FORMATS[element, block, scale_dtype], rows, stage // block, native)
    y = np.full((m, n), np.nan, np.float32)
    parts = np.zeros((slices, m, n), np.float32) if slices > 1 else None
    args = [x.view(np.uint32), words.view(np.uint32), x_scale, w_scale, y, parts, m, n, k, float(tensor_scale), depth]
    grid, out = (-(-m // rows) * -(-n // 128), slices, 1), [y] if parts is None else [parts]
    banks = emulated[native].launch(
        entry.entry, grid, (entry.threads, 1, 1), args, out=out, shared=entry.shared, **options
    )
    if summed is not None and parts is not None:
        add(summed, parts, y)
    return y, banks


def close(got: np.ndarray, given: Case) -> None:
    given.check(got)
    x, words, x_scale, w_scale = given.args
    element, block, scale_dtype, tensor_scale = given.kwargs.values()
    depth, kind = x_scale.shape[1] * block, (element, block, scale_dtype, 1.0)
    size = abs(decoded(x, x_scale, depth, *kind)) @ abs(decoded(words, w_scale, depth, *kind)).T
    bound = (depth + 5) * 2.0**-23 * size * tensor_scale  # of each, where Case has that of the largest
    assert (abs(got - given.oracle(*given.args, **given.kwargs)) <= bound).all()


@of_each
def test_agrees_with_the_oracle(emulated: dict[str, Emulated], format: tuple, native: str) -> None:
    for shape in SHAPES:
        for rows in TILES[native]:
            if shape[2] <= 544 or rows == TILES[native][0]:
                given = case(*shape, *format, tensor_scale=0.3)
                got, _ = run(emulated, native, rows, given, reverse=shape[1] % 2 == 1)
                close(got, given)


def test_blocks_of_16_that_fill_no_32(emulated: dict[str, Emulated]) -> None:
    for native in TILES:
        given = case(3, 5, 80, "e2m1", 16, "e4m3fn")
        close(run(emulated, native, TILES[native][0], given)[0], given)


def alone(format: tuple, codes: np.ndarray, scale: np.ndarray, columns: list[int]) -> Case:
    """Those codes and scales as rows of the weight; x has a one alone in each of some columns."""
    element, block, scale_dtype = format
    bits, one = ELEMENTS[element], {"e2m1": 2, "e4m3fn": 0x38, "e5m2": 0x3C, "int8": 1}[element]
    ones = np.zeros((len(columns), codes.shape[1]), np.uint8)
    ones[range(len(columns)), columns] = one
    x_scale = np.full((len(columns), scale.shape[1]), 127 if scale_dtype == "e8m0" else 0x38, np.uint8)
    words = [kernels.pack(each, bits=bits) for each in (ones, codes)]
    options = {"element": element, "block": block, "scale_dtype": scale_dtype, "tensor_scale": 1.0}
    return Case("", (*words, x_scale, scale), options, lambda: 0)


@of_each
def test_every_code_is_exact(emulated: dict[str, Emulated], format: tuple, native: str) -> None:
    """Infinities and NaN too, each in a row of its own, alone among zeros; at both ends and in the middle."""
    element, block, scale_dtype = format
    count, columns = 1 << ELEMENTS[element], [0, 5, 42, 63]
    for column in columns:
        codes = np.zeros((count, 64), np.uint8)
        codes[:, column] = np.arange(count)
        scale = np.full((count, 64 // block), 127 if scale_dtype == "e8m0" else 0x38, np.uint8)
        given = alone(format, codes, scale, [column])
        got, _ = run(emulated, native, TILES[native][0], given)
        weight = decoded(given.args[1], scale, 64, element, block, scale_dtype, 1.0)
        np.testing.assert_array_equal(got[0].astype(np.float64), weight[:, column])


@of_each
def test_every_scale_is_that_of_its_block(emulated: dict[str, Emulated], format: tuple, native: str) -> None:
    """Each scale in a row of its own, in every block of a stage by turns; of the weight, and of x."""
    element, block, scale_dtype = format
    stage = 1024 // ELEMENTS[element]
    blocks, known = stage // block, 256 if scale_dtype == "e8m0" else 128
    one = {"e2m1": 2, "e4m3fn": 0x38, "e5m2": 0x3C, "int8": 1}[element]
    codes, scale = np.full((known, stage), one, np.uint8), np.full((known, blocks), 0x38, np.uint8)
    if scale_dtype == "e8m0":
        scale[:] = 127
    scale[np.arange(known), np.arange(known) % blocks] = np.arange(known)
    given = alone(format, codes, scale, [*range(0, stage, block), *range(block - 1, stage, block)])
    got, _ = run(emulated, native, TILES[native][0], given)
    weight = decoded(given.args[1], scale, stage, element, block, scale_dtype, 1.0).astype(np.float32)
    nan = np.isnan(weight).any(axis=1)
    for row in range(len(got)):
        np.testing.assert_array_equal(got[row, ~nan], weight[~nan, row % blocks * block])
    assert np.isnan(got[:, nan]).all()
    x, words, x_scale, w_scale = given.args
    turned, _ = run(
        emulated, native, TILES[native][-1], Case("", (words, x, w_scale, x_scale), given.kwargs, lambda: 0)
    )
    np.testing.assert_array_equal(turned, got.T)


@of_each
def test_slices_of_k(
    emulated: dict[str, Emulated], emulate: Callable[[str], Emulated], format: tuple, native: str
) -> None:
    given = case(18, 5, 1120, *format)
    close(run(emulated, native, TILES[native][-1], given, emulate("sum"), depth=512)[0], given)


@of_each
def test_rows_do_not_touch(emulated: dict[str, Emulated], format: tuple, native: str) -> None:
    """NaN of a scale stays in its row; beyond the last row of x there is nothing."""
    given = case(18, 5, 256, *format)
    clean, _ = run(emulated, native, TILES[native][0], given)
    given.args[2][17, 2] = 0xFF if format[2] == "e8m0" else 0x7F
    got, _ = run(emulated, native, TILES[native][0], given)
    assert np.isnan(got[17]).all()
    assert np.array_equal(got[:17], clean[:17])


@of_each
def test_bank_conflicts(emulated: dict[str, Emulated], format: tuple, native: str) -> None:
    """None, but where mma wants scales of rows that lie 128 bytes apart in neighbouring lanes."""
    rows = TILES[native][-1]
    _, banks = run(emulated, native, rows, case(rows, 128, 256, *format), count=True)
    assert banks.wavefronts > 100
    assert banks.conflicts <= (0.1 * banks.wavefronts if native == "_sm120a" and FORMATS[format] == "nvfp4" else 0), (
        banks
    )


def test_every_instance_is_covered(emulated: dict[str, Emulated]) -> None:
    for native in TILES:
        names = {
            tile(FORMATS[format], rows, 4, native).entry
            for format, of in KINDS
            if of == native
            for rows in TILES[native]
        }
        assert set(emulated[native].entries) == names


@of_each
def test_fits_the_shared_memory(format: tuple, native: str) -> None:
    """As many blocks as are said to run together, each with what the compiler and the driver take."""
    of_all, aligned = {"": (164, 0), "_sm100a": (228, 1024), "_sm120a": (100, 0)}[native]
    for rows in TILES[native]:
        entry = tile(FORMATS[format], rows, 1024 // ELEMENTS[format[0]] // format[1], native)
        assert entry.together * (entry.shared + aligned + 1024) <= of_all * 1024


def test_what_is_refused() -> None:
    x, words = on_gpu("x", (3, 8), "i32", 4), on_gpu("words", (5, 8), "i32", 4)
    scales = on_gpu("x_scale", (3, 2), "u8", 1), on_gpu("w_scale", (5, 2), "u8", 1)
    given = x, words, *scales
    assert check(*given, "e2m1", 32, "e8m0", 1.0) == (3, 5, 64)
    for options in (("e5m3", 32, "e8m0", 1.0), ("e2m3", 32, "e8m0", 1.0), ("e2m1", 32, "f32", 1.0)):
        with pytest.raises(UnknownNameError):
            check(*given, *options)
    for options in (
        ("e2m1", 64, "e8m0", 1.0),
        ("e2m1", 16, "e8m0", 1.0),
        ("e4m3fn", 16, "e4m3fn", 1.0),
        ("e2m1", 32, "e8m0", 0.0),
        ("e2m1", 32, "e8m0", float("nan")),
    ):
        with pytest.raises(RangeError):
            check(*given, *options)
    with pytest.raises(ShapeError, match="x: given"):
        check(*given, "e4m3fn", 32, "e8m0", 1.0)
    for at, shape in ((0, (3, 7)), (0, (24,)), (1, (5, 4)), (2, (2, 2)), (2, (3, 3)), (2, (6,)), (3, (5, 1))):
        strides = (shape[1], 1) if len(shape) == 2 else (1,)
        wrong = replace(given[at], shape=shape, strides=strides)
        with pytest.raises(ShapeError):
            check(*given[:at], wrong, *given[at + 1 :], "e2m1", 32, "e8m0", 1.0)
    with pytest.raises(DtypeError, match="x: given u8"):
        check(on_gpu("x", (3, 32), "u8", 1), *given[1:], "e2m1", 32, "e8m0", 1.0)
    long = on_gpu("words", (2**31, 8), "i32", 4), scales[0], on_gpu("w_scale", (2**31, 2), "u8", 1)
    with pytest.raises(RangeError, match="below 2"):
        check(x, *long, "e2m1", 32, "e8m0", 1.0)
