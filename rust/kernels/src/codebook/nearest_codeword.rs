//! nearest_codeword: which row of a codebook a point is nearest to, by exhaustive search. Limit: multiplications.

use super::search::Search;
use crate::error::expect_shape;
use crate::parts::Rows;
use crate::{Error, Machine, Result};

/// What near means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Metric {
    /// The least squared distance.
    L2,
    /// The largest inner product.
    Inner,
}

/// Points worth a thread, where each is measured against one codeword.
const GRAIN: usize = 1 << 12;

/// For each row of `x` `[points, dim]` the nearest row of `codebook` `[count, dim]`, the first of equals, and how near it is.
///
/// `L2`: `near` is `sum_j w_j (x_j - c_j)^2`, `weights` `[points, dim]` or all 1. `Inner`: `sum_j w_j x_j c_j`.
/// Scores are f32 chains of `dim` (with weights `2 dim`) fused steps: `near` of the chosen codeword is within
/// `4 (steps + 2) 2^-24 (|x|_w + |c|_w)^2` of the best one's, `|.|_w` being the largest weighted norms of what is compared.
/// Every path gives the same bits.
///
/// Errors: `Range` for a codebook without rows, one beyond i32, a negative weight, numbers whose squares overflow; `NotFinite`.
#[allow(clippy::too_many_arguments)]
pub fn nearest_codeword(
    m: &Machine,
    x: &[f32],
    codebook: &[f32],
    weights: Option<&[f32]>,
    metric: Metric,
    points: usize,
    count: usize,
    dim: usize,
    index: &mut [i32],
    near: &mut [f32],
) -> Result<()> {
    expect_shape("x", x.len(), &[points, dim])?;
    expect_shape("codebook", codebook.len(), &[count, dim])?;
    weights.map_or(Ok(()), |weights| expect_shape("weights", weights.len(), &[points, dim]))?;
    expect_shape("index", index.len(), &[points])?;
    expect_shape("near", near.len(), &[points])?;
    if count == 0 || i32::try_from(count).is_err() {
        return Err(Error::range("codebook", format!("{count} codewords"), "1 to 2147483647"));
    }
    expect_moderate(x, codebook, weights, dim, dim)?;
    assign(m, x, codebook, weights, metric, dim, index);
    measure(m, x, codebook, weights, metric, dim, index, near);
    Ok(())
}

/// Refuses what is not finite, negative weights, and numbers so large that a score could be infinite; `width` is that of
/// `weights`.
pub(super) fn expect_moderate(
    x: &[f32],
    codebook: &[f32],
    weights: Option<&[f32]>,
    dim: usize,
    width: usize,
) -> Result<()> {
    let (x, c) = (largest("x", x, dim)?, largest("codebook", codebook, dim)?);
    let w = weights.map_or(Ok(1.0), |weights| largest("weights", weights, width))?;
    if let Some(weight) = weights.and_then(|weights| weights.iter().find(|weight| **weight < 0.0)) {
        return Err(Error::range("weights", weight, "0 or more"));
    }
    if dim as f64 * w.max(1.0) * (x + c) * (x + c) > f64::from(f32::MAX) / 4.0 {
        let given = format!("numbers up to {x:e} and codewords up to {c:e}");
        return Err(Error::range("x", given, "numbers whose squares sum below 8e37"));
    }
    Ok(())
}

/// The largest magnitude; whatever is not finite is an error that says where it is.
fn largest(what: &'static str, values: &[f32], width: usize) -> Result<f64> {
    let (whole, tail) = values.as_chunks::<8>();
    let mut largest = [0.0; 8];
    let mut finite = tail.iter().all(|value| value.is_finite());
    for values in whole {
        for (largest, value) in largest.iter_mut().zip(values) {
            let size = value.abs();
            finite &= size <= f32::MAX;
            *largest = if size > *largest { size } else { *largest };
        }
    }
    if finite {
        let sizes = tail.iter().map(|value| value.abs()).chain(largest);
        return Ok(f64::from(sizes.fold(0.0, f32::max)));
    }
    let at = values.iter().position(|value| !value.is_finite()).unwrap_or(0);
    Err(Error::not_finite(what, format!("{} in row {}, column {}", values[at], at / width, at % width)))
}

/// The indices alone, of what `expect_moderate` let pass; at least one codeword is needed.
pub(super) fn assign(
    m: &Machine,
    x: &[f32],
    codebook: &[f32],
    weights: Option<&[f32]>,
    metric: Metric,
    dim: usize,
    index: &mut [i32],
) {
    let count = codebook.len().checked_div(dim).unwrap_or(1);
    let c = |k: usize, j: usize| codebook[k * dim + j];
    match (weights, metric) {
        // |x - c|^2 / 2 but for what all codewords share
        (None, Metric::L2) => {
            Search::new(count, dim, |k| half_norm(codebook, dim, k), c).each(m, index, |p, j| -x[p * dim + j])
        }
        (None, Metric::Inner) => Search::new(count, dim, |_| 0.0, c).each(m, index, |p, j| -x[p * dim + j]),
        (Some(w), Metric::L2) => {
            let pair = |k, j: usize| c(k, j / 2) * if j.is_multiple_of(2) { 0.5 * c(k, j / 2) } else { 1.0 };
            Search::new(count, 2 * dim, |_| 0.0, pair).each(m, index, |p, j| {
                let (w, x) = (w[p * dim + j / 2], x[p * dim + j / 2]);
                if j.is_multiple_of(2) { w } else { -(w * x) }
            });
        }
        (Some(w), Metric::Inner) => {
            Search::new(count, dim, |_| 0.0, c).each(m, index, |p, j| -(w[p * dim + j] * x[p * dim + j]));
        }
    }
}

/// Half the squared length of a codeword, rounded once.
pub(crate) fn half_norm(codebook: &[f32], dim: usize, k: usize) -> f32 {
    codebook[k * dim..][..dim].iter().map(|&c| 0.5 * f64::from(c) * f64::from(c)).sum::<f64>() as f32
}

/// How near each point is to its codeword: sums in the order of the coordinates.
#[allow(clippy::too_many_arguments)]
pub(super) fn measure(
    m: &Machine,
    x: &[f32],
    codebook: &[f32],
    weights: Option<&[f32]>,
    metric: Metric,
    dim: usize,
    index: &[i32],
    near: &mut [f32],
) {
    m.split_parts(near.len(), GRAIN, Rows::new(near, 1), |range, near| {
        for (p, near) in range.zip(near.all()) {
            let (x, c) = (&x[p * dim..][..dim], &codebook[index[p] as usize * dim..][..dim]);
            let part = |x: f32, c: f32| match metric {
                Metric::L2 => (x - c) * (x - c),
                Metric::Inner => x * c,
            };
            *near = match weights {
                None => x.iter().zip(c).fold(0.0, |sum, (&x, &c)| sum + part(x, c)),
                Some(w) => {
                    let w = &w[p * dim..][..dim];
                    x.iter().zip(c).zip(w).fold(0.0, |sum, ((&x, &c), w)| sum + w * part(x, c))
                }
            };
        }
    });
}
