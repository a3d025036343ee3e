//! Products with quantized weights and with sparse ones.

use pyo3::prelude::*;
use subbyte_kernels as kernels;
use subbyte_kernels::codebook::Table;
use subbyte_kernels::gemm::{Codebook, GroupScales};
use subbyte_kernels::minifloat::{E2m1, E2m3, E3m2, E4m3fn, E5m2, Int};
use subbyte_kernels::{gemm, pack};

use crate::array::{Buffer, Floats, Input, NarrowParameters, NarrowPlaces, Output, Parameters, Places};
use crate::codebook::lattice;
use crate::errors::error;
use crate::machine::{Machine, run};
use crate::minifloat::{ELEMENTS, Element, SCALES, blocks};
use crate::numbers::{bits, groups, named, natural};
use crate::rounded::in_dtype_of;

#[pyfunction]
#[pyo3(signature = (x, words, scale, zero, bits, group = -1, order = None, *, on = None))]
#[expect(clippy::too_many_arguments, reason = "a quantized weight is five arguments")]
pub fn wna16(
    py: Python<'_>,
    x: &Bound<'_, PyAny>,
    words: &Bound<'_, PyAny>,
    scale: &Bound<'_, PyAny>,
    zero: Option<&Bound<'_, PyAny>>,
    bits: i64,
    group: i64,
    order: Option<&Bound<'_, PyAny>>,
    on: Option<&Bound<'_, Machine>>,
) -> PyResult<Buffer> {
    weighed(py, x, words, scale, zero, bits, group, order, false, on)
}

#[pyfunction]
#[pyo3(signature = (x, words, scale, zero, bits, group = -1, *, on = None))]
#[expect(clippy::too_many_arguments, reason = "a quantized weight is five arguments")]
pub fn wna16_by_input(
    py: Python<'_>,
    x: &Bound<'_, PyAny>,
    words: &Bound<'_, PyAny>,
    scale: &Bound<'_, PyAny>,
    zero: Option<&Bound<'_, PyAny>>,
    bits: i64,
    group: i64,
    on: Option<&Bound<'_, Machine>>,
) -> PyResult<Buffer> {
    weighed(py, x, words, scale, zero, bits, group, None, true, on)
}

/// A product with affine codes, whose groups are columns of a row, or `by_input` rows of a column.
#[expect(clippy::too_many_arguments, reason = "a quantized weight is five arguments")]
fn weighed(
    py: Python<'_>,
    x: &Bound<'_, PyAny>,
    words: &Bound<'_, PyAny>,
    scale: &Bound<'_, PyAny>,
    zero: Option<&Bound<'_, PyAny>>,
    bits: i64,
    group: i64,
    order: Option<&Bound<'_, PyAny>>,
    by_input: bool,
    on: Option<&Bound<'_, Machine>>,
) -> PyResult<Buffer> {
    let (x, words, scale) = (Floats::take("x", x)?, Input::take("words", words)?, Floats::take("scale", scale)?);
    let zero = zero.map(|zero| Parameters::take("zero", zero)).transpose()?;
    let order = order.map(|order| Input::<i32>::take("order", order)).transpose()?;
    let (others, depth) = x.last_axis(py, "x")?;
    let rows = others.iter().product();
    let [cols, _] = words.axes(py)?;
    let (bits, (group, count)) = (self::bits(py, bits)?, groups(py, if by_input { cols } else { depth }, group)?);
    let parameters = if by_input { [count, depth] } else { [cols, count] };
    words.expect(py, &[cols, pack::words_per_row(depth, bits)])?;
    scale.expect(py, "scale", &parameters)?;
    if let Some(zero) = &zero {
        zero.expect(py, "zero", &parameters)?;
    }
    if let Some(order) = &order {
        order.expect(py, &[depth])?;
    }
    let shape = [others, &[cols]].concat();
    let (mut wide_x, mut wide_scale) = (x.room()?, scale.room()?);
    let mut wide_zero = zero.as_ref().map_or_else(|| Output::zeroed(&[0]), Parameters::room)?;
    let (words, zero, room_zero) = (words.slice(), zero.as_ref().map(Parameters::narrow), wide_zero.slice_mut());
    let (narrow_x, narrow_scale) = (x.narrow(), scale.narrow());
    let (room_x, room_scale) = (wide_x.slice_mut(), wide_scale.slice_mut());
    let order = order.as_ref().map(Input::slice);
    let product = move |m: &kernels::Machine, to: &mut [f32]| {
        let (x, scale) = (narrow_x.widen(m, room_x)?, narrow_scale.widen(m, room_scale)?);
        let ordered = order.map(|order| gemm::gathered(x, order, rows)).transpose()?;
        let x = ordered.as_deref().unwrap_or(x);
        let zero = zero.map(|zero| zero.widen(m, room_zero)).transpose()?;
        let kernel = if by_input { gemm::wna16_by_input } else { gemm::wna16 };
        kernel(m, x, words, scale, zero, rows, cols, depth, bits, group, to)
    };
    in_dtype_of(py, &x, &shape, on, product)
}

#[pyfunction]
#[pyo3(signature = (x, words, scale, zero, offsets, bits, group = -1, rows = None, *, on = None))]
#[expect(clippy::too_many_arguments, reason = "a quantized weight is five arguments")]
pub fn wna16_grouped(
    py: Python<'_>,
    x: &Bound<'_, PyAny>,
    words: &Bound<'_, PyAny>,
    scale: &Bound<'_, PyAny>,
    zero: Option<&Bound<'_, PyAny>>,
    offsets: &Bound<'_, PyAny>,
    bits: i64,
    group: i64,
    rows: Option<&Bound<'_, PyAny>>,
    on: Option<&Bound<'_, Machine>>,
) -> PyResult<Buffer> {
    let (x, words, scale) = (Floats::take("x", x)?, Input::take("words", words)?, Floats::take("scale", scale)?);
    let zero = zero.map(|zero| Parameters::take("zero", zero)).transpose()?;
    let offsets = Input::<i32>::take("offsets", offsets)?;
    let order = rows.map(|rows| Input::<i32>::take("rows", rows)).transpose()?;
    let ([tokens, depth], [experts, cols, _]) = (x.axes(py, "x")?, words.axes(py)?);
    let (bits, (group, count)) = (self::bits(py, bits)?, groups(py, depth, group)?);
    words.expect(py, &[experts, cols, pack::words_per_row(depth, bits)])?;
    scale.expect(py, "scale", &[experts, cols, count])?;
    if let Some(zero) = &zero {
        zero.expect(py, "zero", &[experts, cols, count])?;
    }
    offsets.expect(py, &[experts + 1])?;
    let [rows] = order.as_ref().map_or(Ok([tokens]), |order| order.axes(py))?;
    let (mut wide_x, mut wide_scale) = (x.room()?, scale.room()?);
    let mut wide_zero = zero.as_ref().map_or_else(|| Output::zeroed(&[0]), Parameters::room)?;
    let (words, zero, room_zero) = (words.slice(), zero.as_ref().map(Parameters::narrow), wide_zero.slice_mut());
    let (narrow_x, narrow_scale) = (x.narrow(), scale.narrow());
    let (room_x, room_scale) = (wide_x.slice_mut(), wide_scale.slice_mut());
    let (offsets, order) = (offsets.slice(), order.as_ref().map(Input::slice));
    in_dtype_of(py, &x, &[rows, cols], on, move |m: &kernels::Machine, to: &mut [f32]| {
        let (x, scale) = (narrow_x.widen(m, room_x)?, narrow_scale.widen(m, room_scale)?);
        let zero = zero.map(|zero| zero.widen(m, room_zero)).transpose()?;
        gemm::wna16_grouped(m, x, words, scale, zero, offsets, order, tokens, cols, depth, bits, group, to)
    })
}

#[pyfunction]
#[pyo3(signature = (x, words, scale, table, group = -1, *, on = None))]
pub fn lookup(
    py: Python<'_>,
    x: &Bound<'_, PyAny>,
    words: &Bound<'_, PyAny>,
    scale: &Bound<'_, PyAny>,
    table: &Bound<'_, PyAny>,
    group: i64,
    on: Option<&Bound<'_, Machine>>,
) -> PyResult<Buffer> {
    let (x, words, scale) = (Floats::take("x", x)?, Input::take("words", words)?, Floats::take("scale", scale)?);
    let table = Floats::take("table", table)?;
    let (others, depth) = x.last_axis(py, "x")?;
    let (rows, [cols, _]) = (others.iter().product(), words.axes(py)?);
    let (group, count) = groups(py, depth, group)?;
    let (tables, levels) = table.last_axis(py, "table")?;
    if !levels.is_power_of_two() || !(2..=256).contains(&levels) {
        return Err(error(
            py,
            "ShapeError",
            "table",
            format!("{levels} values"),
            "2, 4, 8 and so on to 256 values",
            "",
        ));
    }
    let bits = levels.ilog2();
    let by_row = tables != [1];
    table.expect(py, "table", &[if by_row { cols } else { 1 }, levels])?;
    words.expect(py, &[cols, pack::words_per_row(depth, bits)])?;
    scale.expect(py, "scale", &[cols, count])?;
    let shape = [others, &[cols]].concat();
    let (mut wide_x, mut wide_scale, mut wide_table) = (x.room()?, scale.room()?, table.room()?);
    let (narrow_x, narrow_scale, narrow_table) = (x.narrow(), scale.narrow(), table.narrow());
    let (words, room_x, room_scale, room_table) =
        (words.slice(), wide_x.slice_mut(), wide_scale.slice_mut(), wide_table.slice_mut());
    let product = move |m: &kernels::Machine, to: &mut [f32]| {
        let (x, scale) = (narrow_x.widen(m, room_x)?, narrow_scale.widen(m, room_scale)?);
        let table = narrow_table.widen(m, room_table)?;
        gemm::lookup(m, x, words, scale, table, by_row, rows, cols, depth, bits, group, to)
    };
    in_dtype_of(py, &x, &shape, on, product)
}

#[pyfunction]
#[pyo3(signature = (x, weight, x_scale, w_scale, bias = None, *, on = None))]
pub fn w8a8(
    py: Python<'_>,
    x: &Bound<'_, PyAny>,
    weight: &Bound<'_, PyAny>,
    x_scale: &Bound<'_, PyAny>,
    w_scale: &Bound<'_, PyAny>,
    bias: Option<&Bound<'_, PyAny>>,
    on: Option<&Bound<'_, Machine>>,
) -> PyResult<Buffer> {
    let (x, weight) = (Input::take("x", x)?, Input::take("weight", weight)?);
    let (x_scale, w_scale) = (Input::take("x_scale", x_scale)?, Input::take("w_scale", w_scale)?);
    let bias = bias.map(|bias| Input::take("bias", bias)).transpose()?;
    let ([rows, depth], [cols, _]) = (x.axes(py)?, weight.axes(py)?);
    weight.expect(py, &[cols, depth])?;
    let ([_], [_]) = (x_scale.axes(py)?, w_scale.axes(py)?);
    if let Some(bias) = &bias {
        bias.expect(py, &[cols])?;
    }
    let mut out = Output::stale(&[rows, cols])?;
    let (x, weight, to) = (x.slice(), weight.slice(), out.slice_mut());
    let (x_scale, w_scale, bias) = (x_scale.slice(), w_scale.slice(), bias.as_ref().map(Input::slice));
    run(py, on, |m| gemm::w8a8(m, x, weight, x_scale, w_scale, bias, rows, cols, depth, to))?;
    Ok(out.finish())
}

#[pyfunction]
#[pyo3(signature = (
    x, words, x_scale, w_scale, group = -1, x_outliers = None, w_outliers = None, x_outlier_scale = None,
    w_outlier_scale = None, bias = None, *, on = None
))]
#[expect(clippy::too_many_arguments, reason = "two operands with their scales and outliers")]
pub fn w4a4(
    py: Python<'_>,
    x: &Bound<'_, PyAny>,
    words: &Bound<'_, PyAny>,
    x_scale: &Bound<'_, PyAny>,
    w_scale: &Bound<'_, PyAny>,
    group: i64,
    x_outliers: Option<&Bound<'_, PyAny>>,
    w_outliers: Option<&Bound<'_, PyAny>>,
    x_outlier_scale: Option<&Bound<'_, PyAny>>,
    w_outlier_scale: Option<&Bound<'_, PyAny>>,
    bias: Option<&Bound<'_, PyAny>>,
    on: Option<&Bound<'_, Machine>>,
) -> PyResult<Buffer> {
    let (x, words) = (Input::take("x", x)?, Input::take("words", words)?);
    let (x_scale, w_scale) = (Input::take("x_scale", x_scale)?, Input::take("w_scale", w_scale)?);
    let beside = [x_outliers, w_outliers, x_outlier_scale, w_outlier_scale];
    if beside.iter().any(Option::is_some) && beside.iter().any(Option::is_none) {
        let given = format!("{} of four arrays", beside.iter().flatten().count());
        return Err(error(py, "ShapeError", "outliers", given, "both matrices and both scales, or none", ""));
    }
    let outliers = |what, given: Option<&Bound<'_, PyAny>>| given.map(|given| Input::take(what, given)).transpose();
    let scales = |what, given: Option<&Bound<'_, PyAny>>| given.map(|given| Input::take(what, given)).transpose();
    let (x_outliers, w_outliers) = (outliers("x_outliers", x_outliers)?, outliers("w_outliers", w_outliers)?);
    let x_outlier_scale = scales("x_outlier_scale", x_outlier_scale)?;
    let w_outlier_scale = scales("w_outlier_scale", w_outlier_scale)?;
    let bias = bias.map(|bias| Input::take("bias", bias)).transpose()?;
    let ([rows, width], [cols, _]) = (x.axes(py)?, words.axes(py)?);
    let depth = width * 8;
    let (group, count) = groups(py, depth, group)?;
    words.expect(py, &[cols, width])?;
    x_scale.expect(py, &[rows, count])?;
    w_scale.expect(py, &[cols, count])?;
    let mut beside = None;
    if let (Some(x), Some(w), Some(x_scale), Some(w_scale)) =
        (&x_outliers, &w_outliers, &x_outlier_scale, &w_outlier_scale)
    {
        let [_, count] = x.axes(py)?;
        x.expect(py, &[rows, count])?;
        w.expect(py, &[cols, count])?;
        x_scale.expect(py, &[rows])?;
        w_scale.expect(py, &[cols])?;
        let (x_scale, w_scale) = (x_scale.slice(), w_scale.slice());
        beside = Some(gemm::Outliers { x: x.slice(), w: w.slice(), x_scale, w_scale, count });
    }
    if let Some(bias) = &bias {
        bias.expect(py, &[cols])?;
    }
    let mut out = Output::stale(&[rows, cols])?;
    let x = gemm::Operand { words: x.slice(), scale: x_scale.slice() };
    let w = gemm::Operand { words: words.slice(), scale: w_scale.slice() };
    let (bias, to) = (bias.as_ref().map(Input::slice), out.slice_mut());
    run(py, on, |m| gemm::w4a4(m, x, w, beside, bias, rows, cols, depth, group, to))?;
    Ok(out.finish())
}

#[pyfunction]
#[pyo3(signature = (x, words, x_scale, w_scale, level = None, zero = None, group = -1, bias = None, *, on = None))]
#[expect(clippy::too_many_arguments, reason = "a quantized weight is five arguments")]
pub fn w4a8(
    py: Python<'_>,
    x: &Bound<'_, PyAny>,
    words: &Bound<'_, PyAny>,
    x_scale: &Bound<'_, PyAny>,
    w_scale: &Bound<'_, PyAny>,
    level: Option<&Bound<'_, PyAny>>,
    zero: Option<&Bound<'_, PyAny>>,
    group: i64,
    bias: Option<&Bound<'_, PyAny>>,
    on: Option<&Bound<'_, Machine>>,
) -> PyResult<Buffer> {
    let (x, words) = (Input::take("x", x)?, Input::take("words", words)?);
    let (x_scale, w_scale) = (Input::take("x_scale", x_scale)?, Input::take("w_scale", w_scale)?);
    let level = level.map(|level| Input::take("level", level)).transpose()?;
    let zero = zero.map(|zero| Input::take("zero", zero)).transpose()?;
    let bias = bias.map(|bias| Input::take("bias", bias)).transpose()?;
    let ([rows, depth], [cols, _]) = (x.axes(py)?, words.axes(py)?);
    words.expect(py, &[cols, pack::words_per_row(depth, 4)])?;
    let (group, count) = groups(py, depth, group)?;
    for parameters in [&level, &zero].into_iter().flatten() {
        parameters.expect(py, &[cols, count])?;
    }
    let [_] = x_scale.axes(py)?;
    let grouped = w_scale.shape().len() == 2 && level.is_none();
    if grouped {
        w_scale.expect(py, &[cols, count])?;
    } else {
        let [_] = w_scale.axes(py)?;
    }
    if let Some(bias) = &bias {
        bias.expect(py, &[cols])?;
    }
    let mut out = Output::stale(&[rows, cols])?;
    let factor = match &level {
        Some(level) => gemm::Factor::Level(level.slice()),
        None if grouped => gemm::Factor::Scale(w_scale.slice()),
        None => gemm::Factor::One,
    };
    let codes = gemm::Codes { words: words.slice(), factor, zero: zero.as_ref().map(Input::slice), group };
    let (x, bias, to) = (x.slice(), bias.as_ref().map(Input::slice), out.slice_mut());
    let (x_scale, w_scale) = (x_scale.slice(), if grouped { &[1.0] } else { w_scale.slice() });
    run(py, on, |m| gemm::w4a8(m, x, codes, x_scale, w_scale, bias, rows, cols, depth, to))?;
    Ok(out.finish())
}

#[derive(Clone, Copy)]
enum Fp8 {
    E4m3fn,
    E5m2,
}

const FP8: [(&str, Fp8); 2] = [("e4m3fn", Fp8::E4m3fn), ("e5m2", Fp8::E5m2)];

#[pyfunction]
#[pyo3(signature = (x, weight, x_scale, w_scale, format = "e4m3fn", bias = None, *, on = None))]
#[expect(clippy::too_many_arguments, reason = "two operands with their scales")]
pub fn fp8(
    py: Python<'_>,
    x: &Bound<'_, PyAny>,
    weight: &Bound<'_, PyAny>,
    x_scale: &Bound<'_, PyAny>,
    w_scale: &Bound<'_, PyAny>,
    format: &str,
    bias: Option<&Bound<'_, PyAny>>,
    on: Option<&Bound<'_, Machine>>,
) -> PyResult<Buffer> {
    let (x, weight) = (Input::take("x", x)?, Input::take("weight", weight)?);
    let (x_scale, w_scale) = (Input::take("x_scale", x_scale)?, Input::take("w_scale", w_scale)?);
    let bias = bias.map(|bias| Input::take("bias", bias)).transpose()?;
    let format = named(py, "format", format, &FP8)?;
    let ([rows, depth], [cols, _]) = (x.axes(py)?, weight.axes(py)?);
    weight.expect(py, &[cols, depth])?;
    let ([x_rows, x_blocks], [w_rows, w_blocks]) = (x_scale.axes(py)?, w_scale.axes(py)?);
    if let Some(bias) = &bias {
        bias.expect(py, &[cols])?;
    }
    let mut out = Output::stale(&[rows, cols])?;
    let (x, weight, bias, to) = (x.slice(), weight.slice(), bias.as_ref().map(Input::slice), out.slice_mut());
    let x_scale = gemm::Scales { values: x_scale.slice(), rows: x_rows, blocks: x_blocks };
    let w_scale = gemm::Scales { values: w_scale.slice(), rows: w_rows, blocks: w_blocks };
    run(py, on, |m| match format {
        Fp8::E4m3fn => gemm::fp8::<E4m3fn>(m, x, weight, x_scale, w_scale, bias, rows, cols, depth, to),
        Fp8::E5m2 => gemm::fp8::<E5m2>(m, x, weight, x_scale, w_scale, bias, rows, cols, depth, to),
    })?;
    Ok(out.finish())
}

#[pyfunction]
#[pyo3(signature = (x, weight, x_scale, w_scale, offsets, format = "e4m3fn", bias = None, rows = None, *, on = None))]
#[expect(clippy::too_many_arguments, reason = "two operands with their scales")]
pub fn fp8_grouped(
    py: Python<'_>,
    x: &Bound<'_, PyAny>,
    weight: &Bound<'_, PyAny>,
    x_scale: &Bound<'_, PyAny>,
    w_scale: &Bound<'_, PyAny>,
    offsets: &Bound<'_, PyAny>,
    format: &str,
    bias: Option<&Bound<'_, PyAny>>,
    rows: Option<&Bound<'_, PyAny>>,
    on: Option<&Bound<'_, Machine>>,
) -> PyResult<Buffer> {
    let (x, weight) = (Input::take("x", x)?, Input::take("weight", weight)?);
    let (x_scale, w_scale) = (Input::take("x_scale", x_scale)?, Input::take("w_scale", w_scale)?);
    let offsets = Input::<i32>::take("offsets", offsets)?;
    let bias = bias.map(|bias| Input::take("bias", bias)).transpose()?;
    let order = rows.map(|rows| Input::<i32>::take("rows", rows)).transpose()?;
    let format = named(py, "format", format, &FP8)?;
    let ([tokens, depth], [experts, cols, _]) = (x.axes(py)?, weight.axes(py)?);
    weight.expect(py, &[experts, cols, depth])?;
    let ([x_rows, x_blocks], [_, w_rows, w_blocks]) = (x_scale.axes(py)?, w_scale.axes(py)?);
    w_scale.expect(py, &[experts, w_rows, w_blocks])?;
    offsets.expect(py, &[experts + 1])?;
    if let Some(bias) = &bias {
        bias.expect(py, &[experts, cols])?;
    }
    let [rows] = order.as_ref().map_or(Ok([tokens]), |order| order.axes(py))?;
    let mut out = Output::stale(&[rows, cols])?;
    let (x, weight, bias, to) = (x.slice(), weight.slice(), bias.as_ref().map(Input::slice), out.slice_mut());
    let (offsets, order) = (offsets.slice(), order.as_ref().map(Input::slice));
    let x_scale = gemm::Scales { values: x_scale.slice(), rows: x_rows, blocks: x_blocks };
    let w_scale = gemm::Scales { values: w_scale.slice(), rows: w_rows, blocks: w_blocks };
    let kernel = match format {
        Fp8::E4m3fn => gemm::fp8_grouped::<E4m3fn>,
        Fp8::E5m2 => gemm::fp8_grouped::<E5m2>,
    };
    run(py, on, |m| kernel(m, x, weight, x_scale, w_scale, offsets, bias, order, tokens, cols, depth, to))?;
    Ok(out.finish())
}

#[pyfunction]
#[pyo3(signature = (x, words, x_scale, w_scale, group = -1, tensor_scale = 1.0, bias = None, *, on = None))]
#[expect(clippy::too_many_arguments, reason = "two operands with their scales")]
pub fn int4_fp8(
    py: Python<'_>,
    x: &Bound<'_, PyAny>,
    words: &Bound<'_, PyAny>,
    x_scale: &Bound<'_, PyAny>,
    w_scale: &Bound<'_, PyAny>,
    group: i64,
    tensor_scale: f32,
    bias: Option<&Bound<'_, PyAny>>,
    on: Option<&Bound<'_, Machine>>,
) -> PyResult<Buffer> {
    let (x, words) = (Input::take("x", x)?, Input::take("words", words)?);
    let (x_scale, w_scale) = (Input::take("x_scale", x_scale)?, Parameters::take("w_scale", w_scale)?);
    let bias = bias.map(|bias| Input::take("bias", bias)).transpose()?;
    let ([rows, depth], [cols, _], [_]) = (x.axes(py)?, words.axes(py)?, x_scale.axes(py)?);
    let (group, count) = groups(py, depth, group)?;
    words.expect(py, &[cols, pack::words_per_row(depth, 4)])?;
    w_scale.expect(py, "w_scale", &[cols, count])?;
    if let Some(bias) = &bias {
        bias.expect(py, &[cols])?;
    }
    let (mut out, mut wide_scale) = (Output::stale(&[rows, cols])?, w_scale.room()?);
    let (narrow_scale, room_scale, to) = (w_scale.narrow(), wide_scale.slice_mut(), out.slice_mut());
    let (x, words, x_scale) = (x.slice(), words.slice(), x_scale.slice());
    let bias = bias.as_ref().map(Input::slice);
    run(py, on, move |m| {
        let scale = match narrow_scale {
            NarrowParameters::Codes(codes) => GroupScales::E4m3fn(codes),
            NarrowParameters::Floats(values) => GroupScales::Floats(values.widen(m, room_scale)?),
        };
        gemm::int4_fp8(m, x, words, x_scale, scale, tensor_scale, bias, rows, cols, depth, group, to)
    })?;
    Ok(out.finish())
}

/// A call that is generic over the element, of the one that goes by this name.
macro_rules! of_element {
    ($py:expr, $name:expr, $call:ident($($argument:expr),*)) => {
        match named($py, "element", $name, &ELEMENTS)? {
            Element::E2m1 => $call::<E2m1>($($argument),*),
            Element::E2m3 => $call::<E2m3>($($argument),*),
            Element::E3m2 => $call::<E3m2>($($argument),*),
            Element::E4m3fn => $call::<E4m3fn>($($argument),*),
            Element::E5m2 => $call::<E5m2>($($argument),*),
            Element::Int8 => $call::<Int<8>>($($argument),*),
            Element::Int6 => $call::<Int<6>>($($argument),*),
            Element::Int4 => $call::<Int<4>>($($argument),*),
        }
    };
}

#[pyfunction]
#[pyo3(signature = (x, words, scale, element, block = 32, scale_dtype = "e8m0", tensor_scale = 1.0, *, on = None))]
#[expect(clippy::too_many_arguments, reason = "a format is four arguments")]
pub fn block_scaled(
    py: Python<'_>,
    x: &Bound<'_, PyAny>,
    words: &Bound<'_, PyAny>,
    scale: &Bound<'_, PyAny>,
    element: &str,
    block: i64,
    scale_dtype: &str,
    tensor_scale: f32,
    on: Option<&Bound<'_, Machine>>,
) -> PyResult<Buffer> {
    of_element!(py, element, in_blocks(py, x, words, scale, block, scale_dtype, tensor_scale, on))
}

/// `block_scaled` for one element.
#[expect(clippy::too_many_arguments, reason = "a format is four arguments")]
fn in_blocks<E: kernels::minifloat::Element>(
    py: Python<'_>,
    x: &Bound<'_, PyAny>,
    words: &Bound<'_, PyAny>,
    scale: &Bound<'_, PyAny>,
    block: i64,
    scale_dtype: &str,
    tensor_scale: f32,
    on: Option<&Bound<'_, Machine>>,
) -> PyResult<Buffer> {
    let power = named(py, "scale_dtype", scale_dtype, &SCALES)?;
    let (x, words, scale) = (Floats::take("x", x)?, Input::take("words", words)?, Input::take("scale", scale)?);
    let (others, depth) = x.last_axis(py, "x")?;
    let (rows, [cols, _]) = (others.iter().product(), words.axes(py)?);
    let (block, count) = blocks(py, depth, block)?;
    words.expect(py, &[cols, pack::words_per_row(depth, E::BITS)])?;
    scale.expect(py, &[cols, count])?;
    let shape = [others, &[cols]].concat();
    let mut wide_x = x.room()?;
    let (narrow_x, room_x) = (x.narrow(), wide_x.slice_mut());
    let weight = gemm::Blocks { words: words.slice(), scale: scale.slice(), block, power, tensor_scale };
    in_dtype_of(py, &x, &shape, on, move |m: &kernels::Machine, to: &mut [f32]| {
        gemm::block_scaled::<E>(m, narrow_x.widen(m, room_x)?, weight, rows, cols, depth, to)
    })
}

#[pyfunction]
#[pyo3(signature = (x, words, x_scale, w_scale, element, block = 32, scale_dtype = "e8m0", tensor_scale = 1.0, *, on = None))]
#[expect(clippy::too_many_arguments, reason = "a format is four arguments")]
pub fn block_scaled_pair(
    py: Python<'_>,
    x: &Bound<'_, PyAny>,
    words: &Bound<'_, PyAny>,
    x_scale: &Bound<'_, PyAny>,
    w_scale: &Bound<'_, PyAny>,
    element: &str,
    block: i64,
    scale_dtype: &str,
    tensor_scale: f32,
    on: Option<&Bound<'_, Machine>>,
) -> PyResult<Buffer> {
    of_element!(py, element, both_in_blocks(py, x, words, x_scale, w_scale, block, scale_dtype, tensor_scale, on))
}

/// `block_scaled_pair` for one element.
#[expect(clippy::too_many_arguments, reason = "a format is four arguments")]
fn both_in_blocks<E: kernels::minifloat::Element>(
    py: Python<'_>,
    x: &Bound<'_, PyAny>,
    words: &Bound<'_, PyAny>,
    x_scale: &Bound<'_, PyAny>,
    w_scale: &Bound<'_, PyAny>,
    block: i64,
    scale_dtype: &str,
    tensor_scale: f32,
    on: Option<&Bound<'_, Machine>>,
) -> PyResult<Buffer> {
    let power = named(py, "scale_dtype", scale_dtype, &SCALES)?;
    let (x, words) = (Input::take("x", x)?, Input::take("words", words)?);
    let (x_scale, w_scale) = (Input::take("x_scale", x_scale)?, Input::take("w_scale", w_scale)?);
    let (block, _) = blocks(py, 0, block)?;
    let ([rows, _], [cols, _], [_, count]) = (x.axes(py)?, words.axes(py)?, x_scale.axes(py)?);
    let depth = count * block; // there are only whole blocks
    for (codes, scale, rows) in [(&x, &x_scale, rows), (&words, &w_scale, cols)] {
        codes.expect(py, &[rows, pack::words_per_row(depth, E::BITS)])?;
        scale.expect(py, &[rows, count])?;
    }
    let mut out = Output::stale(&[rows, cols])?;
    let to = out.slice_mut();
    let of_x = gemm::Blocks { words: x.slice(), scale: x_scale.slice(), block, power, tensor_scale: 1.0 };
    let weight = gemm::Blocks { words: words.slice(), scale: w_scale.slice(), block, power, tensor_scale };
    run(py, on, move |m| gemm::block_scaled_pair::<E>(m, of_x, weight, rows, cols, depth, to))?;
    Ok(out.finish())
}

#[pyfunction]
#[pyo3(signature = (x, values, columns, pointers, base = None, *, on = None))]
pub fn csr(
    py: Python<'_>,
    x: &Bound<'_, PyAny>,
    values: &Bound<'_, PyAny>,
    columns: &Bound<'_, PyAny>,
    pointers: &Bound<'_, PyAny>,
    base: Option<&Bound<'_, PyAny>>,
    on: Option<&Bound<'_, Machine>>,
) -> PyResult<Buffer> {
    let (x, values) = (Floats::take("x", x)?, Floats::take("values", values)?);
    let (columns, pointers) = (Places::take("columns", columns)?, Input::<i32>::take("pointers", pointers)?);
    let base = base.map(|base| Floats::take("base", base)).transpose()?;
    let (others, depth) = x.last_axis(py, "x")?;
    let (rows, [starts]) = (others.iter().product(), pointers.axes(py)?);
    let cols = starts
        .checked_sub(1)
        .ok_or_else(|| error(py, "ShapeError", "pointers", "shape [0]", "shape [N + 1]", "the first pointer is 0"))?;
    let (_, count) = values.last_axis(py, "values")?;
    values.expect(py, "values", &[count])?;
    columns.expect(py, "columns", &[count])?;
    let shape = [others, &[cols]].concat();
    if let Some(base) = &base {
        base.expect(py, "base", &shape)?;
    }
    let mut wide_x = x.room()?;
    let (narrow_x, base, columns, pointers) =
        (x.narrow(), base.as_ref().map(Floats::narrow), columns.narrow(), pointers.slice());
    let (entries, room_x) = (values.narrow(), wide_x.slice_mut());
    let product = move |m: &kernels::Machine, to: &mut [f32]| {
        let x = narrow_x.widen(m, room_x)?;
        if let Some(base) = base {
            base.write(m, to)?;
        }
        match columns {
            NarrowPlaces::U16(columns) => gemm::csr(m, x, entries, columns, pointers, rows, cols, depth, to),
            NarrowPlaces::I32(columns) => gemm::csr(m, x, entries, columns, pointers, rows, cols, depth, to),
        }
    };
    in_dtype_of(py, &x, &shape, on, product)
}

/// Elements as f32, in `room` if need be.
fn widened<'a>(
    py: Python<'_>,
    floats: &'a Floats,
    room: &'a mut Output<f32>,
    on: Option<&Bound<'_, Machine>>,
) -> PyResult<&'a [f32]> {
    let (narrow, room) = (floats.narrow(), room.slice_mut());
    run(py, on, |m| narrow.widen(m, room))
}

#[pyfunction]
#[pyo3(signature = (x, words, bits = 2, codebook = None, residual = None, outputs = None, *, on = None))]
#[expect(clippy::too_many_arguments, reason = "a quantized weight is five arguments")]
pub fn codebook_gemm(
    py: Python<'_>,
    x: &Bound<'_, PyAny>,
    words: &Bound<'_, PyAny>,
    bits: i64,
    codebook: Option<&Bound<'_, PyAny>>,
    residual: Option<&Bound<'_, PyAny>>,
    outputs: Option<i64>,
    on: Option<&Bound<'_, Machine>>,
) -> PyResult<Buffer> {
    let (x, words) = (Floats::take("x", x)?, Input::take("words", words)?);
    let first = codebook.map(|codebook| Floats::take("codebook", codebook)).transpose()?;
    let second = residual.map(|residual| Floats::take("residual", residual)).transpose()?;
    let mut rooms = (first.as_ref().map(Floats::room).transpose()?, second.as_ref().map(Floats::room).transpose()?);
    let table = match (&first, &second) {
        (Some(first), second) => {
            let [groups, _, dim] = first.axes(py, "codebook")?;
            if let Some(second) = second {
                let [_, count, _] = second.axes(py, "residual")?;
                second.expect(py, "residual", &[groups, count, dim])?;
            }
            let second = second.as_ref().zip(rooms.1.as_mut());
            Codebook::Table(Table {
                dim,
                groups,
                first: rooms.0.as_mut().map_or(Ok(&[][..]), |room| widened(py, first, room, on))?,
                second: second.map_or(Ok(&[][..]), |(second, room)| widened(py, second, room, on))?,
            })
        }
        (None, Some(_)) => {
            return Err(error(py, "ShapeError", "residual", "a residual alone", "a codebook before it", ""));
        }
        (None, None) => Codebook::Lattice(lattice(py, bits)?),
    };
    let (others, depth) = x.last_axis(py, "x")?;
    let (rows, [strips, _]) = (others.iter().product(), words.axes(py)?);
    let height = if let Codebook::Table(table) = table { table.dim } else { 1 };
    let cols = outputs.map_or(Ok(strips.saturating_mul(height)), |outputs| natural(py, "outputs", outputs))?;
    words.expect(py, &table.words(cols, depth))?;
    let shape = [others, &[cols]].concat();
    let mut wide_x = x.room()?;
    let (words, narrow_x, room_x) = (words.slice(), x.narrow(), wide_x.slice_mut());
    let product = move |m: &kernels::Machine, to: &mut [f32]| {
        gemm::codebook_gemm(m, narrow_x.widen(m, room_x)?, words, table, rows, cols, depth, to)
    };
    in_dtype_of(py, &x, &shape, on, product)
}
