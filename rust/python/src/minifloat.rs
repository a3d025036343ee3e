//! Casts between f32 and narrower floats, and blocks of them that share a scale.

use pyo3::prelude::*;
use subbyte_kernels::minifloat::{
    self as kernels, AbE2m1, AbE2m5, AbE4m3, Bf16, BlockScale, E2m1, E2m3, E3m2, E4m3fn, E5m2, E8m0, F16, Int,
    Rounding, Rule,
};

use crate::array::{Buffer, Floats, Input, Output};
use crate::errors::error;
use crate::machine::{Machine, run};
use crate::numbers::{named, natural};

#[derive(Clone, Copy)]
enum Format {
    E4m3fn,
    E5m2,
    E3m2,
    E2m3,
    E2m1,
    E8m0,
    Bf16,
    F16,
    AbE2m1,
    AbE2m5,
    AbE4m3,
}

const FORMATS: [(&str, Format); 11] = [
    ("e4m3fn", Format::E4m3fn),
    ("e5m2", Format::E5m2),
    ("e3m2", Format::E3m2),
    ("e2m3", Format::E2m3),
    ("e2m1", Format::E2m1),
    ("e8m0", Format::E8m0),
    ("bf16", Format::Bf16),
    ("f16", Format::F16),
    ("abfloat_e2m1", Format::AbE2m1),
    ("abfloat_e2m5", Format::AbE2m5),
    ("abfloat_e4m3", Format::AbE4m3),
];

/// Those of the codes of blocks.
const BLOCK_ROUNDINGS: [(&str, Rounding); 3] =
    [("even", Rounding::Even), ("away", Rounding::Away), ("zero", Rounding::Zero)];

/// The rounding of that name; `seed` is that of the random one.
fn rounding(py: Python<'_>, given: &str, seed: i64) -> PyResult<Rounding> {
    let roundings = [
        ("even", Rounding::Even),
        ("away", Rounding::Away),
        ("up", Rounding::Up),
        ("zero", Rounding::Zero),
        ("stochastic", Rounding::Stochastic(natural(py, "seed", seed)?)),
    ];
    named(py, "rounding", given, &roundings)
}

#[pyfunction]
#[pyo3(signature = (x, format, saturate = true, rounding = "even", seed = 0, *, on = None))]
pub fn encode_minifloat(
    py: Python<'_>,
    x: &Bound<'_, PyAny>,
    format: &str,
    saturate: bool,
    rounding: &str,
    seed: i64,
    on: Option<&Bound<'_, Machine>>,
) -> PyResult<Buffer> {
    fn encode<F: kernels::Format<Code: dlpark::DlpackElement>>(
        py: Python<'_>,
        x: &Floats,
        rounding: Rounding,
        saturate: bool,
        on: Option<&Bound<'_, Machine>>,
    ) -> PyResult<Buffer> {
        let mut codes = Output::stale(x.shape())?;
        let (from, to) = (x.narrow(), codes.slice_mut());
        run(py, on, |m| kernels::encode::<F>(m, from, rounding, saturate, to))?;
        Ok(codes.finish())
    }
    let (format, by) = (named(py, "format", format, &FORMATS)?, self::rounding(py, rounding, seed)?);
    let x = Floats::take("x", x)?;
    match format {
        Format::E4m3fn => encode::<E4m3fn>(py, &x, by, saturate, on),
        Format::E5m2 => encode::<E5m2>(py, &x, by, saturate, on),
        Format::E3m2 => encode::<E3m2>(py, &x, by, saturate, on),
        Format::E2m3 => encode::<E2m3>(py, &x, by, saturate, on),
        Format::E2m1 => encode::<E2m1>(py, &x, by, saturate, on),
        Format::E8m0 => encode::<E8m0>(py, &x, by, saturate, on),
        Format::Bf16 => encode::<Bf16>(py, &x, by, saturate, on),
        Format::F16 => encode::<F16>(py, &x, by, saturate, on),
        Format::AbE2m1 => encode::<AbE2m1>(py, &x, by, saturate, on),
        Format::AbE2m5 => encode::<AbE2m5>(py, &x, by, saturate, on),
        Format::AbE4m3 => encode::<AbE4m3>(py, &x, by, saturate, on),
    }
}

#[pyfunction]
#[pyo3(signature = (codes, format, *, on = None))]
pub fn decode_minifloat(
    py: Python<'_>,
    codes: &Bound<'_, PyAny>,
    format: &str,
    on: Option<&Bound<'_, Machine>>,
) -> PyResult<Buffer> {
    fn decode<F: kernels::Format<Code: dlpark::DlpackElement>>(
        codes: &Bound<'_, PyAny>,
        on: Option<&Bound<'_, Machine>>,
    ) -> PyResult<Buffer> {
        let input = Input::<F::Code>::take("codes", codes)?;
        let mut x = Output::stale(input.shape())?;
        let (from, to) = (input.slice(), x.slice_mut());
        run(codes.py(), on, |m| kernels::decode::<F>(m, from, to))?;
        Ok(x.finish())
    }
    match named(py, "format", format, &FORMATS)? {
        Format::E4m3fn => decode::<E4m3fn>(codes, on),
        Format::E5m2 => decode::<E5m2>(codes, on),
        Format::E3m2 => decode::<E3m2>(codes, on),
        Format::E2m3 => decode::<E2m3>(codes, on),
        Format::E2m1 => decode::<E2m1>(codes, on),
        Format::E8m0 => decode::<E8m0>(codes, on),
        Format::Bf16 => decode::<Bf16>(codes, on),
        Format::F16 => decode::<F16>(codes, on),
        Format::AbE2m1 => decode::<AbE2m1>(codes, on),
        Format::AbE2m5 => decode::<AbE2m5>(codes, on),
        Format::AbE4m3 => decode::<AbE4m3>(codes, on),
    }
}

/// What the codes of a block are.
#[derive(Clone, Copy)]
pub enum Element {
    E2m1,
    E2m3,
    E3m2,
    E4m3fn,
    E5m2,
    Int8,
    Int6,
    Int4,
}

/// By their names.
pub const ELEMENTS: [(&str, Element); 8] = [
    ("e2m1", Element::E2m1),
    ("e2m3", Element::E2m3),
    ("e3m2", Element::E3m2),
    ("e4m3fn", Element::E4m3fn),
    ("e5m2", Element::E5m2),
    ("int8", Element::Int8),
    ("int6", Element::Int6),
    ("int4", Element::Int4),
];

const RULES: [(&str, Rule); 6] = [
    ("floor", Rule::Floor),
    ("ceil", Rule::Ceil),
    ("even", Rule::Even),
    ("round", Rule::Round),
    ("rceil", Rule::Rceil),
    ("thirds", Rule::Thirds),
];

/// Whether scales are powers of two, by the name of their dtype.
pub const SCALES: [(&str, bool); 2] = [("e8m0", true), ("e4m3fn", false)];

/// Blocks of a row.
pub fn blocks(py: Python<'_>, cols: usize, given: i64) -> PyResult<(usize, usize)> {
    let block: usize = natural(py, "block", given)?;
    if block != 16 && block != 32 {
        return Err(error(py, "RangeError", "block", given, "16 or 32", ""));
    }
    if !cols.is_multiple_of(block) {
        let hint = "pad the columns, or take blocks of 16";
        return Err(error(py, "ShapeError", "block", given, &format!("a divisor of {cols} columns"), hint));
    }
    Ok((block, cols / block))
}

#[pyfunction]
#[pyo3(signature = (x, element, block = 32, scale_dtype = "e8m0", rule = "floor", tensor_scale = 1.0, rounding = "even", *, on = None))]
#[expect(clippy::too_many_arguments, reason = "flat as Python spells them")]
pub fn quantize_block(
    py: Python<'_>,
    x: &Bound<'_, PyAny>,
    element: &str,
    block: i64,
    scale_dtype: &str,
    rule: &str,
    tensor_scale: f32,
    rounding: &str,
    on: Option<&Bound<'_, Machine>>,
) -> PyResult<(Buffer, Buffer)> {
    let element = named(py, "element", element, &ELEMENTS)?;
    let rule = named(py, "rule", rule, &RULES)?;
    let rounding = named(py, "rounding", rounding, &BLOCK_ROUNDINGS)?;
    let by = match named(py, "scale_dtype", scale_dtype, &SCALES)? {
        true if tensor_scale != 1.0 => {
            return Err(error(py, "RangeError", "tensor_scale", tensor_scale, "1 beside scales e8m0", ""));
        }
        true => BlockScale::E8m0(rule),
        false => BlockScale::E4m3fn(tensor_scale),
    };
    if rule == Rule::Thirds && !matches!(element, Element::E2m1) {
        return Err(error(py, "RangeError", "rule", "\"thirds\"", "elements e2m1, whose largest is 3 times 2", ""));
    }
    let x = Floats::take("x", x)?;
    let [rows, cols] = x.axes(py, "x")?;
    let (block, count) = blocks(py, cols, block)?;
    let (mut codes, mut scale) = (Output::stale(&[rows, cols])?, Output::stale(&[rows, count])?);
    let (from, to, scales) = (x.narrow(), codes.slice_mut(), scale.slice_mut());
    run(py, on, |m| match element {
        Element::E2m1 => kernels::quantize_block::<E2m1>(m, from, block, by, rounding, to, scales),
        Element::E2m3 => kernels::quantize_block::<E2m3>(m, from, block, by, rounding, to, scales),
        Element::E3m2 => kernels::quantize_block::<E3m2>(m, from, block, by, rounding, to, scales),
        Element::E4m3fn => kernels::quantize_block::<E4m3fn>(m, from, block, by, rounding, to, scales),
        Element::E5m2 => kernels::quantize_block::<E5m2>(m, from, block, by, rounding, to, scales),
        Element::Int8 => kernels::quantize_block::<Int<8>>(m, from, block, by, rounding, to, scales),
        Element::Int6 => kernels::quantize_block::<Int<6>>(m, from, block, by, rounding, to, scales),
        Element::Int4 => kernels::quantize_block::<Int<4>>(m, from, block, by, rounding, to, scales),
    })?;
    Ok((codes.finish(), scale.finish()))
}

#[pyfunction]
#[pyo3(signature = (codes, scale, element, block = 32, scale_dtype = "e8m0", tensor_scale = 1.0, *, on = None))]
#[expect(clippy::too_many_arguments, reason = "flat as Python spells them")]
pub fn dequantize_block(
    py: Python<'_>,
    codes: &Bound<'_, PyAny>,
    scale: &Bound<'_, PyAny>,
    element: &str,
    block: i64,
    scale_dtype: &str,
    tensor_scale: f32,
    on: Option<&Bound<'_, Machine>>,
) -> PyResult<Buffer> {
    let element = named(py, "element", element, &ELEMENTS)?;
    let power = named(py, "scale_dtype", scale_dtype, &SCALES)?;
    let (codes, scale) = (Input::take("codes", codes)?, Input::take("scale", scale)?);
    let [rows, cols] = codes.axes(py)?;
    let (block, count) = blocks(py, cols, block)?;
    scale.expect(py, &[rows, count])?;
    let mut x = Output::stale(&[rows, cols])?;
    let (from, scales, to) = (codes.slice(), scale.slice(), x.slice_mut());
    run(py, on, |m| match element {
        Element::E2m1 => kernels::dequantize_block::<E2m1>(m, from, scales, block, power, tensor_scale, to),
        Element::E2m3 => kernels::dequantize_block::<E2m3>(m, from, scales, block, power, tensor_scale, to),
        Element::E3m2 => kernels::dequantize_block::<E3m2>(m, from, scales, block, power, tensor_scale, to),
        Element::E4m3fn => kernels::dequantize_block::<E4m3fn>(m, from, scales, block, power, tensor_scale, to),
        Element::E5m2 => kernels::dequantize_block::<E5m2>(m, from, scales, block, power, tensor_scale, to),
        Element::Int8 => kernels::dequantize_block::<Int<8>>(m, from, scales, block, power, tensor_scale, to),
        Element::Int6 => kernels::dequantize_block::<Int<6>>(m, from, scales, block, power, tensor_scale, to),
        Element::Int4 => kernels::dequantize_block::<Int<4>>(m, from, scales, block, power, tensor_scale, to),
    })?;
    Ok(x.finish())
}
