//! Matrix products that read codes: floats times low-bit weights or vectors of a codebook, and 8-bit integers or floats times
//! their like; and the product with the sparse outliers that stand beside codes.

mod codebook_gemm;
mod csr;
mod decode;
mod decoded;
mod fp8;
#[cfg(test)]
mod tests;
mod w8a8;
mod wna16;
mod wna16_by_input;

pub use codebook_gemm::{Codebook, Table, codebook_gemm};
pub use csr::{Column, Entries, csr};
pub use fp8::{Scales, fp8};
pub use w8a8::w8a8;
pub use wna16::wna16;
pub use wna16_by_input::wna16_by_input;

use std::ops::Range;

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

/// Checks that a scale belongs to every item, or that one belongs to all.
fn expect_scale(what: &'static str, given: usize, items: usize) -> crate::Result<()> {
    if given == 1 || given == items {
        Ok(())
    } else {
        Err(crate::Error::shape(what, given, format!("1 or {items} scales")))
    }
}
