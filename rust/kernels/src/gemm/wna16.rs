//! wna16: `out = x W^T` with `W = scale * (code - zero)`, low-bit weights decoded on the way; every sum in f32.
//!
//! The product: `decoded`.

use super::decode::{Meaning, Row};
use super::decoded;
use crate::error::expect_shape;
use crate::quantize::{Zeros, groups};
use crate::simd::bytes;
use crate::{Error, Machine, Result};

/// `out[t, n] = sum_k x[t, k] * scale[n, k / group] * (code[n, k] - zero[n, k / group])`.
///
/// `x` `[rows, depth]`, `words` `[cols, ceil(depth * bits / 32)]` in dense order, `scale` and `zero` `[cols, depth / group]`
/// (no `zero`: `2^(bits-1)`), `out` `[rows, cols]`. [`Error::Range`] for bits outside 1 to 8, [`Error::Shape`] for a
/// group that does not divide `depth` or a length that does not fit; then nothing is written. NaN and infinity pass through.
#[allow(clippy::too_many_arguments)]
pub fn wna16(
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
    let groups = groups(depth, group)?;
    let row_words = check(x, words, scale, zero, [rows, cols, depth], bits, [cols, groups])?;
    expect_shape("out", out.len(), &[rows, cols])?;
    let row = |n: usize| Row {
        bytes: bytes(&words[n * row_words..(n + 1) * row_words]),
        bits,
        scale: &scale[n * groups..(n + 1) * groups],
        meaning: Meaning::Affine(zero.map(|zero| zero.part(n * groups..(n + 1) * groups))),
        group,
    };
    decoded::packed(m, x, [rows, cols, depth], row, out);
    Ok(())
}

/// Words of a row, once every length but that of the result is what `[rows, cols, depth]`, the bits and the shape of the parameters imply.
#[allow(clippy::too_many_arguments)]
pub(super) fn check(
    x: &[f32],
    words: &[i32],
    scale: &[f32],
    zero: Option<Zeros<'_>>,
    [rows, cols, depth]: [usize; 3],
    bits: u32,
    parameters: [usize; 2],
) -> Result<usize> {
    if !(1..=8).contains(&bits) {
        return Err(Error::range("bits", bits, "1 to 8"));
    }
    let row_words = (depth * bits as usize).div_ceil(32);
    expect_shape("x", x.len(), &[rows, depth])?;
    expect_shape("words", words.len(), &[cols, row_words])?;
    expect_shape("scale", scale.len(), &parameters)?;
    zero.map_or(Ok(()), |zero| expect_shape("zero", zero.len(), &parameters))?;
    Ok(row_words)
}
