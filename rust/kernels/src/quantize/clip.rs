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
        // group by group, so that its form stays in the cache while the rows pass
        for (g, form) in form.chunks_exact(form_len).enumerate() {
            for (i, row) in range.clone().enumerate() {
                let w = &w[row * cols + g * group..][..group];
                clip[i * count + g] = match m.path() {
                    // SAFETY: a machine with this path has AVX2.
                    Path::Avx512 | Path::Avx2 => unsafe { avx2::search(grid, w, form, shrink_grid, steps) },
                    Path::Scalar => portable::search(grid, w, form, shrink_grid, steps),
                };
            }
        }
    });
    Ok(())
}

mod portable {
    use crate::quantize::{Grid, fraction, steps};
    use crate::simd::rint;

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

    #[inline(always)]
    pub fn search(grid: &Grid, w: &[f32], form: &[f32], shrink_grid: u32, tries: u32) -> f32 {
        let largest = w.iter().fold(0.0, |largest: f32, w| largest.max(w.abs()));
        let (lo, hi) = w.iter().fold((w[0], w[0]), |(lo, hi), &w| (w.min(lo), w.max(hi)));
        let (mut best, mut least) = (largest, f32::INFINITY);
        let mut difference = vec![0.0; w.len().next_multiple_of(PANEL)];
        for i in 0..tries {
            let clip = largest * fraction(i, shrink_grid);
            let (scale, zero) = grid.parameters(lo.max(-clip), hi.min(clip));
            let (bottom, top) = (-f32::from(zero), (0xff_u32 >> (8 - grid.bits)) as f32 - f32::from(zero));
            for (&w, d) in w.iter().zip(&mut difference) {
                *d = scale * rint(steps(w.clamp(-clip, clip), scale, bottom, top)) - w;
            }
            let error = evaluate(form, &difference);
            if error < least {
                (best, least) = (clip, error);
            }
        }
        best
    }

    /// `d^T form d`.
    #[inline(always)]
    fn evaluate(form: &[f32], d: &[f32]) -> f32 {
        let mut sums = [0.0; PANEL];
        let mut rest = form;
        for (panel, columns) in d.as_chunks::<PANEL>().0.iter().enumerate() {
            let (rows, others) = rest.split_at((panel + 1) * PANEL * PANEL);
            let mut products = [0.0; PANEL];
            for (row, &d) in rows.as_chunks::<PANEL>().0.iter().zip(d) {
                for (product, &g) in products.iter_mut().zip(row) {
                    *product += d * g;
                }
            }
            for ((sum, product), d) in sums.iter_mut().zip(products).zip(columns) {
                *sum += product * d;
            }
            rest = others;
        }
        sums.into_iter().sum()
    }
}

mod avx2 {
    //! The portable body, compiled to vectors of eight.

    use super::{Grid, portable};

    #[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2"))]
    pub unsafe fn search(grid: &Grid, w: &[f32], form: &[f32], shrink_grid: u32, steps: u32) -> f32 {
        portable::search(grid, w, form, shrink_grid, steps)
    }
}
