"""cuda/gemm/csr.cu on the CPU, beside the oracle."""

from __future__ import annotations

from collections.abc import Callable

import ml_dtypes
import numpy as np
import pytest

from subbyte.cuda.gemm.csr import check
from subbyte.errors import DtypeError, RangeError, ShapeError
from tests.cuda.test_emulated import DTYPES, POISON
from tests.cuda.test_loader import on_gpu
from tests.emulator import Emulated
from tests.oracles.csr import case, spread

# M, N, K, share: one, odd everywhere, more rows than a tile, entries for every lane and more, 32 bits of columns, none.
CASES = [(1, 1, 1, 1.0), (3, 9, 50, 0.2), (17, 5, 130, 1.0), (8, 3, 65_600, 0.001), (2, 9, 50, 0.0)]
VALUES = {"f32": np.float32, "f16": np.float16, "bf16": ml_dtypes.bfloat16}


def run(emulated: Emulated, args: list[np.ndarray | None], **options: bool) -> np.ndarray:
    x, values, columns, pointers, base = args
    assert x is not None
    assert values is not None
    assert columns is not None
    assert pointers is not None
    names = {np.dtype(dtype): name for name, dtype in VALUES.items()}
    (m, k), n = x.shape, len(pointers) - 1
    y = np.full((m, n), POISON, np.uint16)
    given = [each if each is None or each.dtype == np.float32 else each.view(np.uint16) for each in (x, values, base)]
    places = columns if columns.dtype == np.uint16 else columns.view(np.uint32)
    entry = f"csr_{names[x.dtype]}_{names[values.dtype]}_{'u16' if columns.dtype == np.uint16 else 'i32'}"
    arrays = [given[0], given[1], places, pointers.view(np.uint32), given[2], y]
    emulated.launch(
        entry, (-(-n // 8), -(-m // 8), 1), (256, 1, 1), [*arrays, m, n, k, len(values)], out=[y], **options
    )
    return y.view(x.dtype)


@pytest.fixture(scope="module")
def emulated(emulate: Callable[[str], Emulated]) -> Emulated:
    return emulate("csr")


@pytest.mark.parametrize("based", [False, True])
@pytest.mark.parametrize("values", VALUES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", CASES, ids=str)
def test_agrees_with_the_oracle(
    emulated: Emulated, shape: tuple[int, int, int, float], dtype: str, values: str, based: bool
) -> None:
    x, entries, columns, pointers, base = case(*shape, based=based).args
    x, entries = x.astype(DTYPES[dtype]), entries.astype(VALUES[values])
    base = None if base is None else base.astype(DTYPES[dtype])
    got = run(emulated, [x, entries, columns, pointers, base], reverse=shape[0] % 2 == 0)
    dense, wide = spread(entries, columns, pointers, x.shape[1]), x.astype(np.float64)
    addend = 0 if base is None else base.astype(np.float64)
    y, magnitudes = addend + wide @ dense.T, abs(addend) + abs(wide) @ abs(dense).T
    exact = (-(-int(np.diff(pointers).max()) // 32) + 7) * 2.0**-24 * magnitudes
    error, step = abs(got.astype(np.float64) - y), 2.0**-11 if dtype == "f16" else 2.0**-8
    assert (error <= exact + (abs(y) + exact) * step + 2.0**-25).all()


def test_what_is_no_column_and_pointers_that_do_not_rise(emulated: Emulated) -> None:
    """NaN in their results alone; nothing strays."""
    x, values, columns, pointers, base = case(9, 9, 50, 0.2, x_dtype="f2").args
    clean = run(emulated, [x, values, columns, pointers, base])
    for place in (pointers[3], pointers[3] + 1):
        wrong = columns.copy()
        wrong[place] = 50
        got = run(emulated, [x, values, wrong, pointers, base])
        assert np.isnan(got[:, 3]).all()
        assert np.array_equal(np.delete(got, 3, axis=1), np.delete(clean, 3, axis=1))
    for row, pointer, lost in ((9, len(values) + 1, [8]), (3, -1, [2, 3]), (3, 0, [2])):
        wrong = pointers.copy()
        wrong[row] = pointer
        got = run(emulated, [x, values, columns, wrong, base])
        assert np.isnan(got[:, lost]).all()
        kept = np.setdiff1d(np.arange(9), [*lost, row])
        assert np.array_equal(got[:, kept], clean[:, kept])


def test_every_instance_is_covered(emulated: Emulated) -> None:
    assert len(emulated.entries) == len(DTYPES) * len(VALUES) * 2


def test_what_is_refused() -> None:
    x, values = on_gpu("x", (3, 64), "f16", 2), on_gpu("values", (9,), "bf16", 2)
    columns, pointers = on_gpu("columns", (9,), "u16", 2), on_gpu("pointers", (6,), "i32", 4)
    assert check(x, values, columns, pointers, on_gpu("base", (3, 5), "f16", 2)) == (3, 5, 64, 9)
    with pytest.raises(ShapeError, match="columns"):
        check(x, values, on_gpu("columns", (8,), "u16", 2), pointers, None)
    with pytest.raises(ShapeError, match="pointers"):
        check(x, values, columns, on_gpu("pointers", (0,), "i32", 4), None)
    with pytest.raises(ShapeError, match="base"):
        check(x, values, columns, pointers, on_gpu("base", (3, 6), "f16", 2))
    with pytest.raises(DtypeError, match="base: given f32, expected f16"):
        check(x, values, columns, pointers, on_gpu("base", (3, 5), "f32", 4))
    with pytest.raises(RangeError, match="M to 524,280"):
        check(on_gpu("x", (524_281, 64), "f16", 2), values, columns, pointers, None)
