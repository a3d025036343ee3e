from __future__ import annotations

import numpy as np
import pytest
from tests.oracles.case import Case
from tests.oracles.w4a8 import case, cases, scaled

from subbyte import kernels
from subbyte.errors import DtypeError, RangeError, ShapeError

paths = pytest.mark.parametrize("path", kernels.paths())


@paths
@pytest.mark.parametrize("case", cases(), ids=str)
def test_agrees_with_the_oracle(case: Case, path: str) -> None:
    with kernels.forced(path):
        case.check(kernels.w4a8(*case.args, **case.kwargs))


@paths
def test_the_largest_sums(path: str) -> None:
    """Products of a whole block at the end of their range are summed in 16 bits, and every weight is -128 or 127."""
    one, depth = np.ones(1, np.float32), 2**17 - 64
    for x, code, level, zero in ((-128, 0, 16, 8), (127, 15, 127, 14), (-128, 15, 1, 0)):
        given = [np.full((2, depth), x, np.int8), np.full((3, depth // 8), code * 0x11111111, np.uint32).view(np.int32)]
        level, zero = (np.full((3, 1), each, np.uint8) for each in (level, zero))
        with kernels.forced(path):
            got = kernels.w4a8(*given, one, one, level, zero)
        weight = int(level[0, 0]) * (code - int(zero[0, 0]))
        assert (got == np.float32(x * weight * depth)).all()


@paths
@pytest.mark.parametrize("group", [32, 64, 128, 256, 512])
def test_sums_of_groups_are_exact(group: int, path: str) -> None:
    """Sums of a group up to the end of their range, one group of a row at a time beside scales of zero."""
    x, one = np.full((2, 1024), -128, np.int8), np.ones(1, np.float32)
    codes = np.zeros((3, 1024), np.uint8)
    codes[1], codes[2] = 15, np.arange(1024) % 16
    words, zero = kernels.pack(codes, bits=4), np.tile(np.uint8([[0], [0], [15]]), 1024 // group)
    for g in range(1024 // group):
        scale = np.zeros((3, 1024 // group), np.float32)
        scale[:, g] = 1
        with kernels.forced(path):
            got = kernels.w4a8(x, words, one, scale, None, zero, group)
        assert np.array_equal(got, np.tile(np.float32([0, -128 * 15 * group, 128 * 7.5 * group]), (2, 1)))


@paths
def test_zero_points_beyond_the_codes(path: str) -> None:
    given = case(2, 3, 128, 64)
    one, zero = np.ones(1, np.float32), np.full((3, 2), 100, np.uint8)
    with kernels.forced(path):
        got = kernels.w4a8(given.args[0], given.args[1], one, one, None, zero, 64)
        zeros = kernels.w4a8(given.args[0], given.args[1], one, one, None, zero - 100, 64)
    assert np.array_equal(got, zeros - 100 * given.args[0].astype(np.float32).sum(1, keepdims=True))


@paths
def test_scales_of_groups_in_steps_of_rows(path: str) -> None:
    """A row of the result has the same bits whatever stands beside it."""
    given = scaled(13, 5, 384, 32)
    x, words, x_scale, w_scale = given.args
    with kernels.forced(path):
        whole = kernels.w4a8(*given.args, **given.kwargs)
        for t in range(len(x)):
            one = kernels.w4a8(x[t : t + 1].copy(), words, x_scale[t : t + 1].copy(), w_scale, **given.kwargs)
            assert np.array_equal(one[0], whole[t])


@paths
def test_one_hot_inputs_read_single_weights(path: str) -> None:
    given = case(1, 5, 192, 64)
    codes = kernels.unpack(given.args[1], bits=4, cols=192).astype(int)
    level, zero = (np.repeat(given.kwargs[name].astype(int), 64, axis=1) for name in ("level", "zero"))
    one = np.ones(1, np.float32)
    with kernels.forced(path):
        got = kernels.w4a8(
            np.eye(192, dtype=np.int8), given.args[1], one, one, given.kwargs["level"], given.kwargs["zero"], 64
        )
    assert np.array_equal(got.T, level * (codes - zero))
    assert abs(got).max() <= 128


@paths
def test_is_w8a8_of_the_same_weights(path: str) -> None:
    given = case(9, 70, 256, 128)
    with kernels.forced(path):
        got = kernels.w4a8(*given.args, **given.kwargs)
        eye, one = np.eye(256, dtype=np.int8), np.ones(1, np.float32)
        weight = kernels.w4a8(eye, given.args[1], one, one, given.kwargs["level"], given.kwargs["zero"], 128).T
        weight = np.ascontiguousarray(weight).astype(np.int8)
        assert np.array_equal(got, kernels.w8a8(given.args[0], weight, *given.args[2:], given.kwargs["bias"]))


@paths
def test_does_not_depend_on_the_threads(path: str) -> None:
    one = case(14, 200, 128, 64)
    results = []
    for threads in (1, 2, 5):
        with kernels.forced(path, threads):
            results.append(kernels.w4a8(*one.args, **one.kwargs))
    assert all(np.array_equal(result, results[0]) for result in results)


@paths
def test_no_columns_give_the_bias(path: str) -> None:
    bias, one = np.array([1, -2, 3], np.float32), np.ones(1, np.float32)
    with kernels.forced(path):
        got = kernels.w4a8(np.zeros((2, 0), np.int8), np.zeros((3, 0), np.int32), one, one, bias=bias)
    assert np.array_equal(got, np.stack([bias, bias]))


def test_sums_that_could_overflow() -> None:
    one = np.ones(1, np.float32)
    with pytest.raises(RangeError):
        kernels.w4a8(np.zeros((1, 2**17), np.int8), np.zeros((1, 2**14), np.int32), one, one)


def test_what_does_not_fit() -> None:
    given = case(4, 3, 64, 32)
    x, words, x_scale, w_scale = given.args
    for args, options in [
        ((x, words[:, :7].copy(), x_scale, w_scale), {}),
        ((x, words, x_scale[:3], w_scale), {}),
        ((x, words, x_scale, w_scale[:2]), {}),
        (given.args, {"group": 48}),
        (given.args, {"level": given.kwargs["level"][:, :1].copy()}),
        (given.args, {"zero": given.kwargs["zero"][:2]}),
        (given.args, {"bias": given.kwargs["bias"][:2]}),
    ]:
        with pytest.raises(ShapeError):
            kernels.w4a8(*args, **{**given.kwargs, **options})
    scales = np.ones((3, 2), np.float32)
    for level, group in ((given.kwargs["level"], 32), (None, 16)):
        with pytest.raises(ShapeError, match="w_scale"):
            kernels.w4a8(x, words, x_scale, scales, level, None, group)
    with pytest.raises(DtypeError, match="level"):
        kernels.w4a8(*given.args, **{**given.kwargs, "level": given.kwargs["level"].astype(np.int8)})
