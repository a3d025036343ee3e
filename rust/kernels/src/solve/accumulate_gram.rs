//! accumulate_gram: `gram += x^T x`, the statistic behind every Hessian; limit: multiplications, half of a full product's.

use crate::error::expect_shape;
use crate::{Machine, Result};
use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};

/// Rows of the result that one task computes. Fixed, so that every thread count cuts, and rounds, alike.
const PANEL: usize = 64;
/// Tokens multiplied at a time.
const TOKENS: usize = 512;
/// Floats between the rows of the copy, beyond the channels: rows a power of two apart would all fall on the same few lines of
/// the cache, which costs a factor of two.
const GAP: usize = 16;

/// Adds `x^T x` of `x` `[tokens, channels]` to the symmetric `gram` `[channels, channels]`.
///
/// Only the lower triangle is read and computed; the upper one is its mirror image. f32 sums; NaN and infinity in `x` reach `gram`.
pub fn accumulate_gram(m: &Machine, x: &[f32], tokens: usize, channels: usize, gram: &mut [f32]) -> Result<()> {
    expect_shape("x", x.len(), &[tokens, channels])?;
    expect_shape("gram", gram.len(), &[channels, channels])?;
    if x.is_empty() {
        return Ok(());
    }
    let stride = channels + GAP;
    let mut copy = vec![0.0; TOKENS.min(tokens) * stride];
    for x in x.chunks(TOKENS * channels) {
        let tokens = x.len() / channels;
        let rows = copy.chunks_mut(32 * stride).zip(x.chunks(32 * channels)).collect();
        m.each(rows, |(to, from): (&mut [f32], &[f32])| {
            for (to, from) in to.chunks_mut(stride).zip(from.chunks(channels)) {
                to[..channels].copy_from_slice(from);
            }
        });
        let x = MatRef::from_row_major_slice_with_stride(&copy[..tokens * stride], tokens, channels, stride);
        let mut panels: Vec<_> = gram.chunks_mut(PANEL * channels).enumerate().collect();
        // The last panel is the longest: it goes first.
        panels.reverse();
        m.each(panels, |(panel, rows)| {
            let (first, height) = (panel * PANEL, rows.len() / channels);
            let target = MatMut::from_row_major_slice_mut(rows, height, channels).subcols_mut(0, first + height);
            let (left, right) = (x.subcols(first, height).transpose(), x.subcols(0, first + height));
            matmul(target, Accum::Add, left, right, 1.0, Par::Seq);
        });
    }
    mirror(m, channels, gram);
    Ok(())
}

/// Floats in a line of the cache.
const SIDE: usize = 16;

/// Copies the lower triangle to the upper one.
fn mirror(m: &Machine, channels: usize, gram: &mut [f32]) {
    for first in (0..channels).step_by(PANEL) {
        let end = channels.min(first + PANEL);
        let (panel, below) = gram[first * channels..].split_at_mut((end - first) * channels);
        for row in 0..end - first {
            for column in 0..row {
                panel[column * channels + first + row] = panel[row * channels + first + column];
            }
        }
        let below = &*below;
        // Squares of `SIDE`: what is read and what is written are whole lines of the cache.
        m.each(panel.chunks_mut(SIDE * channels).enumerate().collect(), |(strip, rows)| {
            let column = first + SIDE * strip;
            for (square, lower) in below.chunks(SIDE * channels).enumerate() {
                let (at, mut turned) = (end + SIDE * square, [[0.0; SIDE]; SIDE]);
                let side = lower.len() / channels;
                for (i, lower) in lower.chunks_exact(channels).enumerate() {
                    for (turned, &value) in turned.iter_mut().zip(&lower[column..]) {
                        turned[i] = value;
                    }
                }
                for (row, turned) in rows.chunks_exact_mut(channels).zip(&turned) {
                    row[at..at + side].copy_from_slice(&turned[..side]);
                }
            }
        });
    }
}
