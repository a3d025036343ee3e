//! fp8: 8-bit floats times 8-bit floats, summed in f32, scaled by rows and by blocks of 128 columns.
//!
//! Those of `x` are widened and scaled first; the product: `decoded`. Limit: the widening for few rows of `x`, multiplications
//! for many.

use super::decode::{Meaning, Row};
use super::decoded;
use crate::error::{expect_len, expect_shape};
use crate::minifloat::{Format, decode};
use crate::{Error, Machine, Result};

/// Columns, and rows, that share a scale.
const BLOCK: usize = 128;

/// Scales `[rows, blocks]`: one for all rows of a matrix, one a row or one for 128 rows; one for all columns or for 128 of them.
#[derive(Clone, Copy)]
pub struct Scales<'a> {
    /// Row-major.
    pub values: &'a [f32],
    /// 1, as many as the matrix has, or one for each 128 of them.
    pub rows: usize,
    /// 1, or one for each 128 columns.
    pub blocks: usize,
}

impl Scales<'_> {
    pub(super) fn expect(&self, what: &'static str, items: usize, depth: usize) -> Result<()> {
        let (tall, wide) = (items.div_ceil(BLOCK), depth.div_ceil(BLOCK));
        if !([1, items, tall].contains(&self.rows) && [1, wide].contains(&self.blocks)) {
            let expected = format!("1, {tall} or {items} rows of 1 or {wide} scales");
            return Err(Error::shape(what, format!("[{}, {}]", self.rows, self.blocks), expected));
        }
        expect_shape(what, self.values.len(), &[self.rows, self.blocks])
    }

    /// Those of row `item` of `items`.
    pub(super) fn of(&self, item: usize, items: usize) -> &[f32] {
        let row = match self.rows {
            1 => 0,
            rows if rows == items => item,
            _ => item / BLOCK,
        };
        &self.values[row * self.blocks..(row + 1) * self.blocks]
    }

    /// Multiplies row `item` of `items`.
    fn multiply(&self, item: usize, items: usize, values: &mut [f32]) {
        let width = if self.blocks == 1 { values.len() } else { BLOCK };
        for (values, scale) in values.chunks_mut(width.max(1)).zip(self.of(item, items)) {
            values.iter_mut().for_each(|value| *value *= scale);
        }
    }
}

/// `out[t, n] = sum_k (x[t, k] * x_scale[t, b]) * (weight[n, k] * w_scale[n, b]) + bias[n]`, `k` of block `b`.
///
/// `x` `[rows, depth]` and `weight` `[cols, depth]` hold codes of `F`, `out` is `[rows, cols]`. Products and sums are f32.
/// NaN and infinity spread as IEEE 754 has it. Errors: `Shape` for lengths that do not fit. Then nothing is written.
#[allow(clippy::too_many_arguments)]
pub fn fp8<F: Format<Code = u8>>(
    m: &Machine,
    x: &[u8],
    weight: &[u8],
    x_scale: Scales<'_>,
    w_scale: Scales<'_>,
    bias: Option<&[f32]>,
    rows: usize,
    cols: usize,
    depth: usize,
    out: &mut [f32],
) -> Result<()> {
    expect_shape("x", x.len(), &[rows, depth])?;
    expect_shape("weight", weight.len(), &[cols, depth])?;
    x_scale.expect("x_scale", rows, depth)?;
    w_scale.expect("w_scale", cols, depth)?;
    bias.map_or(Ok(()), |bias| expect_len("bias", bias.len(), cols))?;
    expect_shape("out", out.len(), &[rows, cols])?;
    let mut wide = vec![0.0; x.len()];
    decode::<F>(m, x, &mut wide)?;
    for (t, x) in wide.chunks_mut(depth.max(1)).enumerate() {
        x_scale.multiply(t, rows, x);
    }
    let mut table = Vec::new();
    let meaning = Meaning::of::<F>(8, &mut table);
    let row = |n: usize| Row {
        bytes: &weight[n * depth..(n + 1) * depth],
        bits: 8,
        scale: w_scale.of(n, cols),
        meaning,
        group: if w_scale.blocks == 1 { depth } else { BLOCK },
    };
    decoded::packed(m, &wide, [rows, cols, depth], row, out);
    if let Some(bias) = bias {
        for out in out.chunks_mut(cols.max(1)) {
            out.iter_mut().zip(bias).for_each(|(y, bias)| *y += bias);
        }
    }
    Ok(())
}
