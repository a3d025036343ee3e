from __future__ import annotations

import numpy as np
import pytest
from tests.oracles import pack as packing
from tests.oracles.case import Case
from tests.oracles.unpack import cases

from subbyte import errors, kernels

every_path = pytest.mark.parametrize("path", kernels.paths())


@every_path
@pytest.mark.parametrize("case", cases(), ids=str)
def test_agrees_with_the_oracle(case: Case, path: str) -> None:
    with kernels.forced(path):
        case.check(kernels.unpack(*case.args, **case.kwargs))


@every_path
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("case", packing.cases(sizes=(256, 33, 20032), rows=60), ids=str)
def test_gives_back_what_was_packed(case: Case, path: str, threads: int) -> None:
    (codes,) = case.args
    with kernels.forced(path, threads):
        words = kernels.pack(codes, **case.kwargs)
        np.testing.assert_array_equal(kernels.unpack(words, cols=codes.shape[1], **case.kwargs), codes)


def test_wrong_calls_are_refused() -> None:
    words = np.zeros((2, 3), np.int32)
    for bits in (0, 9):
        with pytest.raises(errors.RangeError):
            kernels.unpack(words, bits, 8)
    for cols in (16, 25, 96):
        with pytest.raises(errors.ShapeError):
            kernels.unpack(words, 4, cols)
    with pytest.raises(errors.ShapeError):
        kernels.unpack(words, 4, 20, order="awq")
    with pytest.raises(errors.UnknownNameError):
        kernels.unpack(words, 4, 24, order="big")
