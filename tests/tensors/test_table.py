"""TableTensor against the definition, value by value: what codes mean, what they weigh, what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from subbyte.errors import DtypeError, NotFiniteError, RangeError, SchemeError, ShapeError, SubbyteError
from subbyte.modules import QuantizedLinear
from subbyte.schemes import Power, Scheme, Table
from subbyte.tensors import QuantizedLayer, TableTensor

KINDS = [f"power{bits}/g32" for bits in range(2, 9)]
KINDS += [
    "power4/channel/f16",
    "power3/tensor/bf16",
    "power4r/g48/f16",
    "power8r/tensor",
    "nf4/g32/bf16",
    "nf4/channel",
]


def example(text: str, rows: int = 5, cols: int = 96, seed: int = 3) -> dict[str, Any]:
    """Random arguments for `TableTensor.from_codes`."""
    scheme, draw = Scheme.parse(text), np.random.default_rng(seed)
    by_row = isinstance(scheme.element, Power) and scheme.element.by_row
    return {
        "codes": draw.integers(0, 1 << scheme.bits, (rows, cols), np.uint8),
        "scale": draw.integers(1, 64, scheme.parameters((rows, cols))).astype(np.float32) / 256,  # exact in 16 bits
        "scheme": scheme,
        "exponent": None
        if isinstance(scheme.element, Table)
        else draw.uniform(0.2, 1.5, rows if by_row else 1).astype(np.float16),
    }


def meant(codes: Any, scale: Any, scheme: Scheme, exponent: Any) -> np.ndarray:
    """The oracle: element by element, in f64."""
    rows, cols = codes.shape
    out = np.empty((rows, cols))
    top = 2 ** (scheme.bits - 1) - 1
    for row, col in np.ndindex(rows, cols):
        if exponent is None:
            value = float(scheme.element.values()[0, codes[row, col]])  # type: ignore[union-attr]
        else:
            q = int(codes[row, col]) - top - 1
            power = 1 / float(exponent[row if len(exponent) > 1 else 0])
            value = float(np.sign(q)) * (abs(q) / top) ** power
        at = (0, 0) if scheme.granularity == "tensor" else (row, col * scale.shape[1] // cols)
        out[row, col] = float(scale[at]) * value
    return out


@pytest.mark.parametrize("text", KINDS)
def test_codes_come_back_and_mean_what_they_say(text: str) -> None:
    given = example(text)
    tensor = TableTensor.from_codes(**given)
    np.testing.assert_array_equal(tensor.codes(), given["codes"], strict=True)
    found = tensor.dequantize()
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, meant(**given), rtol=3e-7, atol=1e-30)


@pytest.mark.parametrize("text", KINDS)
def test_values_go_back_to_their_codes(text: str) -> None:
    given = example(text)
    given["codes"] = np.maximum(given["codes"], 0 if given["exponent"] is None else 1)
    tensor = TableTensor.from_codes(**given)
    again = TableTensor.nearest(tensor.dequantize(), tensor.scale, tensor.scheme, tensor.exponent)
    np.testing.assert_array_equal(again.codes(), tensor.codes())


@pytest.mark.parametrize("rows", [1, 9])
@pytest.mark.parametrize("text", KINDS)
def test_a_layer_runs_on_its_codes(text: str, rows: int) -> None:
    tensor = TableTensor.from_codes(**example(text, rows=24))
    layer, x, bias = QuantizedLinear(QuantizedLayer(tensor), torch.randn(24)), torch.randn(rows, 96), None
    bias = layer.bias
    assert bias is not None
    expected = x.double() @ torch.from_numpy(tensor.dequantize()).double().T + bias.double()
    torch.testing.assert_close(layer(x).double(), expected, rtol=1e-5, atol=1e-5)
    assert layer.words.nbytes == tensor.words.nbytes
    half = layer.half()(x.half())
    torch.testing.assert_close(half.double(), expected, rtol=1e-2, atol=2e-2)


@pytest.mark.parametrize(
    ("text", "bits"),
    [
        ("power4/channel/f16", 5 * 96 * 4 + 5 * 16 + 16),
        ("power3r/g32/bf16", 5 * 96 * 3 + 15 * 16 + 5 * 16),
        ("nf4/g32/f16", 5 * 96 * 4 + 15 * 16),
        ("power8/tensor", 5 * 96 * 8 + 32 + 16),
    ],
)
def test_every_stored_bit_is_counted(text: str, bits: int) -> None:
    tensor = TableTensor.from_codes(**example(text))
    assert tensor.nbytes * 8 == bits
    assert tensor.bits_per_weight == bits / (5 * 96)


@pytest.mark.parametrize(("rows", "cols"), [(0, 96), (5, 0)])
def test_an_empty_weight_is_a_weight(rows: int, cols: int) -> None:
    tensor = TableTensor.from_codes(**example("power4/g32", rows, cols))
    assert tensor.dequantize().shape == (rows, cols)
    assert tensor.bits_per_weight == 0.0


@pytest.mark.parametrize(
    ("text", "change", "error"),
    [
        ("power4/g32", {"scheme": Scheme.parse("int4/g32")}, SchemeError),
        ("power4/g32", {"scale": np.ones((5, 2), np.float32)}, ShapeError),
        ("power4/g32", {"scale": np.full((5, 3), np.nan, np.float32)}, NotFiniteError),
        ("power4/g32/f16", {"scale": np.full((5, 3), 1e6, np.float32)}, SchemeError),
        ("power4/g32", {"codes": np.full((5, 96), 16, np.uint8)}, RangeError),
        ("power4/g32", {"exponent": None}, SchemeError),
        ("power4/g32", {"exponent": np.ones(5, np.float16)}, ShapeError),
        ("power4/g32", {"exponent": np.ones(1, np.float32)}, DtypeError),
        ("power4/g32", {"exponent": np.zeros(1, np.float16)}, RangeError),
        ("power4/g32", {"exponent": np.full(1, np.nan, np.float16)}, RangeError),
        ("power4r/g32", {"exponent": np.ones(1, np.float16)}, ShapeError),
        ("nf4/g32", {"exponent": np.ones(1, np.float16)}, SchemeError),
    ],
)
def test_what_does_not_fit_is_refused(text: str, change: dict[str, Any], error: type[SubbyteError]) -> None:
    with pytest.raises(error):
        TableTensor.from_codes(**{**example(text), **change})


def test_inputs_are_floats() -> None:
    tensor = TableTensor.from_codes(**example("power8/channel"))
    with pytest.raises(SchemeError, match="float inputs"):
        QuantizedLinear(QuantizedLayer(tensor, Scheme.parse("int8/token")))
    with pytest.raises(SchemeError, match="integers"):
        QuantizedLayer(tensor, Scheme.parse("power8/tensor"))
