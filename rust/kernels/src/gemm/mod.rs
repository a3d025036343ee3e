//! Matrix products that read codes: floats times low-bit weights, values of a table or vectors of a codebook, and 8-bit integers or floats times
//! their like; and the product with the sparse outliers that stand beside codes.

mod block_scaled;
mod block_scaled_pair;
#[cfg(target_arch = "x86_64")]
mod bytes;
mod codebook_gemm;
mod csr;
mod decode;
mod decoded;
mod dense;
mod fp8;
mod fp8_grouped;
#[cfg(target_arch = "x86_64")]
mod halves;
mod int4_fp8;
mod lookup;
mod nibbles;
mod tables;
#[cfg(test)]
mod tests;
#[cfg(target_arch = "x86_64")]
mod tiled;
mod w4a4;
mod w4a8;
mod w8a8;
mod wna16;
mod wna16_by_input;
mod wna16_grouped;
#[cfg(target_arch = "x86_64")]
mod words;

pub use block_scaled::{Blocks, block_scaled};
pub use block_scaled_pair::block_scaled_pair;
pub use codebook_gemm::{Codebook, codebook_gemm};
pub use csr::{Column, csr};
pub use fp8::{Scales, fp8};
pub use fp8_grouped::fp8_grouped;
pub use int4_fp8::{GroupScales, int4_fp8};
pub use lookup::lookup;
pub use w4a4::{Operand, Outliers, w4a4};
pub use w4a8::{Codes, Factor, w4a8};
pub use w8a8::w8a8;
pub use wna16::wna16;
pub use wna16_by_input::wna16_by_input;
pub use wna16_grouped::wna16_grouped;

use crate::error::expect_shape;
use crate::{Error, Result};
use std::borrow::Cow;
use std::ops::Range;

/// `x [rows, order.len()]` with its columns as a weight has them: column `k` is column `order[k]` of `x`.
///
/// [`Error::Shape`] for a length that is no whole number of rows, [`Error::Range`] for what is no column. The reading is random
/// within a row and a small part of any product.
pub fn gathered(x: &[f32], order: &[i32], rows: usize) -> Result<Vec<f32>> {
    expect_shape("x", x.len(), &[rows, order.len()])?;
    let columns = order.iter().map(|&k| usize::try_from(k).ok().filter(|&k| k < order.len()).ok_or(k));
    let columns = columns.collect::<std::result::Result<Vec<_>, _>>();
    let columns = columns.map_err(|k| Error::range("order", k, format!("columns 0 to {}", order.len() - 1)))?;
    Ok(x.chunks(order.len().max(1)).flat_map(|x| columns.iter().map(|&k| x[k])).collect())
}

/// Rows of `x` `[tokens, depth]` by their numbers, or all where there is no order.
///
/// [`Error::Range`] for what is no row.
fn chosen<'a, T: Copy>(x: &'a [T], order: Option<&[i32]>, tokens: usize, depth: usize) -> Result<Cow<'a, [T]>> {
    let Some(order) = order else { return Ok(Cow::Borrowed(x)) };
    let mut rows = Vec::with_capacity(order.len() * depth);
    for &number in order {
        let row = usize::try_from(number).ok().filter(|&row| row < tokens);
        let row = row
            .ok_or_else(|| Error::range("rows", number, format!("numbers from 0 and below {tokens}, the rows of x")))?;
        rows.extend_from_slice(&x[row * depth..(row + 1) * depth]);
    }
    Ok(Cow::Owned(rows))
}

/// Some columns of a row-major matrix, to be written by one thread.
struct Columns<'a> {
    range: Range<usize>,
    /// One slice a row.
    rows: Vec<&'a mut [f32]>,
}

/// Cuts a row-major `[rows, cols]` matrix into panels of `width` columns (the last may be narrower).
fn columns(out: &mut [f32], cols: usize, width: usize) -> Vec<Columns<'_>> {
    let mut panels: Vec<_> = (0..cols)
        .step_by(width)
        .map(|start| Columns { range: start..cols.min(start + width), rows: Vec::with_capacity(out.len() / cols) })
        .collect();
    for row in out.chunks_mut(cols.max(1)) {
        for (panel, part) in panels.iter_mut().zip(row.chunks_mut(width)) {
            panel.rows.push(part);
        }
    }
    panels
}

/// What sums of integers are multiplied by, and what is then added.
#[derive(Clone, Copy)]
struct Finish<'a> {
    /// One for all, or one a row of `x`.
    x_scale: &'a [f32],
    /// One for all, or one a row of the weight.
    w_scale: &'a [f32],
    /// One a row of the weight.
    bias: Option<&'a [f32]>,
}

impl Finish<'_> {
    fn expect(&self, rows: usize, cols: usize) -> Result<()> {
        expect_scale("x_scale", self.x_scale.len(), rows)?;
        expect_scale("w_scale", self.w_scale.len(), cols)?;
        self.bias.map_or(Ok(()), |bias| expect_shape("bias", bias.len(), &[cols]))
    }

    /// The sums of row `t` of `x` with some rows of the weight times `x_scale`, then `w_scale`, plus `bias`.
    fn apply(&self, t: usize, columns: Range<usize>, sums: &mut [f32]) {
        let x_scale = if self.x_scale.len() == 1 { self.x_scale[0] } else { self.x_scale[t] };
        match self.w_scale {
            [one] => sums.iter_mut().for_each(|y| *y = *y * x_scale * one),
            each => sums.iter_mut().zip(&each[columns.clone()]).for_each(|(y, scale)| *y = *y * x_scale * scale),
        }
        if let Some(bias) = self.bias {
            sums.iter_mut().zip(&bias[columns]).for_each(|(y, bias)| *y += bias);
        }
    }
}

/// Checks that a scale belongs to every item, or that one belongs to all.
fn expect_scale(what: &'static str, given: usize, items: usize) -> Result<()> {
    if given == 1 || given == items { Ok(()) } else { Err(Error::shape(what, given, format!("1 or {items} scales"))) }
}

/// Checks that numbers cut what they count into parts: they rise from 0 to `all`.
fn expect_rising(what: &'static str, numbers: &[i32], all: usize) -> Result<()> {
    if let Some(part) = numbers.windows(2).position(|pair| pair[0] > pair[1]) {
        return Err(Error::range(what, format!("a part {part} that ends before it starts"), "numbers that rise"));
    }
    if let (Some(&first), Some(&last)) = (numbers.first(), numbers.last())
        && (first != 0 || usize::try_from(last) != Ok(all))
    {
        return Err(Error::range(what, format!("from {first} to {last}"), format!("from 0 to {all}")));
    }
    Ok(())
}
