//! wna16_grouped: wna16 with a weight for each expert, on rows in the order of their experts: what a mixture of experts multiplies.
//!
//! One product for each expert that has rows, one after the other, each on all threads. Limit: that of wna16.

use super::wna16::{check, wna16};
use super::{chosen, expect_rising};
use crate::error::expect_shape;
use crate::quantize::{Zeros, groups};
use crate::{Machine, Result};

/// `out[r] = x[order[r]] W_e^T` with the weight of expert `e`, as [`wna16`] has it, for `r` from `offsets[e]` to `offsets[e + 1] - 1`.
///
/// `x` `[tokens, depth]`; `offsets` `[experts + 1]`; `words`, `scale` and `zero` are those of [`wna16`], one expert after the other;
/// `order` `[rows]`, or none: `r`, and then `tokens` is `rows`; `out` `[rows, cols]`. Errors: those of [`wna16`], and
/// [`Error::Range`] for offsets that do not rise from 0 to `rows` and for what is no row of `x`; then nothing is written. Does not
/// depend on the threads.
#[allow(clippy::too_many_arguments)]
pub fn wna16_grouped(
    m: &Machine,
    x: &[f32],
    words: &[i32],
    scale: &[f32],
    zero: Option<Zeros<'_>>,
    offsets: &[i32],
    order: Option<&[i32]>,
    tokens: usize,
    cols: usize,
    depth: usize,
    bits: u32,
    group: usize,
    out: &mut [f32],
) -> Result<()> {
    let all = offsets.len().saturating_sub(1).saturating_mul(cols);
    let groups = groups(depth, group)?;
    let row_words = check(x, words, scale, zero, [tokens, all, depth], bits, [all, groups])?;
    let rows = order.map_or(tokens, <[i32]>::len);
    expect_shape("out", out.len(), &[rows, cols])?;
    expect_rising("offsets", offsets, rows)?;
    let x = chosen(x, order, tokens, depth)?;
    for (expert, range) in offsets.windows(2).enumerate() {
        let (first, last) = (range[0] as usize, range[1] as usize); // not negative: they rise from 0
        let (weights, parameters) =
            (expert * cols..(expert + 1) * cols, expert * cols * groups..(expert + 1) * cols * groups);
        wna16(
            m,
            &x[first * depth..last * depth],
            &words[weights.start * row_words..weights.end * row_words],
            &scale[parameters.clone()],
            zero.map(|zero| zero.part(parameters)),
            last - first,
            cols,
            depth,
            bits,
            group,
            &mut out[first * cols..last * cols],
        )?;
    }
    Ok(())
}
