from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from tests.oracles.case import Case
from tests.oracles.decode_minifloat import cases

from subbyte import errors, kernels

every_path = pytest.mark.parametrize("path", kernels.paths())


@every_path
@pytest.mark.parametrize("case", cases(), ids=str)
def test_agrees_with_the_oracle(case: Case, path: str) -> None:
    with kernels.forced(path):
        case.check(kernels.decode_minifloat(*case.args, **case.kwargs))


@every_path
@pytest.mark.parametrize(
    ("format", "peer"),
    [
        ("e4m3fn", ml_dtypes.float8_e4m3fn),
        ("e5m2", ml_dtypes.float8_e5m2),
        ("bf16", ml_dtypes.bfloat16),
        ("f16", np.float16),
    ],
)
def test_agrees_with_ml_dtypes(format: str, peer: type, path: str) -> None:
    dtype = np.uint8 if format.startswith("e") else np.uint16
    codes = np.arange(np.iinfo(dtype).max + 1).astype(dtype)
    with kernels.forced(path):
        got = kernels.decode_minifloat(codes, format)
    expected = codes.view(peer).astype(np.float32)
    np.testing.assert_array_equal(got, expected)
    numbers = ~np.isnan(expected)
    np.testing.assert_array_equal(np.signbit(got[numbers]), np.signbit(expected[numbers]))


def test_wrong_calls_are_refused() -> None:
    with pytest.raises(errors.UnknownNameError):
        kernels.decode_minifloat(np.zeros(3, np.uint8), "e3m4")
    with pytest.raises(errors.DtypeError):
        kernels.decode_minifloat(np.zeros(3, np.uint8), "bf16")
    with pytest.raises(errors.DtypeError):
        kernels.decode_minifloat(np.zeros(3, np.uint16), "e4m3fn")
