//! The Hadamard transform.

use pyo3::prelude::*;
use subbyte_kernels as kernels;

use crate::array::{Buffer, Floats, Output};
use crate::errors::raise;
use crate::machine::Machine;
use crate::numbers::natural;
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
    let scale = scale.unwrap_or((n as f64).sqrt().recip() as f32);
    in_dtype_of(py, &x, &shape, on, move |m: &kernels::Machine, to: &mut [f32]| {
        from.write(m, to)?;
        kernels::hadamard::hadamard(m, to, rows, n, scale, transpose)
    })
}

/// `H_K` for rows of `n`, [K, K] of 1 and -1; for a power of two K is 1.
#[pyfunction]
pub fn hadamard_matrix(py: Python<'_>, n: i64) -> PyResult<Buffer> {
    let n = natural(py, "n", n)?;
    let (order, matrix) = kernels::hadamard::outer(n).map_err(|failure| raise(py, &failure))?;
    let mut out = Output::<f32>::zeroed(&[order, order])?;
    out.slice_mut().fill(1.0);
    out.slice_mut()[..matrix.len()].copy_from_slice(&matrix);
    Ok(out.finish())
}
