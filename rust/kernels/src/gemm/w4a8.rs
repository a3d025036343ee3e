//! w4a8: 8-bit integers times 4-bit codes with integer scales and zero points of their groups, summed exactly in i32, then
//! scaled: the product under QServe and QQQ.
//!
//! Codes are multiplied as they lie in memory, low nibbles by the even columns of `x` and high ones by the odd columns; zero
//! points are taken from the sums of `x` over each group. Limit: multiplications, for few rows of `x` the reading of the codes.

use super::{Columns, columns, expect_scale};
use crate::error::expect_shape;
use crate::quantize::groups;
use crate::simd::bytes;
use crate::{Error, Machine, Path, Result};

/// The longest sum that no choice of codes overflows, as long as each weight is a signed byte.
const DEPTH_LIMIT: usize = (1 << 17) - 1;
/// Rows of weights of one task.
const PANEL: usize = 64;
/// Rows of `x` a tile: their sums, twice, and the codes fill the 16 registers of AVX2.
const HEIGHT: usize = 6;
/// Codes that are multiplied at once: the 32 bytes of a vector.
const BLOCK: usize = 64;

/// Four-bit weights `level * (code - zero)`, each within -128 to 127, in groups of `group` columns.
#[derive(Debug, Clone, Copy)]
pub struct Codes<'a> {
    /// `[cols, ceil(depth / 8)]`, dense order.
    pub words: &'a [i32],
    /// `[cols, depth / group]`: the integer scale of each group; none: 1.
    pub level: Option<&'a [u8]>,
    /// `[cols, depth / group]`; none: 8.
    pub zero: Option<&'a [u8]>,
    /// Columns of a group.
    pub group: usize,
}

/// `out[t, n] = (sum_k x[t, k] * level[n, g] * (code[n, k] - zero[n, g])) * x_scale[t] * w_scale[n] + bias[n]`, `g = k / group`.
///
/// `x` `[rows, depth]`, `out` `[rows, cols]`; one scale for all or one a row of `x` and of the weight. The sum is exact and rounded
/// to f32 once, then multiplied by `x_scale` and `w_scale` in this order, then `bias` is added.
///
/// Errors: `Range` for a `depth` above 131071; `Shape` for a group that does not divide `depth` and lengths that do not fit. Then
/// nothing is written.
#[allow(clippy::too_many_arguments)]
pub fn w4a8(
    m: &Machine,
    x: &[i8],
    codes: Codes<'_>,
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
    let groups = groups(depth, codes.group)?;
    let row_words = depth.div_ceil(8);
    expect_shape("x", x.len(), &[rows, depth])?;
    expect_shape("words", codes.words.len(), &[cols, row_words])?;
    codes.level.map_or(Ok(()), |level| expect_shape("level", level.len(), &[cols, groups]))?;
    codes.zero.map_or(Ok(()), |zero| expect_shape("zero", zero.len(), &[cols, groups]))?;
    expect_scale("x_scale", x_scale.len(), rows)?;
    expect_scale("w_scale", w_scale.len(), cols)?;
    bias.map_or(Ok(()), |bias| expect_shape("bias", bias.len(), &[cols]))?;
    expect_shape("out", out.len(), &[rows, cols])?;
    let x = Activations::of(m, x, rows, depth, codes.group);
    m.each(columns(out, cols, PANEL), |Columns { range, rows: mut out }| {
        let of = |values: Option<&[u8]>, at: usize, none: u8| values.map_or(none, |values| values[at]);
        let parameters = range.start * groups..range.end * groups;
        let levels: Vec<_> = parameters.clone().map(|at| i16::from(of(codes.level, at, 1))).collect();
        let shifts = parameters.zip(&levels).map(|(at, &level)| i32::from(level) * i32::from(of(codes.zero, at, 8)));
        let shifts: Vec<_> = shifts.collect();
        for (tile, out) in out.chunks_mut(HEIGHT).enumerate() {
            let first = tile * HEIGHT;
            let x = x.tile(first, out.len(), groups);
            for (at, n) in range.clone().enumerate() {
                let row = Row {
                    bytes: &bytes(codes.words)[n * row_words * 4..(n + 1) * row_words * 4],
                    levels: &levels[at * groups..(at + 1) * groups],
                    shifts: &shifts[at * groups..(at + 1) * groups],
                    group: codes.group,
                };
                let mut sums = [0; HEIGHT];
                multiply(m, x, row, &mut sums[..out.len()]);
                let w_scale = if w_scale.len() == 1 { w_scale[0] } else { w_scale[n] };
                for (t, (out, sum)) in out.iter_mut().zip(sums).enumerate() {
                    let x_scale = if x_scale.len() == 1 { x_scale[0] } else { x_scale[first + t] };
                    let scaled = sum as f32 * x_scale * w_scale;
                    out[at] = bias.map_or(scaled, |bias| scaled + bias[n]);
                }
            }
        }
    });
    Ok(())
}

/// `x` in blocks of 64 columns, padded with zeros, the 32 even columns of a block before the odd ones; `HEIGHT` rows together,
/// first the first block of each. And its sums by group.
struct Activations {
    codes: Vec<[i8; BLOCK]>,
    blocks: usize,
    sums: Vec<i32>,
}

/// Up to `HEIGHT` rows of [`Activations`].
#[derive(Clone, Copy)]
struct Tile<'a> {
    codes: &'a [[i8; BLOCK]],
    sums: &'a [i32],
}

/// One row of the weight: codes, the level of each group and that times its zero point.
#[derive(Clone, Copy)]
struct Row<'a> {
    bytes: &'a [u8],
    levels: &'a [i16],
    shifts: &'a [i32],
    group: usize,
}

impl Activations {
    fn of(m: &Machine, x: &[i8], rows: usize, depth: usize, group: usize) -> Self {
        let blocks = depth.div_ceil(BLOCK);
        let mut codes = vec![[0; BLOCK]; rows * blocks];
        if depth > 0 {
            let tiles = codes.chunks_mut(HEIGHT * blocks).zip(x.chunks(HEIGHT * depth)).collect();
            m.each(tiles, |(to, from): (&mut [[i8; BLOCK]], &[i8])| {
                let height = from.len() / depth;
                for (row, from) in from.chunks(depth).enumerate() {
                    for (to, from) in to.iter_mut().skip(row).step_by(height).zip(from.chunks(BLOCK)) {
                        for (k, &code) in from.iter().enumerate() {
                            to[k % 2 * (BLOCK / 2) + k / 2] = code;
                        }
                    }
                }
            });
        }
        let sums = x.chunks(group.max(1)).map(|x| x.iter().map(|&x| i32::from(x)).sum()).collect();
        Self { codes, blocks, sums }
    }

    fn tile(&self, first: usize, height: usize, groups: usize) -> Tile<'_> {
        let (from, to) = (first, first + height);
        Tile { codes: &self.codes[from * self.blocks..to * self.blocks], sums: &self.sums[from * groups..to * groups] }
    }
}

/// `sums[t] = sum_k x[t, k] * (level * code[k] - shift)` for the rows of a tile.
fn multiply(m: &Machine, x: Tile<'_>, row: Row<'_>, sums: &mut [i32]) {
    match m.path() {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a machine with this path has AVX2.
        Path::Avx512 | Path::Avx2 if row.group.is_multiple_of(BLOCK) || row.levels.len() == 1 => unsafe {
            avx2::multiply(x, row, sums);
        },
        Path::Avx512 | Path::Avx2 | Path::Scalar => portable::multiply(x, row, sums),
    }
}

mod portable {
    use super::{BLOCK, Row, Tile};

    pub fn multiply(x: Tile<'_>, row: Row<'_>, sums: &mut [i32]) {
        let height = sums.len();
        for (t, sum) in sums.iter_mut().enumerate() {
            let blocks = x.codes.iter().skip(t).step_by(height);
            for (block, (x, bytes)) in blocks.zip(row.bytes.chunks(BLOCK / 2)).enumerate() {
                let (even, odd) = x.split_at(BLOCK / 2);
                for (k, ((&even, &odd), byte)) in even.iter().zip(odd).zip(bytes).enumerate() {
                    let k = block * BLOCK + 2 * k;
                    // behind the last column there is no group, and nothing to be added
                    let level = |k: usize| row.levels.get(k / row.group).map_or(0, |&level| i32::from(level));
                    *sum = sum.wrapping_add(i32::from(even) * i32::from(byte & 15) * level(k));
                    *sum = sum.wrapping_add(i32::from(odd) * i32::from(byte >> 4) * level(k + 1));
                }
            }
        }
        shift(x, row, sums);
    }

    /// Takes the zero points off, modulo 2^32, where the true sum fits.
    #[inline(always)]
    pub fn shift(x: Tile<'_>, row: Row<'_>, sums: &mut [i32]) {
        for (sum, x) in sums.iter_mut().zip(x.sums.chunks_exact(row.shifts.len().max(1))) {
            let shifts = x.iter().zip(row.shifts).map(|(x, shift)| x.wrapping_mul(*shift));
            *sum = sum.wrapping_sub(shifts.fold(0, i32::wrapping_add));
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use super::{BLOCK, Row, Tile, portable};
    use crate::simd::{load_i8x32, load_u8x32, sum_i32x8};
    use std::arch::x86_64::*;

    /// Products of a block are at most `2 * 2 * 15 * 128` in an i16: four of them fit.
    const TOGETHER: usize = 4;
    type Bytes = [u8; BLOCK / 2];

    #[target_feature(enable = "avx2")]
    pub fn multiply(x: Tile<'_>, row: Row<'_>, sums: &mut [i32]) {
        match sums.len() {
            1 => tile::<1>(x.codes, row, sums),
            2 => tile::<2>(x.codes, row, sums),
            3 => tile::<3>(x.codes, row, sums),
            4 => tile::<4>(x.codes, row, sums),
            5 => tile::<5>(x.codes, row, sums),
            _ => tile::<6>(x.codes, row, sums),
        }
        portable::shift(x, row, sums);
    }

    #[target_feature(enable = "avx2")]
    fn tile<const R: usize>(x: &[[i8; BLOCK]], row: Row<'_>, sums: &mut [i32]) {
        let (x, (whole, rest)) = (x.as_chunks::<R>().0, row.bytes.as_chunks::<{ BLOCK / 2 }>());
        let group = row.group.div_ceil(BLOCK);
        let mut all = [_mm256_setzero_si256(); R];
        for ((level, x), codes) in row.levels.iter().zip(x.chunks(group)).zip(whole.chunks(group)) {
            for (x, codes) in x.chunks(TOGETHER).zip(codes.chunks(TOGETHER)) {
                together(x, codes, *level, &mut all);
            }
        }
        if let ([_, ..], Some(level), Some(x)) = (rest, row.levels.last(), x.last()) {
            let mut last = [0; BLOCK / 2];
            last[..rest.len()].copy_from_slice(rest);
            together(std::slice::from_ref(x), &[last], *level, &mut all);
        }
        for (sum, all) in sums.iter_mut().zip(all) {
            *sum = sum_i32x8(all);
        }
    }

    /// Blocks of one group, whose products are summed in 16 bits.
    #[target_feature(enable = "avx2")]
    #[inline]
    fn together<const R: usize>(x: &[[[i8; BLOCK]; R]], codes: &[Bytes], level: i16, all: &mut [__m256i; R]) {
        let nibble = _mm256_set1_epi8(15);
        let mut products = [_mm256_setzero_si256(); R];
        for (x, codes) in x.iter().zip(codes) {
            let codes = load_u8x32(codes);
            let low = _mm256_and_si256(codes, nibble);
            let high = _mm256_and_si256(_mm256_srli_epi16::<4>(codes), nibble);
            for (x, products) in x.iter().zip(&mut products) {
                let [even, odd] = x.as_chunks::<{ BLOCK / 2 }>().0 else { continue };
                let (even, odd) = (load_i8x32(even), load_i8x32(odd));
                let both = _mm256_add_epi16(_mm256_maddubs_epi16(low, even), _mm256_maddubs_epi16(high, odd));
                *products = _mm256_add_epi16(*products, both);
            }
        }
        let level = _mm256_set1_epi16(level);
        for (all, products) in all.iter_mut().zip(products) {
            *all = _mm256_add_epi32(*all, _mm256_madd_epi16(products, level));
        }
    }
}
