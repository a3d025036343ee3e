"""Weights in vectors of their own codebooks: packing, what they decode to, what they count, what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from subbyte.errors import DtypeError, NotFiniteError, RangeError, SchemeError, ShapeError
from subbyte.modules import QuantizedLinear
from subbyte.schemes import Scheme
from subbyte.tensors import Coded, QuantizedLayer, VectorTensor
from subbyte.tensors.wide import pack_wide, unpack_wide

#: All parts that a scheme can have, alone and together.
KINDS = [
    "v4k16",
    "v6k64r8",
    "v4k32c4",
    "v2k8o5",
    "v4k16o5v3k8",
    "v8k16n",
    "v6k256r32c3o4v5k16n",
]


def vectors(text: str, rows: int = 40, cols: int = 72, ordered: bool = True, seed: int = 1) -> VectorTensor:
    """A random tensor of a scheme `text`/tensor/f16."""
    random = np.random.default_rng(seed)
    scheme = Scheme.parse(f"{text}/tensor/f16")
    element: Any = scheme.element

    def floats(*shape: int) -> np.ndarray:
        return random.standard_normal(shape).astype(np.float16).astype(np.float32)

    def coded(columns: int, dim: int, count: int, residual: int, groups: int) -> Coded:
        codes = random.integers(0, count * max(residual, 1), (-(-rows // dim), columns)).astype(np.int32)
        second = floats(groups, residual, dim) if residual else None
        return Coded.of(codes, floats(groups, count, dim), second)

    apart, size = element.columns(cols)
    main = coded(cols - apart, element.dim, element.count, element.residual, element.groups)
    outliers: Coded | np.ndarray | None = None
    if apart:
        outliers = floats(rows, apart)
        if element.outlier_count:
            outliers = coded(apart, element.outlier_dim, element.outlier_count, 0, 1)
    order = random.permutation(cols).astype(np.int32) if ordered else None
    norm = (floats(cols), floats(cols)) if element.norm else (None, None)
    assert size * element.groups + apart == cols
    return VectorTensor(scheme, (rows, cols), main, outliers, order, *norm)


def decoded(tensor: VectorTensor) -> np.ndarray:
    """By the definition: one weight after the other."""
    rows, cols = tensor.shape
    element: Any = tensor.scheme.element
    apart, size = element.columns(cols)
    low = element.count.bit_length() - 1
    weight = np.zeros((rows, cols), np.float32)
    for place in range(cols):
        column = place if tensor.order is None else tensor.order[place]
        for row in range(rows):
            if place < apart and not isinstance(tensor.outliers, Coded):
                value = tensor.outliers[row, place]
            elif place < apart:
                dim = element.outlier_dim
                value = tensor.outliers.codebook[0, tensor.outliers.codes(apart)[row // dim, place], row % dim]
            else:
                code, group = (
                    tensor.main.codes(cols - apart)[row // element.dim, place - apart],
                    (place - apart) // size,
                )
                value = tensor.main.codebook[group, code & ((1 << low) - 1), row % element.dim]
                if element.residual:
                    value = value + tensor.main.residual[group, code >> low, row % element.dim]
            scaled = value if tensor.scale is None else value * tensor.scale[column] + tensor.bias[column]
            weight[row, column] = scaled
    return weight


@pytest.mark.parametrize("bits", range(1, 33))
def test_wide_codes_come_back(bits: int) -> None:
    for count in (0, 1, 7, 8, 9, 40):
        codes = np.random.default_rng(bits).integers(0, 1 << bits, (3, count)).astype(np.uint32).view(np.int32)
        words = pack_wide(codes, bits)
        assert words.shape == (3, -(-count * bits // 32))
        np.testing.assert_array_equal(unpack_wide(words, bits, count), codes)
        for row, stream in zip(codes.view(np.uint32), words.view(np.uint32), strict=True):
            number = sum(int(word) << (32 * i) for i, word in enumerate(stream))
            assert number == sum(int(code) << (bits * j) for j, code in enumerate(row))


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("text", KINDS)
def test_decodes_as_defined_and_the_layer_runs_on_it(text: str, ordered: bool) -> None:
    tensor = vectors(text, rows=23, cols=40, ordered=ordered)
    weight = tensor.dequantize()
    np.testing.assert_array_equal(weight, decoded(tensor))
    bias = torch.randn(23)
    module = QuantizedLinear(QuantizedLayer(tensor), bias)
    for count in (1, 3, 9, 30):
        x = torch.randn(count, 40)
        expected = x.double() @ torch.from_numpy(weight).double().T + bias
        torch.testing.assert_close(module(x).double(), expected, rtol=1e-5, atol=2e-5)
        torch.testing.assert_close(module(x.half()).double(), expected, rtol=1e-2, atol=2e-2)
    assert module.nbytes == tensor.nbytes + bias.nbytes
    module.words ^= 1
    assert not torch.allclose(module(x).double(), expected, atol=1e-2)


@pytest.mark.parametrize("text", KINDS)
def test_counts_every_stored_bit(text: str) -> None:
    tensor = vectors(text)
    (rows, cols), element = tensor.shape, tensor.element
    apart, _ = element.columns(cols)
    strips, width = -(-rows // element.dim), element.count.bit_length() + max(element.residual, 1).bit_length() - 2
    size = 4 * strips * -(-(cols - apart) * width // 32)
    size += 2 * element.dim * element.groups * (element.count + element.residual)
    if element.outlier_count:
        strips, width = -(-rows // element.outlier_dim), element.outlier_count.bit_length() - 1
        size += 4 * strips * -(-apart * width // 32) + 2 * element.outlier_dim * element.outlier_count
    else:
        size += 2 * rows * apart
    assert tensor.nbytes == size + 2 * cols + (4 * cols if element.norm else 0)
    assert tensor.bits_per_weight == 8 * tensor.nbytes / (rows * cols)
    assert replace(tensor, order=None).nbytes == tensor.nbytes - 2 * cols


def test_an_order_that_is_absorbed_changes_no_bit() -> None:
    tensor = vectors("v6k64r8")
    assert tensor.order is not None
    codes = tensor.main.codes(72)[:, np.argsort(tensor.order)]
    main = Coded.of(codes, tensor.main.codebook, tensor.main.residual)
    absorbed = replace(tensor, main=main, order=None)
    np.testing.assert_array_equal(absorbed.dequantize(), tensor.dequantize())


@pytest.mark.parametrize(
    ("text", "change", "error"),
    [
        ("v4k16", {"scheme": Scheme.parse("int4/channel")}, SchemeError),
        ("v4k16", {"scheme": Scheme.parse("v4k32/tensor/f16")}, ShapeError),
        ("v6k64r8", {"scheme": Scheme.parse("v6k64/tensor/f16")}, ShapeError),
        ("v4k16", {"shape": (40, 71)}, ShapeError),
        ("v4k16", {"outliers": np.zeros((40, 1), np.float32)}, ShapeError),
        ("v2k8o5", {"outliers": None}, ShapeError),
        ("v4k16o5v3k8", {"outliers": np.zeros((40, 4), np.float32)}, SchemeError),
        ("v2k8o5", {"outliers": np.full((40, 4), np.nan, np.float32)}, NotFiniteError),
        ("v2k8o5", {"outliers": np.full((40, 4), 0.1, np.float32)}, SchemeError),
        ("v4k16", {"order": np.zeros(72, np.int32)}, RangeError),
        ("v4k16", {"order": np.arange(72)}, DtypeError),
        ("v4k16", {"scale": np.ones(72, np.float32), "bias": np.ones(72, np.float32)}, SchemeError),
        ("v8k16n", {"bias": None}, SchemeError),
        ("v8k16n", {"scale": np.full(72, np.inf, np.float32)}, NotFiniteError),
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused(text: str, change: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        replace(vectors(text), **change)


def test_quantized_inputs_are_refused() -> None:
    with pytest.raises(SchemeError, match="float inputs"):
        QuantizedLinear(QuantizedLayer(vectors("v4k16"), Scheme.parse("int8/token")))
