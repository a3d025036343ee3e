//! Products of floats on AMX, whose tiles multiply bf16: every float is the sum of up to three of these, and as many as the numbers of
//! `x` or of a panel of weights need are multiplied: one for bf16 inputs and for codes less whole zero points, two for f16.
//!
//! Floats are cut by truncation, so that the magnitudes of their parts add up to theirs. Products of parts are exact; left out are
//! those of a second with a third part and of two third parts, 2^-21 of the product together. The sums are rounded as `Tiles::multiply`
//! says, at most 16 times within a step of columns, once for each step, pair of parts and piece of a group, and once for each piece:
//! for the 32 columns that are asked for, and more, all that is less than a rounding of f32 for each column. Nothing is lost below the
//! normal numbers, nor does a sum overflow: rows of `x` with numbers so small or large that it could, or not finite, are multiplied in
//! vectors. So a row does not depend on the others.
//!
//! Limit: multiplications from some hundred rows of `x` on, below the decoding. A product of tiles takes 16 cycles, so for the first
//! whole tile of rows a weight costs a thirty-second of a cycle for each pair of parts, where the vectors of AVX-512 take half of
//! one. Not timed on such a processor so far.

use super::tiled::{MANY, PARTS, Packed, Panel, multiply};
use super::{Columns, columns};
use crate::Machine;
use crate::simd::Fused;
use crate::simd::amx::{Number, SIDE, with_tiles};
use crate::simd::avx512::F32x16;
use half::bf16;

/// Rows of weights of one task: all columns of a piece stay in the first cache, those of all pieces in the second.
const PANEL: usize = 128;
/// The most columns whose sums stay in tiles.
const PIECE: usize = 4 * bf16::STEP;
/// Rows of `x` whose sums are kept at a time: they stay in the second cache.
const ROWS: usize = 32 * SIDE;

/// A weight whose row `n` has in group `g` the numbers that `values(n, numbers)` writes there, times `scale(n)[g]`.
pub(super) struct Weight<V, S> {
    /// Columns of a group.
    pub group: usize,
    pub values: V,
    pub scale: S,
}

/// Whether there are rows and columns enough, and groups of whole steps.
pub(super) fn suit(rows: usize, depth: usize, group: usize) -> bool {
    rows >= MANY && depth >= bf16::STEP && (group >= depth || group.is_multiple_of(bf16::STEP))
}

/// `x W^T` for `x` `[rows, depth]`, if [`suit`] says so; only for the path AMX. `otherwise(x, columns)` does the same for some rows of
/// `x` and of `W`, in vectors.
pub(super) fn product<'a>(
    m: &Machine,
    x: &[f32],
    [cols, depth]: [usize; 2],
    weight: Weight<impl Fn(usize, &mut [f32]) + Sync, impl Fn(usize) -> &'a [f32] + Sync>,
    otherwise: impl Fn(&[f32], Columns<'_>) + Sync,
    out: &mut [f32],
) {
    let mut spans = vec![Span::EMPTY; x.len() / depth];
    m.each(spans.chunks_mut(SIDE).zip(x.chunks(SIDE * depth)).collect(), |(spans, x): (&mut [Span], &[f32])| {
        // SAFETY: the path AMX includes AVX-512.
        spans.iter_mut().zip(x.chunks(depth)).for_each(|(span, x)| *span = unsafe { Span::of(x) });
    });
    let parts = spans.iter().fold(Span::EMPTY, |all, span| all.or(*span)).parts();
    let packed = Packed::new(m, x, depth, parts, |&x, i| part(x, i));
    let stride = depth.next_multiple_of(bf16::STEP);
    m.each(columns(out, cols, PANEL), |Columns { range, rows: mut out }| {
        let tall = range.len().next_multiple_of(SIDE);
        let (mut values, mut numbers, mut span) = (vec![0.0; depth], Vec::new(), Span::EMPTY);
        for (at, n) in range.clone().enumerate() {
            (weight.values)(n, &mut values);
            // SAFETY: the path AMX includes AVX-512.
            let of_row = unsafe { Span::of(&values) };
            span = span.or(of_row);
            numbers.resize(span.parts() * tall * stride, bf16::ZERO);
            for (i, numbers) in numbers.chunks_exact_mut(tall * stride).enumerate().take(of_row.parts()) {
                // SAFETY: as above.
                unsafe { split(&values, i, &mut numbers[at * stride..][..depth]) };
            }
        }
        let panel = Panel { numbers: &numbers, parts: span.parts(), stride };
        let scales: Vec<_> = range.clone().map(&weight.scale).collect();
        for (at, out) in out.chunks_mut(ROWS).enumerate() {
            let blocks = at * ROWS / SIDE..(at * ROWS + out.len()).div_ceil(SIDE);
            // for each block of `x` and row of weights, the sums of sixteen rows of `x`
            let mut sums = vec![[0.0; SIDE]; blocks.len() * tall];
            // SAFETY: the machine's path is AMX, which includes AVX-512, and `add` knows nothing of tiles.
            unsafe {
                with_tiles(|tiles| {
                    let mut factors = vec![0.0; tall];
                    for (g, first) in (0..depth).step_by(weight.group).enumerate() {
                        factors.iter_mut().zip(&scales).for_each(|(factor, scale)| *factor = scale[g]);
                        let end = depth.min(first + weight.group);
                        for piece in (first..end).step_by(PIECE) {
                            let steps = piece / bf16::STEP..end.min(piece + PIECE).div_ceil(bf16::STEP);
                            multiply(tiles, panel, &packed, blocks.clone(), steps, |n, block, all| {
                                add(&mut sums[(block - blocks.start) * tall + n..], &factors[n..], all);
                            });
                        }
                    }
                });
            }
            for (out, sums) in out.chunks_mut(SIDE).zip(sums.chunks(tall)) {
                for (t, out) in out.iter_mut().enumerate() {
                    out.iter_mut().zip(sums).for_each(|(y, sums)| *y = sums[t]);
                }
            }
        }
        let (left, rows): (Vec<_>, Vec<_>) = x
            .chunks(depth)
            .zip(out)
            .zip(&spans)
            .filter(|(_, of_x)| !of_x.suits(span, depth))
            .map(|(both, _)| both)
            .unzip();
        if !rows.is_empty() {
            otherwise(&left.concat(), Columns { range, rows });
        }
    });
}

/// Adds the sums of sixteen rows of weights, each times its factor.
#[target_feature(enable = "avx512f")]
fn add(to: &mut [[f32; SIDE]], factors: &[f32], all: &[[f32; SIDE]; SIDE]) {
    for ((to, factor), all) in to.iter_mut().zip(factors).zip(all) {
        *to = F32x16::splat(*factor).multiply_add(F32x16::load(all), F32x16::load(to)).array();
    }
}

/// The bits that some numbers have, besides their signs.
#[derive(Clone, Copy)]
struct Span {
    /// Of the smallest that is not zero, less one; all: there is none.
    low: u32,
    /// Of the largest.
    high: u32,
    /// Of any.
    any: u32,
}

impl Span {
    const EMPTY: Self = Self { low: u32::MAX, high: 0, any: 0 };

    #[target_feature(enable = "avx512f")]
    fn of(x: &[f32]) -> Self {
        let mut span = Self::EMPTY;
        for x in x {
            let bits = x.abs().to_bits();
            span = span.or(Self { low: bits.wrapping_sub(1), high: bits, any: bits });
        }
        span
    }

    /// That of both.
    #[inline(always)]
    fn or(self, other: Self) -> Self {
        Self { low: self.low.min(other.low), high: self.high.max(other.high), any: self.any | other.any }
    }

    /// Parts that the numbers have: 24 bits of 8.
    fn parts(self) -> usize {
        match self.any {
            any if any & 0xffff == 0 => 1,
            any if any & 0xff == 0 => 2,
            _ => PARTS,
        }
    }

    /// The exponent of the lowest bit of a part.
    fn lowest(self) -> i32 {
        self.low.checked_add(1).map_or(f32::MAX_EXP, exponent) - (8 * self.parts() as i32 - 1)
    }

    /// Whether all numbers are finite and all parts are normal, and with those of another span the sums of `depth` products are
    /// below 2^127, and whole multiples of a normal number, as is then all that they are rounded to.
    fn suits(self, other: Self, depth: usize) -> bool {
        let most = exponent(self.high) + exponent(other.high) + 2 + depth.next_power_of_two().ilog2() as i32;
        let (a, b) = (self.lowest(), other.lowest());
        self.high.max(other.high) < f32::INFINITY.to_bits() && most < f32::MAX_EXP && a.min(b).min(a + b) >= LEAST
    }
}

/// The exponent of the least normal number.
const LEAST: i32 = f32::MIN_EXP - 1;

/// That of a number with these bits; of one below the normal numbers the one below theirs.
fn exponent(bits: u32) -> i32 {
    (bits >> (f32::MANTISSA_DIGITS - 1)) as i32 + LEAST - 1
}

/// Part `i` of all numbers.
#[target_feature(enable = "avx512f")]
fn split(x: &[f32], i: usize, to: &mut [bf16]) {
    match i {
        0 => to.iter_mut().zip(x).for_each(|(to, &x)| *to = part(x, 0)),
        1 => to.iter_mut().zip(x).for_each(|(to, &x)| *to = part(x, 1)),
        _ => to.iter_mut().zip(x).for_each(|(to, &x)| *to = part(x, 2)),
    }
}

/// Part `i` of a number: the upper bits of what the parts before it leave.
#[inline(always)]
fn part(x: f32, i: usize) -> bf16 {
    let upper = |x: f32| x.to_bits() & 0xffff_0000;
    let rest = (0..i).fold(x, |rest, _| rest - f32::from_bits(upper(rest)));
    bf16::from_bits((upper(rest) >> 16) as u16)
}

#[cfg(test)]
mod tests {
    use super::{PARTS, Span, part};
    use crate::Path;

    fn span(x: &[f32]) -> Span {
        assert!(Path::Avx512.available());
        // SAFETY: just asked.
        unsafe { Span::of(x) }
    }

    #[test]
    fn parts_add_up_and_have_the_sign_of_the_whole() {
        let mut bits = 1u32;
        for _ in 0..10_000 {
            bits = bits.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            for (kept, count) in [(0xffff_0000, 1), (0xffff_ff00, 2), (0xffff_ffff, PARTS)] {
                // exponents that leave the third part normal
                let x = f32::from_bits(bits & kept & 0xbfff_ffff | 0x2000_0000);
                assert!(span(&[x]).parts() <= count, "{x:e}");
                let parts: Vec<f32> = (0..count).map(|i| part(x, i).to_f32()).collect();
                assert_eq!(parts.iter().sum::<f32>(), x, "{parts:?}");
                let least = [0, 7, 15].map(|less| x.abs() / f32::from(1u16 << less));
                assert!(
                    parts.iter().zip(least).all(|(part, least)| part * x >= 0.0 && part.abs() <= least),
                    "{parts:?}"
                );
                assert_eq!(part(x, count).to_f32(), 0.0);
            }
        }
    }

    #[test]
    fn numbers_that_do_not_suit() {
        let power = |e: i32| 2f32.powi(e);
        let (one, zeros) = (span(&[1.0]), span(&[0.0; 9]));
        for x in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e-40, -f32::MIN_POSITIVE, power(-119) / 1.01] {
            assert!(!span(&[1.0, x, 0.0]).suits(zeros, 1) && !zeros.suits(span(&[x]), 1), "{x:e}");
        }
        for x in [0.0, -0.0, f32::MAX, f32::MIN, power(-119), -power(-103) * 1.000_000_1] {
            assert!(span(&[1.0, x, 0.0]).suits(zeros, 1) && zeros.suits(span(&[x]), 1), "{x:e}");
        }
        // 7 bits below each; 1 above each, 7 of 255 and 10 of the depth
        let whole = span(&[-1.0, 255.0]);
        for (e, suits) in [(-113, false), (-112, true), (108, true), (109, false)] {
            assert_eq!(whole.suits(span(&[power(e)]), 1024), suits, "{e}");
        }
        assert!(one.suits(span(&[power(-96) * 1.000_000_1]), 1) && !one.suits(span(&[power(-97) * 1.000_000_1]), 1));
    }
}
