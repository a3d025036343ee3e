"""QuIP's other roundings (Chee et al., 2023), stochastic and with bounded feedback, by what `kernels.ldlq` is given."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from subbyte.errors import SingularError
from subbyte.solvers.base import Floats

__all__ = ["bounded", "dithered"]


def dithered(weight: Floats, uniform: NDArray[np.floating[Any]], moments: Floats) -> Floats:
    """The weight [O, I] to give LDLQ for one whose columns are rounded by floor(x + u), u = `uniform` [O, I], 0 to 1.

    LDLQ's own floor(x + 1/2) is to see u - 1/2 more in each column. What was added to later columns comes along as
    feedback, so what is added solves A L = u - 1/2, with `moments` [I, I] = L D L^T. Raises SingularError.
    """
    try:
        factor = np.linalg.cholesky(moments.astype(np.float64))
    except np.linalg.LinAlgError as error:
        raise SingularError("Hessian", "no positive definite matrix", "one", "raise damp") from error
    unit = factor / factor.diagonal()
    found: Floats = (weight + np.linalg.solve(unit.T, (uniform - 0.5).T).T).astype(np.float32)
    return np.ascontiguousarray(found)


def bounded(moments: Floats, rho: float = 0.1, iterations: int = 100) -> Floats:
    """A Hessian [I, I] to give LDLQ in the place of `moments`, whose feedback no column amplifies beyond a bound.

    LDLQ's errors are e (I + Z), e what each rounding misses, I + Z the inverse of the unit factor L. The cheapest Z,
    by tr((I + Z) H (I + Z)^T), is sought among those below the diagonal with columns of norm 1 at most, by `iterations`
    of ADMM with step `rho`, for an H with a mean diagonal of 1. The Hessian returned has this L, and D = I.
    """
    size = len(moments)
    below = np.tri(size, k=-1)
    curvature = 2 * moments.astype(np.float64)
    inverse = np.linalg.inv(curvature + rho * np.eye(size))
    found, dual = np.zeros((size, size)), np.zeros((size, size))
    for _ in range(iterations):
        free = (rho * (found - dual) - curvature) @ inverse
        found = (free + dual) * below
        found /= np.maximum(np.linalg.norm(found, axis=0), 1)
        dual += free - found
    factor = np.linalg.inv(np.eye(size) + found)
    given: Floats = (factor @ factor.T).astype(np.float32)
    return given
