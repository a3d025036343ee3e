//! Affine quantization: fitting grids, rounding to them, and back; codes of a table.

use dlpark::DlpackElement;
use pyo3::prelude::*;
use subbyte_kernels::minifloat::E4m3fn;
use subbyte_kernels::quantize as kernels;
use subbyte_kernels::quantize::{Int8, Norm};

use crate::array::{Buffer, Floats, Input, Output, Parameters};
use crate::machine::{Machine, run};
use crate::numbers::{GridOptions, bits, groups, named, natural};

#[pyfunction]
#[pyo3(signature = (
    x, bits, group = -1, symmetric = true, narrow = false, forced_zero = true, eps = 0.0, scale_dtype = "f32", norm = 2.4,
    shrink_grid = 100, shrink_steps = 0, *, on = None
))]
#[expect(clippy::too_many_arguments, reason = "the options of a grid, flat as Python spells them")]
pub fn fit_affine(
    py: Python<'_>,
    x: &Bound<'_, PyAny>,
    bits: i64,
    group: i64,
    symmetric: bool,
    narrow: bool,
    forced_zero: bool,
    eps: f32,
    scale_dtype: &str,
    norm: f32,
    shrink_grid: i64,
    shrink_steps: i64,
    on: Option<&Bound<'_, Machine>>,
) -> PyResult<(Buffer, Buffer)> {
    let options = GridOptions { bits, symmetric, narrow, forced_zero, eps, scale_dtype };
    let grid = options.grid(py, norm, shrink_grid, shrink_steps)?;
    let x = Input::take("x", x)?;
    let [rows, cols] = x.axes(py)?;
    let (group, count) = groups(py, cols, group)?;
    let (mut scale, mut zero) = (Output::zeroed(&[rows, count])?, Output::zeroed(&[rows, count])?);
    let (from, to, zeros) = (x.slice(), scale.slice_mut(), zero.slice_mut());
    run(py, on, |m| kernels::fit_affine(m, &grid, from, rows, cols, group, to, zeros))?;
    Ok((scale.finish(), zero.finish()))
}

#[pyfunction]
#[pyo3(signature = (x, scale, zero, bits, group = -1, *, on = None))]
pub fn quantize_affine(
    py: Python<'_>,
    x: &Bound<'_, PyAny>,
    scale: &Bound<'_, PyAny>,
    zero: &Bound<'_, PyAny>,
    bits: i64,
    group: i64,
    on: Option<&Bound<'_, Machine>>,
) -> PyResult<Buffer> {
    let (x, scale, zero) = (Input::take("x", x)?, Input::take("scale", scale)?, Input::take("zero", zero)?);
    let [rows, cols] = x.axes(py)?;
    let (bits, (group, count)) = (self::bits(py, bits)?, groups(py, cols, group)?);
    scale.expect(py, &[rows, count])?;
    zero.expect(py, &[rows, count])?;
    let mut codes = Output::stale(&[rows, cols])?;
    let (from, scale, zero, to) = (x.slice(), scale.slice(), zero.slice(), codes.slice_mut());
    run(py, on, |m| kernels::quantize_affine(m, from, rows, cols, group, bits, scale, zero, to))?;
    Ok(codes.finish())
}

#[pyfunction]
#[pyo3(signature = (x, scale, bits = 8, group = -1, narrow = true, *, on = None))]
pub fn quantize_symmetric(
    py: Python<'_>,
    x: &Bound<'_, PyAny>,
    scale: &Bound<'_, PyAny>,
    bits: i64,
    group: i64,
    narrow: bool,
    on: Option<&Bound<'_, Machine>>,
) -> PyResult<Buffer> {
    let (x, scale) = (Input::take("x", x)?, Input::take("scale", scale)?);
    let [rows, cols] = x.axes(py)?;
    let (bits, (group, count)) = (self::bits(py, bits)?, groups(py, cols, group)?);
    scale.expect(py, &[rows, count])?;
    let mut codes = Output::stale(&[rows, cols])?;
    let (from, scale, to) = (x.slice(), scale.slice(), codes.slice_mut());
    run(py, on, |m| kernels::quantize_symmetric(m, from, rows, cols, group, bits, narrow, scale, to))?;
    Ok(codes.finish())
}

#[pyfunction]
#[pyo3(signature = (codes, scale, zero, group = -1, *, on = None))]
pub fn dequantize_affine(
    py: Python<'_>,
    codes: &Bound<'_, PyAny>,
    scale: &Bound<'_, PyAny>,
    zero: &Bound<'_, PyAny>,
    group: i64,
    on: Option<&Bound<'_, Machine>>,
) -> PyResult<Buffer> {
    let (codes, scale, zero) =
        (Input::take("codes", codes)?, Input::take("scale", scale)?, Parameters::take("zero", zero)?);
    let [rows, cols] = codes.axes(py)?;
    let (group, count) = groups(py, cols, group)?;
    scale.expect(py, &[rows, count])?;
    zero.expect(py, "zero", &[rows, count])?;
    let (mut out, mut wide) = (Output::stale(&[rows, cols])?, zero.room()?);
    let (from, scale, zero, room, to) =
        (codes.slice(), scale.slice(), zero.narrow(), wide.slice_mut(), out.slice_mut());
    run(py, on, |m| kernels::dequantize_affine(m, from, rows, cols, group, scale, zero.widen(m, room)?, to))?;
    Ok(out.finish())
}

/// What the codes of a row of activations are.
#[derive(Clone, Copy)]
pub enum TokenFormat {
    Int8,
    E4m3fn,
}

impl TokenFormat {
    /// The format of that name.
    pub fn named(py: Python<'_>, given: &str) -> PyResult<Self> {
        named(py, "format", given, &[("int8", Self::Int8), ("e4m3fn", Self::E4m3fn)])
    }
}

/// Codes and scales of rows, as `kernel` fills them.
pub fn token_codes<C: DlpackElement + Send>(
    py: Python<'_>,
    on: Option<&Bound<'_, Machine>>,
    shape: [usize; 2],
    kernel: impl FnOnce(&subbyte_kernels::Machine, &mut [C], &mut [f32]) -> subbyte_kernels::Result<()> + Send,
) -> PyResult<(Buffer, Buffer)> {
    let (mut codes, mut scale) = (Output::stale(&shape)?, Output::stale(&shape[..1])?);
    let (to, scales) = (codes.slice_mut(), scale.slice_mut());
    run(py, on, |m| kernel(m, to, scales))?;
    Ok((codes.finish(), scale.finish()))
}

#[pyfunction]
#[pyo3(signature = (x, scale, bounds, group = -1, *, on = None))]
pub fn quantize_table(
    py: Python<'_>,
    x: &Bound<'_, PyAny>,
    scale: &Bound<'_, PyAny>,
    bounds: &Bound<'_, PyAny>,
    group: i64,
    on: Option<&Bound<'_, Machine>>,
) -> PyResult<Buffer> {
    let (x, scale, bounds) =
        (Input::take("x", x)?, Input::take("scale", scale)?, Input::<f32>::take("bounds", bounds)?);
    let [rows, cols] = x.axes(py)?;
    let (group, count) = groups(py, cols, group)?;
    scale.expect(py, &[rows, count])?;
    let by_row = by_row(py, &bounds, rows)?;
    let mut codes = Output::stale(&[rows, cols])?;
    let (from, scale, bounds, to) = (x.slice(), scale.slice(), bounds.slice(), codes.slice_mut());
    run(py, on, |m| kernels::quantize_table(m, from, rows, cols, group, scale, bounds, by_row, to))?;
    Ok(codes.finish())
}

#[pyfunction]
#[pyo3(signature = (codes, scale, table, group = -1, *, on = None))]
pub fn dequantize_table(
    py: Python<'_>,
    codes: &Bound<'_, PyAny>,
    scale: &Bound<'_, PyAny>,
    table: &Bound<'_, PyAny>,
    group: i64,
    on: Option<&Bound<'_, Machine>>,
) -> PyResult<Buffer> {
    let (codes, scale, table) =
        (Input::take("codes", codes)?, Input::take("scale", scale)?, Input::<f32>::take("table", table)?);
    let [rows, cols] = codes.axes(py)?;
    let (group, count) = groups(py, cols, group)?;
    scale.expect(py, &[rows, count])?;
    let by_row = by_row(py, &table, rows)?;
    let mut out = Output::stale(&[rows, cols])?;
    let (from, scale, table, to) = (codes.slice(), scale.slice(), table.slice(), out.slice_mut());
    run(py, on, |m| kernels::dequantize_table(m, from, rows, cols, group, scale, table, by_row, to))?;
    Ok(out.finish())
}

/// Whether there is a table for each of the rows, not one for all.
fn by_row(py: Python<'_>, tables: &Input<f32>, rows: usize) -> PyResult<bool> {
    let [count, width] = tables.axes(py)?;
    if count != 1 {
        tables.expect(py, &[rows, width])?;
    }
    Ok(count != 1)
}

#[pyfunction]
#[pyo3(signature = (x, eps = 1e-5, format = "int8", *, on = None))]
pub fn quantize_tokens(
    py: Python<'_>,
    x: &Bound<'_, PyAny>,
    eps: f32,
    format: &str,
    on: Option<&Bound<'_, Machine>>,
) -> PyResult<(Buffer, Buffer)> {
    let (x, format) = (Floats::take("x", x)?, TokenFormat::named(py, format)?);
    let [rows, cols] = x.axes(py, "x")?;
    let mut wide = x.room()?;
    let (x, room) = (x.narrow(), wide.slice_mut());
    match format {
        TokenFormat::Int8 => token_codes(py, on, [rows, cols], |m, codes, scale| {
            kernels::quantize_tokens::<Int8>(m, x.widen(m, room)?, rows, cols, eps, codes, scale)
        }),
        TokenFormat::E4m3fn => token_codes(py, on, [rows, cols], |m, codes, scale| {
            kernels::quantize_tokens::<E4m3fn>(m, x.widen(m, room)?, rows, cols, eps, codes, scale)
        }),
    }
}

#[pyfunction]
#[pyo3(signature = (
    x, weight, bias = None, norm = "rms", norm_eps = 1e-5, eps = 1e-5, format = "int8", *, on = None
))]
#[expect(clippy::too_many_arguments, reason = "a norm and a format")]
pub fn norm_quantize(
    py: Python<'_>,
    x: &Bound<'_, PyAny>,
    weight: &Bound<'_, PyAny>,
    bias: Option<&Bound<'_, PyAny>>,
    norm: &str,
    norm_eps: f32,
    eps: f32,
    format: &str,
    on: Option<&Bound<'_, Machine>>,
) -> PyResult<(Buffer, Buffer)> {
    let (x, weight, format) = (Floats::take("x", x)?, Floats::take("weight", weight)?, TokenFormat::named(py, format)?);
    let bias = bias.map(|bias| Floats::take("bias", bias)).transpose()?;
    let centred = named(py, "norm", norm, &[("rms", false), ("layer", true)])?;
    let [rows, cols] = x.axes(py, "x")?;
    weight.expect(py, "weight", &[cols])?;
    if let Some(bias) = &bias {
        bias.expect(py, "bias", &[cols])?;
    }
    let (mut wide, mut wide_weight) = (x.room()?, weight.room()?);
    let mut wide_bias = bias.as_ref().map_or_else(|| Output::zeroed(&[0]), Floats::room)?;
    let (x, weight, bias) = (x.narrow(), weight.narrow(), bias.as_ref().map(Floats::narrow));
    let (room, weight_room, bias_room) = (wide.slice_mut(), wide_weight.slice_mut(), wide_bias.slice_mut());
    let (x, norm) = run(py, on, |m| {
        let bias = bias.map(|bias| bias.widen(m, bias_room)).transpose()?;
        let norm = Norm { centred, weight: weight.widen(m, weight_room)?, bias, eps: norm_eps };
        Ok((x.widen(m, room)?, norm))
    })?;
    match format {
        TokenFormat::Int8 => token_codes(py, on, [rows, cols], |m, codes, scale| {
            kernels::norm_quantize::<Int8>(m, x, rows, cols, norm, eps, codes, scale)
        }),
        TokenFormat::E4m3fn => token_codes(py, on, [rows, cols], |m, codes, scale| {
            kernels::norm_quantize::<E4m3fn>(m, x, rows, cols, norm, eps, codes, scale)
        }),
    }
}

#[pyfunction]
#[pyo3(signature = (
    weight, gram, bits, group, symmetric = true, narrow = false, forced_zero = true, eps = 0.0, scale_dtype = "f32",
    shrink_grid = 20, shrink_steps = 10, *, on = None
))]
#[expect(clippy::too_many_arguments, reason = "the options of a grid, flat as Python spells them")]
pub fn search_clip(
    py: Python<'_>,
    weight: &Bound<'_, PyAny>,
    gram: &Bound<'_, PyAny>,
    bits: i64,
    group: i64,
    symmetric: bool,
    narrow: bool,
    forced_zero: bool,
    eps: f32,
    scale_dtype: &str,
    shrink_grid: i64,
    shrink_steps: i64,
    on: Option<&Bound<'_, Machine>>,
) -> PyResult<Buffer> {
    let options = GridOptions { bits, symmetric, narrow, forced_zero, eps, scale_dtype };
    let grid = options.grid(py, 0.0, 0, 0)?;
    let (whole, steps) = (natural(py, "shrink_grid", shrink_grid)?, natural(py, "shrink_steps", shrink_steps)?);
    let (weight, gram) = (Input::take("weight", weight)?, Input::take("gram", gram)?);
    let [rows, cols] = weight.axes(py)?;
    let (group, count) = groups(py, cols, group)?;
    gram.expect(py, &[count, group, group])?;
    let mut clip = Output::zeroed(&[rows, count])?;
    let (from, gram, to) = (weight.slice(), gram.slice(), clip.slice_mut());
    run(py, on, |m| kernels::search_clip(m, &grid, from, rows, cols, group, gram, whole, steps, to))?;
    Ok(clip.finish())
}
