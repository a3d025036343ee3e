//! inverse_factor: the upper factor `U` of an inverse, `(H + damp I)^-1 = U^T U`, without forming the inverse.
//!
//! With both axes of `H` flipped, `J H J = L L^T` gives `H^-1 = (J L^-1 J)^T (J L^-1 J)`: one Cholesky factorisation and one
//! triangular inverse. Flipping both axes of a contiguous square matrix is reversing its memory.

use crate::error::{Detail, expect_shape};
use crate::{Error, Machine, Result};
use faer::dyn_stack::{MemBuffer, MemStack};
use faer::linalg::cholesky::llt::factor::{cholesky_in_place, cholesky_in_place_scratch};
use faer::linalg::triangular_inverse::invert_lower_triangular;
use faer::{MatMut, Par};

/// Fills `factor` `[n, n]` with the upper triangular `U`, zeros below, such that `(hessian + damp I)^-1 = U^T U`.
///
/// Reads the whole of the symmetric `hessian` `[n, n]` for NaN and infinity ([`Error::NotFinite`]) and its upper triangle for the
/// rest. [`Error::Singular`], naming a column, if the damped matrix is not positive definite to f32 precisim.
pub fn inverse_factor(m: &Machine, hessian: &[f32], n: usize, damp: f32, factor: &mut [f32]) -> Result<()> {
    expect_shape("hessian", hessian.len(), &[n, n])?;
    expect_shape("factor", factor.len(), &[n, n])?;
    if !damp.is_finite() || damp < 0.0 {
        return Err(Error::range("damp", damp, "a finite number, 0 or more"));
    }
    if let Some(at) = hessian.iter().position(|value| !value.is_finite()) {
        return Err(Error::not_finite("hessian", format!("{} in row {}, column {}", hessian[at], at / n, at % n)));
    }
    if n == 0 {
        return Ok(());
    }
    let mut flipped: Vec<f32> = hessian.iter().rev().copied().collect();
    for value in flipped.iter_mut().step_by(n + 1) {
        *value += damp;
    }
    let diagonal: Vec<f32> = flipped.iter().step_by(n + 1).copied().collect();
    let singular = |column: usize| {
        Error::Singular(Detail {
            what: "hessian",
            given: format!("a pivot of zero or less at column {}", n - 1 - column),
            expected: "a positive definite matrix".to_string(),
            hint: "raise the damping or give more calibration samples",
        })
    };
    let par = Par::rayon(m.threads());
    // Seen by columns, the upper triangle in memory is the lower one of the same symmetric matrix.
    let mut lower = MatMut::from_column_major_slice_mut(&mut flipped, n, n);
    let mut memory = MemBuffer::new(cholesky_in_place_scratch::<f32>(n, par, Default::default()));
    cholesky_in_place(lower.as_mut(), Default::default(), par, MemStack::new(&mut memory), Default::default())
        .map_err(|faer::linalg::cholesky::llt::factor::LltError::NonPositivePivot { index }| singular(index))?;
    for (column, &value) in diagonal.iter().enumerate() {
        let pivot = lower[(column, column)] * lower[(column, column)];
        // Rounding alone leaves a few units in the last place of what the pivot was cut from: that is zero.
        if pivot.is_nan() || pivot <= 4.0 * f32::EPSILON * value {
            return Err(singular(column));
        }
    }
    factor.fill(0.0);
    invert_lower_triangular(MatMut::from_row_major_slice_mut(factor, n, n), lower.as_ref(), par);
    factor.reverse();
    Ok(())
}
