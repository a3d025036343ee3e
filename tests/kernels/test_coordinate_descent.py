from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from tests.oracles.case import Case
from tests.oracles.coordinate_descent import cases, problem

from subbyte import kernels
from subbyte.errors import NotFiniteError, RangeError, ShapeError

paths = pytest.mark.parametrize("path", kernels.paths())


@paths
@pytest.mark.parametrize("case", cases(), ids=str)
def test_agrees_with_the_oracle(case: Case, path: str) -> None:
    with kernels.forced(path):
        case.check(kernels.coordinate_descent(*case.args, **case.kwargs))


@paths
def test_does_not_depend_on_the_threads(path: str) -> None:
    given = problem(300, 70, 5, 3, seed=1)
    results = []
    for threads in (1, 2, 5):
        with kernels.forced(path, threads):
            results.append(kernels.coordinate_descent(**given, bits=3, sweeps=4, block=32))
    for result in results[1:]:
        for one, other in zip(result, results[0], strict=True):
            np.testing.assert_array_equal(one, other)


@paths
def test_a_diagonal_hessian_gives_nearest(path: str) -> None:
    given = problem(9, 40, 1, 4, seed=2)
    given["hessian"] = np.diag(np.random.default_rng(0).uniform(0, 4, 40)).astype(np.float32)
    given["hessian"][3, 3] = 0  # a dead column too
    nearest = kernels.quantize_affine(given["weight"], given["scale"], given["zero"], 4)
    with kernels.forced(path):
        for sweeps in (1, 9):
            np.testing.assert_array_equal(kernels.coordinate_descent(**given, bits=4, sweeps=sweeps)[0], nearest)


@paths
def test_without_relaxed_sweeps_the_loss_never_rises_and_ends_where_no_code_lowers_it(path: str) -> None:
    given = problem(8, 24, 1, 3, seed=3)
    codes = kernels.quantize_affine(given["weight"], given["scale"], given["zero"], 3)
    start = kernels.dequantize_affine(codes, given["scale"], given["zero"])
    with kernels.forced(path):
        losses = [
            kernels.coordinate_descent(**given, bits=3, sweeps=n, relax=0, start=start)[1] for n in (1, 2, 3, 5, 40)
        ]
        final, _, values = kernels.coordinate_descent(**given, bits=3, sweeps=40, relax=0, start=start)
    np.testing.assert_array_equal(values, kernels.dequantize_affine(final, given["scale"], given["zero"]))
    for one, other in pairwise(losses):
        assert (other <= one * (1 + 1e-4)).all()
    form = given["hessian"].astype(np.float64)

    def error(codes: np.ndarray, row: int) -> float:
        missed = given["weight"][row] - given["scale"][row] * (codes.astype(float) - float(given["zero"][row, 0]))
        return float(missed @ form @ missed)

    for row in range(8):
        least = error(final[row], row)
        for j in range(24):
            for code in range(8):
                other = final[row].copy()
                other[j] = code
                assert error(other, row) >= least * (1 - 1e-5)


@paths
def test_sweeps_one_by_one_are_the_sweeps_together(path: str) -> None:
    given = problem(40, 24, 2, 3, seed=6)
    with kernels.forced(path):
        codes, loss, values = kernels.coordinate_descent(**given, bits=3, sweeps=9)
        now = given["weight"]
        for sweep in range(9):
            one = kernels.coordinate_descent(**given, bits=3, sweeps=9, start=now, only=sweep)
            now = one[2]
    # The kept gradient and the new one differ in their last bits, and so may a code at a tie.
    assert (one[0] != codes).mean() < 0.01
    np.testing.assert_allclose(one[1], loss, rtol=1e-3)
    np.testing.assert_array_equal(now != values, one[0] != codes)


def test_nothing_gives_nothing() -> None:
    none, index = np.zeros((0, 2), np.float32), np.zeros(3, np.int32)
    codes, loss, _ = kernels.coordinate_descent(
        np.zeros((0, 3), np.float32), np.eye(3, dtype=np.float32), none, none.astype(np.uint8), index, bits=4
    )
    assert codes.shape == (0, 3)
    assert loss.shape == (0,)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"bits": 9}, RangeError),
        ({"sweeps": 0}, RangeError),
        ({"block": 0}, RangeError),
        ({"relax": -1}, RangeError),
        ({"index": np.full(24, 2, np.int32)}, RangeError),
        ({"index": np.full(24, -1, np.int32)}, RangeError),
        ({"zero": np.full((8, 2), 8, np.uint8)}, RangeError),
        ({"scale": np.zeros((8, 2), np.float32)}, RangeError),
        ({"only": 30}, RangeError),
        ({"only": -1}, RangeError),
        ({"start": np.full((8, 24), np.nan, np.float32)}, NotFiniteError),
        ({"hessian": -np.eye(24, dtype=np.float32)}, RangeError),
        ({"hessian": np.full((24, 24), np.nan, np.float32)}, NotFiniteError),
        ({"weight": np.full((8, 24), np.inf, np.float32)}, NotFiniteError),
        ({"weight": np.full((8, 24), 3e38, np.float32)}, NotFiniteError),
        ({"index": np.zeros(23, np.int32)}, ShapeError),
        ({"hessian": np.eye(23, dtype=np.float32)}, ShapeError),
        ({"start": np.zeros((8, 23), np.float32)}, ShapeError),
    ],
)
def test_wrong_calls_are_refused(change: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        kernels.coordinate_descent(**{**problem(8, 24, 2, 3, seed=4), "bits": 3, **change})
