"""The kernel-level checks of VPTQ: what must hold exactly, and what the paper promises."""

from __future__ import annotations

import numpy as np
import pytest
from tests.oracles.case import Case
from tests.oracles.gptq import problem
from tests.oracles.gptq_codebook import cases
from tests.oracles.inverse_factor import correlated

from subbyte import kernels
from subbyte.errors import NotFiniteError, RangeError, ShapeError

paths = pytest.mark.parametrize("path", kernels.paths())


def books(dim: int, count: int, residual: int = 0, groups: int = 1) -> list[np.ndarray]:
    random = np.random.default_rng(dim)
    found = [(scale, k) for scale, k in ((1, count), (0.3, residual)) if k]
    return [np.float32(scale) * random.standard_normal((groups, k, dim)).astype(np.float32) for scale, k in found]


def values(codes: np.ndarray, rows: int, codebook: np.ndarray, residual: np.ndarray | None = None) -> np.ndarray:
    """What the codes of one group stand for: [rows, C] f64."""
    low = (codebook.shape[1] - 1).bit_length()
    found = codebook[0][codes & ((1 << low) - 1)].astype(np.float64)
    if residual is not None:
        found = found + residual[0][codes >> low]
    return found.transpose(0, 2, 1).reshape(-1, codes.shape[1])[:rows]


@paths
@pytest.mark.parametrize("case", cases(), ids=str)
def test_agrees_with_the_oracle(case: Case, path: str) -> None:
    with kernels.forced(path):
        got = kernels.gptq_codebook(*case.args, **case.kwargs)
    np.testing.assert_array_equal(got[0], case.oracle(*case.args, **case.kwargs)[0])
    case.check(got)


@paths
@pytest.mark.parametrize("residual", [0, 16])
def test_threads_change_nothing_and_blocks_no_code(residual: int, path: str) -> None:
    weight, factor = problem(300, 160, 1)
    stages = books(6, 32, residual, groups=2)
    with kernels.forced(path, 1):
        codes, compensated, loss = kernels.gptq_codebook(weight, factor, *stages)
    for threads in (2, 5):
        with kernels.forced(path, threads):
            again = kernels.gptq_codebook(weight, factor, *stages)
        for one, other in zip(again, (codes, compensated, loss), strict=True):
            np.testing.assert_array_equal(one, other)
    for block in (1, 16, 160):
        with kernels.forced(path):
            got = kernels.gptq_codebook(weight, factor, *stages, block=block)
        # f32 may fall on the other side of a tie, and what follows in that strip with it
        assert (got[0] == codes).all(1).mean() > 0.97


@paths
@pytest.mark.parametrize("dim", [1, 4, 6, 8])
def test_a_diagonal_hessian_gives_the_nearest(dim: int, path: str) -> None:
    random = np.random.default_rng(2)
    weight = random.standard_normal((48, 40), np.float32)
    (codebook,) = books(dim, 32)
    factor = np.diag(random.uniform(0.1, 9, 40)).astype(np.float32)
    with kernels.forced(path):
        codes, compensated, _ = kernels.gptq_codebook(weight, factor, codebook)
        points = np.ascontiguousarray(weight.reshape(-1, dim, 40).transpose(0, 2, 1).reshape(-1, dim))
        index, _ = kernels.nearest_codeword(points, codebook[0])
    np.testing.assert_array_equal(codes, index.reshape(-1, 40))
    np.testing.assert_array_equal(compensated, weight)


@paths
def test_the_loss_is_the_error_measured_by_the_hessian(path: str) -> None:
    weight, hessian = problem(66, 96, 3)[0], correlated(96, 3)
    with kernels.forced(path):
        factor = kernels.inverse_factor(hessian, 0.01)
        for stages in (books(6, 64), books(6, 64, 8)):
            codes, _, loss = kernels.gptq_codebook(weight, factor, *stages)
            error = weight - values(codes, 66, *stages)
            direct = np.einsum("ri,ij,rj->r", error, hessian + 0.01 * np.eye(96), error)
            np.testing.assert_allclose(direct, 2 * loss, rtol=1e-3)


@paths
def test_scaling_the_factor_changes_no_code(path: str) -> None:
    weight, factor = problem(64, 48, 4)
    (codebook,) = books(4, 64)
    with kernels.forced(path):
        codes = kernels.gptq_codebook(weight, factor, codebook)[0]
        np.testing.assert_array_equal(kernels.gptq_codebook(weight, factor * np.float32(4), codebook)[0], codes)


@paths
def test_codewords_that_hold_every_vector_are_exact(path: str) -> None:
    weight, factor = problem(12, 20, 5)
    codebook = np.ascontiguousarray(weight.reshape(3, 4, 20).transpose(0, 2, 1).reshape(1, 60, 4))
    with kernels.forced(path):
        codes, compensated, loss = kernels.gptq_codebook(weight, factor, codebook)
    np.testing.assert_array_equal(values(codes, 12, codebook), weight)
    np.testing.assert_array_equal(compensated, weight)
    assert not loss.any()


@pytest.mark.parametrize("bits", [2, 4])
def test_single_numbers_on_a_grid_give_the_codes_of_gptq(bits: int) -> None:
    weight, factor = problem(64, 72, 6)
    scale, zero = np.full((64, 1), 0.3, np.float32), np.full((64, 1), 1 << (bits - 1), np.uint8)
    grids = {"scale": scale, "zero": zero, "index": np.zeros(72, np.int32)}
    codes = kernels.gptq(weight, factor, bits, **grids)[0]
    grid = np.float32(0.3) * (np.arange(1 << bits, dtype=np.float32) - (1 << (bits - 1)))
    got = kernels.gptq_codebook(weight, factor, grid.reshape(1, -1, 1))[0]
    assert (got == codes).all(1).mean() > 0.95


@pytest.mark.parametrize("dim", [2, 6])
def test_feedback_and_a_residual_stage_lower_the_error(dim: int) -> None:
    """On every problem: error feedback against the nearest codewords, and two stages of which the second holds 0."""
    for seed in range(5):
        weight, hessian = problem(48, 64, seed)[0], correlated(64, seed)
        codebook, residual = books(dim, 64, 16)
        residual[0, 0] = 0
        found = []
        for factor in (np.eye(64, dtype=np.float32), kernels.inverse_factor(hessian, 0.01)):
            for stages in ([codebook], [codebook, residual]):
                error = weight - values(kernels.gptq_codebook(weight, factor, *stages)[0], 48, *stages)
                found.append(float(np.einsum("ri,ij,rj->", error, hessian, error)))
        nearest, nearest_two, fed, fed_two = found
        assert fed < nearest
        assert fed_two < nearest_two
        assert fed_two < fed
        assert nearest_two < nearest
        left = np.abs(weight[:, :1] - values(kernels.gptq_codebook(weight, factor, codebook)[0], 48, codebook)[:, :1])
        both = kernels.gptq_codebook(weight, factor, codebook, residual)[0]
        assert np.linalg.norm(weight[:, :1] - values(both, 48, codebook, residual)[:, :1]) <= np.linalg.norm(left)


def test_nothing_gives_nothing() -> None:
    codes, compensated, loss = kernels.gptq_codebook(
        np.zeros((0, 8), np.float32), np.eye(8, dtype=np.float32), *books(4, 8)
    )
    assert (codes.shape, compensated.shape, loss.shape) == ((0, 8), (0, 8), (0,))


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"block": 0}, RangeError),
        ({"block": -1}, RangeError),
        ({"codebook": np.ones((1, 0, 4), np.float32)}, RangeError),
        ({"codebook": np.ones((1, 4, 0), np.float32)}, RangeError),
        ({"factor": -np.eye(24, dtype=np.float32)}, RangeError),
        ({"codebook": np.full((1, 4, 4), np.nan, np.float32)}, NotFiniteError),
        ({"residual": np.full((1, 4, 4), np.inf, np.float32)}, NotFiniteError),
        ({"weight": np.full((8, 24), np.inf, np.float32)}, NotFiniteError),
        ({"factor": np.full((24, 24), np.nan, np.float32)}, NotFiniteError),
        ({"weight": np.full((8, 24), 3e38, np.float32)}, NotFiniteError),
        ({"factor": np.eye(23, dtype=np.float32)}, ShapeError),
        ({"codebook": np.ones((5, 4, 4), np.float32)}, ShapeError),
        ({"residual": np.ones((1, 4, 3), np.float32)}, ShapeError),
        ({"residual": np.ones((2, 4, 4), np.float32)}, ShapeError),
    ],
    ids=str,
)
def test_bad_input(change: dict[str, object], error: type[Exception]) -> None:
    weight, factor = problem(8, 24, 7)
    with pytest.raises(error):
        kernels.gptq_codebook(**({"weight": weight, "factor": factor, "codebook": books(4, 8)[0]} | change))
