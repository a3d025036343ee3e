//! block_scaled_pair: `out = X W^T` with both of small floats or integers in blocks that share a scale (MX, NVFP4).
//!
//! `X` becomes f32, exactly, then `block_scaled`. Limit: that one's, the decoding of `W`.

use super::{Blocks, block_scaled};
use crate::minifloat::{Element, dequantize_block};
use crate::pack::{Order, unpack};
use crate::{Machine, Result};

/// `out[t, n] = sum_k X[t, k] * W[n, k]`, either `code * scale * tensor_scale`.
///
/// `x` has `rows` rows of `depth` codes, `out` `[rows, cols]`. Errors: those of [`block_scaled`]; then nothing is written. NaN and infinity
/// pass through. Does not depend on the threads.
pub fn block_scaled_pair<E: Element>(
    m: &Machine,
    x: Blocks<'_>,
    weight: Blocks<'_>,
    rows: usize,
    cols: usize,
    depth: usize,
    out: &mut [f32],
) -> Result<()> {
    let (mut codes, mut wide) = (vec![0; rows * depth], vec![0.0; rows * depth]);
    unpack(m, x.words, rows, depth, E::BITS, Order::Dense, &mut codes)?;
    dequantize_block::<E>(m, &codes, x.scale, x.block, x.power, x.tensor_scale, &mut wide)?;
    block_scaled::<E>(m, &wide, weight, rows, cols, depth, out)
}
