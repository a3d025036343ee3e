from __future__ import annotations

import numpy as np
import pytest
from tests.oracles.case import Case
from tests.oracles.inverse_factor import cases, correlated

from subbyte import kernels
from subbyte.errors import NotFiniteError, RangeError, SingularError

paths = pytest.mark.parametrize("path", kernels.paths())


@paths
@pytest.mark.parametrize("case", cases(), ids=str)
def test_agrees_with_the_oracle(case: Case, path: str) -> None:
    with kernels.forced(path):
        got = kernels.inverse_factor(*case.args)
    case.check(got)
    assert np.array_equal(got, np.triu(got))


def test_does_not_depend_on_the_threads() -> None:
    hessian = correlated(600, 1)
    factors = []
    for threads in (1, 2, 3, 8):
        with kernels.forced(threads=threads):
            factors.append(kernels.inverse_factor(hessian, 0.01))
    assert all(np.array_equal(factor, factors[0]) for factor in factors)


def test_inputs_with_huge_outlier_channels() -> None:
    """One channel a thousand times the others, one percent of damping: what real activations look like."""
    random = np.random.default_rng(2)
    x = random.standard_normal((600, 300)) @ (np.eye(300) + random.standard_normal((300, 300)) / 17)
    x[:, 7] *= 1000
    hessian = (x.T @ x).astype(np.float32)
    damp = 0.01 * float(np.trace(hessian)) / 300
    factor = kernels.inverse_factor(hessian, damp).astype(np.float64)
    damped = hessian.astype(np.float64) + damp * np.eye(300)
    np.testing.assert_allclose(factor @ damped @ factor.T, np.eye(300), atol=1e-3)


@paths
@pytest.mark.parametrize("columns", [2, 5, 200])
def test_singular(columns: int, path: str) -> None:
    hessian = np.ones((columns, columns), np.float32)
    with kernels.forced(path):
        with pytest.raises(SingularError, match="column"):
            kernels.inverse_factor(hessian, 0.0)
        kernels.inverse_factor(hessian, 0.1)
        with pytest.raises(SingularError):
            kernels.inverse_factor(-np.eye(columns, dtype=np.float32), 0.5)
        hessian[:] = 0
        with pytest.raises(SingularError):
            kernels.inverse_factor(hessian, 0.0)


def test_fewer_tokens_than_channels_are_singular_until_damped() -> None:
    hessian = correlated(64, 3, tokens=20)
    with pytest.raises(SingularError):
        kernels.inverse_factor(hessian, 0.0)
    kernels.inverse_factor(hessian, 0.01 * float(np.trace(hessian)) / 64)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_not_finite(bad: float) -> None:
    hessian = np.eye(4, dtype=np.float32)
    hessian[1, 2] = hessian[2, 1] = bad
    with pytest.raises(NotFiniteError, match="row 1, column 2"):
        kernels.inverse_factor(hessian, 0.1)


@pytest.mark.parametrize("damp", [-0.1, np.nan, np.inf])
def test_impossible_damping(damp: float) -> None:
    with pytest.raises(RangeError):
        kernels.inverse_factor(np.eye(4, dtype=np.float32), damp)
