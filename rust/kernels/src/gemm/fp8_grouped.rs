//! fp8_grouped: fp8 with a weight for each expert, on rows in the order of their experts: what a mixture of experts multiplies.
//!
//! One product for each expert that has rows, one after the other, each on all threads. Limit: that of fp8.

use super::fp8::{Scales, fp8};
use super::{chosen, expect_rising};
use crate::error::expect_shape;
use crate::minifloat::Format;
use crate::{Machine, Result};

/// `out[r]` is [`fp8`] of row `order[r]` of `x` with the weight of expert `e`, for `r` from `offsets[e]` to `offsets[e + 1] - 1`.
///
/// `x` `[tokens, depth]`, `x_scale` for it; `offsets` `[experts + 1]`; `weight` `[experts, cols, depth]`, `w_scale` that of one expert
/// after the other, its `rows` those of one; `bias` `[experts, cols]`; `order` `[rows]`, or none: `r`, and then `tokens` is `rows`;
/// `out` `[rows, cols]`. Errors: those of [`fp8`], and [`Error::Range`](crate::Error::Range) for offsets that do not rise from 0 to
/// `rows` and for what is no row of `x`; then nothing is written. Does not depend on the threads.
#[allow(clippy::too_many_arguments)]
pub fn fp8_grouped<F: Format<Code = u8>>(
    m: &Machine,
    x: &[u8],
    weight: &[u8],
    x_scale: Scales<'_>,
    w_scale: Scales<'_>,
    offsets: &[i32],
    bias: Option<&[f32]>,
    order: Option<&[i32]>,
    tokens: usize,
    cols: usize,
    depth: usize,
    out: &mut [f32],
) -> Result<()> {
    let experts = offsets.len().saturating_sub(1);
    let rows = order.map_or(tokens, <[i32]>::len);
    expect_shape("x", x.len(), &[tokens, depth])?;
    expect_shape("weight", weight.len(), &[experts, cols, depth])?;
    x_scale.expect("x_scale", tokens, depth)?;
    expect_shape("w_scale", w_scale.values.len(), &[experts, w_scale.rows, w_scale.blocks])?;
    let of_expert = |expert: usize| {
        let scales = w_scale.rows * w_scale.blocks;
        Scales { values: &w_scale.values[expert * scales..(expert + 1) * scales], ..w_scale }
    };
    (0..experts.min(1)).try_for_each(|first| of_expert(first).expect("w_scale", cols, depth))?;
    bias.map_or(Ok(()), |bias| expect_shape("bias", bias.len(), &[experts, cols]))?;
    expect_shape("out", out.len(), &[rows, cols])?;
    expect_rising("offsets", offsets, rows)?;
    let x = chosen(x, order, tokens, depth)?;
    // One row of scales for each row of the result, unless one serves all.
    let blocks = x_scale.blocks;
    let by_row: Vec<f32> = match (x_scale.rows, order) {
        (1, _) => Vec::new(),
        (_, Some(order)) => order.iter().flat_map(|&row| x_scale.of(row as usize, tokens)).copied().collect(),
        (_, None) => (0..tokens).flat_map(|row| x_scale.of(row, tokens)).copied().collect(),
    };
    for (expert, range) in offsets.windows(2).enumerate() {
        let (first, last) = (range[0] as usize, range[1] as usize); // not negative: they rise from 0
        if first == last {
            continue;
        }
        let x_scale = match x_scale.rows {
            1 => x_scale,
            _ => Scales { values: &by_row[first * blocks..last * blocks], rows: last - first, blocks },
        };
        fp8::<F>(
            m,
            &x[first * depth..last * depth],
            &weight[expert * cols * depth..(expert + 1) * cols * depth],
            x_scale,
            of_expert(expert),
            bias.map(|bias| &bias[expert * cols..(expert + 1) * cols]),
            last - first,
            cols,
            depth,
            &mut out[first * cols..last * cols],
        )?;
    }
    Ok(())
}
