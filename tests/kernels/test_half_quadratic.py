"""half_quadratic beside the blog's sub-problems written plainly, and its sheet's checks 1 to 5 and 7."""

from __future__ import annotations

import numpy as np
import pytest
from tests.oracles.case import Case
from tests.oracles.half_quadratic import cases, shrink

from subbyte import kernels
from subbyte.errors import NotFiniteError, RangeError, ShapeError, UnknownNameError

paths = pytest.mark.parametrize("path", kernels.paths())
DRAW = np.random.default_rng(29)
WEIGHT = (DRAW.standard_normal((16, 256)) * 0.02).astype(np.float32)


def value(results: tuple[np.ndarray, ...], group: int) -> np.ndarray:
    codes, scale, zero, _ = results
    return kernels.dequantize_affine(codes, scale, zero, group=group)


@paths
@pytest.mark.parametrize("case", cases(), ids=str)
def test_agrees_with_the_oracle(case: Case, path: str) -> None:
    """Codes and scales to the bit; zero points are means of numbers below 2^b + |zero|, each a few roundings off."""
    with kernels.forced(path):
        codes, scale, zero, errors = kernels.half_quadratic(*case.args, **case.kwargs)
    expected = case.oracle(*case.args, **case.kwargs)
    np.testing.assert_array_equal(codes, expected[0])
    np.testing.assert_array_equal(scale, expected[1])
    largest = 2 ** case.kwargs["bits"] + float(np.abs(expected[2]).max())
    unit = 2.0**-10 if case.kwargs.get("scale_dtype") == "f16" else 2.0**-20
    np.testing.assert_allclose(zero, expected[2], rtol=0, atol=unit * largest)
    np.testing.assert_allclose(errors, expected[3], rtol=1e-4, atol=2.0**-20 * largest * float(scale.max()))


@paths
@pytest.mark.parametrize("threads", [1, 2, 5])
def test_every_path_and_thread_count_gives_the_same_bits(path: str, threads: int) -> None:
    weight = DRAW.standard_normal((40, 8192)).astype(np.float32)
    for group in (64, 32, 8192):
        with kernels.forced("scalar", 1):
            alone = kernels.half_quadratic(weight, 3, group=group, stop=False, steps=3)
        with kernels.forced(path, threads):
            found = kernels.half_quadratic(weight, 3, group=group, stop=False, steps=3)
        for one, other in zip(alone, found, strict=True):
            np.testing.assert_array_equal(one, other)


@paths
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_without_passes_it_is_nearest_with_a_float_zero(bits: int, path: str) -> None:
    """Check 1; the least step is far below these."""
    with kernels.forced(path):
        results = kernels.half_quadratic(WEIGHT, bits, group=64, steps=0)
    step = np.repeat(results[1], 64, axis=1)
    assert (step > 5.1e-5).all()
    assert (np.abs(value(results, 64) - WEIGHT) <= 0.5 * step * (1 + 1e-4)).all()


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_errors_fall_until_the_stop(bits: int) -> None:
    """Check 2, and that the least of them belongs to the codes that `best` keeps."""
    *_, errors = kernels.half_quadratic(WEIGHT, bits, group=64)
    run = errors[~np.isnan(errors)]
    assert (np.diff(run)[:-1] < 0).all()
    assert run.min() < run[0]
    kept = kernels.half_quadratic(WEIGHT, bits, group=64, best=True)
    assert np.abs(value(kept, 64) - WEIGHT).mean(dtype=np.float64) == pytest.approx(run.min(), rel=1e-5)


@pytest.mark.parametrize("p", [0.5, 0.7, 1.0])
def test_the_shrinkage_of_the_oracle(p: float) -> None:
    """Check 3: what the kernel is held against is odd, monotone, a contraction, 0 up to beta^(-1/(2-p))."""
    for beta in (1.0, 10.0):
        x = np.linspace(-4, 4, 801)
        y = np.array([shrink(float(v), p, beta) for v in x])
        edge = beta ** (-1 / (2 - p))
        np.testing.assert_allclose(y, -y[::-1], atol=1e-12)
        assert (np.abs(y) <= np.abs(x)).all()
        assert (np.diff(y) >= 0).all()
        assert ((y == 0) == (np.abs(x) <= edge)).all()
        assert p < 1 or np.allclose(y, np.sign(x) * np.maximum(np.abs(x) - 1 / beta, 0))
    assert shrink(0.3, p, 1e12) == pytest.approx(0.3)


def test_shifts_and_scalings_of_a_weight() -> None:
    """Check 4, with powers of two, which f32 follows exactly as long as nothing is shrunk."""
    weight = (DRAW.integers(-64, 65, (8, 64)) / 4096).astype(np.float32)
    codes, scale, zero, _ = kernels.half_quadratic(weight, 4, group=32)
    moved = kernels.half_quadratic(weight + np.float32(1 / 64), 4, group=32, steps=0)
    still = kernels.half_quadratic(weight, 4, group=32, steps=0)
    np.testing.assert_allclose(moved[2], still[2] - (1 / 64) / still[1], rtol=1e-4)
    assert (np.abs(moved[0].astype(int) - still[0]) <= 1).all()
    larger = kernels.half_quadratic(weight * 4, 4, group=32)
    np.testing.assert_array_equal(larger[0], codes)
    np.testing.assert_array_equal(larger[1], 4 * scale)
    np.testing.assert_array_equal(larger[2], zero)


@paths
@pytest.mark.parametrize("dtype", ["f32", "f16", "bf16"])
def test_flat_groups_keep_their_value(dtype: str, path: str) -> None:
    """Check 5: zeros are exact; a group of range up to 1e-4 is off by that, beside the rounding of its zero point."""
    weight = np.zeros((3, 32), np.float32)
    weight[1] = 0.25 + np.linspace(0, 5e-5, 32)
    weight[2, :] = -3
    with kernels.forced(path):
        results = kernels.half_quadratic(weight, 4, scale_dtype=dtype)
    back = value(results, -1)
    assert not back[0].any()
    assert not np.signbit(back[0]).any()
    rounding = {"f32": 0, "f16": 2.0**-11, "bf16": 2.0**-8}[dtype]
    assert (np.abs(back - weight) <= 1e-4 + rounding * np.abs(weight)).all()


@paths
def test_a_group_far_from_zero_keeps_its_zero_point_in_reach(path: str) -> None:
    weight = (100 + DRAW.uniform(-1e-3, 1e-3, (2, 32))).astype(np.float32)
    with kernels.forced(path):
        results = kernels.half_quadratic(weight, 8, scale_dtype="f16")
    assert np.isfinite(results[2]).all()
    assert (np.abs(value(results, -1) - weight) < 0.05).all()


def test_groups_know_of_each_other_only_by_the_stop() -> None:
    """Check 7."""
    whole = kernels.half_quadratic(WEIGHT, 3, group=64, stop=False)
    part = kernels.half_quadratic(WEIGHT[4:9].copy(), 3, group=64, stop=False)
    for one, other in zip(whole[:3], part[:3], strict=True):
        np.testing.assert_array_equal(one[4:9], other)


@paths
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_not_finite_weights_are_refused(bad: float, path: str) -> None:
    weight = WEIGHT.copy()
    weight[3, 70] = bad
    with kernels.forced(path), pytest.raises(NotFiniteError, match="row 3, column 70"):
        kernels.half_quadratic(weight, 4, group=64)
    wide = np.array([[-3e38, 3e38]], np.float32)
    with kernels.forced(path), pytest.raises(NotFiniteError, match="overflow"):
        kernels.half_quadratic(wide, 4)


def test_nothing_gives_nothing() -> None:
    for shape in ((0, 64), (3, 0)):
        codes, scale, zero, errors = kernels.half_quadratic(np.zeros(shape, np.float32), 4)
        assert codes.shape == shape
        assert scale.shape == zero.shape == (shape[0], min(shape[1], 1))
        assert np.isnan(errors).all()


@pytest.mark.parametrize(
    "options",
    [
        {"p": 0.0},
        {"p": 1.1},
        {"beta": 0.0},
        {"beta": np.inf},
        {"kappa": 0.9},
        {"steps": -1},
        {"steps": 1001},
        {"bits": 9},
    ],
    ids=str,
)
def test_options_out_of_range(options: dict[str, float]) -> None:
    with pytest.raises(RangeError):
        kernels.half_quadratic(WEIGHT, **{"bits": 4, **options})


def test_wrong_calls_are_refused() -> None:
    with pytest.raises(ShapeError):
        kernels.half_quadratic(WEIGHT, 4, group=100)
    with pytest.raises(UnknownNameError):
        kernels.half_quadratic(WEIGHT, 4, scale_dtype="f8")
