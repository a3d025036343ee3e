//! Results in the dtype of their activations.

use dlpark::DlpackElement;
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use pyo3::prelude::*;
use subbyte_kernels as kernels;
use subbyte_kernels::minifloat::{Bf16, F16, Format, Rounding, encode};

use crate::array::{Buffer, Floats, Output};
use crate::machine::{Machine, run};

/// A result of `shape` in the dtype of `x`: as it was computed, in f32, or rounded once.
pub fn in_dtype_of(
    py: Python<'_>,
    x: &Floats,
    shape: &[usize],
    on: Option<&Bound<'_, Machine>>,
    compute: impl FnOnce(&kernels::Machine, &mut [f32]) -> kernels::Result<()> + Send,
) -> PyResult<Buffer> {
    let mut wide = Output::stale(shape)?;
    let to = wide.slice_mut();
    match x {
        Floats::F32(_) => {
            run(py, on, |m| compute(m, to))?;
            Ok(wide.finish())
        }
        Floats::F16(_) => rounded::<F16, f16>(py, shape, on, to, compute),
        Floats::Bf16(_) => rounded::<Bf16, bf16>(py, shape, on, to, compute),
    }
}

/// A result that is rounded once, to `T`; what is too large for it is infinity, as in any product.
fn rounded<F: Format<Code = u16>, T: DlpackElement>(
    py: Python<'_>,
    shape: &[usize],
    on: Option<&Bound<'_, Machine>>,
    wide: &mut [f32],
    compute: impl FnOnce(&kernels::Machine, &mut [f32]) -> kernels::Result<()> + Send,
) -> PyResult<Buffer>
where
    [T]: HalfFloatSliceExt,
{
    let mut out = Output::<T>::stale(shape)?;
    let bits = out.slice_mut().reinterpret_cast_mut();
    run(py, on, |m| {
        compute(m, wide)?;
        encode::<F>(m, (&*wide).into(), Rounding::Even, false, bits)
    })?;
    Ok(out.finish())
}
