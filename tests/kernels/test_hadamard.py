from __future__ import annotations

import numpy as np
import pytest
from tests.oracles.case import Case
from tests.oracles.hadamard import PALEY, WILLIAMSON, cases, halves, hartley, matrix, mixed

from subbyte import errors, kernels

every_path = pytest.mark.parametrize("path", kernels.paths())


@every_path
@pytest.mark.parametrize("case", [*cases(), *mixed(), *hartley(), *halves()], ids=str)
def test_agrees_with_the_oracle(case: Case, path: str) -> None:
    with kernels.forced(path):
        case.check(kernels.hadamard(*case.args, **case.kwargs))


@every_path
@pytest.mark.parametrize("log", range(15))
def test_is_its_own_inverse_and_every_path_gives_the_same_bits(log: int, path: str) -> None:
    x = np.random.default_rng(log).standard_normal((11, 1 << log)).astype(np.float32)
    with kernels.forced("scalar", 1):
        alone = kernels.hadamard(x)
    for threads in (1, 2, 5):
        with kernels.forced(path, threads):
            np.testing.assert_array_equal(kernels.hadamard(x), alone)
            # two transforms of log additions, with at most sqrt(n) times the length of a row between them
            np.testing.assert_allclose(kernels.hadamard(kernels.hadamard(x)), x, rtol=0, atol=2e-6 * (log + 2))


@every_path
def test_integers_are_exact_and_lengths_are_kept(path: str) -> None:
    x = np.random.default_rng(0).integers(-8, 8, (5, 4096)).astype(np.float32)
    with kernels.forced(path):
        got = kernels.hadamard(x, scale=1.0)
    assert (got[:, 0] == x.sum(1)).all()
    assert ((got.astype(np.float64) ** 2).sum(1) == 4096 * (x.astype(np.float64) ** 2).sum(1)).all()


def test_bfloat16_is_rounded_once() -> None:
    torch = pytest.importorskip("torch")
    x = torch.randn(3, 5, 96, dtype=torch.bfloat16, generator=torch.Generator().manual_seed(0))
    got = kernels.hadamard(x)
    assert got.dtype == torch.bfloat16
    assert torch.equal(got, kernels.hadamard(x.float()).bfloat16())


@every_path
def test_nan_and_infinity_spread_over_their_row(path: str) -> None:
    x = np.ones((3, 256), np.float32)
    x[0, 100], x[2, 7] = np.nan, np.inf
    with kernels.forced(path):
        got = kernels.hadamard(x)
    assert np.isnan(got[0]).all()
    assert np.isfinite(got[1]).all()
    assert np.isinf(got[2]).all()


def transformed(n: int, path: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Three rows of n numbers, what becomes of them, the scalar path's bits, and what becomes of a single 1 [1, n]."""
    x = np.random.default_rng(n).standard_normal((3, n)).astype(np.float32)
    one = np.zeros((1, n), np.float32)
    one[0, n // 3] = 1
    with kernels.forced(path, 2):
        turned, spread = kernels.hadamard(x), kernels.hadamard(one)
    with kernels.forced("scalar", 1):
        np.testing.assert_array_equal(kernels.hadamard(x), turned)
    return x, turned, spread


@every_path
@pytest.mark.parametrize("n", [*WILLIAMSON, *PALEY, 688, 1536, 11008])
def test_a_transform_with_an_outer_matrix_is_orthonormal_and_its_transpose_the_inverse(n: int, path: str) -> None:
    """QuIP#'s sheet: H H^T = K I, and a single entry spreads evenly."""
    x, turned, spread = transformed(n, path)
    with kernels.forced(path, 2):
        np.testing.assert_allclose(kernels.hadamard(turned, transpose=True), x, rtol=0, atol=1e-5)
    np.testing.assert_allclose(np.abs(spread), n**-0.5, rtol=1e-5)
    if n < 256:
        assert (matrix(n) @ matrix(n).T == n * np.eye(n)).all()
        np.testing.assert_array_equal(kernels.hadamard(np.eye(n, dtype=np.float32), scale=1.0), matrix(n).T)


@every_path
@pytest.mark.parametrize("n", [3, 5, 14, 92, 188, 260, 1001, 13696])
def test_without_a_hadamard_matrix_hartleys_is_orthonormal_and_its_own_inverse(n: int, path: str) -> None:
    """QuaRot's sheet: R_m by H_2^t, with entries of at most sqrt(2 / n)."""
    x, turned, spread = transformed(n, path)
    with kernels.forced(path, 2):
        for transpose in (False, True):
            np.testing.assert_allclose(kernels.hadamard(turned, transpose=transpose), x, rtol=0, atol=1e-5)
    assert np.abs(spread).max() <= (2 / n) ** 0.5 * (1 + 1e-5)
    np.testing.assert_allclose(np.square(spread).sum(), 1, rtol=1e-5)
    np.testing.assert_allclose(np.square(turned).sum(1), np.square(x).sum(1), rtol=1e-5)
    if n < 512:
        dense = kernels.hadamard(np.eye(n, dtype=np.float32)).astype(np.float64)
        assert np.abs(dense @ dense.T - np.eye(n)).max() < 1e-5
        np.testing.assert_allclose(dense, dense.T, rtol=0, atol=1e-6)


@pytest.mark.parametrize("n", [4099, 2 * 4099, 0])
def test_other_lengths_are_refused(n: int) -> None:
    with pytest.raises(errors.RangeError, match="odd part of at most 4096"):
        kernels.hadamard(np.zeros((2, n), np.float32))
