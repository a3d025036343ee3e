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
    let form_len = form.len() / count;
    m.split_parts(rows, 1, Rows::new(clip, count), |range, clip| {
        let clip = clip.all();
        let mut d = Vec::new();
        // group by group, so that its form stays in the cache while the rows pass
        for (g, form) in form.chunks_exact(form_len).enumerate() {
            for (i, row) in range.clone().enumerate() {
                let w = &w[row * cols + g * group..][..group];
                clip[i * count + g] = match m.path() {
                    // SAFETY: a machine with this path has AVX2.
                    Path::Amx | Path::Avx512 | Path::Avx2 => unsafe {
                        avx2::search(grid, w, form, shrink_grid, steps, &mut d)
                    },
                    Path::Scalar => portable::search::<[f32; 8]>(grid, w, form, shrink_grid, steps, &mut d),
                };
            }
        }
    });
    Ok(())
}

/// Tries whose errors are computed together, so that each element of the form serves several.
const TRIES: usize = 5;

mod portable {
    use super::TRIES;
    use crate::quantize::{Grid, error_of, fraction, range};
    use crate::simd::{Eights, Lanes};

    /// Columns of a panel: two vectors of eight.
    const PANEL: usize = 16;

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

    /// `d` keeps memory between calls.
    #[inline(always)]
    pub fn search<V: Lanes>(
        grid: &Grid,
        w: &[f32],
        form: &[f32],
        shrink_grid: u32,
        tries: u32,
        d: &mut Vec<[f32; TRIES]>,
    ) -> f32 {
        let (lo, hi) = range::<V>(w).unwrap_or_default();
        let largest = lo.abs().max(hi.abs());
        d.resize(w.len().next_multiple_of(PANEL), [0.0; TRIES]);
        let (mut best, mut least) = (largest, f32::INFINITY);
        for first in (0..tries).step_by(TRIES) {
            // tries beyond the last are computed too, and not looked at
            let clips: [f32; TRIES] =
                std::array::from_fn(|t| largest * fraction((first + t as u32).min(tries - 1), shrink_grid));
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
            for (&clip, error) in clips.iter().zip(evaluate::<V>(form, d)) {
                if error < least {
                    (best, least) = (clip, error);
                }
            }
        }
        best
    }

    /// `d^T form d` of each try.
    #[inline(always)]
    fn evaluate<V: Lanes>(form: &[f32], d: &[[f32; TRIES]]) -> [f32; TRIES] {
        let mut totals = [V::splat(0.0); TRIES];
        let mut rest = form;
        for (panel, columns) in d.as_chunks::<PANEL>().0.iter().enumerate() {
            let (rows, others) = rest.split_at((panel + 1) * PANEL * PANEL);
            let mut products = [[V::splat(0.0); 2]; TRIES];
            for (row, d) in rows.as_chunks::<8>().0.as_chunks::<2>().0.iter().zip(d) {
                let row = [V::load(&row[0]), V::load(&row[1])];
                for (products, &d) in products.iter_mut().zip(d) {
                    let d = V::splat(d);
                    *products = [products[0].add(d.mul(row[0])), products[1].add(d.mul(row[1]))];
                }
            }
            for (t, products) in products.iter().enumerate() {
                for (half, product) in products.iter().enumerate() {
                    let d: [f32; 8] = std::array::from_fn(|c| columns[8 * half + c][t]);
                    totals[t] = totals[t].add(product.mul(V::load(&d)));
                }
            }
            rest = others;
        }
        let mut sums = [0.0; TRIES];
        for (sum, total) in sums.iter_mut().zip(totals) {
            *sum = total.sum();
        }
        sums
    }
}

mod avx2 {
    //! The portable body on registers of eight.

    use super::{Grid, TRIES, portable};
    use crate::simd::avx2::F32x8;

    #[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2"))]
    pub unsafe fn search(
        grid: &Grid,
        w: &[f32],
        form: &[f32],
        shrink_grid: u32,
        tries: u32,
        d: &mut Vec<[f32; TRIES]>,
    ) -> f32 {
        portable::search::<F32x8>(grid, w, form, shrink_grid, tries, d)
    }
}
