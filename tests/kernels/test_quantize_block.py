from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.oracles.case import Case
from tests.oracles.dequantize_block import BLOCKS, ELEMENTS
from tests.oracles.quantize_block import cases

from subbyte import errors, kernels

every_path = pytest.mark.parametrize("path", kernels.paths())


@pytest.mark.parametrize("case", cases(), ids=str)
def test_agrees_with_the_oracle(case: Case) -> None:
    for path in kernels.paths():
        with kernels.forced(path):
            case.check(kernels.quantize_block(*case.args, **case.kwargs))


@every_path
@pytest.mark.parametrize(("block", "scale_dtype"), BLOCKS)
@pytest.mark.parametrize("element", ELEMENTS)
def test_threads_and_powers_of_two_and_signs_change_no_codes(
    element: str, block: int, scale_dtype: str, path: str
) -> None:
    x = np.random.default_rng(1).standard_normal((403, 2080), np.float32)
    options = {"block": block, "scale_dtype": scale_dtype}
    with kernels.forced("scalar", 1):
        codes, scale = kernels.quantize_block(x, element, **options)
    for threads in (2, 5):
        with kernels.forced(path, threads):
            got, scales = kernels.quantize_block(x, element, **options)
        np.testing.assert_array_equal(got, codes)
        np.testing.assert_array_equal(scales, scale)
    if scale_dtype == "e8m0":
        with kernels.forced(path):
            got, scales = kernels.quantize_block(x * np.float32(2.0**20), element, **options)
            opposite, _ = kernels.quantize_block(-x, element, **options)
        np.testing.assert_array_equal(got, codes)
        np.testing.assert_array_equal(scales, scale + 20)
        values, others = (kernels.dequantize_block(c, scale, element, **options) for c in (codes, opposite))
        np.testing.assert_array_equal(others, -values)


@every_path
def test_bf16_is_rounded_as_the_f32_that_it_is(path: str) -> None:
    x = torch.from_numpy(np.random.default_rng(4).standard_normal((70, 4064), np.float32)).bfloat16()
    for options in (
        {"element": "e3m2"},
        {"element": "int4", "block": 16, "scale_dtype": "e4m3fn", "tensor_scale": 0.01},
    ):
        with kernels.forced(path):
            found, expected = kernels.quantize_block(x, **options), kernels.quantize_block(x.float(), **options)
        assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


@pytest.mark.parametrize("rule", ["rceil", "thirds"])
def test_what_never_saturates(rule: str) -> None:
    """The block's maximum is then off by 1/5 at most; by OCP's rule by 1/4 (MR-GPTQ's sheet)."""
    x = np.random.default_rng(2).standard_normal((512, 512), np.float32)
    largest = np.abs(x).reshape(512, -1, 32).max(-1)
    for chosen, bound in ((rule, 0.2), ("floor", 0.25)):
        codes, scale = kernels.quantize_block(x, "e2m1", rule=chosen)
        back = kernels.dequantize_block(codes, scale, "e2m1", tensor_scale=1 / 3 if chosen == "thirds" else 1.0)
        off = np.abs(np.abs(back).reshape(512, -1, 32).max(-1) - largest) / largest
        assert off.max() <= bound + 1e-6


def test_the_published_errors_on_gaussian_numbers() -> None:
    """Relative RMS errors of MR-GPTQ's sheet, and the QSNR of MXINT8 by INT vs FP's formula."""
    x = np.random.default_rng(3).standard_normal((2048, 1024), np.float32)

    def error(tensor_scale: float = 1.0, **options: object) -> float:
        given = {"tensor_scale": tensor_scale} if options.get("scale_dtype") == "e4m3fn" else {}
        codes, scale = kernels.quantize_block(x, **options, **given)  # type: ignore[arg-type]
        options.pop("rule", None)
        back = kernels.dequantize_block(codes, scale, **options, tensor_scale=tensor_scale)  # type: ignore[arg-type]
        return float(np.sqrt(np.square(back - x).sum() / np.square(x).sum()))

    nv = {"element": "e2m1", "block": 16, "scale_dtype": "e4m3fn"}
    assert error(float(np.abs(x).max()) / (448 * 6), **nv) == pytest.approx(0.095, abs=5e-4)
    for rule, expected in (("floor", 0.115), ("rceil", 0.116), ("thirds", 0.118), ("round", 0.1215)):
        got = error(1 / 3 if rule == "thirds" else 1.0, element="e2m1", rule=rule)
        assert got == pytest.approx(expected, abs=1e-3), rule
    assert -20 * np.log10(error(element="int8", rule="rceil")) == pytest.approx(41.6, abs=0.5)


def test_wrong_calls_are_refused() -> None:
    x = np.ones((2, 96), np.float32)
    for options in ({"element": "e3m3"}, {"scale_dtype": "f32"}, {"rule": "up"}, {"rounding": "up"}):
        with pytest.raises(errors.UnknownNameError):
            kernels.quantize_block(x, **{"element": "e2m1", **options})
    for options in (
        {"block": 8},
        {"block": -1},
        {"block": 64},
        {"tensor_scale": 2.0},
        {"scale_dtype": "e4m3fn", "tensor_scale": 0.0},
        {"scale_dtype": "e4m3fn", "tensor_scale": float("nan")},
        {"scale_dtype": "e4m3fn", "tensor_scale": -1.0},
        {"element": "int8", "rule": "thirds"},
    ):
        with pytest.raises(errors.RangeError):
            kernels.quantize_block(x, **{"element": "e2m1", **options})
    with pytest.raises(errors.ShapeError, match="divisor of 80"):
        kernels.quantize_block(x[:, :80].copy(), "e2m1")
    with pytest.raises(errors.ShapeError):
        kernels.quantize_block(x[0], "e2m1")
    with pytest.raises(errors.DtypeError):
        kernels.quantize_block(x.astype(np.float64), "e2m1")
