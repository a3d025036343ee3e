//! Products of bytes from 16 rows of `x` on, in tiles of AMX or in registers of AVX-512: the sums of all columns, or of groups that each
//! have a float, are exact in i32. Limit: multiplications.

use super::tiled::{self, MANY, Packed, Panel};
use super::{Columns, columns};
use crate::simd::amx::{Number, SIDE, with_tiles};
use crate::simd::{load_f32x16, load_i32x16, store_f32x16};
use crate::{Machine, Path};
use std::arch::x86_64::*;
use std::borrow::Cow;
use std::ops::Range;

/// Rows of weights of one task: with all their columns they stay in the second cache. Half as many where sums are taken up again for
/// each group.
const PANEL: usize = 128;
/// Rows of `x` whose sums are kept at a time; whole tiles of AMX and of AVX-512.
const ROWS: usize = 6 * SIDE;
/// Columns that AVX-512 multiplies at a time.
const FOUR: usize = 4;

/// Floats that multiply the sums of `group` columns each, `[cols, depth / group]`.
#[derive(Clone, Copy)]
pub(super) struct Groups<'a> {
    pub scale: &'a [f32],
    pub group: usize,
}

/// Whether the path is one of these, and there are rows enough and groups of whole steps.
pub(super) fn suit(m: &Machine, rows: usize, depth: usize, group: usize) -> bool {
    m.path() >= Path::Avx512 && rows >= MANY && depth > 0 && (group == depth || group.is_multiple_of(FOUR))
}

/// `x W^T` for `x` `[rows, depth]`, if [`suit`] says so; `panel(rows)` has these rows of `W` as [`padded`] has them.
/// `finish(t, columns, sums)` turns some sums of row `t` into what `out` holds.
pub(super) fn product<'a>(
    m: &Machine,
    x: &[i8],
    [cols, depth]: [usize; 2],
    panel: impl Fn(Range<usize>) -> Cow<'a, [i8]> + Sync,
    groups: Option<Groups<'_>>,
    finish: impl Fn(usize, Range<usize>, &mut [f32]) + Sync,
    out: &mut [f32],
) {
    let x = Packed::new(m, x, depth, 1, |&x, _| x);
    let group = groups.map_or(depth, |groups| groups.group);
    let tiles = m.path() == Path::Amx && (group == depth || group.is_multiple_of(i8::STEP));
    let width = if groups.is_some() { PANEL / 2 } else { PANEL };
    m.each(columns(out, cols, width), |Columns { range, rows: mut out }| {
        let numbers = panel(range.clone());
        let panel = Panel { numbers: &numbers, parts: 1, stride: depth.next_multiple_of(i8::STEP) };
        let (tall, count) = (panel.rows(), depth / group);
        // of all rows for the first group, then for the second
        let mut factors = vec![1.0; tall * count];
        if let Some(Groups { scale, .. }) = groups {
            for (n, scales) in scale[range.start * count..range.end * count].chunks(count).enumerate() {
                factors[n..].iter_mut().step_by(tall).zip(scales).for_each(|(factor, scale)| *factor = *scale);
            }
        }
        let parts = (0..depth).step_by(group).map(|start| start..start + group).zip(factors.chunks(tall));
        for (at, out) in out.chunks_mut(ROWS).enumerate() {
            let first = at * ROWS / SIDE;
            let blocks = first..first + out.len().div_ceil(SIDE);
            // for each block of `x` and row of weights, the sums of sixteen rows of `x`
            let mut sums = vec![[0.0; SIDE]; blocks.len() * tall];
            // SAFETY: the machine has this path, both have AVX-512, and `add` knows nothing of tiles.
            unsafe {
                if tiles {
                    with_tiles(|tiles| {
                        for (columns, factors) in parts.clone() {
                            let steps = columns.start / i8::STEP..columns.end.div_ceil(i8::STEP);
                            tiled::multiply(tiles, panel, &x, blocks.clone(), steps, |n, block, all| {
                                let sums = &mut sums[(block - first) * tall + n..];
                                for ((to, factor), all) in sums.iter_mut().zip(&factors[n..]).zip(all) {
                                    add(to, *factor, load_i32x16(all));
                                }
                            });
                        }
                    });
                } else {
                    avx512::multiply(panel, &x, blocks, parts.clone(), &mut sums);
                }
            }
            for (block, (out, sums)) in out.chunks_mut(SIDE).zip(sums.chunks(tall)).enumerate() {
                for (t, out) in out.iter_mut().enumerate() {
                    out.iter_mut().zip(sums).for_each(|(y, sums)| *y = sums[t]);
                    finish(at * ROWS + block * SIDE + t, range.clone(), out);
                }
            }
        }
    });
}

/// Some rows of `W` with zeros behind each and rows of zeros behind them, so that all are whole tiles; as they are where they are.
pub(super) fn padded(rows: &[i8], depth: usize) -> Cow<'_, [i8]> {
    if rows.len().is_multiple_of(SIDE * depth) && depth.is_multiple_of(i8::STEP) {
        return Cow::Borrowed(rows);
    }
    let stride = depth.next_multiple_of(i8::STEP);
    let mut numbers = vec![0; (rows.len() / depth).next_multiple_of(SIDE) * stride];
    for (to, from) in numbers.chunks_mut(stride).zip(rows.chunks(depth)) {
        to[..depth].copy_from_slice(from);
    }
    Cow::Owned(numbers)
}

/// Adds sums of sixteen rows of `x` times the factor of a row of weights.
#[target_feature(enable = "avx512f")]
#[inline]
fn add(to: &mut [f32; SIDE], factor: f32, sums: __m512i) {
    let sums = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums), _mm512_set1_ps(factor), load_f32x16(to));
    store_f32x16(to, sums);
}

/// Four columns at a time: those of sixteen rows of `x` as they are packed for AMX times those of one row of weights.
mod avx512 {
    use super::{FOUR, Packed, Panel, SIDE, add};
    use crate::simd::load_i8x64;
    use std::arch::x86_64::*;
    use std::ops::Range;

    /// Rows of weights and blocks of `x` whose sums stay in registers: 24, beside three of `x` and one of weights.
    const TALL: usize = 8;
    const WIDE: usize = 3;

    /// Adds the sums of parts of the columns, times their factors of rows of weights, to the sums of each block and row of weights.
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    pub fn multiply<'a>(
        weight: Panel<'_, i8>,
        x: &Packed<i8>,
        blocks: Range<usize>,
        parts: impl Iterator<Item = (Range<usize>, &'a [f32])>,
        sums: &mut [[f32; SIDE]],
    ) {
        for (columns, factors) in parts {
            let fours = columns.start / FOUR..columns.end.div_ceil(FOUR);
            let (mut block, mut sums) = (blocks.start, &mut *sums);
            while block < blocks.end {
                // one block alone has too few sums for each to be ready when its turn comes
                let count = if blocks.end - block == 4 { 2 } else { WIDE.min(blocks.end - block) };
                let (these, others) = sums.split_at_mut(count * weight.rows());
                match count {
                    1 => tiles::<1>(weight, x, block, &fours, factors, these),
                    2 => tiles::<2>(weight, x, block, &fours, factors, these),
                    _ => tiles::<WIDE>(weight, x, block, &fours, factors, these),
                }
                (block, sums) = (block + count, others);
            }
        }
    }

    /// All rows of weights with `COUNT` blocks of `x`.
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    fn tiles<const COUNT: usize>(
        weight: Panel<'_, i8>,
        x: &Packed<i8>,
        block: usize,
        fours: &Range<usize>,
        factors: &[f32],
        sums: &mut [[f32; SIDE]],
    ) {
        let mut blocks = [&[][..]; COUNT];
        for (i, numbers) in blocks.iter_mut().enumerate() {
            *numbers = x.numbers(block + i, FOUR * fours.start..FOUR * fours.end).as_chunks::<{ FOUR * SIDE }>().0;
        }
        // The instruction takes unsigned by signed bytes: weights are raised by 128, and as many times `x` goes off.
        let raise = _mm512_set1_epi8(i8::MIN);
        let mut start = [_mm512_setzero_si512(); COUNT];
        for (start, x) in start.iter_mut().zip(&blocks) {
            for x in *x {
                *start = _mm512_dpbusd_epi32(*start, raise, load_i8x64(x));
            }
            *start = _mm512_sub_epi32(_mm512_setzero_si512(), *start);
        }
        for (n, factors) in factors.as_chunks::<TALL>().0.iter().enumerate() {
            let mut rows = [&[][..]; TALL];
            for (i, row) in rows.iter_mut().enumerate() {
                *row = &weight.row(n * TALL + i).as_chunks::<FOUR>().0[fours.clone()];
            }
            let all = tile(&rows, &blocks, raise, start);
            for (i, (all, factor)) in all.iter().zip(factors).enumerate() {
                for (all, sums) in all.iter().zip(sums.chunks_exact_mut(weight.rows())) {
                    add(&mut sums[n * TALL + i], *factor, *all);
                }
            }
        }
    }

    /// The sums of eight rows of weights with some blocks of `x`.
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    #[inline]
    fn tile<const COUNT: usize>(
        rows: &[&[[i8; FOUR]]; TALL],
        blocks: &[&[[i8; FOUR * SIDE]]; COUNT],
        raise: __m512i,
        start: [__m512i; COUNT],
    ) -> [[__m512i; COUNT]; TALL] {
        let mut all = [start; TALL];
        let count = blocks[0].len();
        for k in 0..count {
            let mut now = [raise; COUNT];
            for (now, x) in now.iter_mut().zip(blocks) {
                *now = load_i8x64(&x[..count][k]);
            }
            for (all, row) in all.iter_mut().zip(rows) {
                let four = i32::from_le_bytes(row[..count][k].map(i8::cast_unsigned));
                let w = _mm512_xor_si512(_mm512_set1_epi32(four), raise);
                for (all, x) in all.iter_mut().zip(&now) {
                    *all = _mm512_dpbusd_epi32(*all, w, *x);
                }
            }
        }
        all
    }
}
