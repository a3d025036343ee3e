//! lookup: `out = x W^T` with `W = scale * table[code]`: NF4, power exponents, any values; every sum in f32.
//!
//! The product: `decoded`, by shuffles of registers where a table has up to 16 values, one by one beyond.

use super::decode::{self, Meaning, Row};
use super::decoded;
use crate::error::expect_shape;
use crate::quantize::groups;
use crate::simd::bytes;
use crate::{Error, Machine, Result};

/// `out[t, n] = sum_k x[t, k] * scale[n, k / group] * table[code[n, k]]`, the table of all rows or that of row `n`.
///
/// `x` `[rows, depth]`, `words` `[cols, ceil(depth * bits / 32)]` in dense order, `scale` `[cols, depth / group]`, `table` `[2^bits]`
/// or, if `by_row`, `[cols, 2^bits]`, `out` `[rows, cols]`. [`Error::Range`] for bits outside 1 to 8, [`Error::Shape`] for a
/// group that does not divide `depth` or a length that does not fit; then nothing is written. NaN and infinity pass through.
#[allow(clippy::too_many_arguments)]
pub fn lookup(
    m: &Machine,
    x: &[f32],
    words: &[i32],
    scale: &[f32],
    table: &[f32],
    by_row: bool,
    rows: usize,
    cols: usize,
    depth: usize,
    bits: u32,
    group: usize,
    out: &mut [f32],
) -> Result<()> {
    if !(1..=8).contains(&bits) {
        return Err(Error::range("bits", bits, "1 to 8"));
    }
    let (groups, row_words, levels) = (groups(depth, group)?, (depth * bits as usize).div_ceil(32), 1 << bits);
    expect_shape("x", x.len(), &[rows, depth])?;
    expect_shape("words", words.len(), &[cols, row_words])?;
    expect_shape("scale", scale.len(), &[cols, groups])?;
    expect_shape("table", table.len(), &[if by_row { cols } else { 1 }, levels])?;
    expect_shape("out", out.len(), &[rows, cols])?;
    let width = decode::values(bits);
    let widened: Vec<f32>;
    let table = if width == levels {
        table
    } else {
        let fill = |i: usize| table.get(i / width * levels + i % width).filter(|_| i % width < levels);
        widened = (0..table.len() / levels * width).map(|i| fill(i).copied().unwrap_or(0.0)).collect();
        &widened
    };
    let row = |n: usize| {
        let first = if by_row { n * width } else { 0 };
        Row {
            bytes: bytes(&words[n * row_words..(n + 1) * row_words]),
            bits,
            scale: &scale[n * groups..(n + 1) * groups],
            meaning: Meaning::Table(&table[first..first + width]),
            group,
        }
    };
    decoded::packed(m, x, [rows, cols, depth], row, out);
    Ok(())
}
