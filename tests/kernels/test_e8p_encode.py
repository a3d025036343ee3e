from __future__ import annotations

import numpy as np
import pytest
from tests.oracles.case import Case
from tests.oracles.e8p_decode import table
from tests.oracles.e8p_encode import bound, case, cases, distances

from subbyte import kernels
from subbyte.errors import NotFiniteError, RangeError, ShapeError

paths = pytest.mark.parametrize("path", kernels.paths())


@paths
@pytest.mark.parametrize("case", cases(), ids=str)
def test_no_codeword_is_nearer_beyond_rounding(case: Case, path: str) -> None:
    with kernels.forced(path):
        codes = kernels.e8p_encode(*case.args)
    assert codes.dtype == np.uint16
    assert codes.shape == (len(case.args[0]), case.args[0].shape[1] // 8)
    found = distances(*case.args)
    chosen = np.take_along_axis(found, codes.reshape(-1, 1).astype(np.int64), 1)[:, 0]
    assert (chosen <= found.min(1) + bound(*case.args)).all()


@paths
def test_every_value_keeps_its_code(path: str) -> None:
    step = 37 if path == "scalar" else 1
    values = table()[::step].astype(np.float32)
    with kernels.forced(path):
        codes = kernels.e8p_encode(values)
    np.testing.assert_array_equal(codes[:, 0], np.arange(0, 65536, step))


@paths
def test_neither_threads_nor_path_change_anything(path: str) -> None:
    x = np.round(4 * case(30, 400).args[0]) / 4  # full of ties
    with kernels.forced("scalar", 1):
        expected = kernels.e8p_encode(x)
    for threads in (1, 2, 5):
        with kernels.forced(path, threads):
            np.testing.assert_array_equal(kernels.e8p_encode(x), expected)


def test_the_error_is_that_of_the_paper() -> None:
    """Normal weights at the paper's scale of 1.03: 0.0915 a weight."""
    x = np.random.default_rng(1).standard_normal((2000, 64)).astype(np.float32)
    back = kernels.e8p_decode(kernels.e8p_encode(x * np.float32(1.03))) / 1.03
    assert abs(np.square(back - x).mean() - 0.0915) < 0.001


def test_a_second_stage_lowers_the_error_ninefold() -> None:
    """E8P12RVQ4B: what remains, times 3.45, is encoded again."""
    x = 1.03 * np.random.default_rng(2).standard_normal((500, 64)).astype(np.float32)
    rest = x - kernels.e8p_decode(kernels.e8p_encode(x))
    again = rest - kernels.e8p_decode(kernels.e8p_encode(rest * np.float32(3.45))) / np.float32(3.45)
    assert 8 < np.square(rest).mean() / np.square(again).mean() < 10.5


def test_zeros_and_huge_numbers() -> None:
    x = np.array([[0.0] * 8, [-0.0] * 8, [1e18] * 8, [-1e18] * 8], np.float32)
    codes = kernels.e8p_encode(x)[:, 0]
    values = table()[codes]
    assert codes[0] == codes[1]
    assert np.square(values[0]).sum() == np.square(table()).sum(1).min()
    # f32 tells no codewords apart from so far but by the largest sum of half-integers, 8
    assert values[2].sum() >= 6
    assert values[3].sum() <= -6


def test_wrong_calls_are_refused() -> None:
    x = np.ones((2, 16), np.float32)
    with pytest.raises(ShapeError, match="12 columns"):
        kernels.e8p_encode(x[:, :12].copy())
    for bad in (np.nan, np.inf, -np.inf):
        x[1, 3] = bad
        with pytest.raises(NotFiniteError):
            kernels.e8p_encode(x)
    x[1, 3] = 2e18
    with pytest.raises(RangeError):
        kernels.e8p_encode(x)
