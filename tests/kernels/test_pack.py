from __future__ import annotations

import numpy as np
import pytest
from tests.oracles.case import Case
from tests.oracles.pack import cases

from subbyte import errors, kernels

every_path = pytest.mark.parametrize("path", kernels.paths())


@every_path
@pytest.mark.parametrize("case", cases(), ids=str)
def test_agrees_with_the_oracle(case: Case, path: str) -> None:
    with kernels.forced(path):
        case.check(kernels.pack(*case.args, **case.kwargs))


@every_path
@pytest.mark.parametrize("threads", [1, 2, 5])
def test_threads_change_nothing(path: str, threads: int) -> None:
    for case in cases(sizes=(40000, 40003), rows=27, bits=(3, 4)):
        with kernels.forced("scalar", 1):
            alone = kernels.pack(*case.args, **case.kwargs)
        with kernels.forced(path, threads):
            np.testing.assert_array_equal(kernels.pack(*case.args, **case.kwargs), alone)


@every_path
@pytest.mark.parametrize("bits", range(1, 8))
def test_a_code_of_too_many_bits_is_named(path: str, bits: int) -> None:
    codes = np.zeros((3, 100), np.uint8)
    codes[2, 71] = 1 << bits
    with kernels.forced(path), pytest.raises(errors.RangeError, match=f"{1 << bits} in row 2, column 71"):
        kernels.pack(codes, bits)


def test_wrong_calls_are_refused() -> None:
    codes = np.zeros((2, 12), np.uint8)
    for bits in (0, 9):
        with pytest.raises(errors.RangeError):
            kernels.pack(codes, bits)
    with pytest.raises(errors.RangeError):
        kernels.pack(codes[:, :8].copy(), 3, order="awq")
    for order in ("awq", "planar"):
        with pytest.raises(errors.ShapeError):
            kernels.pack(codes, 4, order=order)
    with pytest.raises(errors.UnknownNameError):
        kernels.pack(codes, 4, order="big")
    with pytest.raises(errors.ShapeError):
        kernels.pack(codes[0], 4)


def test_straddling_codes_lie_as_the_formats_say() -> None:
    codes = np.zeros((1, 32), np.uint8)
    codes[0, 10] = codes[0, 21] = 0b111
    first, second, third = kernels.pack(codes, 3).view(np.uint32)[0].tolist()
    assert (first, second, third) == (0b11 << 30, 1 | 1 << 31, 0b11)
    assert kernels.pack(np.array([[0, 4, 1, 5, 2, 6, 3, 7]], np.uint8), 4, order="awq").tolist() == [[0x76543210]]
