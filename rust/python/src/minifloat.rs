//! Casts between f32 and narrower floats.

use pyo3::prelude::*;
use subbyte_kernels::minifloat::{self as kernels, Bf16, E4m3fn, E5m2, F16};

use crate::array::{Buffer, Input, Output};
use crate::machine::{Machine, run};
use crate::numbers::named;

#[derive(Clone, Copy)]
enum Format {
    E4m3fn,
    E5m2,
    Bf16,
    F16,
}

const FORMATS: [(&str, Format); 4] =
    [("e4m3fn", Format::E4m3fn), ("e5m2", Format::E5m2), ("bf16", Format::Bf16), ("f16", Format::F16)];

#[pyfunction]
#[pyo3(signature = (x, format, saturate = true, *, on = None))]
pub fn encode_minifloat(
    py: Python<'_>,
    x: &Bound<'_, PyAny>,
    format: &str,
    saturate: bool,
    on: Option<&Bound<'_, Machine>>,
) -> PyResult<Buffer> {
    fn encode<F: kernels::Format<Code: dlpark::DlpackElement>>(
        py: Python<'_>,
        x: &Input<f32>,
        saturate: bool,
        on: Option<&Bound<'_, Machine>>,
    ) -> PyResult<Buffer> {
        let mut codes = Output::zeroed(x.shape())?;
        let (from, to) = (x.slice(), codes.slice_mut());
        run(py, on, |m| kernels::encode::<F>(m, from, saturate, to))?;
        Ok(codes.finish())
    }
    let format = named(py, "format", format, &FORMATS)?;
    let x = Input::take("x", x)?;
    match format {
        Format::E4m3fn => encode::<E4m3fn>(py, &x, saturate, on),
        Format::E5m2 => encode::<E5m2>(py, &x, saturate, on),
        Format::Bf16 => encode::<Bf16>(py, &x, saturate, on),
        Format::F16 => encode::<F16>(py, &x, saturate, on),
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
        let mut x = Output::zeroed(input.shape())?;
        let (from, to) = (input.slice(), x.slice_mut());
        run(codes.py(), on, |m| kernels::decode::<F>(m, from, to))?;
        Ok(x.finish())
    }
    match named(py, "format", format, &FORMATS)? {
        Format::E4m3fn => decode::<E4m3fn>(codes, on),
        Format::E5m2 => decode::<E5m2>(codes, on),
        Format::Bf16 => decode::<Bf16>(codes, on),
        Format::F16 => decode::<F16>(codes, on),
    }
}
