//! block_scaled: `out = x W^T` with `W` of small floats or integers whose scale 16 or 32 neighbouring columns share (MX, NVFP4).
//!
//! The product: `decoded`, of codes that stand for the values of a table or are floats of 8 bits. Limit: the decoding.

use super::decode::{Meaning, Row};
use super::decoded;
use crate::error::expect_shape;
use crate::minifloat::{E4m3fn, E8m0, Element, decode, dequantize_block};
use crate::pack::words_per_row;
use crate::simd::bytes;
use crate::{Machine, Result};

/// The weight: codes of [`Element::BITS`] bits in dense order, and a byte of scale a block.
#[derive(Debug, Clone, Copy)]
pub struct Blocks<'a> {
    /// `[cols, words_per_row(depth, BITS)]`.
    pub words: &'a [i32],
    /// `[cols, depth / block]`.
    pub scale: &'a [u8],
    /// Columns of a block, 16 or 32.
    pub block: usize,
    /// Whether scales are powers of two, or else E4M3.
    pub power: bool,
    /// A factor for all, as in [`dequantize_block`].
    pub tensor_scale: f32,
}

/// `out[t, n] = sum_k x[t, k] * code[n, k] * scale[n, k / block] * tensor_scale`.
///
/// `x` `[rows, depth]`, `out` `[rows, cols]`. Errors: those of [`dequantize_block`], [`crate::Error::Shape`] for a length that does not
/// fit; then nothing is written. NaN and infinity pass through. Does not depend on the threads.
pub fn block_scaled<E: Element>(
    m: &Machine,
    x: &[f32],
    weight: Blocks<'_>,
    rows: usize,
    cols: usize,
    depth: usize,
    out: &mut [f32],
) -> Result<()> {
    let Blocks { words, scale, block, power, tensor_scale } = weight;
    dequantize_block::<E>(m, &[], &[], block, power, tensor_scale, &mut [])?;
    let (width, blocks) = (words_per_row(depth, E::BITS), depth / block);
    expect_shape("x", x.len(), &[rows, blocks * block])?;
    expect_shape("words", words.len(), &[cols, width])?;
    expect_shape("scale", scale.len(), &[cols, blocks])?;
    expect_shape("out", out.len(), &[rows, cols])?;
    let mut factors = vec![0.0; scale.len()];
    if power { decode::<E8m0>(m, scale, &mut factors) } else { decode::<E4m3fn>(m, scale, &mut factors) }?;
    factors.iter_mut().for_each(|factor| *factor *= tensor_scale);
    let mut table = Vec::new();
    let meaning = Meaning::of::<E>(E::BITS, &mut table);
    let row = |n: usize| Row {
        bytes: bytes(&words[n * width..(n + 1) * width]),
        bits: E::BITS,
        scale: &factors[n * blocks..(n + 1) * blocks],
        meaning,
        group: block,
    };
    decoded::packed(m, x, [rows, cols, depth], row, out);
    Ok(())
}
