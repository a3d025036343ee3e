"""Round to nearest: every code is the nearest, and the shared model's perplexity is the reference's."""

from __future__ import annotations

import math

import numpy as np
import pytest
from tests.systems.quality import Quality

from subbyte.schemes import Scheme
from subbyte.solvers import Nearest
from subbyte.systems import rtn

WEIGHT = np.random.default_rng(2).standard_normal((24, 128)).astype(np.float32)


def fine(scheme: str) -> Scheme:
    return Scheme.parse(scheme).resolve("f32")


@pytest.mark.parametrize(
    "scheme", ["int4/g32", "int4/g32/asym", "int3/channel/asym", "int2/g64", "int8/tensor", "int5/channel"]
)
def test_each_code_is_the_nearest_of_its_grid(scheme: str) -> None:
    tensor = Nearest().solve(WEIGHT, fine(scheme)).tensor
    bits, shape = tensor.scheme.bits, (24, -1, tensor.scheme.group(128))
    scale = np.broadcast_to(tensor.scale, (24, tensor.scale.shape[1]))[:, :, None].astype(np.float64)
    middle = np.full(tensor.scale.shape, 1 << (bits - 1))
    zero = np.broadcast_to(tensor.zero if tensor.zero is not None else middle, scale.shape[:2])[:, :, None]
    values = WEIGHT.reshape(shape).astype(np.float64)
    grid = scale[..., None] * (np.arange(1 << bits) - zero[..., None].astype(np.int64))
    best = np.abs(grid - values[..., None]).min(-1)
    found = np.abs(tensor.dequantize().reshape(shape) - values)
    assert (found <= best + 1e-6).all()


def test_rounding_twice_changes_nothing() -> None:
    for scheme in ("int8/channel/narrow", "int4/g32/narrow", "int3/tensor/narrow"):
        once = Nearest().solve(WEIGHT, fine(scheme)).tensor.dequantize()
        again = Nearest().solve(once, fine(scheme)).tensor.dequantize()
        np.testing.assert_allclose(again, once, rtol=1e-6)


def test_rows_of_zeros_stay_zero() -> None:
    weight = WEIGHT.copy()
    weight[3] = 0
    for scheme in ("int4/g32/asym", "int4/channel", "int8/tensor"):
        assert (Nearest().solve(weight, fine(scheme)).tensor.dequantize()[3] == 0).all()
        assert (Nearest(eps=1e-5).solve(np.zeros_like(weight), fine(scheme)).tensor.dequantize() == 0).all()


def test_the_clip_search_never_makes_its_own_error_larger() -> None:
    plain = Nearest().solve(WEIGHT, fine("int3/g32")).tensor.dequantize()
    searched = Nearest(clip_search=True).solve(WEIGHT, fine("int3/g32")).tensor.dequantize()
    errors = [(np.abs(q - WEIGHT).reshape(24, -1, 32) ** 2.4).sum(-1) for q in (searched, plain)]
    assert (errors[0] <= errors[1] * (1 + 1e-5)).all()
    assert errors[0].sum() < 0.95 * errors[1].sum()


def test_the_loss_is_half_the_squared_error() -> None:
    solved = Nearest().solve(WEIGHT, fine("int4/g32/asym"))
    assert math.isclose(solved.loss, np.square(solved.tensor.dequantize() - WEIGHT).sum() / 2, rel_tol=1e-5)


@pytest.mark.parametrize(("bits", "expected"), [(4, 44.82), (3, 46.60), (2, 63.55)])
def test_perplexity_of_the_reference(llama: Quality, bits: int, expected: float) -> None:
    assert math.isclose(math.exp(llama.float_loss), 44.30, rel_tol=1e-3)
    assert math.isclose(math.exp(llama.loss(rtn(bits=bits))), expected, rel_tol=3e-3)
