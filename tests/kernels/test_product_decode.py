from __future__ import annotations

import numpy as np
import pytest
from tests.oracles.case import Case
from tests.oracles.product_decode import cases

from subbyte import kernels
from subbyte.errors import DtypeError, RangeError, ShapeError

paths = pytest.mark.parametrize("path", kernels.paths())


@paths
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("case", cases(), ids=str)
def test_agrees_with_the_oracle(case: Case, path: str, threads: int) -> None:
    with kernels.forced(path, threads):
        case.check(kernels.product_decode(*case.args))


def test_wrong_calls_are_refused() -> None:
    codebooks = np.ones((3, 4, 2), np.float32)
    with pytest.raises(RangeError, match="codes: given 4, expected codes below 4"):
        kernels.product_decode(np.array([[0, 4, 0]], np.uint8), codebooks)
    with pytest.raises(RangeError):
        kernels.product_decode(np.zeros((1, 3), np.uint8), codebooks[:, :0].copy())
    with pytest.raises(ShapeError):
        kernels.product_decode(np.zeros((1, 2), np.uint8), codebooks)
    with pytest.raises(DtypeError):
        kernels.product_decode(np.zeros((1, 3), np.uint16), codebooks)
