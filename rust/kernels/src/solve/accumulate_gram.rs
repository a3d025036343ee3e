//! accumulate_gram: `gram += x^T x`, the statistic behind every Hessian; limit: multiplications, half of a full product's.
//!
//! Tokens are packed once into columns of sixteen channels, token after token: both factors of every tile are read from there.

use crate::error::expect_shape;
use crate::{Machine, Path, Result};

/// Channels of a packed column, and the width of a tile.
const WIDTH: usize = 16;
/// Sixteen neighbouring channels of one token.
type Line = [f32; WIDTH];
/// Tokens that a tile sums up before it is added to `gram`: two columns of them fit into the first level of the cache.
const DEPTH: usize = 192;
/// Lines between packed columns, one more than they hold: a power of two apart they would fall on the same few cache lines.
const COLUMN: usize = DEPTH + 1;
/// Lines packed at a time, 2 MiB, if that is at least one `DEPTH` of tokens.
const PACKED: usize = 1 << 15;
/// Rows of `gram` that one task computes. Fixed, so that every thread count cuts, and rounds, alike.
const PANEL: usize = 4 * WIDTH;

/// Adds `x^T x` of `x` `[tokens, channels]` to the symmetric `gram` `[channels, channels]`.
///
/// Only the lower triangle counts; the upper one becomes its mirror image. f32 sums; NaN and infinity in `x` reach `gram`.
pub fn accumulate_gram(m: &Machine, x: &[f32], tokens: usize, channels: usize, gram: &mut [f32]) -> Result<()> {
    expect_shape("x", x.len(), &[tokens, channels])?;
    expect_shape("gram", gram.len(), &[channels, channels])?;
    if x.is_empty() {
        return Ok(());
    }
    let part = channels.div_ceil(WIDTH) * COLUMN;
    let parts = tokens.div_ceil(DEPTH).min((PACKED / part).max(1));
    let mut packed = vec![[0.0; WIDTH]; parts * part];
    // as even as can be: each part reads and writes all of `gram`
    let depth = tokens.div_ceil(tokens.div_ceil(DEPTH));
    for x in x.chunks(parts * depth * channels) {
        let parts = packed.chunks_mut(part).zip(x.chunks(depth * channels)).collect();
        m.each(parts, |(to, from): (&mut [Line], &[f32])| pack(from, channels, to));
        let parts: Vec<_> = packed.chunks(part).zip(x.chunks(depth * channels)).collect();
        let mut panels: Vec<_> = gram.chunks_mut(PANEL * channels).enumerate().collect();
        // The last panel is the longest: it goes first.
        panels.reverse();
        m.each(panels, |(panel, rows)| {
            for (packed, x) in &parts {
                add(m.path(), packed, x.len() / channels, panel * PANEL, rows, channels);
            }
        });
    }
    mirror(m, channels, gram);
    Ok(())
}

/// Tokens `[.., channels]` as columns of lines; the channels beyond the last are zero.
fn pack(x: &[f32], channels: usize, to: &mut [Line]) {
    for (column, to) in to.chunks_exact_mut(COLUMN).enumerate() {
        let first = column * WIDTH;
        for (to, x) in to.iter_mut().zip(x.chunks_exact(channels)) {
            match x[first..].first_chunk() {
                Some(x) => *to = *x,
                None => to[..channels - first].copy_from_slice(&x[first..]),
            }
        }
    }
}

/// Adds the products of `tokens` packed tokens to the rows of `gram` from `first` on, up to the diagonal.
fn add(path: Path, packed: &[Line], tokens: usize, first: usize, rows: &mut [f32], channels: usize) {
    let column = |at: usize| &packed[at * COLUMN..][..tokens];
    let height = rows.len() / channels;
    for right in 0..(first + height).div_ceil(WIDTH) {
        for (strip, rows) in rows.chunks_mut(WIDTH * channels).enumerate() {
            let left = first / WIDTH + strip;
            if left >= right {
                let width = WIDTH.min(channels - right * WIDTH);
                tiles(path, column(left), column(right), &mut rows[right * WIDTH..], channels, width);
            }
        }
    }
}

/// Adds the sums over all tokens of `left[i] right[j]` to `gram[i * stride + j]`, for the `i` that `gram` has and `j` below `width`.
fn tiles(path: Path, left: &[Line], right: &[Line], gram: &mut [f32], stride: usize, width: usize) {
    match path {
        Path::Scalar => portable::tiles(left, right, gram, stride, width),
        // SAFETY: the path of a machine is one that its processor has.
        #[cfg(target_arch = "x86_64")]
        Path::Avx2 => unsafe { avx2::tiles(left, right, gram, stride, width) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Path::Amx | Path::Avx512 => unsafe { avx512::tiles(left, right, gram, stride, width) },
        #[cfg(not(target_arch = "x86_64"))]
        _ => portable::tiles(left, right, gram, stride, width),
    }
}

/// Adds the first `width` of one row's sums.
#[inline(always)]
fn put(sums: &Line, row: &mut [f32], width: usize) {
    match row.first_chunk_mut::<WIDTH>() {
        Some(row) if width == WIDTH => row.iter_mut().zip(sums).for_each(|(to, sum)| *to += sum),
        _ => row[..width].iter_mut().zip(sums).for_each(|(to, sum)| *to += sum),
    }
}

mod portable {
    use super::{Line, WIDTH, put};

    pub fn tiles(left: &[Line], right: &[Line], gram: &mut [f32], stride: usize, width: usize) {
        for (i, row) in gram.chunks_mut(stride).enumerate() {
            let mut sums = [0.0; WIDTH];
            for (left, right) in left.iter().zip(right) {
                for (sum, x) in sums.iter_mut().zip(right) {
                    *sum += left[i] * x;
                }
            }
            put(&sums, row, width);
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use super::{Line, WIDTH, put};
    use crate::simd::{load_f32x8, prefetch, store_f32x8};
    use std::arch::x86_64::*;

    /// Rows of a tile: its sums fill half of the registers, and eight of them hide a multiplication's latency.
    const ROWS: usize = 4;

    #[target_feature(enable = "avx2,fma")]
    pub fn tiles(left: &[Line], right: &[Line], gram: &mut [f32], stride: usize, width: usize) {
        for (quarter, rows) in gram.chunks_mut(ROWS * stride).enumerate() {
            rows.iter().step_by(stride).for_each(|row| prefetch(row, 0));
            let mut sums = [[_mm256_setzero_ps(); 2]; ROWS];
            for (left, right) in left.iter().zip(right) {
                let (right, left) = (right.as_chunks::<8>().0, &left.as_chunks::<ROWS>().0[quarter]);
                let (low, high) = (load_f32x8(&right[0]), load_f32x8(&right[1]));
                for (sums, &x) in sums.iter_mut().zip(left) {
                    let x = _mm256_set1_ps(x);
                    *sums = [_mm256_fmadd_ps(x, low, sums[0]), _mm256_fmadd_ps(x, high, sums[1])];
                }
            }
            for (row, [low, high]) in rows.chunks_mut(stride).zip(sums) {
                let mut line = [0.0; WIDTH];
                let [left, right] = line.as_chunks_mut::<8>().0 else { unreachable!("sixteen are two times eight") };
                store_f32x8(left, low);
                store_f32x8(right, high);
                put(&line, row, width);
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use super::Line;
    use crate::simd::{add_f32x16, load_f32x16, prefetch};
    use std::arch::x86_64::*;

    /// Rows of a tile: eight sums hide a multiplication's latency.
    const ROWS: usize = 8;

    #[target_feature(enable = "avx512f")]
    pub fn tiles(left: &[Line], right: &[Line], gram: &mut [f32], stride: usize, width: usize) {
        for (half, rows) in gram.chunks_mut(ROWS * stride).enumerate() {
            rows.iter().step_by(stride).for_each(|row| prefetch(row, 0));
            let mut sums = [_mm512_setzero_ps(); ROWS];
            for (left, right) in left.iter().zip(right) {
                let right = load_f32x16(right);
                for (sum, &x) in sums.iter_mut().zip(&left.as_chunks::<ROWS>().0[half]) {
                    *sum = _mm512_fmadd_ps(_mm512_set1_ps(x), right, *sum);
                }
            }
            for (row, sum) in rows.chunks_mut(stride).zip(sums) {
                add_f32x16(&mut row[..width], sum);
            }
        }
    }
}

/// Floats in a line of the cache.
const SIDE: usize = 16;
/// Columns of one task of the copy.
const PIECE: usize = 16 * SIDE;

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
        let mut tasks: Vec<_> = (end..channels).step_by(PIECE).map(|at| (at, Vec::with_capacity(PANEL))).collect();
        for row in panel.chunks_exact_mut(channels) {
            for ((_, rows), piece) in tasks.iter_mut().zip(row[end..].chunks_mut(PIECE)) {
                rows.push(piece);
            }
        }
        m.each(tasks, |(at, mut rows): (usize, Vec<&mut [f32]>)| {
            // Squares of `SIDE`, whole lines of the cache, along the rows that are read: each is on a page of its own.
            let lower = &below[(at - end) * channels..][..rows[0].len() * channels];
            for (square, lower) in lower.chunks(SIDE * channels).enumerate() {
                for (strip, rows) in rows.chunks_mut(SIDE).enumerate() {
                    let mut turned = [[0.0; SIDE]; SIDE];
                    for (i, lower) in lower.chunks_exact(channels).enumerate() {
                        for (turned, &value) in turned.iter_mut().zip(&lower[first + SIDE * strip..]) {
                            turned[i] = value;
                        }
                    }
                    for (row, turned) in rows.iter_mut().zip(&turned) {
                        let to = &mut row[SIDE * square..];
                        let width = SIDE.min(to.len());
                        to[..width].copy_from_slice(&turned[..width]);
                    }
                }
            }
        });
    }
}
