from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from tests.oracles.case import Case
from tests.oracles.fp8_grouped import case, cases

from subbyte import kernels
from subbyte.errors import RangeError, ShapeError, UnknownNameError

paths = pytest.mark.parametrize("path", kernels.paths())


@paths
@pytest.mark.parametrize("case", cases(), ids=str)
def test_agrees_with_the_oracle(case: Case, path: str) -> None:
    with kernels.forced(path):
        case.check(kernels.fp8_grouped(*case.args, **case.kwargs))


@paths
def test_gives_the_bits_of_each_expert_alone(path: str) -> None:
    one = case((3, 0, 1, 20), 150, 300, (1, 128), (128, 128), biased=True)
    (x, weight, x_scale, w_scale, offsets), bias = one.args, one.kwargs["bias"]
    with kernels.forced(path):
        got = kernels.fp8_grouped(*one.args, **one.kwargs)
        for e, (first, last) in enumerate(pairwise(offsets)):
            of_rows = x[first:last].copy(), weight[e], x_scale[first:last].copy(), w_scale[e]
            np.testing.assert_array_equal(got[first:last], kernels.fp8(*of_rows, bias=bias[e]))


def test_scales_follow_the_rows_of_x() -> None:
    """Blocks of 128 rows of x share a scale, wherever a row goes."""
    scales = np.float32([[1.0], [4.0], [16.0]])
    x, weight = np.full((300, 1), 0x38, np.uint8), np.full((2, 1, 1), 0x38, np.uint8)  # ones
    rows = np.int32([299, 0, 130, 127, 128])
    got = kernels.fp8_grouped(x, weight, scales, np.ones((2, 1, 1), np.float32), np.int32([0, 2, 5]), rows=rows)
    assert got[:, 0].tolist() == [16.0, 1.0, 4.0, 1.0, 4.0]


@paths
def test_does_not_depend_on_the_threads(path: str) -> None:
    one = case((1, 8, 40), 150, 300, (1, 128), (128, 128), tokens=7, check=False)
    results = []
    for threads in (1, 2, 5):
        with kernels.forced(path, threads):
            results.append(kernels.fp8_grouped(*one.args, **one.kwargs))
    assert all(np.array_equal(result, results[0]) for result in results)


def test_what_is_refused() -> None:
    one = case((2, 1, 3), 6, 260, (1, 128), (1, 0), biased=True)
    (x, weight, x_scale, w_scale, offsets), bias = one.args, one.kwargs["bias"]
    for wrong, says in (
        ([0, 3, 2, 6], "before it starts"),
        ([1, 2, 3, 6], "from 0 to 6"),
        ([0, 2, 3, 5], "from 0 to 6"),
    ):
        with pytest.raises(RangeError, match=says):
            kernels.fp8_grouped(x, weight, x_scale, w_scale, np.int32(wrong))
    for number in (-1, 6):
        rows = np.int32([0, 1, 2, 3, 4, number])
        with pytest.raises(RangeError, match=f"rows: given {number}"):
            kernels.fp8_grouped(x, weight, x_scale, w_scale, offsets, rows=rows)
    for args in (
        (x, weight[:, :, :259].copy(), x_scale, w_scale, offsets),
        (x, weight, x_scale[:3].copy(), w_scale, offsets),
        (x, weight, x_scale, w_scale[:, :5].copy(), offsets),
        (x, weight, x_scale, w_scale[:2].copy(), offsets),
        (x, weight, x_scale, w_scale, offsets[:3].copy()),
        (x, weight[0].copy(), x_scale, w_scale, offsets),
    ):
        with pytest.raises(ShapeError):
            kernels.fp8_grouped(*args)
    with pytest.raises(ShapeError, match="bias"):
        kernels.fp8_grouped(*one.args, bias=bias[:2].copy())
    with pytest.raises(UnknownNameError, match="e4m3fn"):
        kernels.fp8_grouped(*one.args, "e3m4")
