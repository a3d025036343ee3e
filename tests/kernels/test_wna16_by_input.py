from __future__ import annotations

import numpy as np
import pytest
from tests.oracles.case import Case
from tests.oracles.wna16_by_input import case, cases

from subbyte import kernels
from subbyte.errors import RangeError, ShapeError

paths = pytest.mark.parametrize("path", kernels.paths())


@paths
@pytest.mark.parametrize("case", cases(), ids=str)
def test_agrees_with_the_oracle(case: Case, path: str) -> None:
    with kernels.forced(path):
        case.check(kernels.wna16_by_input(*case.args, **case.kwargs))


@paths
@pytest.mark.parametrize("rows", [1, 8, 40])
def test_does_not_depend_on_the_threads(rows: int, path: str) -> None:
    one = case(rows, 300, 96, 3, 100, "u1", check=False)
    results = []
    for threads in (1, 2, 5):
        with kernels.forced(path, threads):
            results.append(kernels.wna16_by_input(*one.args, **one.kwargs))
    assert all(np.array_equal(result, results[0]) for result in results)


@paths
def test_not_finite_inputs_show(path: str) -> None:
    one = case(3, 4, 64, 4, 2, "")
    x = one.args[0].copy()
    x[1, 5] = np.nan
    with kernels.forced(path):
        got = kernels.wna16_by_input(x, *one.args[1:], **one.kwargs)
    assert np.isfinite(got[[0, 2]]).all()
    assert np.isnan(got[1]).all()


@pytest.mark.parametrize("rows", [1, 2])
def test_no_columns_give_zeros(rows: int) -> None:
    x, words, scale = np.zeros((rows, 0), np.float32), np.zeros((3, 0), np.int32), np.zeros((1, 0), np.float32)
    assert np.array_equal(kernels.wna16_by_input(x, words, scale, None, bits=4), np.zeros((rows, 3), np.float32))


def test_what_does_not_fit_is_refused() -> None:
    one = case(2, 6, 32, 4, 3, "u1")
    x, words, scale, zero = one.args
    with pytest.raises(RangeError, match="bits"):
        kernels.wna16_by_input(x, words, scale, zero, bits=9, group=3)
    for args in [(x, words[:, :3].copy(), scale, zero), (x, words, scale[:1], zero), (x, words, scale, zero[:1])]:
        with pytest.raises(ShapeError):
            kernels.wna16_by_input(*args, bits=4, group=3)
    with pytest.raises(ShapeError, match="group"):
        kernels.wna16_by_input(*one.args, bits=4, group=4)
