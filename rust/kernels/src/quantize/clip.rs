//! AWQ's search for the clipping of each weight group (Lin et al., 2023, released code): the error is that of the group's
//! part of the output, which the Gram matrix of its inputs gives without the inputs. Limit: arithmetic.

use super::{Grid, check_steps, groups, not_finite};
use crate::error::expect_shape;
use crate::parts::Rows;
use crate::{Error, Machine, Path, Result};

/// For each group of `w [rows, cols]`: `clip = max |w| * (1 - i / shrink_grid)` for the `i` in `0..steps` whose
/// `d = Q(clamp(w, -clip, clip)) - w` has the smallest `d^T gram_g d`, the first if several have; `Q` fits `grid` to the
/// clamped group. `gram [cols / group, group, group]`, `clip [rows, cols / group]`.
///
/// Errors: `Shape` for lengths that do not fit; `Range` for an impossible grid, one that searches by itself, or steps
/// outside 1..=shrink_grid; `NotFinite` for NaN or infinity in `w` or `gram`, and then nothing is written.
#[allow(clippy::too_many_arguments)]
pub fn search_clip(
    m: &Machine,
    grid: &Grid,
    w: &[f32],
    rows: usize,
    cols: usize,
    group: usize,
    gram: &[f32],
    shrink_grid: u32,
    steps: u32,
    clip: &mut [f32],
) -> Result<()> {
    grid.check()?;
    if grid.shrink.is_some() {
        return Err(Error::range("shrink", "a search within the search", "a grid without one"));
    }
    check_steps(steps, shrink_grid)?;
    let count = groups(cols, group)?;
    expect_shape("w", w.len(), &[rows, cols])?;
    expect_shape("gram", gram.len(), &[count, group, group])?;
    expect_shape("clip", clip.len(), &[rows, count])?;
    if !w.iter().all(|w| w.is_finite()) {
        return Err(not_finite("w", w, cols));
    }
    if !gram.iter().all(|g| g.is_finite()) {
        return Err(not_finite("gram", gram, group));
    }
    if clip.is_empty() {
        return Ok(());
    }
    let form: Vec<f32> = gram.chunks_exact(group * group).flat_map(|gram| portable::triangle(gram, group)).collect();
    let problem = Problem { grid, w, cols, group, form: &form, shrink_grid, steps };
    m.split_parts(rows, 1, Rows::new(clip, count), |range, clip| match m.path() {
        // SAFETY: a machine with these paths has AVX-512.
        Path::Amx | Path::Avx512 => unsafe { avx512::search(&problem, range, clip.all()) },
        // SAFETY: a machine with this path has AVX2 and FMA.
        Path::Avx2 => unsafe { avx2::search(&problem, range, clip.all()) },
        Path::Scalar => portable::search::<[f32; 8], PANEL, [f32; PANEL], 5>(&problem, range, clip.all()),
    });
    Ok(())
}

/// What is searched, with the quadratic forms of all groups.
struct Problem<'a> {
    grid: &'a Grid,
    w: &'a [f32],
    cols: usize,
    group: usize,
    form: &'a [f32],
    shrink_grid: u32,
    steps: u32,
}

/// Columns of a panel: two vectors of AVX2 or one of AVX-512.
const PANEL: usize = 16;

mod portable {
    use super::{PANEL, Problem};
    use crate::quantize::{error_of, fraction, range};
    use crate::simd::{Eights, Fused, Lanes};
    use std::ops::Range;

    /// The quadratic form of `gram`, half as large: zero below the diagonal, the sums of both halves above it. In panels of
    /// 16 columns, each `[rows down to the panel's last, 16]`, padded with zeros.
    pub fn triangle(gram: &[f32], n: usize) -> Vec<f32> {
        let mut panels = Vec::with_capacity(n.div_ceil(PANEL) * (n + 2 * PANEL) * PANEL / 2);
        for first in (0..n).step_by(PANEL) {
            for row in 0..first + PANEL {
                panels.extend((first..first + PANEL).map(|col| {
                    if row >= n || col >= n || row > col {
                        0.0
                    } else if row == col {
                        gram[row * n + col]
                    } else {
                        gram[row * n + col] + gram[col * n + row]
                    }
                }));
            }
        }
        panels
    }

    /// The clips of some rows; `T` tries at a time, so that each element of the form serves several. The bits do not depend on `T`
    /// or `N`.
    #[inline(always)]
    pub fn search<V: Lanes, const N: usize, F: Fused<N>, const T: usize>(
        problem: &Problem<'_>,
        rows: Range<usize>,
        clip: &mut [f32],
    ) {
        let Problem { w, cols, group, form, .. } = *problem;
        let count = cols / group;
        let mut d = vec![[0.0; T]; group.next_multiple_of(PANEL)];
        // group by group, so that its form stays in the cache while the rows pass
        for (g, form) in form.chunks_exact(form.len() / count).enumerate() {
            for (i, row) in rows.clone().enumerate() {
                let w = &w[row * cols + g * group..][..group];
                clip[i * count + g] = best::<V, N, F, T>(problem, w, form, &mut d);
            }
        }
    }

    /// The clip of one group; `d` is used up to its padding, which stays zero.
    #[inline(always)]
    fn best<V: Lanes, const N: usize, F: Fused<N>, const T: usize>(
        problem: &Problem<'_>,
        w: &[f32],
        form: &[f32],
        d: &mut [[f32; T]],
    ) -> f32 {
        let (grid, tries) = (problem.grid, problem.steps);
        let (lo, hi) = range::<V>(w).unwrap_or_default();
        let largest = lo.abs().max(hi.abs());
        let (mut best, mut least) = (largest, f32::INFINITY);
        for first in (0..tries).step_by(T) {
            // tries beyond the last are computed too, and not looked at
            let clips: [f32; T] =
                std::array::from_fn(|t| largest * fraction((first + t as u32).min(tries - 1), problem.shrink_grid));
            for (t, &clip) in clips.iter().enumerate() {
                let (scale, zero) = grid.parameters(lo.max(-clip), hi.min(clip));
                let (bottom, top) = (V::splat(-f32::from(zero)), V::splat(grid.top() - f32::from(zero)));
                let (scale, below, above) = (V::splat(scale), V::splat(-clip), V::splat(clip));
                let w = Eights::of(w, 0.0);
                for (i, d) in d.as_chunks_mut::<8>().0.iter_mut().enumerate().take(w.len()) {
                    let w = V::load(w.get(i));
                    let clipped = w.max(below).min(above);
                    let error = error_of(clipped, scale, bottom, top).add(clipped.sub(w));
                    for (error, d) in error.array().into_iter().zip(d) {
                        d[t] = error;
                    }
                }
            }
            for (&clip, error) in clips.iter().zip(evaluate::<N, F, T>(form, d)) {
                if error < least {
                    (best, least) = (clip, error);
                }
            }
        }
        best
    }

    /// `d^T form d` of each try: 16 sums of every 16th column's share, then those.
    #[inline(always)]
    fn evaluate<const N: usize, F: Fused<N>, const T: usize>(form: &[f32], d: &[[f32; T]]) -> [f32; T] {
        let mut totals = [[F::splat(0.0); 2]; T];
        let mut rest = form;
        for (panel, columns) in d.as_chunks::<PANEL>().0.iter().enumerate() {
            let (rows, others) = rest.split_at((panel + 1) * PANEL * PANEL);
            let mut products = [[F::splat(0.0); 2]; T];
            for (line, d) in rows.as_chunks::<PANEL>().0.iter().zip(d) {
                let mut row = [F::splat(0.0); 2];
                for (row, part) in row.iter_mut().zip(line.as_chunks::<N>().0) {
                    *row = F::load(part);
                }
                for (products, &d) in products.iter_mut().zip(d) {
                    let d = F::splat(d);
                    for (product, row) in products.iter_mut().zip(row).take(PANEL / N) {
                        *product = d.multiply_add(row, *product);
                    }
                }
            }
            for (t, (totals, products)) in totals.iter_mut().zip(products).enumerate() {
                for (part, (total, product)) in totals.iter_mut().zip(products).take(PANEL / N).enumerate() {
                    let d: [f32; N] = std::array::from_fn(|c| columns[N * part + c][t]);
                    *total = product.multiply_add(F::load(&d), *total);
                }
            }
            rest = others;
        }
        let mut sums = [0.0; T];
        for (sum, totals) in sums.iter_mut().zip(totals) {
            let mut lanes = [0.0; PANEL];
            for (lanes, total) in lanes.as_chunks_mut::<N>().0.iter_mut().zip(totals) {
                *lanes = total.array();
            }
            let eight: [f32; 8] = std::array::from_fn(|i| lanes[i] + lanes[i + 8]);
            *sum = Lanes::sum(eight);
        }
        sums
    }
}

mod avx2 {
    //! The portable body on registers of eight.

    use super::{Problem, portable};
    use crate::simd::avx2::F32x8;
    use std::ops::Range;

    #[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2,fma"))]
    pub unsafe fn search(problem: &Problem<'_>, rows: Range<usize>, clip: &mut [f32]) {
        portable::search::<F32x8, 8, F32x8, 5>(problem, rows, clip);
    }
}

mod avx512 {
    //! Its products on registers of sixteen, twice as many tries.

    use super::{Problem, portable};
    use crate::simd::{avx2::F32x8, avx512::F32x16};
    use std::ops::Range;

    #[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2,fma,avx512f"))]
    pub unsafe fn search(problem: &Problem<'_>, rows: Range<usize>, clip: &mut [f32]) {
        portable::search::<F32x8, 16, F32x16, 10>(problem, rows, clip);
    }
}
