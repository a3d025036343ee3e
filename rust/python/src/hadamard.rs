//! The Hadamard transform.

use pyo3::prelude::*;
use subbyte_kernels::hadamard as kernels;

use crate::array::{Buffer, Input, Output};
use crate::machine::{Machine, run};

#[pyfunction]
#[pyo3(signature = (x, scale = None, transpose = false, *, on = None))]
pub fn hadamard(
    py: Python<'_>,
    x: &Bound<'_, PyAny>,
    scale: Option<f32>,
    transpose: bool,
    on: Option<&Bound<'_, Machine>>,
) -> PyResult<Buffer> {
    let x = Input::take("x", x)?;
    let (others, n) = x.last_axis(py)?;
    let rows = others.iter().product();
    let scale = scale.unwrap_or((n as f64).sqrt().recip() as f32);
    let mut out = Output::zeroed(x.shape())?;
    let (from, to) = (x.slice(), out.slice_mut());
    run(py, on, |m| {
        to.copy_from_slice(from);
        kernels::hadamard(m, to, rows, n, scale, transpose)
    })?;
    Ok(out.finish())
}
