//! w4a8: 8-bit integers times 4-bit codes, the sums of groups multiplied by whole numbers (the product under QServe and QQQ),
//! exactly in i32, or by floats (that of the usual checkpoints, with activations rounded to bytes).
//!
//! Codes are multiplied as they lie in memory, low nibbles by the even columns of `x` and high ones by the odd columns, and
//! summed in 16 bits as far as they fit, in 32 with AVX-512 (`blocks`). Zero points come off there, times sums of `x`: so the
//! rest of the way has only the magnitude of the result. From 16 rows on with AVX-512 or AMX: a panel of codes, zero points off
//! and levels on, becomes bytes (`bytes`). Limit: multiplications, for few rows of `x` the reading of the codes.

#[cfg(target_arch = "x86_64")]
mod blocks;

#[cfg(target_arch = "x86_64")]
use self::blocks::Blocks;
#[cfg(target_arch = "x86_64")]
use super::bytes::{self, Groups, Raised};
use super::{Columns, Finish, columns};
use crate::error::expect_shape;
use crate::quantize::groups;
use crate::simd::{bits, bytes};
use crate::{Error, Machine, Path, Result};
use std::borrow::Cow;
use std::ops::Range;

/// The longest sum that no choice of codes overflows, as long as each weight is a signed byte.
const DEPTH_LIMIT: usize = (1 << 17) - 1;
/// Rows of weights of one task.
const PANEL: usize = 64;
/// Rows of `x` a tile: their sums, twice, and the codes fill the 16 registers of AVX2.
const HEIGHT: usize = 6;
/// Bytes: how far ahead codes are asked for.
#[cfg(target_arch = "x86_64")]
const AHEAD: usize = 8192;

/// Four-bit weights `factor * (code - zero)` in groups of `group` columns; `code - zero`, and with levels the weight, is within
/// -128 to 127.
#[derive(Debug, Clone, Copy)]
pub struct Codes<'a> {
    /// `[cols, ceil(depth / 8)]`, dense order.
    pub words: &'a [i32],
    /// What multiplies a group.
    pub factor: Factor<'a>,
    /// `[cols, depth / group]`; none: 8.
    pub zero: Option<&'a [u8]>,
    /// Columns of a group.
    pub group: usize,
}

/// What multiplies the sums of groups, `[cols, depth / group]`.
#[derive(Debug, Clone, Copy)]
pub enum Factor<'a> {
    /// Nothing.
    One,
    /// Whole numbers: the sum over a row stays exact.
    Level(&'a [u8]),
    /// Floats: the sums of groups are exact, and added in f32.
    Scale(&'a [f32]),
}

impl Factor<'_> {
    fn expect(self, cols: usize, groups: usize) -> Result<()> {
        match self {
            Self::One => Ok(()),
            Self::Level(level) => expect_shape("level", level.len(), &[cols, groups]),
            Self::Scale(scale) => expect_shape("w_scale", scale.len(), &[cols, groups]),
        }
    }
}

/// `out[t, n] = (sum_g factor[n, g] * sum_k x[t, k] * (code[n, k] - zero[n, g])) * x_scale[t] * w_scale[n] + bias[n]`, `k` of `g`.
///
/// `x` `[rows, depth]`, `out` `[rows, cols]`; one scale for all or one a row of `x` and of the weight. Without floats as factors
/// the sum is exact and rounded to f32 once. It is multiplied by `x_scale` and `w_scale` in this order, then `bias` is added.
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
    expect_shape("x", x.len(), &[rows, depth])?;
    expect_shape("words", codes.words.len(), &[cols, depth.div_ceil(8)])?;
    codes.factor.expect(cols, groups)?;
    codes.zero.map_or(Ok(()), |zero| expect_shape("zero", zero.len(), &[cols, groups]))?;
    let finish = Finish { x_scale, w_scale, bias };
    finish.expect(rows, cols)?;
    expect_shape("out", out.len(), &[rows, cols])?;
    product(m, x, None, codes, [rows, cols, depth], |t, columns, sums| finish.apply(t, columns, sums), out);
    Ok(())
}

/// `out[t, n]` is the sum of the groups' sums times the factor of the weight and that of `x`, `[rows, depth / group]`, if there is
/// one; then the weight's is no whole number. `finish(t, columns, sums)` turns some sums of row `t` into what `out` holds.
pub(super) fn product(
    m: &Machine,
    x: &[i8],
    x_factors: Option<&[f32]>,
    codes: Codes<'_>,
    [rows, cols, depth]: [usize; 3],
    finish: impl Fn(usize, Range<usize>, &mut [f32]) + Sync,
    out: &mut [f32],
) {
    let (groups, row_bytes) = (depth / codes.group.max(1), 4 * depth.div_ceil(8));
    #[cfg(target_arch = "x86_64")]
    if panel::suits(m, codes, rows, depth) {
        let panel = |range, raised| panel::of(codes, range, depth, raised);
        let groups = match codes.factor {
            Factor::Scale(scale) => Some(Groups { scale, of_x: x_factors, group: codes.group }),
            _ => None,
        };
        return bytes::product(m, x, [cols, depth], Raised::Weight, panel, groups, finish, out);
    }
    let x = Operand::of(m, x, x_factors, codes, rows, depth);
    let eights = vec![8; groups];
    m.each(columns(out, cols, PANEL), |Columns { range, rows: mut out }| {
        let parameters = range.start * groups..range.end * groups;
        let whole =
            |numbers: &[u8]| numbers[parameters.clone()].iter().map(|&number| number.into()).collect::<Vec<_>>();
        let factors = match codes.factor {
            Factor::One => Cow::Owned(vec![1; parameters.len()]),
            Factor::Level(level) => Cow::Owned(whole(level)),
            Factor::Scale(scale) => Cow::Borrowed(bits(&scale[parameters.clone()])),
        };
        let zeros = codes.zero.map(whole);
        let rows: Vec<_> = range
            .clone()
            .enumerate()
            .map(|(at, n)| Row {
                bytes: &bytes(codes.words)[n * row_bytes..(n + 1) * row_bytes],
                factors: &factors[at * groups..(at + 1) * groups],
                zeros: zeros.as_ref().map_or(&eights, |zeros| &zeros[at * groups..(at + 1) * groups]),
                group: codes.group,
                whole: !matches!(codes.factor, Factor::Scale(_)),
            })
            .collect();
        let mut sums = vec![[0.0; HEIGHT]; rows.len()];
        for (tile, out) in out.chunks_mut(HEIGHT).enumerate() {
            let first = tile * HEIGHT;
            x.multiply(first..first + out.len(), &rows, &mut sums);
            for (row, out) in out.iter_mut().enumerate() {
                out.iter_mut().zip(&sums).for_each(|(out, sums)| *out = sums[row]);
                finish(first + row, range.clone(), out);
            }
        }
    });
}

/// One row of the weight.
#[derive(Clone, Copy)]
struct Row<'a> {
    bytes: &'a [u8],
    /// Of each group: a whole number, or the bits of a float.
    factors: &'a [i32],
    zeros: &'a [i32],
    group: usize,
    /// Whether factors are whole numbers.
    whole: bool,
}

/// `x` as the body that multiplies it wants it.
enum Operand<'a> {
    /// As it is, in rows of so many columns, and with the factors of their groups.
    Codes(&'a [i8], Option<&'a [f32]>, usize),
    /// In spans.
    #[cfg(target_arch = "x86_64")]
    Plain(Cut<()>),
    /// In spans with the factors of their groups.
    #[cfg(target_arch = "x86_64")]
    Scaled(Cut<Lanes>),
    /// In blocks.
    #[cfg(target_arch = "x86_64")]
    Wide(Blocks),
}

/// Into spans of so many blocks, each part of one group or, the first, of two halves.
#[cfg(target_arch = "x86_64")]
enum Cut<F> {
    Halves(Spans<1, F>),
    One(Spans<1, F>),
    Two(Spans<2, F>),
    Four(Spans<4, F>),
}

impl<'a> Operand<'a> {
    fn of(m: &Machine, x: &'a [i8], factors: Option<&'a [f32]>, codes: Codes<'_>, rows: usize, depth: usize) -> Self {
        match m.path() {
            #[cfg(target_arch = "x86_64")]
            Path::Amx | Path::Avx512 if Blocks::suit(codes.group, depth) => {
                Self::Wide(Blocks::of(m, x, factors, codes, rows, depth))
            }
            // Sums of 16 bits are made for zero points that are codes, and spans for groups that they do not cross.
            #[cfg(target_arch = "x86_64")]
            Path::Amx | Path::Avx512 | Path::Avx2
                if codes.zero.is_none_or(|zero| zero.iter().all(|&zero| zero < 16))
                    && (codes.group == depth || codes.group.is_multiple_of(BLOCK) || codes.group == BLOCK / 2) =>
            {
                match factors {
                    None => Self::Plain(Cut::of(m, x, &[], codes.group, rows, depth)),
                    Some(factors) => Self::Scaled(Cut::of(m, x, factors, codes.group, rows, depth)),
                }
            }
            Path::Amx | Path::Avx512 | Path::Avx2 | Path::Scalar => Self::Codes(x, factors, depth),
        }
    }

    /// `sums[n][t] = sum_g factor * x_factor[t] * sum_k x[t, k] * (code[k] - zero)` of each row of weights, for up to `HEIGHT` rows of
    /// `x` from a multiple of that on.
    fn multiply(&self, tile: Range<usize>, weights: &[Row<'_>], sums: &mut [[f32; HEIGHT]]) {
        let mut each = |one: &dyn Fn(Row<'_>, &mut [f32])| {
            weights.iter().zip(&mut *sums).for_each(|(row, sums)| one(*row, &mut sums[..tile.len()]));
        };
        match self {
            Self::Codes(x, factors, depth) => each(&|row, sums| {
                let groups = row.factors.len();
                let factors = factors.map(|factors| &factors[tile.start * groups..tile.end * groups]);
                portable::multiply(&x[tile.start * depth..tile.end * depth], factors, row, sums);
            }),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: only a machine with AVX2 and FMA makes this operand.
            Self::Plain(x) => each(&|row, sums| unsafe { avx2::multiply(x, tile.start, row, sums) }),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: only a machine with AVX2 and FMA makes this operand.
            Self::Scaled(x) => each(&|row, sums| unsafe { avx2::multiply(x, tile.start, row, sums) }),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: only a machine with AVX-512 makes this operand.
            Self::Wide(x) => unsafe { x.multiply(tile, weights, sums) },
        }
    }
}

#[cfg(target_arch = "x86_64")]
impl<F: Factors> Cut<F> {
    fn of(m: &Machine, x: &[i8], factors: &[f32], group: usize, rows: usize, depth: usize) -> Self {
        match group.div_ceil(BLOCK) % 4 {
            _ if group == BLOCK / 2 => Self::Halves(Spans::of(m, x, factors, group, rows, depth)),
            0 => Self::Four(Spans::of(m, x, factors, group, rows, depth)),
            2 => Self::Two(Spans::of(m, x, factors, group, rows, depth)),
            _ => Self::One(Spans::of(m, x, factors, group, rows, depth)),
        }
    }
}

mod portable {
    use super::Row;

    pub fn multiply(x: &[i8], factors: Option<&[f32]>, row: Row<'_>, sums: &mut [f32]) {
        let depth = x.len() / sums.len().max(1);
        for (t, sum) in sums.iter_mut().enumerate() {
            let groups = x[t * depth..(t + 1) * depth].chunks(row.group.max(1)).enumerate().map(|(g, x)| {
                let product = |(k, &x): (usize, &i8)| {
                    let k = g * row.group + k;
                    let code = row.bytes[k / 2] >> (k % 2 * 4) & 15;
                    i32::from(x) * (i32::from(code) - row.zeros[g])
                };
                (row.factors[g], x.iter().enumerate().map(product).fold(0, i32::wrapping_add))
            });
            *sum = if row.whole {
                groups.map(|(factor, sum)| factor.wrapping_mul(sum)).fold(0, i32::wrapping_add) as f32
            } else {
                let of_x = |g| factors.map_or(1.0, |factors| factors[t * row.factors.len() + g]);
                let scaled =
                    groups.enumerate().map(|(g, (factor, sum))| f32::from_bits(factor as u32) * of_x(g) * sum as f32);
                scaled.fold(0.0, |all, sum| all + sum)
            };
        }
    }
}

/// Codes that are multiplied at once: the 32 bytes of a vector.
#[cfg(target_arch = "x86_64")]
const BLOCK: usize = 64;

/// A number for each 32 bits of a vector: the first half those of the first half of a span.
#[cfg(target_arch = "x86_64")]
type Lanes = [f32; 8];

/// What `x` has for each span beside its codes: nothing, or the factor of its group.
#[cfg(target_arch = "x86_64")]
trait Factors: Copy + Send + Sync {
    /// Of two halves that may belong to two groups.
    fn of(halves: impl Fn(usize) -> f32) -> Self;
    fn lanes(&self) -> Option<&Lanes>;
}

#[cfg(target_arch = "x86_64")]
impl Factors for () {
    fn of(_: impl Fn(usize) -> f32) {}
    fn lanes(&self) -> Option<&Lanes> {
        None
    }
}

#[cfg(target_arch = "x86_64")]
impl Factors for Lanes {
    fn of(halves: impl Fn(usize) -> f32) -> Self {
        std::array::from_fn(|lane| halves(lane / 4))
    }
    fn lanes(&self) -> Option<&Lanes> {
        Some(self)
    }
}

/// `S` blocks of `x`, at most four: `(4 * 4) * 15 * 128` fits an i16.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
struct Span<const S: usize, F> {
    /// The 32 even columns of a block before the odd ones.
    blocks: [[[i8; BLOCK / 2]; 2]; S],
    /// Over the columns whose products one lane of 16 bits gathers: four neighbours of each block.
    sums: [i16; BLOCK / 4],
    factors: F,
}

/// Rows padded with zeros to whole spans; `HEIGHT` rows together, first the first span of each.
#[cfg(target_arch = "x86_64")]
struct Spans<const S: usize, F> {
    spans: Vec<Span<S, F>>,
    stride: usize,
}

#[cfg(target_arch = "x86_64")]
impl<const S: usize, F: Factors> Spans<S, F> {
    fn of(m: &Machine, x: &[i8], factors: &[f32], group: usize, rows: usize, depth: usize) -> Self {
        let stride = depth.div_ceil(S * BLOCK);
        let empty = Span { blocks: [[[0; BLOCK / 2]; 2]; S], sums: [0; BLOCK / 4], factors: F::of(|_| 0.0) };
        let mut spans = vec![empty; rows * stride];
        if depth > 0 {
            let tiles = spans.chunks_mut(HEIGHT * stride).zip(x.chunks(HEIGHT * depth)).enumerate().collect();
            m.each(tiles, |(tile, (to, from)): (usize, (&mut [Span<S, F>], &[i8]))| {
                let height = from.len() / depth;
                for (row, from) in from.chunks(depth).enumerate() {
                    let factors = factors.chunks(depth / group).nth(tile * HEIGHT + row).unwrap_or_default();
                    let spans = to.iter_mut().skip(row).step_by(height).zip(from.chunks(S * BLOCK)).enumerate();
                    for (at, (to, from)) in spans {
                        to.fill(from);
                        let of_column = |column: usize| factors[(column / group).min(factors.len() - 1)];
                        to.factors = F::of(|half| of_column((2 * at + half) * S * BLOCK / 2));
                    }
                }
            });
        }
        Self { spans, stride }
    }

    fn tile(&self, first: usize, height: usize) -> &[Span<S, F>] {
        &self.spans[first * self.stride..(first + height) * self.stride]
    }
}

#[cfg(target_arch = "x86_64")]
impl<const S: usize, F> Span<S, F> {
    fn fill(&mut self, from: &[i8]) {
        for ([even, odd], from) in self.blocks.iter_mut().zip(from.chunks(BLOCK)) {
            for (k, pair) in from.chunks(2).enumerate() {
                even[k] = pair[0];
                odd[k] = pair.get(1).copied().unwrap_or(0);
            }
            for (sum, from) in self.sums.iter_mut().zip(from.chunks(4)) {
                *sum += from.iter().map(|&x| i16::from(x)).sum::<i16>();
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use super::{BLOCK, Cut, Factors, Row, Span, Spans};
    use crate::simd::{load_f32x8, load_i8x32, load_i16x16, load_u8x32, sum_f32x8, sum_i32x8};
    use std::arch::x86_64::*;

    type Bytes = [u8; BLOCK / 2];

    #[target_feature(enable = "avx2,fma")]
    pub fn multiply<F: Factors>(x: &Cut<F>, first: usize, row: Row<'_>, sums: &mut [f32]) {
        match x {
            Cut::Halves(x) => spans::<1, true, F>(x, first, row, sums),
            Cut::One(x) => spans::<1, false, F>(x, first, row, sums),
            Cut::Two(x) => spans::<2, false, F>(x, first, row, sums),
            Cut::Four(x) => spans::<4, false, F>(x, first, row, sums),
        }
    }

    /// Groups are whole spans or, with `HALVES`, half a span.
    #[target_feature(enable = "avx2,fma")]
    fn spans<const S: usize, const HALVES: bool, F: Factors>(
        x: &Spans<S, F>,
        first: usize,
        row: Row<'_>,
        sums: &mut [f32],
    ) {
        let x = x.tile(first, sums.len());
        if row.whole {
            rows::<S, HALVES, true, F>(x, row, sums);
        } else {
            rows::<S, HALVES, false, F>(x, row, sums);
        }
    }

    #[target_feature(enable = "avx2,fma")]
    fn rows<const S: usize, const HALVES: bool, const WHOLE: bool, F: Factors>(
        x: &[Span<S, F>],
        row: Row<'_>,
        sums: &mut [f32],
    ) {
        match sums.len() {
            1 => tile::<1, S, HALVES, WHOLE, F>(x, row, sums),
            2 => tile::<2, S, HALVES, WHOLE, F>(x, row, sums),
            3 => tile::<3, S, HALVES, WHOLE, F>(x, row, sums),
            4 => tile::<4, S, HALVES, WHOLE, F>(x, row, sums),
            5 => tile::<5, S, HALVES, WHOLE, F>(x, row, sums),
            _ => tile::<6, S, HALVES, WHOLE, F>(x, row, sums),
        }
    }

    #[target_feature(enable = "avx2,fma")]
    fn tile<const R: usize, const S: usize, const HALVES: bool, const WHOLE: bool, F: Factors>(
        x: &[Span<S, F>],
        row: Row<'_>,
        sums: &mut [f32],
    ) {
        let (x, (blocks, tail)) = (x.as_chunks::<R>().0, row.bytes.as_chunks::<{ BLOCK / 2 }>());
        let (whole, rest) = blocks.as_chunks::<S>();
        let mut all = [_mm256_setzero_si256(); R];
        if HALVES {
            let parameters = row.factors.as_chunks::<2>().0.iter().zip(row.zeros.as_chunks::<2>().0);
            for ((x, codes), (factors, zeros)) in x.iter().zip(whole).zip(parameters) {
                let (factor, zero) = spread::<WHOLE>(factors[0], zeros[0]);
                let (high_factor, high_zero) = spread::<WHOLE>(factors[1], zeros[1]);
                let factor = _mm256_blend_epi32::<0xf0>(factor, high_factor);
                let zero = _mm256_blend_epi32::<0xf0>(zero, high_zero);
                add::<R, S, WHOLE, F>(x, codes, factor, zero, &mut all);
            }
        } else {
            let spans = row.group.div_ceil(S * BLOCK).max(1);
            let groups = x.chunks(spans).zip(whole.chunks(spans));
            for ((x, codes), (&factor, &zero)) in groups.zip(row.factors.iter().zip(row.zeros)) {
                let (factor, zero) = spread::<WHOLE>(factor, zero);
                for (x, codes) in x.iter().zip(codes) {
                    add::<R, S, WHOLE, F>(x, codes, factor, zero, &mut all);
                }
            }
        }
        if let (Some(x), Some(&factor), Some(&zero)) = (x.get(whole.len()), row.factors.last(), row.zeros.last()) {
            let mut last = [[0; BLOCK / 2]; S];
            last.as_flattened_mut()[..rest.len() * BLOCK / 2].copy_from_slice(rest.as_flattened());
            last.as_flattened_mut()[rest.len() * BLOCK / 2..][..tail.len()].copy_from_slice(tail);
            let (factor, zero) = spread::<WHOLE>(factor, zero);
            add::<R, S, WHOLE, F>(x, &last, factor, zero, &mut all);
        }
        for (sum, all) in sums.iter_mut().zip(all) {
            *sum = if WHOLE { sum_i32x8(all) as f32 } else { sum_f32x8(_mm256_castsi256_ps(all)) };
        }
    }

    /// The parameters of a group in all lanes: a level in each 16 bits, a scale in each 32.
    #[target_feature(enable = "avx2,fma")]
    #[inline]
    fn spread<const WHOLE: bool>(factor: i32, zero: i32) -> (__m256i, __m256i) {
        let factor = if WHOLE { _mm256_set1_epi16(factor as i16) } else { _mm256_set1_epi32(factor) };
        (factor, _mm256_set1_epi16(zero as i16))
    }

    /// Adds a span to the sums of each row: products and zero points in 16 bits, then times the factor in 32.
    #[target_feature(enable = "avx2,fma")]
    #[inline]
    fn add<const R: usize, const S: usize, const WHOLE: bool, F: Factors>(
        x: &[Span<S, F>; R],
        codes: &[Bytes; S],
        factor: __m256i,
        zero: __m256i,
        all: &mut [__m256i; R],
    ) {
        let nibble = _mm256_set1_epi8(15);
        let mut products = [_mm256_setzero_si256(); R];
        for (block, codes) in codes.iter().enumerate() {
            let codes = load_u8x32(codes);
            let low = _mm256_and_si256(codes, nibble);
            let high = _mm256_and_si256(_mm256_srli_epi16::<4>(codes), nibble);
            for (x, products) in x.iter().zip(&mut products) {
                let [even, odd] = &x.blocks[block];
                let even = _mm256_maddubs_epi16(low, load_i8x32(even));
                let odd = _mm256_maddubs_epi16(high, load_i8x32(odd));
                *products = _mm256_add_epi16(*products, _mm256_add_epi16(even, odd));
            }
        }
        for ((x, all), products) in x.iter().zip(all).zip(products) {
            let products = _mm256_sub_epi16(products, _mm256_mullo_epi16(load_i16x16(&x.sums), zero));
            *all = if WHOLE {
                _mm256_add_epi32(*all, _mm256_madd_epi16(products, factor))
            } else {
                let sums = _mm256_cvtepi32_ps(_mm256_madd_epi16(products, _mm256_set1_epi16(1)));
                let factor = _mm256_castsi256_ps(factor);
                let factor = x.factors.lanes().map_or(factor, |of_x| _mm256_mul_ps(load_f32x8(of_x), factor));
                _mm256_castps_si256(_mm256_fmadd_ps(sums, factor, _mm256_castsi256_ps(*all)))
            };
        }
    }
}

/// Weights as the bytes that they stand for.
#[cfg(target_arch = "x86_64")]
mod panel {
    use super::{AHEAD, Codes, Factor};
    use crate::Machine;
    use crate::gemm::bytes::suit;
    use crate::simd::amx::{Number, SIDE};
    use crate::simd::{bytes, load_u8x32, prefetch, store_first_i8x64, store_i8x64};
    use std::arch::x86_64::*;
    use std::borrow::Cow;
    use std::ops::Range;

    /// Whether `bytes::product` takes them, with groups of whole bytes of codes and, where each has a float, of whole steps.
    pub fn suits(m: &Machine, codes: Codes<'_>, rows: usize, depth: usize) -> bool {
        let apart = if matches!(codes.factor, Factor::Scale(_)) { codes.group } else { depth };
        suit(m, rows, depth, apart) && (codes.group == depth || codes.group.is_multiple_of(2))
    }

    /// Some rows, zero points off and levels on and perhaps raised by 128, as `product` wants them; only for paths that include AVX-512.
    pub fn of(codes: Codes<'_>, range: Range<usize>, depth: usize, raised: bool) -> (Cow<'static, [i8]>, usize) {
        // a step more than it takes: the same columns of many rows, which are multiplied together, are not in one set of the cache
        let stride = depth.next_multiple_of(i8::STEP) + i8::STEP;
        let mut rows = vec![0; range.len().next_multiple_of(SIDE) * stride];
        for (n, numbers) in range.zip(rows.chunks_mut(stride)) {
            // SAFETY: the path includes AVX-512.
            unsafe { row(codes, n, raised, &mut numbers[..depth]) };
        }
        (rows.into(), stride)
    }

    #[target_feature(enable = "avx2,avx512f,avx512bw")]
    fn row(codes: Codes<'_>, n: usize, raised: bool, numbers: &mut [i8]) {
        let (groups, row_bytes) = (numbers.len() / codes.group, 4 * numbers.len().div_ceil(8));
        let row = &bytes(codes.words)[n * row_bytes..(n + 1) * row_bytes];
        if let (None, Factor::One | Factor::Scale(_)) = (codes.zero, codes.factor) {
            return decode(row, meaning(8, 1, raised), numbers);
        }
        let parts = numbers.chunks_mut(codes.group).zip(row.chunks(codes.group.div_ceil(2)));
        for ((numbers, row), at) in parts.zip(n * groups..) {
            let zero = codes.zero.map_or(8, |zero| zero[at]);
            let level = if let Factor::Level(level) = codes.factor { level[at] } else { 1 };
            decode(row, meaning(zero, level, raised), numbers);
        }
    }

    /// What the sixteen codes stand for, in all quarters of a register.
    #[target_feature(enable = "avx2,avx512f")]
    #[inline]
    fn meaning(zero: u8, level: u8, raised: bool) -> __m512i {
        let codes = _mm256_setr_epi16(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
        let numbers = _mm256_sub_epi16(codes, _mm256_set1_epi16(zero.into()));
        let numbers = _mm256_mullo_epi16(numbers, _mm256_set1_epi16(level.into()));
        let numbers = _mm256_xor_si256(numbers, _mm256_set1_epi16(if raised { 0x80 } else { 0 }));
        let bytes = _mm256_and_si256(numbers, _mm256_set1_epi16(0xff));
        // of the halves, eight each, one behind the other
        let bytes = _mm256_permute4x64_epi64::<0b10_00_10_00>(_mm256_packus_epi16(bytes, bytes));
        _mm512_broadcast_i32x4(_mm256_castsi256_si128(bytes))
    }

    /// The numbers of one group, or of groups in which codes stand for the same.
    #[target_feature(enable = "avx512f,avx512bw")]
    #[inline]
    fn decode(codes: &[u8], table: __m512i, numbers: &mut [i8]) {
        let (parts, rest) = numbers.as_chunks_mut::<64>();
        let (whole, codes) = codes.split_at(parts.len() * 32);
        for (part, codes) in parts.iter_mut().zip(whole.as_chunks::<32>().0) {
            prefetch(codes, AHEAD);
            store_i8x64(part, looked_up(load_u8x32(codes), table));
        }
        if !rest.is_empty() {
            let mut last = [0; 32];
            last[..codes.len()].copy_from_slice(codes);
            store_first_i8x64(rest, looked_up(load_u8x32(&last), table));
        }
    }

    #[target_feature(enable = "avx512f,avx512bw")]
    #[inline]
    fn looked_up(codes: __m256i, table: __m512i) -> __m512i {
        // each byte as the lower of two: with itself four bits higher, both have a code in their lower half
        let bytes = _mm512_cvtepu8_epi16(codes);
        // (first | second) & third
        let low = _mm512_set1_epi8(15);
        let codes = _mm512_ternarylogic_epi32::<0b1010_1000>(bytes, _mm512_slli_epi16::<4>(bytes), low);
        _mm512_shuffle_epi8(table, codes)
    }
}
