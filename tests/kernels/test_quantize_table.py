from __future__ import annotations

import numpy as np
import pytest
from tests.oracles.case import Case
from tests.oracles.fit_affine import numbers
from tests.oracles.quantize_table import cases

from subbyte import errors, kernels
from subbyte.schemes import Table

every_path = pytest.mark.parametrize("path", kernels.paths())


@every_path
@pytest.mark.parametrize("case", cases(), ids=str)
def test_agrees_with_the_oracle(case: Case, path: str) -> None:
    with kernels.forced(path):
        case.check(kernels.quantize_table(*case.args, **case.kwargs))


@every_path
@pytest.mark.parametrize("values", [2, 16, 33, 256])
def test_boundaries_halfway_give_the_nearest_value(values: int, path: str) -> None:
    table = np.sort(np.random.default_rng(values).standard_normal((1, values)).astype(np.float32), axis=1)
    bounds = (table[:, 1:] + table[:, :-1]) / 2
    x, one = numbers((4, 100)), np.ones((4, 1), np.float32)
    with kernels.forced(path):
        codes = kernels.quantize_table(x, one, bounds)
        back = kernels.dequantize_table(codes, one, table)
    nearest = np.abs(x[:, :, None].astype(np.float64) - table[0]).min(axis=2)
    np.testing.assert_allclose(np.abs(back.astype(np.float64) - x), nearest, atol=1e-6)


@every_path
def test_nf4_is_the_nearest_of_its_values_for_every_f16(path: str) -> None:
    every = np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float32)
    x, one, table = every[np.isfinite(every)][None], np.ones((1, 1), np.float32), Table("nf4")
    with kernels.forced(path):
        codes = kernels.quantize_table(x, one, table.bounds())
        back = kernels.dequantize_table(codes, one, table.values())
        again = kernels.quantize_table(table.values(), one, table.bounds())
    away = np.abs(x[0, :, None].astype(np.float64) - table.values()[0])
    chosen = np.take_along_axis(away, codes[0, :, None].astype(np.int64), 1)[:, 0]
    # boundaries are rounded to f32
    assert (chosen <= away.min(1) + 2.0**-23).all()
    np.testing.assert_array_equal(back[0], table.values()[0][codes[0]])
    np.testing.assert_array_equal(again[0], np.arange(16))


@every_path
def test_threads_change_nothing(path: str) -> None:
    x, scale = numbers((3, 99_999)), np.ones((3, 3), np.float32)
    bounds = np.linspace(-1, 1, 15, dtype=np.float32)[None]
    with kernels.forced("scalar", 1):
        alone = kernels.quantize_table(x, scale, bounds, group=33_333)
    for threads in (2, 5):
        with kernels.forced(path, threads):
            np.testing.assert_array_equal(kernels.quantize_table(x, scale, bounds, group=33_333), alone)


@every_path
def test_a_number_that_is_not_finite_is_named(path: str) -> None:
    for bad in (np.nan, np.inf, -np.inf):
        x = np.ones((4, 70), np.float32)
        x[3, 66] = bad
        with kernels.forced(path), pytest.raises(errors.NotFiniteError, match="row 3, column 66"):
            kernels.quantize_table(x, np.ones((4, 1), np.float32), np.zeros((1, 3), np.float32))


def test_wrong_calls_are_refused() -> None:
    x, scale, bounds = np.ones((2, 12), np.float32), np.ones((2, 2), np.float32), np.zeros((1, 3), np.float32)
    for bad in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(errors.RangeError, match="scale"):
            kernels.quantize_table(x, np.array([[1, 1], [1, bad]], np.float32), bounds, group=6)
    for wrong in ([[0, 1, 0.5]], [[0, np.nan, 1]]):
        with pytest.raises(errors.RangeError, match="bounds"):
            kernels.quantize_table(x, scale, np.array(wrong, np.float32), group=6)
    for shape in ((3, 3), (1, 0), (1, 256)):
        with pytest.raises(errors.ShapeError, match="bounds"):
            kernels.quantize_table(x, scale, np.zeros(shape, np.float32), group=6)
    with pytest.raises(errors.ShapeError):
        kernels.quantize_table(x, scale, bounds, group=5)
