//! fp8: 8-bit floats times 8-bit floats, summed in f32, scaled by rows and by blocks of 128 columns.
//!
//! Codes are widened first, those of `weight` one row at a time, which all rows of `x` then share. Limit: multiplications.

use super::{Columns, columns};
use crate::error::{expect_len, expect_shape};
use crate::minifloat::{Format, decode};
use crate::{Error, Machine, Result};

/// Columns, and rows, that share a scale.
const BLOCK: usize = 128;
/// Rows of `weight` in one task.
const PANEL: usize = 16;
/// Sums that a dot product keeps, so that they fill vectors.
const LANES: usize = 16;

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

    /// That of row `item` of `items` in a block of columns.
    fn at(&self, item: usize, items: usize, block: usize) -> f32 {
        self.of(item, items)[block.min(self.blocks - 1)]
    }
}

/// `out[t, n] = sum_b (sum_k x[t, k] * weight[n, k]) * (x_scale[t, b] * w_scale[n, b]) + bias[n]`, `k` of block `b`.
///
/// `x` `[rows, depth]` and `weight` `[cols, depth]` hold codes of `F`, `out` is `[rows, cols]`. A product is exact, sums are f32.
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
    let (codes, mut values) = (Vec::from_iter(0..=u8::MAX), [0.0; 256]);
    decode::<F>(m, &codes, &mut values)?;
    m.each(columns(out, cols, PANEL), |Columns { range, rows: mut out }| {
        let mut row = vec![0.0; depth];
        for (at, n) in range.enumerate() {
            row.iter_mut().zip(&weight[n * depth..]).for_each(|(w, code)| *w = values[usize::from(*code)]);
            for (t, out) in out.iter_mut().enumerate() {
                let blocks = wide[t * depth..(t + 1) * depth].chunks(BLOCK).zip(row.chunks(BLOCK));
                let total = blocks.enumerate().fold(0.0, |total, (block, (x, w))| {
                    total + dot(x, w) * (x_scale.at(t, rows, block) * w_scale.at(n, cols, block))
                });
                out[at] = total + bias.map_or(0.0, |bias| bias[n]);
            }
        }
    });
    Ok(())
}

fn dot(x: &[f32], w: &[f32]) -> f32 {
    let mut sums = [0.0; LANES];
    let ((xs, x), (ws, w)) = (x.as_chunks::<LANES>(), w.as_chunks::<LANES>());
    for (x, w) in xs.iter().zip(ws) {
        for lane in 0..LANES {
            sums[lane] += x[lane] * w[lane];
        }
    }
    sums.iter().sum::<f32>() + x.iter().zip(w).map(|(x, w)| x * w).sum::<f32>()
}
