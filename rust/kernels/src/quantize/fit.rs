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
        Path::Avx512 | Path::Avx2 => unsafe { avx2::fit(grid, x) },
        Path::Scalar => portable::fit(grid, x),
    }
}

mod portable {
    use crate::quantize::{Grid, Shrink, fraction, steps};
    use crate::simd::{pow, rint};

    /// Values looked at side by side: four vectors of eight, to hide the latency of a comparison.
    const LANES: usize = 32;

    #[inline(always)]
    pub fn fit(grid: &Grid, x: &[f32]) -> Option<(f32, u8)> {
        let (lo, hi) = range(x)?;
        match grid.shrink {
            None => Some(grid.parameters(lo, hi)),
            Some(shrink) => Some(search(grid, shrink, x, lo, hi)),
        }
    }

    /// The smallest and the largest value; `None` if not all are finite.
    #[inline(always)]
    fn range(x: &[f32]) -> Option<(f32, f32)> {
        let first = *x.first()?;
        let (mut lo, mut hi, mut largest) = ([first; LANES], [first; LANES], [0; LANES]);
        let mut look = |lane: usize, x: f32| {
            lo[lane] = if x < lo[lane] { x } else { lo[lane] };
            hi[lane] = if x > hi[lane] { x } else { hi[lane] };
            largest[lane] = largest[lane].max((x.to_bits() & 0x7fff_ffff) as i32);
        };
        let (blocks, tail) = x.as_chunks::<LANES>();
        for block in blocks {
            for (lane, &x) in block.iter().enumerate() {
                look(lane, x);
            }
        }
        for (lane, &x) in tail.iter().enumerate() {
            look(lane, x);
        }
        let finite = largest.into_iter().fold(0, i32::max) < 0x7f80_0000;
        finite.then(|| (lo.into_iter().fold(first, f32::min), hi.into_iter().fold(first, f32::max)))
    }

    #[inline(always)]
    fn search(grid: &Grid, shrink: Shrink, x: &[f32], lo: f32, hi: f32) -> (f32, u8) {
        let mut best = grid.parameters(lo, hi);
        let mut least = f32::INFINITY;
        for i in 0..shrink.steps {
            let p = fraction(i, shrink.grid);
            let (scale, zero) = grid.parameters(p * lo, p * hi);
            let error = error(x, scale, zero, grid.bits, shrink.norm);
            if error < least {
                (best, least) = ((scale, zero), error);
            }
        }
        best
    }

    /// The sum of `|Q(x) - x|^norm`.
    #[inline(always)]
    fn error(x: &[f32], scale: f32, zero: u8, bits: u32, norm: f32) -> f32 {
        let lo = -f32::from(zero);
        let hi = (0xff_u32 >> (8 - bits)) as f32 + lo;
        let distance = |x: f32| (scale * rint(steps(x, scale, lo, hi)) - x).abs();
        if norm == 2.0 { sum(x, |x| distance(x) * distance(x)) } else { sum(x, |x| pow(distance(x), norm)) }
    }

    /// A sum in a fixed order: lane by lane, then over the lanes.
    #[inline(always)]
    fn sum(x: &[f32], term: impl Fn(f32) -> f32) -> f32 {
        let mut sums = [0.0; 8];
        let (blocks, tail) = x.as_chunks::<8>();
        for block in blocks {
            for (sum, &x) in sums.iter_mut().zip(block) {
                *sum += term(x);
            }
        }
        for (sum, &x) in sums.iter_mut().zip(tail) {
            *sum += term(x);
        }
        sums.into_iter().sum()
    }
}

mod avx2 {
    //! The portable body, compiled to vectors of eight.

    use super::{Grid, portable};

    #[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2"))]
    pub unsafe fn fit(grid: &Grid, x: &[f32]) -> Option<(f32, u8)> {
        portable::fit(grid, x)
    }
}
