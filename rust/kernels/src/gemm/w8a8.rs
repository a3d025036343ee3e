//! w8a8: 8-bit integers times 8-bit integers, summed exactly in i32, then scaled: the product under SmoothQuant.
//!
//! Both operands lie along the sum, so a tile of some rows of `x` times some rows of `w` is a handful of dot products that
//! share their loads; nothing is transposed. From 16 rows of `x` on with AVX-512 or AMX: `bytes`. Limit: multiplications, for
//! few rows of `x` the reading of `w`.

#[cfg(target_arch = "x86_64")]
use super::bytes::{self, Raised};
use super::{Columns, Finish, columns};
use crate::error::expect_shape;
use crate::{Error, Machine, Path, Result};
use std::ops::Range;

/// The longest sum that no choice of codes overflows: `(2^17 - 1) * 128 * 128 < 2^31`.
const DEPTH_LIMIT: usize = (1 << 17) - 1;
/// Rows of `w` in one task: with `STRETCH` columns of each they stay in the second cache.
const PANEL: usize = 64;
/// Rows of `x` whose sums are kept at a time; a multiple of `HEIGHT` and of a tile's.
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
    let finish = Finish { x_scale, w_scale, bias };
    finish.expect(rows, cols)?;
    expect_shape("out", out.len(), &[rows, cols])?;
    #[cfg(target_arch = "x86_64")]
    if bytes::suit(m, rows, depth, depth) {
        let panel = |range: Range<usize>, _| bytes::padded(&weight[range.start * depth..range.end * depth], depth);
        let finish = |t, columns, sums: &mut [f32]| finish.apply(t, columns, sums);
        bytes::product(m, x, [cols, depth], Raised::X, panel, None, finish, out);
        return Ok(());
    }
    let operand = Operand::of(m, x, rows, depth);
    m.each(columns(out, cols, PANEL), |Columns { range, rows: mut out }| {
        let weight = &weight[range.start * depth..range.end * depth];
        for (block, out) in out.chunks_mut(ROWS).enumerate() {
            let first = block * ROWS;
            let mut sums = [0; ROWS * PANEL];
            operand.multiply(first..first + out.len(), weight, depth, &mut sums);
            for (row, (out, sums)) in out.iter_mut().zip(sums.chunks(PANEL)).enumerate() {
                out.iter_mut().zip(sums).for_each(|(y, sum)| *y = *sum as f32);
                finish.apply(first + row, range.clone(), out);
            }
        }
    });
    Ok(())
}

/// `x` as the instructions of a path want it.
enum Operand<'a> {
    /// As it is.
    Codes(&'a [i8]),
    /// Widened, for the multiplier of pairs of i16.
    #[cfg(target_arch = "x86_64")]
    Wide(Tiles<i16>),
    /// For the multiplier of unsigned by signed bytes, and 128 times the sum of each row, as weights are raised by 128.
    #[cfg(target_arch = "x86_64")]
    Signed(Tiles<i8>, Vec<i32>),
}

impl<'a> Operand<'a> {
    fn of(m: &Machine, x: &'a [i8], rows: usize, depth: usize) -> Self {
        match m.path() {
            #[cfg(target_arch = "x86_64")]
            Path::Amx | Path::Avx512 => {
                let sum = |t: usize| x[t * depth..(t + 1) * depth].iter().map(|&x| i32::from(x)).sum::<i32>();
                let raised = (0..rows).map(|t| sum(t) << 7).collect();
                Self::Signed(Tiles::new::<{ avx512::STEP }>(m, x, rows, depth, |x| x), raised)
            }
            #[cfg(target_arch = "x86_64")]
            Path::Avx2 => Self::Wide(Tiles::new::<{ avx2::STEP }>(m, x, rows, depth, i16::from)),
            #[cfg(not(target_arch = "x86_64"))]
            Path::Amx | Path::Avx512 | Path::Avx2 => Self::Codes(x),
            Path::Scalar => Self::Codes(x),
        }
    }

    /// Adds the products of some rows, the first a multiple of `HEIGHT`, with all rows of `weight` to `sums`, `PANEL` a row.
    fn multiply(&self, rows: Range<usize>, weight: &[i8], depth: usize, sums: &mut [i32]) {
        match self {
            Self::Codes(x) => portable::multiply(&x[rows.start * depth..rows.end * depth], weight, depth, sums),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: only a machine with this path makes this operand, and it has AVX2.
            Self::Wide(x) => unsafe { avx2::multiply(x, rows, weight, depth, sums) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: only a machine with this path makes this operand, and it has AVX-512 VNNI.
            Self::Signed(x, raised) => unsafe { avx512::multiply(x, raised, rows, weight, depth, sums) },
        }
    }
}

/// Rows of `x` a tile: with two rows of `weight` 12 sums, which with two vectors of `weight`, one of `x` and one product fill
/// the 16 registers of AVX2.
#[cfg(target_arch = "x86_64")]
const HEIGHT: usize = 6;

/// Rows padded with zeros to whole steps and gathered in tiles of `HEIGHT` (the last may have fewer): first the first step
/// of each row of the tile, then the second. So a tile is read in one stream, whatever the length of a row.
#[cfg(target_arch = "x86_64")]
struct Tiles<T> {
    codes: Vec<T>,
    stride: usize,
}

#[cfg(target_arch = "x86_64")]
impl<T: Copy + Default + Send> Tiles<T> {
    fn new<const STEP: usize>(m: &Machine, x: &[i8], rows: usize, depth: usize, code: impl Fn(i8) -> T + Sync) -> Self {
        let stride = depth.next_multiple_of(STEP);
        let mut codes = vec![T::default(); rows * stride];
        if depth > 0 {
            let tiles = codes.chunks_mut(HEIGHT * stride).zip(x.chunks(HEIGHT * depth)).collect();
            m.each(tiles, |(to, from): (&mut [T], &[i8])| {
                let height = from.len() / depth;
                for (row, from) in from.chunks(depth).enumerate() {
                    for (to, from) in to.chunks_mut(STEP).skip(row).step_by(height).zip(from.chunks(STEP)) {
                        to.iter_mut().zip(from).for_each(|(to, &from)| *to = code(from));
                    }
                }
            });
        }
        Self { codes, stride }
    }

    /// Calls `tile(codes of x, rows of it, rows of weight, sums)` for every tile and every `N` rows of `weight`, one stretch of
    /// columns after the other.
    #[inline(always)]
    fn each<const N: usize>(
        &self,
        rows: Range<usize>,
        weight: &[i8],
        depth: usize,
        sums: &mut [i32],
        tile: impl Fn(&[T], usize, [&[i8]; N], &mut [i32]),
    ) {
        let width = weight.len().checked_div(depth).unwrap_or(0);
        // longer for fewer rows: one row of `x` reads each row of `weight` from end to end
        let stretch = (STRETCH * HEIGHT / rows.len().clamp(1, HEIGHT)).next_multiple_of(STRETCH);
        for from in (0..depth).step_by(stretch) {
            let to = depth.min(from + stretch);
            let padded = self.stride.min(from + stretch);
            for (sums, first) in sums.chunks_mut(HEIGHT * PANEL).zip(rows.clone().step_by(HEIGHT)) {
                let height = HEIGHT.min(rows.end - first);
                let x = &self.codes[first * self.stride..][height * from..height * padded];
                for n in (0..width).step_by(N) {
                    // Behind the last row comes the last row again: nobody reads those sums.
                    let w = std::array::from_fn(|i| &weight[(n + i).min(width - 1) * depth..][from..to]);
                    tile(x, height, w, &mut sums[n..]);
                }
            }
        }
    }
}

/// The codes behind the last whole step of each row, padded with zeros.
#[cfg(target_arch = "x86_64")]
fn rest<const STEP: usize, const N: usize>(w: [&[i8]; N]) -> Option<[[i8; STEP]; N]> {
    (!w[0].len().is_multiple_of(STEP)).then(|| {
        w.map(|w| {
            let mut rest = [0; STEP];
            let tail = w.as_chunks::<STEP>().1;
            rest[..tail.len()].copy_from_slice(tail);
            rest
        })
    })
}

mod portable {
    use super::PANEL;

    pub fn multiply(x: &[i8], weight: &[i8], depth: usize, sums: &mut [i32]) {
        for (x, sums) in x.chunks(depth.max(1)).zip(sums.chunks_mut(PANEL)) {
            for (w, sum) in weight.chunks(depth.max(1)).zip(sums) {
                *sum += x.iter().zip(w).map(|(&x, &w)| i32::from(x) * i32::from(w)).sum::<i32>();
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use super::{PANEL, Tiles, rest};
    use crate::simd::{load_i8x16_wide, load_i16x16, sum_i32x8};
    use std::arch::x86_64::*;
    use std::ops::Range;

    /// Codes a vector.
    pub const STEP: usize = 16;

    #[target_feature(enable = "avx2")]
    pub fn multiply(x: &Tiles<i16>, rows: Range<usize>, weight: &[i8], depth: usize, sums: &mut [i32]) {
        x.each(rows, weight, depth, sums, |x, height, w, sums| match height {
            1 => tile::<1>(x, w, sums),
            2 => tile::<2>(x, w, sums),
            3 => tile::<3>(x, w, sums),
            4 => tile::<4>(x, w, sums),
            5 => tile::<5>(x, w, sums),
            _ => tile::<6>(x, w, sums),
        });
    }

    #[target_feature(enable = "avx2")]
    fn tile<const R: usize>(x: &[i16], w: [&[i8]; 2], sums: &mut [i32]) {
        let steps = x.as_chunks::<STEP>().0.as_chunks::<R>().0;
        let mut all = [[_mm256_setzero_si256(); 2]; R];
        for ((x, w0), w1) in steps.iter().zip(w[0].as_chunks::<STEP>().0).zip(w[1].as_chunks::<STEP>().0) {
            step(x, [w0, w1], &mut all);
        }
        if let (Some([w0, w1]), Some(x)) = (&rest(w), steps.last()) {
            step(x, [w0, w1], &mut all);
        }
        for (all, sums) in all.iter().zip(sums.chunks_mut(PANEL)) {
            for (all, sum) in all.iter().zip(sums) {
                *sum += sum_i32x8(*all);
            }
        }
    }

    /// Products of neighbours are summed by the multiplication: `2 * 128 * 128` is far from 2^31.
    #[target_feature(enable = "avx2")]
    #[inline]
    fn step<const R: usize>(x: &[[i16; STEP]; R], w: [&[i8; STEP]; 2], all: &mut [[__m256i; 2]; R]) {
        let w = [load_i8x16_wide(w[0]), load_i8x16_wide(w[1])];
        for (x, all) in x.iter().zip(all) {
            let x = load_i16x16(x);
            for (w, all) in w.iter().zip(all) {
                *all = _mm256_add_epi32(*all, _mm256_madd_epi16(x, *w));
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use super::{PANEL, Tiles, rest};
    use crate::simd::load_i8x64;
    use std::arch::x86_64::*;
    use std::ops::Range;

    /// Codes a vector.
    pub const STEP: usize = 64;

    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    pub fn multiply(x: &Tiles<i8>, raised: &[i32], rows: Range<usize>, weight: &[i8], depth: usize, sums: &mut [i32]) {
        x.each(rows.clone(), weight, depth, sums, |x, height, w, sums| match height {
            // one row of `weight` after the other, as they are read but once
            1 => w.iter().zip(sums).for_each(|(w, sum)| tile::<1, 1>(x, &[w], std::slice::from_mut(sum))),
            2 => tile::<2, 4>(x, &w, sums),
            3 => tile::<3, 4>(x, &w, sums),
            4 => tile::<4, 4>(x, &w, sums),
            5 => tile::<5, 4>(x, &w, sums),
            _ => tile::<6, 4>(x, &w, sums),
        });
        // modulo 2^32, where the true sum fits
        for (sums, raised) in sums.chunks_mut(PANEL).zip(&raised[rows]) {
            sums.iter_mut().for_each(|sum| *sum = sum.wrapping_sub(*raised));
        }
    }

    /// With four rows of `weight`: 24 sums, four vectors of `weight` and one of `x` fit the 32 registers.
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    fn tile<const R: usize, const N: usize>(x: &[i8], w: &[&[i8]; N], sums: &mut [i32]) {
        let steps = x.as_chunks::<STEP>().0.as_chunks::<R>().0;
        let mut all = [[_mm512_setzero_si512(); N]; R];
        for (k, x) in steps.iter().enumerate().take(w[0].len() / STEP) {
            let mut now = [&[0; STEP]; N];
            for (now, w) in now.iter_mut().zip(w) {
                *now = &w.as_chunks::<STEP>().0[k];
            }
            step(x, now, &mut all);
        }
        if let (Some(rest), Some(x)) = (&rest(*w), steps.last()) {
            step(x, rest.each_ref(), &mut all);
        }
        for (all, sums) in all.iter().zip(sums.chunks_mut(PANEL)) {
            for (all, sum) in all.iter().zip(sums) {
                *sum = sum.wrapping_add(_mm512_reduce_add_epi32(*all));
            }
        }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    #[inline]
    fn step<const R: usize, const N: usize>(x: &[[i8; STEP]; R], w: [&[i8; STEP]; N], all: &mut [[__m512i; N]; R]) {
        let mut raised = [_mm512_set1_epi8(i8::MIN); N];
        for (raised, w) in raised.iter_mut().zip(w) {
            *raised = _mm512_xor_si512(*raised, load_i8x64(w));
        }
        for (x, all) in x.iter().zip(all) {
            let x = load_i8x64(x);
            for (w, all) in raised.iter().zip(all) {
                *all = _mm512_dpbusd_epi32(*all, *w, x);
            }
        }
    }
}
