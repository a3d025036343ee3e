from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tests.oracles import fit_affine as oracle
from tests.oracles.case import Case

from subbyte import errors, kernels

every_path = pytest.mark.parametrize("path", kernels.paths())


@every_path
@pytest.mark.parametrize("case", oracle.cases(), ids=str)
def test_agrees_with_the_oracle(case: Case, path: str) -> None:
    with kernels.forced(path):
        case.check(kernels.fit_affine(*case.args, **case.kwargs))


@every_path
@pytest.mark.parametrize("norm", [1.0, 2.0, 2.4])
@pytest.mark.parametrize(("name", "grid"), oracle.grids(), ids=[name for name, _ in oracle.grids()])
def test_the_search_finds_the_smallest_error(name: str, grid: dict[str, Any], norm: float, path: str) -> None:
    search = {"norm": norm, "shrink_grid": 50, "shrink_steps": 40}
    for bits in (2, 3, 4, 8):
        for cols in (7, 32, 65, 300):
            x = oracle.numbers((3, cols), seed=bits)
            with kernels.forced(path):
                scale, zero = kernels.fit_affine(x, bits, **grid, **search)
            for row, values in enumerate(x):
                errors_of = oracle.shrunk(values, bits, grid, **search)
                steps = [oracle.fraction(i, 50) for i in range(40)]
                tried = [oracle.parameters(p * values.min(), p * values.max(), bits, **grid) for p in steps]
                # the kernel's sums are in f32, powers within 3e-6: an error that is as good as the smallest will do
                chosen = [e for e, fit in zip(errors_of, tried, strict=True) if fit == (scale[row, 0], zero[row, 0])]
                assert chosen
                assert min(chosen) <= min(errors_of) * (1 + 1e-5)


@every_path
def test_the_first_of_equal_errors_wins(path: str) -> None:
    x = np.zeros((1, 8), np.float32)
    with kernels.forced(path):
        scale, zero = kernels.fit_affine(x, 4, symmetric=False, shrink_steps=80)
    assert (scale.item(), zero.item()) == (np.float32(2 / 15), 7)


@every_path
def test_a_grid_holds_its_own_values(path: str) -> None:
    for bits in range(1, 9):
        for symmetric in (True, False):
            codes = np.random.default_rng(bits).integers(0, 2**bits, (16, 64), np.uint8)
            codes[:, 0], codes[:, 1] = 0, 2**bits - 1
            zero = np.full((16, 1), 2 ** (bits - 1), np.uint8)
            scale = np.float32(2.0) ** np.arange(-8, 8, dtype=np.float32)[:, None]
            with kernels.forced(path):
                x = kernels.dequantize_affine(codes, scale, zero)
                fitted = kernels.fit_affine(x, bits, symmetric=symmetric)
                if not symmetric:
                    np.testing.assert_array_equal(fitted[0], scale)
                    np.testing.assert_array_equal(fitted[1], zero)
                    np.testing.assert_array_equal(kernels.quantize_affine(x, *fitted, bits), codes)


def test_scales_are_never_lost() -> None:
    tiny, huge = np.full((1, 4), 1e-30, np.float32), np.full((1, 4), 3e38, np.float32)
    for dtype, least, most in (("f16", 2.0**-14, 65504.0), ("bf16", 1e-45, 3.4e38), ("f32", 1e-45, 3.5e38)):
        low, _ = kernels.fit_affine(tiny * np.float32(1e-8), 8, scale_dtype=dtype)
        high, _ = kernels.fit_affine(huge, 1, scale_dtype=dtype)
        assert low.item() >= least
        assert np.isfinite(high).all()
        assert high.item() <= most


@every_path
def test_a_number_that_is_not_finite_is_named(path: str) -> None:
    for bad in (np.nan, np.inf, -np.inf):
        x = np.ones((4, 70), np.float32)
        x[3, 66] = bad
        with kernels.forced(path), pytest.raises(errors.NotFiniteError, match="row 3, column 66"):
            kernels.fit_affine(x, 4, group=35)


def test_wrong_calls_are_refused() -> None:
    x = np.ones((2, 12), np.float32)
    wrong: list[dict[str, Any]] = [
        {"bits": 0},
        {"bits": 9},
        {"bits": 1, "narrow": True},
        {"bits": 4, "narrow": True, "symmetric": False},
        {"bits": 4, "eps": -1.0},
        {"bits": 4, "eps": float("nan")},
        {"bits": 4, "shrink_steps": 3, "norm": 0.0},
        {"bits": 4, "shrink_steps": 101},
    ]
    for options in wrong:
        with pytest.raises(errors.RangeError):
            kernels.fit_affine(x, **options)
    with pytest.raises(errors.ShapeError):
        kernels.fit_affine(x, 4, group=5)
    with pytest.raises(errors.UnknownNameError):
        kernels.fit_affine(x, 4, scale_dtype="f64")
