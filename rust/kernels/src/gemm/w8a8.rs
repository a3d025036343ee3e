//! w8a8: 8-bit integers times 8-bit integers, summed exactly in i32, then scaled: the product under SmoothQuant.
//!
//! Both operands lie along the sum, so a tile of some rows of `x` times some rows of `w` is a handful of dot products that
//! share their loads; nothing is transposed. Limit: multiplications, for few rows of `x` the reading of `w`.

use super::{Columns, columns, expect_scale};
use crate::error::expect_shape;
use crate::{Error, Machine, Path, Result};

/// The longest sum that no choice of codes overflows: `(2^17 - 1) * 128 * 128 < 2^31`.
const DEPTH_LIMIT: usize = (1 << 17) - 1;
/// Rows of `w` in one task: with `STRETCH` columns of each they stay in the second cache.
const PANEL: usize = 64;
/// Rows of `x` whose sums are kept at a time; a multiple of every tile height.
const ROWS: usize = 96;
/// Codes of a row that a tile multiplies at a time: a tile of `x` stays in the first cache. A multiple of every step.
const STRETCH: usize = 2048;

/// `out[t, n] = (sum_k x[t, k] * weight[n, k]) * x_scale[t] * w_scale[n] + bias[n]`.
///
/// `x` `[rows, depth]`, `weight` `[cols, depth]`, `out` `[rows, cols]`; one scale for all or one a row of `x` and of `weight`.
/// The sum is exact for all codes, -128 included; it is rounded to f32 once, then multiplied by `x_scale` and `w_scale` in
/// this order, then `bias` is added.
///
/// Errors: `Range` for a `depth` above 131071; `Shape` for lengths that do not fit. Then nothing is written.
#[allow(clippy::too_many_arguments)]
pub fn w8a8(
    m: &Machine,
    x: &[i8],
    weight: &[i8],
    x_scale: &[f32],
    w_scale: &[f32],
    bias: Option<&[f32]>,
    rows: usize,
    cols: usize,
    depth: usize,
    out: &mut [f32],
) -> Result<()> {
    if depth > DEPTH_LIMIT {
        return Err(Error::range("depth", depth, format!("at most {DEPTH_LIMIT}")));
    }
    expect_shape("x", x.len(), &[rows, depth])?;
    expect_shape("weight", weight.len(), &[cols, depth])?;
    expect_scale("x_scale", x_scale.len(), rows)?;
    expect_scale("w_scale", w_scale.len(), cols)?;
    bias.map_or(Ok(()), |bias| expect_shape("bias", bias.len(), &[cols]))?;
    expect_shape("out", out.len(), &[rows, cols])?;
    let operand = Operand::of(m, x, rows, depth);
    m.each(columns(out, cols, PANEL), |Columns { range, rows: mut out }| {
        let weight = &weight[range.start * depth..range.end * depth];
        let width = range.len();
        for (block, out) in out.chunks_mut(ROWS).enumerate() {
            let first = block * ROWS;
            let mut sums = [0; ROWS * PANEL];
            operand.multiply(first..first + out.len(), weight, depth, &mut sums);
            for (row, out) in out.iter_mut().enumerate() {
                let x_scale = if x_scale.len() == 1 { x_scale[0] } else { x_scale[first + row] };
                let sums = &sums[row * PANEL..][..width];
                match w_scale {
                    [one] => scaled(sums, out, |_, sum| sum * x_scale * one),
                    each => scaled(sums, out, |n, sum| sum * x_scale * each[range.start + n]),
                }
                if let Some(bias) = bias {
                    out.iter_mut().zip(&bias[range.clone()]).for_each(|(y, bias)| *y += bias);
                }
            }
        }
    });
    Ok(())
}

fn scaled(sums: &[i32], out: &mut [f32], scale: impl Fn(usize, f32) -> f32) {
    for (n, (y, &sum)) in out.iter_mut().zip(sums).enumerate() {
        *y = scale(n, sum as f32);
    }
}

/// `x` as the instructions of a path want it: rows padded with zeros to whole steps.
enum Operand<'a> {
    /// As it is.
    Codes(&'a [i8]),
    /// Widened, for the multiplier of pairs of i16.
    #[cfg(target_arch = "x86_64")]
    Wide(Padded<i16>),
    /// Raised by 128, for the multiplier of unsigned by signed bytes.
    #[cfg(target_arch = "x86_64")]
    Raised(Padded<u8>),
}

#[cfg(target_arch = "x86_64")]
struct Padded<T> {
    codes: Vec<T>,
    stride: usize,
}

#[cfg(target_arch = "x86_64")]
impl<T: Copy + Default + Send> Padded<T> {
    fn new(m: &Machine, x: &[i8], rows: usize, depth: usize, step: usize, code: impl Fn(i8) -> T + Sync) -> Self {
        let stride = depth.next_multiple_of(step);
        let mut codes = vec![T::default(); rows * stride];
        if stride > 0 {
            m.each(codes.chunks_mut(stride).zip(x.chunks(depth)).collect(), |(to, from)| {
                to.iter_mut().zip(from).for_each(|(to, &from)| *to = code(from));
            });
        }
        Self { codes, stride }
    }
}

impl<'a> Operand<'a> {
    fn of(m: &Machine, x: &'a [i8], rows: usize, depth: usize) -> Self {
        match m.path() {
            #[cfg(target_arch = "x86_64")]
            Path::Avx512 => Self::Raised(Padded::new(m, x, rows, depth, avx512::STEP, |x| x as u8 ^ 0x80)),
            #[cfg(target_arch = "x86_64")]
            Path::Avx2 => Self::Wide(Padded::new(m, x, rows, depth, avx2::STEP, i16::from)),
            #[cfg(not(target_arch = "x86_64"))]
            Path::Avx512 | Path::Avx2 => Self::Codes(x),
            Path::Scalar => Self::Codes(x),
        }
    }

    /// Adds the products of some rows with all rows of `weight` to `sums`, `PANEL` a row.
    fn multiply(&self, rows: std::ops::Range<usize>, weight: &[i8], depth: usize, sums: &mut [i32]) {
        match self {
            Self::Codes(x) => portable::multiply(&x[rows.start * depth..rows.end * depth], weight, depth, sums),
            #[cfg(target_arch = "x86_64")]
            Self::Wide(Padded { codes, stride }) => {
                let x = &codes[rows.start * stride..rows.end * stride];
                // SAFETY: only a machine with this path makes this operand, and it has AVX2.
                unsafe { avx2::multiply(x, *stride, weight, depth, sums) }
            }
            #[cfg(target_arch = "x86_64")]
            Self::Raised(Padded { codes, stride }) => {
                let x = &codes[rows.start * stride..rows.end * stride];
                // SAFETY: only a machine with this path makes this operand, and it has AVX-512 VNNI.
                unsafe { avx512::multiply(x, *stride, weight, depth, sums) }
            }
        }
    }
}

mod portable {
    use super::{PANEL, STRETCH};

    pub fn multiply(x: &[i8], weight: &[i8], depth: usize, sums: &mut [i32]) {
        for (x, sums) in x.chunks(depth.max(1)).zip(sums.chunks_mut(PANEL)) {
            for (w, sum) in weight.chunks(depth.max(1)).zip(sums) {
                *sum += x.iter().zip(w).map(|(&x, &w)| i32::from(x) * i32::from(w)).sum::<i32>();
            }
        }
    }

    /// The order in which tiles of `N` rows of `weight` are multiplied: `tile(first row of x, rows of it, stretch of columns,
    /// rows of weight)` for a stretch that all rows of a panel share, `first` in steps of at most `highest`.
    #[inline(always)]
    pub fn tiles<const N: usize>(
        rows: usize,
        highest: usize,
        weight: &[i8],
        depth: usize,
        mut tile: impl FnMut(usize, usize, usize, usize, [&[i8]; N]),
    ) {
        let width = weight.len().checked_div(depth).unwrap_or(0);
        for from in (0..depth).step_by(STRETCH) {
            let to = depth.min(from + STRETCH);
            let mut first = 0;
            while first < rows {
                // Tiles of the full height, then of 2 and 1: a body for each height would gain little.
                let height = [highest, 2, 1].into_iter().find(|&height| first + height <= rows).unwrap_or(1);
                for n in (0..width).step_by(N) {
                    // Behind the last row it is multiplied again: the caller leaves those sums out.
                    let w = std::array::from_fn(|i| &weight[(n + i).min(width - 1) * depth..][from..to]);
                    tile(first, height, from, n, w);
                }
                first += height;
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use super::{PANEL, portable};
    use crate::simd::{load_i8x16_wide, load_i16x16, sum_i32x8};
    use std::arch::x86_64::*;

    /// Codes a vector.
    pub const STEP: usize = 16;
    /// Rows of `weight` and of `x` a tile: 12 sums, two vectors of `weight` and one of `x` fill the 16 registers.
    const N: usize = 2;
    const HEIGHT: usize = 6;

    #[target_feature(enable = "avx2")]
    pub fn multiply(x: &[i16], stride: usize, weight: &[i8], depth: usize, sums: &mut [i32]) {
        let rows = x.len().checked_div(stride).unwrap_or(0);
        portable::tiles(rows, HEIGHT, weight, depth, |first, height, from, n, w: [&[i8]; N]| {
            let (x, sums) = (&x[first * stride + from..], &mut sums[first * PANEL + n..]);
            match height {
                HEIGHT => tile::<HEIGHT>(x, stride, w, sums),
                2 => tile::<2>(x, stride, w, sums),
                _ => tile::<1>(x, stride, w, sums),
            }
        });
    }

    /// Products of neighbours are summed by the multiplication: `2 * 128 * 128` is far from 2^31.
    #[target_feature(enable = "avx2")]
    fn tile<const R: usize>(x: &[i16], stride: usize, w: [&[i8]; N], sums: &mut [i32]) {
        let w = w.map(|w| w.as_chunks::<STEP>());
        let steps = w[0].0.len();
        let whole = w.map(|(whole, _)| &whole[..steps]);
        let x: [_; R] = std::array::from_fn(|r| x[r * stride..].as_chunks::<STEP>().0);
        let near = x.map(|x| &x[..steps]);
        let mut all = [[_mm256_setzero_si256(); N]; R];
        for k in 0..steps {
            let w = whole.map(|w| load_i8x16_wide(&w[k]));
            for r in 0..R {
                let x = load_i16x16(&near[r][k]);
                for n in 0..N {
                    all[r][n] = _mm256_add_epi32(all[r][n], _mm256_madd_epi16(x, w[n]));
                }
            }
        }
        if !w[0].1.is_empty() {
            for n in 0..N {
                let mut rest = [0; STEP];
                rest[..w[n].1.len()].copy_from_slice(w[n].1);
                let w = load_i8x16_wide(&rest);
                for r in 0..R {
                    all[r][n] = _mm256_add_epi32(all[r][n], _mm256_madd_epi16(load_i16x16(&x[r][steps]), w));
                }
            }
        }
        for r in 0..R {
            for n in 0..N {
                sums[r * PANEL + n] += sum_i32x8(all[r][n]);
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use super::{PANEL, portable};
    use crate::simd::{load_i8x64, load_u8x64};
    use std::arch::x86_64::*;

    /// Codes a vector.
    pub const STEP: usize = 64;
    /// Rows of `weight` and of `x` a tile: 24 sums, four vectors of `weight` and one of `x` fit the 32 registers.
    const N: usize = 4;
    const HEIGHT: usize = 6;

    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    pub fn multiply(x: &[u8], stride: usize, weight: &[i8], depth: usize, sums: &mut [i32]) {
        let rows = x.len().checked_div(stride).unwrap_or(0);
        portable::tiles(rows, HEIGHT, weight, depth, |first, height, from, n, w: [&[i8]; N]| {
            let (x, sums) = (&x[first * stride + from..], &mut sums[first * PANEL + n..]);
            match height {
                HEIGHT => tile::<HEIGHT>(x, stride, w, sums),
                2 => tile::<2>(x, stride, w, sums),
                _ => tile::<1>(x, stride, w, sums),
            }
        });
        // x + 128 was multiplied: 128 times the sum of each row of `weight` goes off again, modulo 2^32, where the true sum fits.
        for (n, w) in weight.chunks(depth.max(1)).enumerate() {
            let raise = w.iter().map(|&w| i32::from(w)).sum::<i32>() << 7;
            for sums in sums.chunks_mut(PANEL).take(rows) {
                sums[n] = sums[n].wrapping_sub(raise);
            }
        }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    fn tile<const R: usize>(x: &[u8], stride: usize, w: [&[i8]; N], sums: &mut [i32]) {
        let w = w.map(|w| w.as_chunks::<STEP>());
        let steps = w[0].0.len();
        let whole = w.map(|(whole, _)| &whole[..steps]);
        let x: [_; R] = std::array::from_fn(|r| x[r * stride..].as_chunks::<STEP>().0);
        let near = x.map(|x| &x[..steps]);
        let mut all = [[_mm512_setzero_si512(); N]; R];
        for k in 0..steps {
            let w = whole.map(|w| load_i8x64(&w[k]));
            for r in 0..R {
                let x = load_u8x64(&near[r][k]);
                for n in 0..N {
                    all[r][n] = _mm512_dpbusd_epi32(all[r][n], x, w[n]);
                }
            }
        }
        if !w[0].1.is_empty() {
            for n in 0..N {
                let mut rest = [0; STEP];
                rest[..w[n].1.len()].copy_from_slice(w[n].1);
                let w = load_i8x64(&rest);
                for r in 0..R {
                    all[r][n] = _mm512_dpbusd_epi32(all[r][n], load_u8x64(&x[r][steps]), w);
                }
            }
        }
        for r in 0..R {
            for n in 0..N {
                let sum = &mut sums[r * PANEL + n];
                *sum = sum.wrapping_add(_mm512_reduce_add_epi32(all[r][n]));
            }
        }
    }
}
