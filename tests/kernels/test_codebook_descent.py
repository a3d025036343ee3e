"""What must hold exactly, and that the loss falls."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from tests.oracles.case import Case
from tests.oracles.codebook_descent import cases, problem, run

from subbyte import kernels
from subbyte.errors import NotFiniteError, RangeError, ShapeError

paths = pytest.mark.parametrize("path", kernels.paths())


def losses(given: dict[str, Any], codes: np.ndarray) -> np.ndarray:
    """Each row's loss in f64; what codes stand for is told by an oracle that cannot move."""
    form = given["hessian"].astype(np.float64)
    still = {**given, "codes": codes, "hessian": np.zeros_like(given["hessian"])}
    error = given["weight"] - run(**still, sweeps=1)[1]
    loss = np.einsum("ri,ij,rj->r", error, form, error)
    return loss if given["beside"] is None else loss + 2 * (error * given["beside"]).sum(1)


@paths
@pytest.mark.parametrize("case", cases(), ids=str)
def test_agrees_with_the_oracle(case: Case, path: str) -> None:
    with kernels.forced(path):
        case.check(kernels.codebook_descent(**case.kwargs))


@paths
@pytest.mark.parametrize("residual", [0, 16])
def test_threads_change_nothing_and_blocks_hardly_a_code(residual: int, path: str) -> None:
    given = problem(300, 160, 6, (32, residual), 2, 1)
    with kernels.forced(path, 1):
        codes = kernels.codebook_descent(**given, sweeps=2)
    for threads in (2, 5):
        with kernels.forced(path, threads):
            np.testing.assert_array_equal(kernels.codebook_descent(**given, sweeps=2), codes)
    for block in (1, 16, 160):
        with kernels.forced(path):
            got = kernels.codebook_descent(**given, sweeps=2, block=block)
        # f32 may fall on the other side of a tie, and what follows in that strip with it
        assert (got == codes).all(1).mean() > 0.94


@paths
@pytest.mark.parametrize(("dim", "residual", "beside"), [(2, 0, False), (6, 16, True), (4, 8, False)])
def test_no_sweep_raises_the_loss_and_an_end_is_one(dim: int, residual: int, beside: bool, path: str) -> None:
    given = problem(48, 40, dim, (16, residual), 1, 2, beside)
    found = [given["codes"]]
    with kernels.forced(path):
        found += [kernels.codebook_descent(**given, sweeps=sweeps) for sweeps in (1, 2, 4, 60)]
        again = kernels.codebook_descent(**{**given, "codes": found[-1]}, sweeps=3)
    each = [losses(given, codes).reshape(-1, dim).sum(1) for codes in found]  # a strip's rows share their codes
    for before, after in pairwise(each):
        assert (after <= before + 1e-4 * np.abs(each[0])).all()
    assert each[1].sum() < each[0].sum()
    np.testing.assert_array_equal(again, found[-1])


@paths
def test_one_sweep_of_a_diagonal_hessian_gives_the_nearest(path: str) -> None:
    given = problem(48, 20, 4, (32, 0), 1, 3)
    given["hessian"] = np.diag(np.random.default_rng(3).uniform(0.1, 9, 20)).astype(np.float32)
    points = np.ascontiguousarray(given["weight"].reshape(12, 4, 20).transpose(0, 2, 1).reshape(-1, 4))
    with kernels.forced(path):
        index, _ = kernels.nearest_codeword(points, given["codebook"][0])
        np.testing.assert_array_equal(kernels.codebook_descent(**given, sweeps=1), index.reshape(12, 20))


@paths
def test_single_numbers_on_a_grid_give_the_codes_of_coordinate_descent(path: str) -> None:
    given = problem(64, 40, 1, (16, 0), 1, 4)
    grid = np.float32(0.3) * (np.arange(16, dtype=np.float32) - 8)
    given["codebook"] = grid.reshape(1, 16, 1)
    scale, zero = np.full((64, 1), 0.3, np.float32), np.full((64, 1), 8, np.uint8)
    index, start = np.zeros(40, np.int32), grid[given["codes"]]
    with kernels.forced(path):
        options = {"bits": 4, "sweeps": 2, "relax": 0, "start": start}
        expected = kernels.coordinate_descent(given["weight"], given["hessian"], scale, zero, index, **options)[0]
        got = kernels.codebook_descent(**given, sweeps=2)
    read = given["hessian"].diagonal() > 0  # what nobody reads stays here, and is rounded to nearest there
    assert (got == expected)[:, read].all(1).mean() > 0.95


def test_a_nearly_flat_hessian_and_large_numbers_end_in_codes() -> None:
    given = problem(8, 24, 4, (16, 4), 1, 5)
    for change in (
        {"hessian": given["hessian"] * np.float32(1e-38)},
        {"weight": np.full((8, 24), 3e38, np.float32)},
        {"hessian": np.full((24, 24), 3e38, np.float32)},
    ):
        codes = kernels.codebook_descent(**{**given, **change})
        assert (codes & 15 < 16).all()
        assert ((codes >> 4 >= 0) & (codes >> 4 < 4)).all()


def test_nothing_gives_nothing() -> None:
    given = problem(4, 8, 4, (16, 0), 1, 6)
    empty = {"weight": np.zeros((0, 8), np.float32), "codes": np.zeros((0, 8), np.int32)}
    assert kernels.codebook_descent(**{**given, **empty}).shape == (0, 8)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"block": 0}, RangeError),
        ({"sweeps": 0}, RangeError),
        ({"sweeps": -1}, RangeError),
        ({"codebook": np.ones((1, 0, 4), np.float32)}, RangeError),
        ({"codebook": np.ones((1, 15, 4), np.float32)}, RangeError),
        ({"codes": np.full((2, 24), -1, np.int32)}, RangeError),
        ({"codes": np.full((2, 24), 1 << 6, np.int32)}, RangeError),
        ({"hessian": -np.eye(24, dtype=np.float32)}, RangeError),
        ({"codebook": np.full((1, 16, 4), np.nan, np.float32)}, NotFiniteError),
        ({"residual": np.full((1, 4, 4), np.inf, np.float32)}, NotFiniteError),
        ({"weight": np.full((8, 24), np.inf, np.float32)}, NotFiniteError),
        ({"beside": np.full((8, 24), np.nan, np.float32)}, NotFiniteError),
        ({"hessian": np.full((24, 24), np.nan, np.float32)}, NotFiniteError),
        ({"hessian": np.eye(23, dtype=np.float32)}, ShapeError),
        ({"codes": np.zeros((3, 24), np.int32)}, ShapeError),
        ({"beside": np.zeros((8, 23), np.float32)}, ShapeError),
        ({"codebook": np.ones((5, 16, 4), np.float32)}, ShapeError),
        ({"residual": np.ones((1, 4, 3), np.float32)}, ShapeError),
    ],
    ids=str,
)
def test_bad_input(change: dict[str, object], error: type[Exception]) -> None:
    given = problem(8, 24, 4, (16, 4), 1, 7)
    given["codes"][0] = 15
    with pytest.raises(error):
        kernels.codebook_descent(**{**given, **change})
