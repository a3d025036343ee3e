from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from subbyte import kernels
from subbyte.errors import SchemeError, ShapeError
from subbyte.modules import QuantizedLinear
from subbyte.schemes import Scheme
from subbyte.tensors import Decomposition, Kept, QuantizedLayer, QuantizedTensor, Sparse

ROWS, COLS, GROUP = 24, 96, 32


def quantize(weight: Any, text: str, index: Any = None) -> QuantizedTensor:
    """weight [O, I] rounded to nearest."""
    scheme = Scheme.parse(text)
    flat = weight.reshape(1, -1) if scheme.granularity == "tensor" else weight
    group = scheme.group(flat.shape[1])
    scale, zero = kernels.fit_affine(
        flat,
        scheme.bits,
        group=group,
        symmetric=scheme.symmetric,
        narrow=scheme.narrow,
        scale_dtype="f32" if scheme.scale_dtype == "auto" else scheme.scale_dtype,
    )
    codes = kernels.quantize_affine(flat, scale, zero, scheme.bits, group=group).reshape(weight.shape)
    return QuantizedTensor.from_codes(codes, scale, None if scheme.symmetric else zero, scheme, index)


def quantized(text: str, rows: int = ROWS, cols: int = COLS, act_order: bool = False, seed: int = 0) -> QuantizedTensor:
    rng = np.random.default_rng(seed)
    weight = rng.standard_normal((rows, cols)).astype(np.float32)
    index = rng.permutation(np.arange(cols) // GROUP).astype(np.int32) if act_order else None
    return quantize(weight, text, index)


def reference(tensor: QuantizedTensor | Decomposition, x: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    return functional.linear(
        x.double(), torch.from_numpy(tensor.dequantize()).double(), None if bias is None else bias.double()
    )


WEIGHT_ONLY = [f"int{bits}/g32{kind}" for bits in range(1, 9) for kind in ("", "/asym")]
WEIGHT_ONLY += ["int4/channel", "int4/channel/asym", "int8/channel/narrow", "int4/tensor", "int3/tensor/asym"]
WEIGHT_ONLY += ["int4/g32/f16", "int4/g32/bf16", "int4/g32/asym/f32"]


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("text", WEIGHT_ONLY)
def test_weight_only_agrees_with_dequantize(text: str, biased: bool) -> None:
    tensor = quantized(text)
    bias = torch.randn(ROWS) if biased else None
    layer = QuantizedLinear(QuantizedLayer(tensor), bias)
    x = torch.randn(2, 5, COLS)
    torch.testing.assert_close(layer(x), reference(tensor, x, bias).float(), rtol=1e-5, atol=2e-4)


@pytest.mark.parametrize("text", ["int4/g32", "int3/g32/asym", "int2/g32"])
def test_act_order_gathers_the_input(text: str) -> None:
    tensor = quantized(text, act_order=True)
    layer = QuantizedLinear(QuantizedLayer(tensor))
    assert layer.order is not None
    x = torch.randn(7, COLS)
    torch.testing.assert_close(layer(x), reference(tensor, x, None).float(), rtol=1e-5, atol=2e-4)
    assert "act_order=True" in repr(layer)


def decomposed(text: str, sparse: bool = True, kept: bool = True, act_order: bool = False) -> Decomposition:
    random = np.random.default_rng(7)
    weight = random.standard_normal((ROWS, COLS)).astype(np.float32)
    entries = Sparse.of(weight, random.random((ROWS, COLS)) < 0.05) if sparse else None
    columns = Kept.of(weight, np.array([3, 90])) if kept else None
    return Decomposition(quantized(text, act_order=act_order), entries, columns)


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize(("sparse", "kept"), [(True, False), (False, True), (True, True)])
@pytest.mark.parametrize("text", ["int4/g32", "int3/g32/asym", "int3/channel/asym/f16"])
@pytest.mark.parametrize("rows", [1, 9])
def test_outliers_are_added(text: str, sparse: bool, kept: bool, biased: bool, rows: int) -> None:
    weight = decomposed(text, sparse, kept)
    bias = torch.randn(ROWS) if biased else None
    layer = QuantizedLinear(QuantizedLayer(weight), bias)
    x = torch.randn(rows, COLS)
    torch.testing.assert_close(layer(x), reference(weight, x, bias).float(), rtol=1e-5, atol=2e-4)
    assert layer.nbytes == weight.dense.words.nbytes + sum(
        buffer.nbytes for name, buffer in layer.named_buffers() if name != "words"
    )


def test_outliers_beside_scattered_groups() -> None:
    weight = decomposed("int4/g32", act_order=True)
    x = torch.randn(3, COLS)
    layer = QuantizedLinear(QuantizedLayer(weight))
    torch.testing.assert_close(layer(x), reference(weight, x, None).float(), rtol=1e-5, atol=2e-4)
    assert "sparse=" in repr(layer)
    assert "kept=2" in repr(layer)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_outliers_in_half_precision_are_rounded_once(dtype: torch.dtype) -> None:
    weight = decomposed("int4/g32")
    x = torch.randn(5, COLS).to(dtype)
    got, exact = QuantizedLinear(QuantizedLayer(weight))(x), reference(weight, x, None)
    assert got.dtype == dtype
    # Half a unit in the last place, and what f32 sums may be off.
    assert ((got.double() - exact).abs() <= exact.abs() * torch.finfo(dtype).eps / 2 + 1e-4).all()


def test_quantized_inputs_beside_outliers_are_refused() -> None:
    layer = QuantizedLayer(decomposed("int8/channel"), Scheme.parse("int8/token"))
    with pytest.raises(SchemeError, match="float inputs"):
        QuantizedLinear(layer)


@pytest.mark.parametrize("shape", [(COLS,), (0, COLS), (1, COLS), (2, 3, 4, COLS)])
@pytest.mark.parametrize("activation", [None, "int8/token"])
def test_any_leading_shape(shape: tuple[int, ...], activation: str | None) -> None:
    scheme = None if activation is None else Scheme.parse(activation)
    layer = QuantizedLinear(QuantizedLayer(quantized("int8/channel"), scheme))
    assert layer(torch.randn(shape)).shape == (*shape[:-1], ROWS)


def test_inputs_that_are_not_contiguous() -> None:
    x = torch.randn(COLS, 6).T
    for activation in (None, Scheme.parse("int8/token")):
        layer = QuantizedLinear(QuantizedLayer(quantized("int8/channel"), activation))
        torch.testing.assert_close(layer(x), layer(x.contiguous()))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("activation", [None, "int8/token", "int8/tensor"])
def test_half_precision_keeps_its_dtype(dtype: torch.dtype, activation: str | None) -> None:
    scheme = None if activation is None else Scheme.parse(activation)
    layer = QuantizedLinear(QuantizedLayer(quantized("int8/channel"), scheme), torch.randn(ROWS))
    x = torch.randn(4, COLS)
    out = layer(x.to(dtype))
    assert out.dtype == dtype
    torch.testing.assert_close(out.float(), layer(x), rtol=0.05, atol=0.25)


def rounded(x: torch.Tensor, scheme: Scheme, scale: float | None) -> torch.Tensor:
    """x after a round trip through its int8 codes, spelled out."""
    largest = x.abs().amax(-1, keepdim=True) if scheme.granularity == "token" else x.abs().amax()
    step = largest.clamp_min(1e-5) / (127 if scheme.narrow else 127.5) if scale is None else torch.tensor(scale)
    return torch.clamp(torch.round(x / step), -127 if scheme.narrow else -128, 127) * step


@pytest.mark.parametrize(
    "activation", ["int8/token", "int8/token/narrow", "int8/tensor", "int8/tensor/narrow", "int8/tensor/static"]
)
@pytest.mark.parametrize("text", ["int8/channel", "int8/channel/narrow", "int8/tensor", "int4/channel", "int3/tensor"])
def test_integer_products_agree_with_rounded_inputs(text: str, activation: str) -> None:
    scheme = Scheme.parse(activation)
    scale = 0.02 if scheme.static else None
    tensor, bias = quantized(text), torch.randn(ROWS)
    layer = QuantizedLinear(QuantizedLayer(tensor, scheme, scale), bias)
    x = torch.randn(3, 5, COLS)
    x[0, 0] = 0
    expected = reference(tensor, rounded(x, scheme, scale), bias).float()
    torch.testing.assert_close(layer(x), expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(
    ("weight", "activation"),
    [
        ("int8/g32", "int8/token"),
        ("int8/channel/asym", "int8/token"),
        ("int8/channel", "int4/token"),
        ("int8/channel", "int8/token/asym"),
    ],
)
def test_schemes_that_no_kernel_runs(weight: str, activation: str) -> None:
    layer = QuantizedLayer(quantized(weight), Scheme.parse(activation))
    with pytest.raises(SchemeError, match=r"layers\.3\.up"):
        QuantizedLinear(layer, name="layers.3.up")


def test_a_bias_of_the_wrong_length() -> None:
    with pytest.raises(ShapeError, match="bias"):
        QuantizedLinear(QuantizedLayer(quantized("int4/g32")), torch.zeros(ROWS + 1))


@pytest.mark.parametrize(
    ("text", "dtype", "share"), [("int4/g32/f16", torch.float16, 0.16), ("int4/g32", torch.float32, 0.17)]
)
def test_memory_is_that_of_the_codes(text: str, dtype: torch.dtype, share: float) -> None:
    layer = QuantizedLinear(QuantizedLayer(quantized(text)))
    assert layer.scale.dtype == dtype
    assert layer.nbytes == ROWS * COLS // 2 + layer.scale.numel() * layer.scale.element_size()
    assert layer.nbytes < share * 4 * ROWS * COLS
    assert not list(layer.parameters())
    integer = QuantizedLinear(QuantizedLayer(quantized("int8/channel"), Scheme.parse("int8/token")))
    assert integer.nbytes == ROWS * COLS + 4 * ROWS


def test_outliers_are_in_the_state_dict() -> None:
    layer: Any = QuantizedLinear(QuantizedLayer(decomposed("int4/g32")))
    parts = {"sparse_values", "sparse_columns", "sparse_pointers", "kept_values", "kept_columns"}
    assert set(layer.state_dict()) == {"words", "scale", *parts}
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    x = torch.randn(3, COLS)
    torch.testing.assert_close(compiled(x), layer(x))


def test_buffers_round_trip_through_a_state_dict() -> None:
    layer: Any = QuantizedLinear(QuantizedLayer(quantized("int4/g32/asym")), torch.randn(ROWS))
    assert set(layer.state_dict()) == {"words", "scale", "zero", "bias"}
    other = QuantizedLinear(QuantizedLayer(quantized("int4/g32/asym", seed=1)), torch.zeros(ROWS))
    other.load_state_dict(layer.state_dict())
    x = torch.randn(2, COLS)
    torch.testing.assert_close(other(x), layer(x), rtol=0, atol=0)


def test_shown_with_its_schemes() -> None:
    layer = QuantizedLinear(QuantizedLayer(quantized("int8/channel"), Scheme.parse("int8/token")))
    assert "in_features=96, out_features=24, bias=False, scheme=int8/channel, activation=int8/token" in repr(layer)


def test_the_source_is_copied() -> None:
    tensor = quantized("int4/g32")
    layer = QuantizedLinear(QuantizedLayer(tensor))
    layer.words.zero_()
    assert tensor.words.any()


@pytest.mark.parametrize("activation", [None, "int8/token", "int8/tensor/static"])
def test_torch_compile_traces_through(activation: str | None) -> None:
    scheme = None if activation is None else Scheme.parse(activation)
    scale = 0.02 if activation == "int8/tensor/static" else None
    layer = QuantizedLinear(QuantizedLayer(quantized("int8/channel"), scheme, scale), torch.randn(ROWS))
    x = torch.randn(3, COLS)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), layer(x))
