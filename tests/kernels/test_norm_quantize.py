from __future__ import annotations

import numpy as np
import pytest
from tests.oracles.case import Case
from tests.oracles.norm_quantize import case, cases

from subbyte import errors, kernels

every_path = pytest.mark.parametrize("path", kernels.paths())


@every_path
@pytest.mark.parametrize("case", cases(), ids=str)
def test_agrees_with_the_oracle(case: Case, path: str) -> None:
    with kernels.forced(path):
        case.check(kernels.norm_quantize(*case.args, **case.kwargs))


@every_path
def test_threads_change_nothing(path: str) -> None:
    given = case(130, 1030, "layer", "int8", True)
    with kernels.forced("scalar", 1):
        codes, scale = kernels.norm_quantize(*given.args, **given.kwargs)
    with kernels.forced(path, 3):
        got = kernels.norm_quantize(*given.args, **given.kwargs)
    np.testing.assert_array_equal(got[0], codes)
    np.testing.assert_array_equal(got[1], scale)


@pytest.mark.parametrize("norm", ["rms", "layer"])
def test_is_torchs_norm_and_then_the_scale_of_a_token(norm: str) -> None:
    torch = pytest.importorskip("torch")
    x, weight = torch.randn(9, 300) * 3 + 1, torch.rand(300) + 0.5
    bias = torch.randn(300) if norm == "layer" else None
    functions = torch.nn.functional
    if norm == "rms":
        y = functions.rms_norm(x, (300,), weight, 1e-5)
    else:
        y = functions.layer_norm(x, (300,), weight, bias, 1e-5)
    codes, scale = kernels.norm_quantize(x, weight, bias, norm)
    assert (codes * scale[:, None] - y).abs().max() <= (0.5 + 1e-3) * scale.max()
    torch.testing.assert_close(scale, y.abs().amax(1) / 127, rtol=1e-5, atol=0)


def test_bfloat16_is_taken_as_it_is() -> None:
    torch = pytest.importorskip("torch")
    x, weight = torch.randn(3, 80).bfloat16(), torch.rand(80).bfloat16()
    for got, want in zip(
        kernels.norm_quantize(x, weight), kernels.norm_quantize(x.float(), weight.float()), strict=True
    ):
        assert torch.equal(got, want)


def test_wrong_calls_are_refused() -> None:
    x, weight = np.ones((2, 12), np.float32), np.ones(12, np.float32)
    for options in ({"norm_eps": -1.0}, {"norm_eps": float("inf")}, {"eps": 0.0}, {"eps": float("nan")}):
        with pytest.raises(errors.RangeError):
            kernels.norm_quantize(x, weight, **options)
    for options in ({"norm": "batch"}, {"format": "int4"}):
        with pytest.raises(errors.UnknownNameError):
            kernels.norm_quantize(x, weight, **options)
    for arrays in ((x[0], weight), (x, weight[:11]), (x, weight, weight[:1])):
        with pytest.raises(errors.ShapeError):
            kernels.norm_quantize(*arrays)
