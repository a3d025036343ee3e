//! wna16_by_input: `out = x W^T` with groups of neighbouring rows of `W` that share a scale in each column (AdaDim, Heo et
//! al., 2023; HQQ's axis 0).
//!
//! One row of `x`: for each group of rows `x` is multiplied by the group's scales once, and each row of codes by the result;
//! what the zero points take away is one number a group. More rows: `decoded`. Limit: the decoding, as in wna16.

use super::decode::{Meaning, Row, Vector, decode};
use super::decoded;
use super::wna16::check;
use crate::error::expect_shape;
use crate::quantize::{Zeros, groups};
use crate::simd::bytes;
use crate::{Machine, Result};

/// Rows of weights of one task; a task of fewer rows than a group scales `x` for itself.
const ROWS: usize = 64;

/// `out[t, n] = sum_k x[t, k] * scale[n / group, k] * (code[n, k] - zero[n / group, k])`.
///
/// `x` `[rows, depth]`, `words` `[cols, ceil(depth * bits / 32)]` in dense order, `scale` and `zero` `[cols / group, depth]` (no
/// `zero`: `2^(bits-1)`), `out` `[rows, cols]`. [`crate::Error::Range`] for bits outside 1 to 8, [`crate::Error::Shape`] for
/// a group that does not divide `cols` or a length that does not fit; then nothing is written. NaN and infinity pass through.
#[allow(clippy::too_many_arguments)]
pub fn wna16_by_input(
    m: &Machine,
    x: &[f32],
    words: &[i32],
    scale: &[f32],
    zero: Option<Zeros<'_>>,
    rows: usize,
    cols: usize,
    depth: usize,
    bits: u32,
    group: usize,
    out: &mut [f32],
) -> Result<()> {
    let groups = groups(cols, group)?;
    let row_words = check(x, words, scale, zero, [rows, cols, depth], bits, [groups, depth])?;
    expect_shape("out", out.len(), &[rows, cols])?;
    if rows == 0 || cols == 0 || depth == 0 {
        out.fill(0.0);
        return Ok(());
    }
    let middle = (1u32 << (bits - 1)) as f32;
    let parameters = |g: usize| {
        let at = g * depth..(g + 1) * depth;
        (&scale[at.clone()], zero.map(|zero| zero.part(at)))
    };
    // Codes less their middle, which keeps what the zero points take away small.
    let centred = |n: usize| Row {
        bytes: bytes(&words[n * row_words..(n + 1) * row_words]),
        bits,
        scale: &[1.0],
        meaning: Meaning::Affine(None),
        group: depth,
    };
    if rows == 1 {
        let tasks = out.chunks_mut(group).enumerate().flat_map(|(g, sums)| {
            sums.chunks_mut(ROWS).enumerate().map(move |(part, sums)| (g, g * group + part * ROWS, sums))
        });
        m.each(tasks.collect(), |(g, first, sums): (usize, usize, &mut [f32])| {
            let (scale, zero) = parameters(g);
            let scaled: Vec<f32> = x.iter().zip(scale).map(|(x, scale)| x * scale).collect();
            let taken = zero.map_or(0.0, |zero| taken(&scaled, zero, middle));
            let scaled = Vector::of(m, &scaled, centred(first));
            for (at, sum) in sums.iter_mut().enumerate() {
                *sum = scaled.dot(m, centred(first + at)) - taken;
            }
        });
        return Ok(());
    }
    let fill = |n: usize, values: &mut [f32]| {
        decode(m, centred(n), values);
        let (scale, zero) = parameters(n / group);
        match zero {
            None => values.iter_mut().zip(scale).for_each(|(value, scale)| *value *= scale),
            Some(Zeros::Floats(zero)) => values
                .iter_mut()
                .zip(scale.iter().zip(zero))
                .for_each(|(value, (scale, zero))| *value = (*value - (zero - middle)) * scale),
            Some(Zeros::Codes(zero)) => values
                .iter_mut()
                .zip(scale.iter().zip(zero))
                .for_each(|(value, (scale, &zero))| *value = (*value - (f32::from(zero) - middle)) * scale),
        }
    };
    decoded::product(m, x, [rows, cols, depth], fill, out);
    Ok(())
}

/// `sum_k x[k] * (zero[k] - middle)`, in eight running sums.
fn taken(x: &[f32], zero: Zeros<'_>, middle: f32) -> f32 {
    let mut sums = [0.0f32; 8];
    for (k, x) in x.iter().enumerate() {
        sums[k % 8] += x * (zero.get(k) - middle);
    }
    sums.iter().sum()
}
