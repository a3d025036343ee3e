from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tests.oracles.bilevel import case, cases
from tests.oracles.case import Case
from tests.oracles.gptq import problem

from subbyte import kernels
from subbyte.errors import NotFiniteError, RangeError, ShapeError, UnknownNameError

paths = pytest.mark.parametrize("path", kernels.paths())
WEIGHT, FACTOR = problem(32, 48, 9)
OPTIONS: dict[str, Any] = {"bits": 3, "group": 16, "threshold": 0.1}


@paths
@pytest.mark.parametrize("case", cases(), ids=str)
def test_agrees_with_the_oracle(case: Case, path: str) -> None:
    with kernels.forced(path):
        case.check(kernels.bilevel(*case.args, **case.kwargs))


@paths
def test_does_not_depend_on_the_threads(path: str) -> None:
    weight, factor = problem(400, 48, 10)
    results = []
    for threads in (1, 2, 5):
        with kernels.forced(path, threads):
            results.append(kernels.bilevel(weight, factor, **OPTIONS))
    for result in results[1:]:
        for one, other in zip(result, results[0], strict=True):
            np.testing.assert_array_equal(one, other)


def test_outliers_are_what_the_cases_claim() -> None:
    assert all(case.oracle(*case.args, **case.kwargs)[7].any() for case in cases() if "outliers" in case.id)


@paths
def test_the_values_are_those_of_the_second_level(path: str) -> None:
    with kernels.forced(path):
        _, scale, zero, scale_codes, zero_codes, scale_grid, zero_grid, *_ = kernels.bilevel(WEIGHT, FACTOR, **OPTIONS)
    for values, codes, grid in ((scale, scale_codes, scale_grid), (zero, zero_codes, zero_grid)):
        assert codes.max() == 7
        lines = np.repeat(grid, 16, axis=0)
        np.testing.assert_array_equal(values, lines[..., 0] * (codes.astype(np.float32) - lines[..., 1]))
        np.testing.assert_array_equal(grid, grid.astype(np.float16))


@paths
def test_the_error_of_what_is_kept_apart_is_not_fed_back(path: str) -> None:
    """tr(E H E^T) is the sum of squared errors, with the compensated weight at the outliers (their errors are 0)."""
    with kernels.forced(path):
        codes, scale, zero, *_, mask, weight, loss = kernels.bilevel(WEIGHT, FACTOR, **OPTIONS)
    group = np.arange(48) // 16
    decoded = scale[:, group] * (codes - zero[:, group])
    decoded = np.where(mask != 0, weight, decoded).astype(np.float64)
    hessian = np.linalg.inv(FACTOR.astype(np.float64).T @ FACTOR)
    missed = WEIGHT - decoded
    np.testing.assert_allclose(np.einsum("oi,ij,oj->o", missed, hessian, missed) / 2, loss, rtol=1e-4)
    errors = (weight - scale[:, group] * (codes - zero[:, group])) / np.diag(FACTOR)
    assert (np.square(errors[mask == 0]) <= 0.1 * (1 + 1e-5)).all()
    assert 0 < mask.sum() < mask.size / 4


@paths
def test_a_single_spike_is_left_out_of_its_grid(path: str) -> None:
    weight = 3 * np.random.default_rng(1).standard_normal((16, 16)).astype(np.float32)
    weight[5, 7] = 300
    with kernels.forced(path):
        found = kernels.bilevel(weight, None, 3, 16, threshold=60.0, scale_bits=0, zero_bits=0)
        simple = kernels.bilevel(weight, None, 3, 16, threshold=60.0, scale_bits=0, zero_bits=0, simplified=True)
    assert np.argwhere(found[7]).tolist() == [[5, 7]]
    assert found[1][5, 0] < 3 < 30 < simple[1][5, 0]


@paths
def test_equal_values(path: str) -> None:
    """A group of equal weights has the range -1 to 1; a run of equal scales is held as it is."""
    weight = np.full((16, 32), 0.25, np.float32)
    with kernels.forced(path):
        codes, scale, zero, *_ = kernels.bilevel(weight, None, 3, 16)
        nothing = kernels.bilevel(np.zeros((16, 32), np.float32), None, 4, 16, zero_bits=4)
    np.testing.assert_allclose(scale, 2 / 7, rtol=2**-11)
    np.testing.assert_allclose(zero, 3.5, rtol=2**-11)
    assert (codes == 4).all()
    assert np.abs(nothing[1] * (nothing[0][:, ::16] - nothing[2])).max() < 0.07  # half a step of that range


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"bits": 0}, RangeError),
        ({"scale_bits": 9}, RangeError),
        ({"zero_bits": -1}, RangeError),
        ({"threshold": -0.1}, RangeError),
        ({"threshold": float("nan")}, RangeError),
        ({"block": 0}, RangeError),
        ({"run": 5}, ShapeError),
        ({"run": 0}, ShapeError),
        ({"group": 7}, ShapeError),
        ({"mask": np.zeros((32, 47), np.uint8)}, ShapeError),
        ({"factor": np.eye(47, dtype=np.float32)}, ShapeError),
        ({"factor": -np.eye(48, dtype=np.float32)}, RangeError),
        ({"factor": np.full((48, 48), np.nan, np.float32)}, NotFiniteError),
        ({"weight": np.full((32, 48), np.inf, np.float32)}, NotFiniteError),
        ({"scale_dtype": "f8"}, UnknownNameError),
    ],
)
def test_wrong_calls_are_refused(change: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        kernels.bilevel(**{"weight": WEIGHT, "factor": FACTOR, **OPTIONS, **change})


def test_an_empty_weight() -> None:
    found = kernels.bilevel(np.zeros((0, 16), np.float32), None, 3, 16)
    assert [array.shape[0] for array in found] == [0] * 10
    assert case("one", 2, 2, bits=2, group=2, run=2).args[0].shape == (2, 2)
