//! The Hadamard transform.

use pyo3::prelude::*;
use subbyte_kernels as kernels;
use subbyte_kernels::hadamard::hadamard_quantize as hadamard_quantize_as;
use subbyte_kernels::minifloat::E4m3fn;
use subbyte_kernels::quantize::Int8;

use crate::array::{Buffer, Floats, Input, Output};
use crate::errors::raise;
use crate::machine::Machine;
use crate::numbers::natural;
use crate::quantize::{TokenFormat, token_codes};
use crate::rounded::in_dtype_of;

#[pyfunction]
#[pyo3(signature = (x, scale = None, transpose = false, *, on = None))]
pub fn hadamard(
    py: Python<'_>,
    x: &Bound<'_, PyAny>,
    scale: Option<f32>,
    transpose: bool,
    on: Option<&Bound<'_, Machine>>,
) -> PyResult<Buffer> {
    let x = Floats::take("x", x)?;
    let (others, n) = x.last_axis(py, "x")?;
    let (rows, shape, from) = (others.iter().product(), [others, &[n]].concat(), x.narrow());
    let scale = scale.unwrap_or_else(|| orthonormal(n));
    in_dtype_of(py, &x, &shape, on, move |m: &kernels::Machine, to: &mut [f32]| {
        kernels::hadamard::hadamard(m, Some(from), to, rows, n, scale, transpose)
    })
}

#[pyfunction]
#[pyo3(signature = (x, signs = None, scale = None, transpose = false, eps = 1e-5, format = "int8", *, on = None))]
#[expect(clippy::too_many_arguments, reason = "a transform and a format")]
pub fn hadamard_quantize(
    py: Python<'_>,
    x: &Bound<'_, PyAny>,
    signs: Option<&Bound<'_, PyAny>>,
    scale: Option<f32>,
    transpose: bool,
    eps: f32,
    format: &str,
    on: Option<&Bound<'_, Machine>>,
) -> PyResult<(Buffer, Buffer)> {
    let (x, format) = (Floats::take("x", x)?, TokenFormat::named(py, format)?);
    let signs = signs.map(|signs| Input::take("signs", signs)).transpose()?;
    let [rows, n] = x.axes(py, "x")?;
    if let Some(signs) = &signs {
        signs.expect(py, &[n])?;
    }
    let scale = scale.unwrap_or_else(|| orthonormal(n));
    let mut wide = x.room()?;
    let (x, room, signs) = (x.narrow(), wide.slice_mut(), signs.as_ref().map(Input::slice));
    match format {
        TokenFormat::Int8 => token_codes(py, on, [rows, n], |m, codes, scales| {
            let x = x.widen(m, room)?;
            hadamard_quantize_as::<Int8>(m, x, signs, rows, n, scale, transpose, eps, codes, scales)
        }),
        TokenFormat::E4m3fn => token_codes(py, on, [rows, n], |m, codes, scales| {
            let x = x.widen(m, room)?;
            hadamard_quantize_as::<E4m3fn>(m, x, signs, rows, n, scale, transpose, eps, codes, scales)
        }),
    }
}

/// What keeps lengths.
fn orthonormal(n: usize) -> f32 {
    (n as f64).sqrt().recip() as f32
}

/// `H_K` for rows of `n`, [K, K] of 1 and -1, Hartley's matrix for an odd K; for a power of two K is 1.
#[pyfunction]
pub fn hadamard_matrix(py: Python<'_>, n: i64) -> PyResult<Buffer> {
    let n = natural(py, "n", n)?;
    let (order, matrix) = kernels::hadamard::outer(n).map_err(|failure| raise(py, &failure))?;
    let mut out = Output::<f32>::zeroed(&[order, order])?;
    out.slice_mut().fill(1.0);
    out.slice_mut()[..matrix.len()].copy_from_slice(&matrix);
    Ok(out.finish())
}
