//! Scale and zero point from the values of a group.

use super::{GRAIN, Grid, groups, not_finite};
use crate::error::expect_shape;
use crate::parts::Rows;
use crate::{Machine, Path, Result};
use std::sync::atomic::{AtomicBool, Ordering};

/// `scale`, `zero` `[rows, cols / group]` for `x [rows, cols]`, as `grid` says.
///
/// Errors: `Shape` for lengths that do not fit; `Range` for an impossible grid; `NotFinite` for NaN or infinity in `x`
/// (it is read once: the results then hold nothing of use).
#[allow(clippy::too_many_arguments)]
pub fn fit_affine(
    m: &Machine,
    grid: &Grid,
    x: &[f32],
    rows: usize,
    cols: usize,
    group: usize,
    scale: &mut [f32],
    zero: &mut [u8],
) -> Result<()> {
    grid.check()?;
    let count = groups(cols, group)?;
    expect_shape("x", x.len(), &[rows, cols])?;
    expect_shape("scale", scale.len(), &[rows, count])?;
    expect_shape("zero", zero.len(), &[rows, count])?;
    if scale.is_empty() {
        return Ok(());
    }
    let finite = AtomicBool::new(true);
    let grain = GRAIN / grid.shrink.map_or(1, |shrink| shrink.steps as usize);
    m.split_parts(
        scale.len(),
        grain.div_ceil(group.max(1)),
        (Rows::new(scale, 1), Rows::new(zero, 1)),
        |range, outs| {
            let x = &x[range.start * group..range.end * group];
            for ((x, scale), zero) in x.chunks_exact(group).zip(outs.0.all()).zip(outs.1.all()) {
                match fit_group(m, grid, x) {
                    Some(fit) => (*scale, *zero) = fit,
                    None => finite.store(false, Ordering::Relaxed),
                }
            }
        },
    );
    if finite.into_inner() { Ok(()) } else { Err(not_finite("x", x, cols)) }
}

/// Scale and zero point of one group, on this thread; `None` if it is not all finite.
pub(crate) fn fit_group(m: &Machine, grid: &Grid, x: &[f32]) -> Option<(f32, u8)> {
    match m.path() {
        // SAFETY: a machine with this path has AVX2.
        Path::Amx | Path::Avx512 | Path::Avx2 => unsafe { avx2::fit(grid, x) },
        Path::Scalar => portable::fit::<[f32; 8]>(grid, x),
    }
}

mod portable {
    use crate::quantize::{Grid, Shrink, error_of, fraction, range};
    use crate::simd::{Eights, Lanes, pow};

    #[inline(always)]
    pub fn fit<V: Lanes>(grid: &Grid, x: &[f32]) -> Option<(f32, u8)> {
        let (lo, hi) = range::<V>(x)?;
        match grid.shrink {
            None => Some(grid.parameters(lo, hi)),
            Some(shrink) => Some(search::<V>(grid, shrink, x, lo, hi)),
        }
    }

    #[inline(always)]
    fn search<V: Lanes>(grid: &Grid, shrink: Shrink, x: &[f32], lo: f32, hi: f32) -> (f32, u8) {
        let mut best = grid.parameters(lo, hi);
        let mut least = f32::INFINITY;
        for i in 0..shrink.steps {
            let p = fraction(i, shrink.grid);
            let (scale, zero) = grid.parameters(p * lo, p * hi);
            let (bottom, top) = (V::splat(-f32::from(zero)), V::splat(grid.top() - f32::from(zero)));
            let error = total(x, V::splat(scale), bottom, top, shrink.norm, least);
            if error < least {
                (best, least) = ((scale, zero), error);
            }
        }
        best
    }

    /// The sum of `|error_of(x)|^norm`; given up, with what it has come to, where that is `enough`.
    #[inline(always)]
    fn total<V: Lanes>(x: &[f32], scale: V, lo: V, hi: V, norm: f32, enough: f32) -> f32 {
        let mut total = 0.0;
        for x in x.chunks(256) {
            let mut sum = V::splat(0.0);
            // zero is on every grid: what fills the last vector adds nothing
            let x = Eights::of(x, 0.0);
            for i in 0..x.len() {
                let error = error_of(V::load(x.get(i)), scale, lo, hi);
                sum = sum.add(if norm == 2.0 { error.mul(error) } else { pow(error.abs(), V::splat(norm)) });
            }
            total += sum.sum();
            if total >= enough {
                break;
            }
        }
        total
    }
}

mod avx2 {
    //! The portable body on registers of eight.

    use super::{Grid, portable};
    use crate::simd::avx2::F32x8;

    #[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2"))]
    pub unsafe fn fit(grid: &Grid, x: &[f32]) -> Option<(f32, u8)> {
        portable::fit::<F32x8>(grid, x)
    }
}
