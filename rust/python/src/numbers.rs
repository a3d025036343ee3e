//! Numbers and names on their way from Python: checked before anything is allocated by them.

use pyo3::prelude::*;
use subbyte_kernels::quantize::{Grid, ScaleType, Shrink};

use crate::errors::error;

/// A number of bits, 1 to 8.
pub fn bits(py: Python<'_>, given: i64) -> PyResult<u32> {
    match u32::try_from(given) {
        Ok(bits @ 1..=8) => Ok(bits),
        _ => Err(error(py, "RangeError", "bits", given, "1 to 8", "")),
    }
}

/// A number that is not negative.
pub fn natural<N: TryFrom<i64>>(py: Python<'_>, what: &str, given: i64) -> PyResult<N> {
    N::try_from(given).map_err(|_| error(py, "RangeError", what, given, "a number from 0 that fits in memory", ""))
}

/// Columns of a group, and groups of a row.
pub fn groups(py: Python<'_>, cols: usize, given: i64) -> PyResult<(usize, usize)> {
    // A row without columns has no groups, of any size.
    let group = if given == -1 { cols.max(1) } else { usize::try_from(given).unwrap_or(0) };
    if group > 0 && cols.is_multiple_of(group) {
        return Ok((group, cols / group));
    }
    let hint = "pass a size that divides the columns, or -1 for one group a row";
    Err(error(py, "ShapeError", "group", given, &format!("-1 or a divisor of {cols} columns"), hint))
}

/// The variant that a name stands for.
pub fn named<T: Copy>(py: Python<'_>, what: &str, given: &str, table: &[(&str, T)]) -> PyResult<T> {
    table.iter().find(|(name, _)| *name == given).map(|(_, variant)| *variant).ok_or_else(|| {
        let names: Vec<_> = table.iter().map(|(name, _)| *name).collect();
        error(py, "UnknownNameError", what, format!("{given:?}"), &format!("one of {}", names.join(", ")), "")
    })
}

/// What scales are rounded to.
pub fn scale_type(py: Python<'_>, given: &str) -> PyResult<ScaleType> {
    let types = [("f32", ScaleType::F32), ("f16", ScaleType::F16), ("bf16", ScaleType::Bf16)];
    named(py, "scale_dtype", given, &types)
}

/// The options of a grid, as all kernels that fit one spell them.
pub struct GridOptions<'a> {
    pub bits: i64,
    pub symmetric: bool,
    pub narrow: bool,
    pub forced_zero: bool,
    pub eps: f32,
    pub scale_dtype: &'a str,
}

impl GridOptions<'_> {
    /// The grid, which searches for a smaller range if there are steps to try.
    pub fn grid(self, py: Python<'_>, norm: f32, shrink_grid: i64, shrink_steps: i64) -> PyResult<Grid> {
        let shrink = match natural(py, "shrink_steps", shrink_steps)? {
            0 => None,
            steps => Some(Shrink { norm, grid: natural(py, "shrink_grid", shrink_grid)?, steps }),
        };
        Ok(Grid {
            bits: bits(py, self.bits)?,
            symmetric: self.symmetric,
            narrow: self.narrow,
            forced_zero: self.forced_zero,
            eps: self.eps,
            scale_dtype: scale_type(py, self.scale_dtype)?,
            shrink,
        })
    }
}
