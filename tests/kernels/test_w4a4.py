from __future__ import annotations

import numpy as np
import pytest
from tests.oracles.case import Case
from tests.oracles.w4a4 import case, cases, numbers

from subbyte import kernels
from subbyte.errors import DtypeError, RangeError, ShapeError

paths = pytest.mark.parametrize("path", kernels.paths())


@paths
@pytest.mark.parametrize("case", cases(), ids=str)
def test_agrees_with_the_oracle(case: Case, path: str) -> None:
    with kernels.forced(path):
        case.check(kernels.w4a4(*case.args, **case.kwargs))


@paths
@pytest.mark.parametrize("group", [32, 64, 128, 256, 512])
def test_sums_of_groups_are_exact(group: int, path: str) -> None:
    """-8 by -8 all along, one group at a time beside scales of zero on either side: each meets its own two scales."""
    depth = 1024
    words, scale = np.zeros((1, depth // 8), np.int32), np.zeros((7, depth // group), np.float32)
    for at in range(depth // group):
        x_scale, w_scale = scale.copy(), scale[:3].copy() + 5
        x_scale[:, at] = np.arange(7) + 1
        w_scale[:, at] = 0.5
        with kernels.forced(path):
            got = kernels.w4a4(words.repeat(7, 0), words.repeat(3, 0), x_scale, w_scale, group)
        np.testing.assert_array_equal(got, np.repeat(32 * group * x_scale[:, at : at + 1], 3, axis=1))


@paths
def test_one_group_is_w8a8(path: str) -> None:
    """Any sum below 2^17 columns fits, and the bits are those of the same numbers as bytes."""
    given = case(5, 3, 2**17 - 8, biased=True)
    x, w = (np.array(numbers(words), np.int8) for words in given.args[:2])
    scales = [scale[:, 0].copy() for scale in given.args[2:]]
    with kernels.forced(path):
        got = kernels.w4a4(*given.args, **given.kwargs)
        assert np.array_equal(got, kernels.w8a8(x, w, *scales, given.kwargs["bias"]))


def test_takes_what_quantize_symmetric_and_pack_make() -> None:
    x = np.random.default_rng(1).standard_normal((4, 64)).astype(np.float32)
    scale = abs(x).reshape(4, 2, 32).max(2) / 7
    codes = kernels.quantize_symmetric(x, scale, bits=4, group=32)
    wide = codes.astype(np.float32) * np.repeat(scale, 32, axis=1)
    words = kernels.pack((codes + 8).astype(np.uint8), bits=4)
    np.testing.assert_allclose(kernels.w4a4(words, words, scale, scale, 32), wide @ wide.T, rtol=1e-5, atol=1e-5)


@paths
def test_does_not_depend_on_the_threads(path: str) -> None:
    one, results = case(14, 200, 256, 64, 40, biased=True), []
    for threads in (1, 2, 5):
        with kernels.forced(path, threads):
            results.append(kernels.w4a4(*one.args, **one.kwargs))
    assert all(np.array_equal(result, results[0]) for result in results)


def test_what_is_refused() -> None:
    given = case(4, 3, 64, 32, 5, biased=True)
    x, words, x_scale, w_scale = given.args
    for change in (
        {"words": words[:, :7].copy()},
        {"x_scale": x_scale[:3]},
        {"w_scale": w_scale[:, :1].copy()},
        {"group": 48},
        {"x_outliers": given.kwargs["x_outliers"][:, :4].copy()},
        {"w_outliers": given.kwargs["w_outliers"][:2]},
        {"x_outlier_scale": np.ones(1, np.float32)},
        {"w_outlier_scale": np.ones(4, np.float32)},
        {"w_outliers": None},
        {"x_outlier_scale": None, "w_outlier_scale": None},
        {"bias": given.kwargs["bias"][:2]},
    ):
        call = {"x": x, "words": words, "x_scale": x_scale, "w_scale": w_scale, **given.kwargs}
        with pytest.raises(ShapeError):
            kernels.w4a4(**{**call, **change})
    with pytest.raises(DtypeError, match="x_outliers"):
        kernels.w4a4(*given.args, **{**given.kwargs, "x_outliers": x_scale})
    one = np.ones((1, 1), np.float32)
    with pytest.raises(RangeError):
        kernels.w4a4(np.zeros((1, 2**14), np.int32), np.zeros((1, 2**14), np.int32), one, one)
    long = np.zeros((1, 2**17), np.int8)
    with pytest.raises(RangeError):
        kernels.w4a4(np.zeros((1, 8), np.int32), np.zeros((1, 8), np.int32), one, one, -1, long, long, one[0], one[0])
