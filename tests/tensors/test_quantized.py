"""QuantizedTensor against Python integers: what the codes mean, what they weigh, what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from subbyte.errors import DtypeError, NotFiniteError, RangeError, SchemeError, ShapeError, SubbyteError
from subbyte.schemes import Scheme
from subbyte.tensors import QuantizedLayer, QuantizedTensor


def example(text: str, rows: int = 5, cols: int = 96, seed: int = 3) -> dict[str, Any]:
    """Random arguments for `QuantizedTensor.from_codes`."""
    scheme, draw = Scheme.parse(text), np.random.default_rng(seed)
    shape = (1, 1) if scheme.granularity == "tensor" else (rows, scheme.groups(cols))
    zero = draw.integers(0, scheme.element.levels, shape, np.uint8)
    return {
        "codes": draw.integers(0, scheme.element.levels, (rows, cols), np.uint8),
        "scale": draw.integers(1, 64, shape).astype(np.float32) / 256,  # exact in bf16 and f16
        "zero": None if scheme.symmetric else (zero - np.float32(0.375)) if scheme.float_zero else zero,
        "scheme": scheme,
    }


def meant(codes: Any, scale: Any, zero: Any, scheme: Scheme, index: Any = None) -> np.ndarray:
    """The oracle: element by element, in Python integers and f64."""
    rows, cols = codes.shape
    size = scheme.group_size or cols
    out = np.empty((rows, cols))
    for row in range(rows):
        for col in range(cols):
            group = col // size if index is None else int(index[col])
            at = (0, 0) if scheme.granularity == "tensor" else (row, group)
            middle = 2 ** (scheme.bits - 1) if zero is None else float(zero[at])
            out[row, col] = float(scale[at]) * (int(codes[row, col]) - middle)
    return out.astype(np.float32)


SCHEMES = [
    *(f"int{bits}/g32{asym}" for bits in range(1, 9) for asym in ("", "/asym")),
    "int4/channel",
    "int3/channel/asym/bf16",
    "int8/tensor",
    "int5/tensor/asym/f16",
    "int2/g32/asym/float_zero/f16",
    "int4/tensor/asym/float_zero",
]


@pytest.mark.parametrize("text", SCHEMES)
def test_codes_come_back_and_mean_what_they_say(text: str) -> None:
    given = example(text)
    tensor = QuantizedTensor.from_codes(**given)
    np.testing.assert_array_equal(tensor.codes(), given["codes"], strict=True)
    np.testing.assert_array_equal(tensor.dequantize(), meant(**given), strict=True)


def nested(text: str, rows: int = 32, cols: int = 96) -> dict[str, Any]:
    """Arguments whose scales, and zero points where the scheme says so, are tensors."""
    given, draw = example(text, rows, cols), np.random.default_rng(5)
    for part in ("scale", "zero"):
        level = given["scheme"].level(part)
        if level is not None:
            shape = (cols // 16, rows // given["scheme"].levels.run)
            codes = draw.integers(0, level.element.levels, (cols // 16, rows), np.uint8)
            scale, zero = (draw.integers(1, 64, shape).astype(np.float32) / 256 for _ in range(2))
            given[part] = QuantizedTensor.from_codes(codes, scale, -zero, level)
    return given


TWO_LEVELS = [
    ("int4/g16/asym/float_zero/s3z3r16/f16", 3 + 3, 2 * 2),
    ("int3/g16/asym/float_zero/s5r8/bf16", 5 + 16, 2 * 4),
    ("int3/g16/asym/float_zero/z2r32/f16", 16 + 2, 2 * 1),
    ("int4/g16/s8r16/f32", 8, 2 * 2 * 2),
]


@pytest.mark.parametrize(("text", "bits", "halves"), TWO_LEVELS)
def test_a_second_level_is_a_tensor_of_scales(text: str, bits: int, halves: int) -> None:
    given = nested(text)
    tensor = QuantizedTensor.from_codes(**given)
    plain = {part: given[part] for part in ("scale", "zero")}
    for part, value in plain.items():
        if isinstance(value, QuantizedTensor):
            own = meant(value.codes(), value.scale, value.zero, value.scheme)
            plain[part] = own.T
    expected = meant(given["codes"], plain["scale"], plain["zero"], given["scheme"])
    np.testing.assert_allclose(tensor.dequantize(), expected, rtol=2e-7)
    np.testing.assert_array_equal(tensor.scales(), plain["scale"])
    # Six groups: first-level codes of 32 rows fill their words, and each run adds scale and zero point once a part.
    parts = sum(isinstance(given[part], QuantizedTensor) for part in ("scale", "zero"))
    assert tensor.nbytes * 8 == 32 * 96 * given["scheme"].bits + 6 * 32 * bits + 6 * 16 * halves * parts


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"scale": np.ones((32, 6), np.float32)}, SchemeError),
        ({"scale": nested("int4/g16/asym/float_zero/s3z3r8/f16")["scale"]}, SchemeError),
        ({"scale": nested("int4/g16/asym/float_zero/s3z3r16/f16", rows=48)["scale"]}, ShapeError),
        ({"zero": np.ones((32, 6), np.float32)}, SchemeError),
        ({"zero": None}, SchemeError),
        ({"scheme": Scheme.parse("int4/g16/asym/float_zero/f16")}, DtypeError),
    ],
)
def test_levels_that_do_not_fit_are_refused(change: dict[str, Any], error: type[SubbyteError]) -> None:
    with pytest.raises(error):
        QuantizedTensor.from_codes(**{**nested("int4/g16/asym/float_zero/s3z3r16/f16"), **change})


def test_an_index_moves_columns_between_groups() -> None:
    given = example("int4/g32/asym")
    given["index"] = np.random.default_rng(0).permutation(np.repeat(np.arange(3, dtype=np.int32), 32))
    tensor = QuantizedTensor.from_codes(**given)
    np.testing.assert_array_equal(tensor.dequantize(), meant(**given), strict=True)
    plain = QuantizedTensor.from_codes(**{**given, "index": np.arange(96, dtype=np.int32) // 32})
    assert plain.index is None


@pytest.mark.parametrize(
    ("text", "bits"),
    [
        ("int4/g32/bf16", 5 * 96 * 4 + 15 * 16),
        ("int4/g32/asym/bf16", 5 * 96 * 4 + 15 * 16 + 64),  # 15 zero points of 4 bits: 60 bits, two words
        ("int3/channel/f32", 5 * 96 * 3 + 5 * 32),
        ("int4/channel", 5 * 96 * 4 + 5 * 32),
        ("int8/tensor/f16", 5 * 96 * 8 + 16),
    ],
)
def test_every_stored_bit_is_counted(text: str, bits: int) -> None:
    tensor = QuantizedTensor.from_codes(**example(text))
    assert tensor.nbytes * 8 == bits
    assert tensor.bits_per_weight == bits / (5 * 96)


def test_padding_and_index_are_counted() -> None:
    tensor = QuantizedTensor.from_codes(**example("int3/channel/f16", cols=33))
    assert tensor.nbytes == 5 * 16 + 5 * 2  # 99 bits a row: four words
    given = example("int4/g32/f16")
    given["index"] = np.arange(96, dtype=np.int32)[::-1].copy() // 32
    assert QuantizedTensor.from_codes(**given).nbytes == 5 * 48 + 15 * 2 + 96 * 4


@pytest.mark.parametrize(("rows", "cols"), [(0, 96), (5, 0), (0, 0)])
def test_an_empty_weight_is_a_weight(rows: int, cols: int) -> None:
    tensor = QuantizedTensor.from_codes(**example("int4/g32", rows, cols))
    assert tensor.dequantize().shape == (rows, cols)
    assert tensor.bits_per_weight == 0.0


def test_the_middle_zero_point_of_a_symmetric_scheme_may_be_given() -> None:
    given = example("int4/g32")
    given["zero"] = np.full((5, 3), 8, np.uint8)
    assert QuantizedTensor.from_codes(**given).zero is None
    given["zero"][1, 1] = 7
    with pytest.raises(RangeError, match="8 everywhere"):
        QuantizedTensor.from_codes(**given)


@pytest.mark.parametrize(
    ("text", "change", "error"),
    [
        ("int4/g32", {"codes": np.zeros((5, 96), np.int32)}, DtypeError),
        ("int4/g32", {"codes": np.zeros(96, np.uint8)}, ShapeError),
        ("int4/g32", {"codes": np.full((5, 96), 16, np.uint8)}, RangeError),
        ("int4/g32", {"codes": np.zeros((5, 95), np.uint8)}, ShapeError),
        ("int4/g32", {"scale": np.ones((5, 2), np.float32)}, ShapeError),
        ("int4/g32", {"scale": np.ones((5, 3))}, DtypeError),
        ("int4/g32", {"scale": np.full((5, 3), np.nan, np.float32)}, NotFiniteError),
        ("int4/g32/bf16", {"scale": np.full((5, 3), 1.001, np.float32)}, SchemeError),
        ("int4/g32/f16", {"scale": np.full((5, 3), 1e6, np.float32)}, SchemeError),
        ("int4/g32/asym", {"zero": None}, SchemeError),
        ("int4/g32/asym", {"zero": np.full((5, 3), 16, np.uint8)}, RangeError),
        ("int4/g32/asym", {"zero": np.zeros((5, 3), np.int8)}, DtypeError),
        ("int4/g32/asym/float_zero", {"zero": np.zeros((5, 3), np.uint8)}, DtypeError),
        ("int4/g32/asym/float_zero", {"zero": np.full((5, 3), np.inf, np.float32)}, NotFiniteError),
        ("int4/g32/asym/float_zero/bf16", {"zero": np.full((5, 3), 1.001, np.float32)}, SchemeError),
        ("int4/g32", {"index": np.zeros(96, np.int32)}, ShapeError),
        ("int4/g32", {"index": np.full(96, 3, np.int32)}, RangeError),
        ("int4/g32", {"index": np.full(96, -1, np.int32)}, RangeError),
        ("int4/g32", {"index": np.zeros(95, np.int32)}, ShapeError),
        ("int4/g32", {"index": np.zeros(96, np.int64)}, DtypeError),
        ("int4/channel", {"index": np.ones(96, np.int32)}, SchemeError),
        ("int8/tensor", {"scheme": Scheme.parse("int8/tensor/static")}, SchemeError),
        ("int8/channel", {"scheme": Scheme.parse("int8/token")}, SchemeError),
    ],
)
def test_what_does_not_fit_is_refused(text: str, change: dict[str, Any], error: type[SubbyteError]) -> None:
    with pytest.raises(error):
        QuantizedTensor.from_codes(**{**example(text), **change})


def test_a_layer_says_how_its_inputs_are_quantized() -> None:
    weight = QuantizedTensor.from_codes(**example("int8/channel"))
    assert QuantizedLayer(weight).nbytes == weight.nbytes
    assert QuantizedLayer(weight, Scheme.parse("int8/token")).nbytes == weight.nbytes
    assert QuantizedLayer(weight, Scheme.parse("int8/tensor/static"), 0.25).nbytes == weight.nbytes + 4


@pytest.mark.parametrize(
    ("activation", "scale", "error"),
    [
        ("int8/tensor/static", None, SchemeError),
        ("int8/token", 0.5, SchemeError),
        (None, 0.5, SchemeError),
        ("int8/channel", None, SchemeError),
        ("int8/tensor/asym/static", 0.5, SchemeError),
        ("int8/g32", None, SchemeError),
        ("int8/tensor/static", 0.0, NotFiniteError),
        ("int8/tensor/static", float("nan"), NotFiniteError),
    ],
)
def test_a_layer_refuses_what_cannot_run(
    activation: str | None, scale: float | None, error: type[SubbyteError]
) -> None:
    weight = QuantizedTensor.from_codes(**example("int8/channel"))
    with pytest.raises(error):
        QuantizedLayer(weight, activation and Scheme.parse(activation), scale)  # type: ignore[arg-type]
