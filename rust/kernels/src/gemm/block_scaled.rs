//! block_scaled: `out = x W^T` with `W` of small floats or integers whose scale 16 or 32 neighbouring columns share (MX, NVFP4).
//!
//! Rows are decoded by the kernels for packed codes and for blocks, a part that the first cache holds at a time, and multiplied:
//! `decoded`. Limit: the decoding.

use super::decoded;
use crate::error::expect_shape;
use crate::minifloat::{Element, dequantize_block};
use crate::pack::{Order, unpack, words_per_row};
use crate::{Machine, Result};

/// Codes that are decoded at a time: whole words of every width, whole blocks.
const PART: usize = 512;

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
    let decode = |n: usize, values: &mut [f32]| {
        let mut codes = [0; PART];
        let words = words[n * width..(n + 1) * width].chunks(PART * E::BITS as usize / 32);
        let scales = scale[n * blocks..(n + 1) * blocks].chunks(PART / block);
        for ((words, scale), values) in words.zip(scales).zip(values.chunks_mut(PART)) {
            let codes = &mut codes[..values.len()];
            // Both were checked above, and so small a part is one thread's.
            let decoded = unpack(m, words, 1, codes.len(), E::BITS, Order::Dense, codes)
                .and_then(|()| dequantize_block::<E>(m, codes, scale, block, power, tensor_scale, values));
            debug_assert!(decoded.is_ok());
        }
    };
    decoded::product(m, x, [rows, cols, depth], 1, decode, out);
    Ok(())
}
