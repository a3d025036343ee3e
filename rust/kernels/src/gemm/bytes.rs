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

/// Floats that multiply the sums of `group` columns each.
#[derive(Clone, Copy)]
pub(super) struct Groups<'a> {
    /// `[cols, depth / group]`.
    pub scale: &'a [f32],
    /// `[rows, depth / group]`, of `x`; none: 1.
    pub of_x: Option<&'a [f32]>,
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
    let group = groups.map_or(depth, |groups| groups.group);
    let tiles = m.path() == Path::Amx && (group == depth || group.is_multiple_of(i8::STEP));
    // AVX-512 multiplies unsigned bytes by signed ones: `x` is raised by 128, and as many times the sums of weights go off
    let x = Packed::new(m, x, depth, 1, |&x, _| if tiles { x } else { x ^ i8::MIN });
    let width = if groups.is_some() { PANEL / 2 } else { PANEL };
    // for each block of sixteen rows those of the first group, then of the second
    let of_x: Vec<_> = groups.and_then(|groups| groups.of_x).map_or_else(Vec::new, |of_x| {
        let block = |rows: &[f32]| (0..depth / group).map(|g| sixteen(rows, depth / group, g)).collect::<Vec<_>>();
        of_x.chunks(SIDE * (depth / group)).flat_map(block).collect()
    });
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
        // of all rows for the first group, then for the second: where sums begin
        // SAFETY: only the other path has no need of them, and both have AVX-512.
        let starts = if tiles { Vec::new() } else { unsafe { avx512::starts(panel, depth, group) } };
        for (at, out) in out.chunks_mut(ROWS).enumerate() {
            let first = at * ROWS / SIDE;
            let blocks = first..first + out.len().div_ceil(SIDE);
            // for each block of `x` and row of weights, the sums of sixteen rows of `x`
            let mut sums = vec![[0.0; SIDE]; blocks.len() * tall];
            // SAFETY: the machine has this path, both have AVX-512, and `add` knows nothing of tiles.
            unsafe {
                if tiles {
                    with_tiles(|tiles| {
                        for (g, (columns, factors)) in parts.clone().enumerate() {
                            let steps = columns.start / i8::STEP..columns.end.div_ceil(i8::STEP);
                            tiled::multiply(tiles, panel, &x, blocks.clone(), steps, |n, block, all| {
                                let sums = &mut sums[(block - first) * tall + n..];
                                let of_x = of_x.get(block * count + g);
                                for ((to, factor), all) in sums.iter_mut().zip(&factors[n..]).zip(all) {
                                    add(to, *factor, of_x, load_i32x16(all));
                                }
                            });
                        }
                    });
                } else {
                    avx512::multiply(panel, &x, blocks, parts.clone().zip(starts.chunks(tall)), &of_x, &mut sums);
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

/// Number `at` of each of at most sixteen rows, zeros behind them.
fn sixteen(rows: &[f32], width: usize, at: usize) -> [f32; SIDE] {
    let mut numbers = [0.0; SIDE];
    numbers.iter_mut().zip(rows.chunks(width)).for_each(|(number, row)| *number = row[at]);
    numbers
}

/// Adds sums of sixteen rows of `x` times the factor of a row of weights and, if there are some, those of `x`.
#[target_feature(enable = "avx512f")]
#[inline]
fn add(to: &mut [f32; SIDE], factor: f32, of_x: Option<&[f32; SIDE]>, sums: __m512i) {
    let mut factor = _mm512_set1_ps(factor);
    if let Some(of_x) = of_x {
        factor = _mm512_mul_ps(factor, load_f32x16(of_x));
    }
    store_f32x16(to, _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums), factor, load_f32x16(to)));
}

/// Four columns at a time: those of sixteen rows of `x` as they are packed for AMX, raised by 128, times those of one row of weights.
mod avx512 {
    use super::{FOUR, Packed, Panel, SIDE, add};
    use crate::simd::{first_i8x64, load_i8x64};
    use std::arch::x86_64::*;
    use std::ops::Range;

    /// Rows of weights and blocks of `x` whose sums stay in registers: 24, beside three of `x` and one of weights.
    const TALL: usize = 8;
    const WIDE: usize = 3;
    /// What `x` is raised by.
    const RAISE: i8 = i8::MIN;

    /// Minus 128 times the sum of each group of each row of weights: of all rows for the first group, then for the second.
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    pub fn starts(weight: Panel<'_, i8>, depth: usize, group: usize) -> Vec<i32> {
        let tall = weight.rows();
        let mut starts = vec![0; tall * (depth / group)];
        for n in 0..tall {
            let groups = weight.row(n)[..depth].chunks(group);
            for (start, group) in starts[n..].iter_mut().step_by(tall).zip(groups) {
                let (whole, rest) = group.as_chunks();
                let raise = _mm512_set1_epi8(RAISE);
                let mut sums = _mm512_dpbusd_epi32(_mm512_setzero_si512(), raise, first_i8x64(rest));
                for numbers in whole {
                    sums = _mm512_dpbusd_epi32(sums, raise, load_i8x64(numbers));
                }
                *start = -_mm512_reduce_add_epi32(sums);
            }
        }
        starts
    }

    /// Adds the sums of parts of the columns, times their factors of rows of weights, to the sums of each block and row of weights;
    /// with each part and its factors go its [`starts`]. `of_x` as [`add`] has it: of all parts for the first block, then for the next.
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    pub fn multiply<'a>(
        weight: Panel<'_, i8>,
        x: &Packed<i8>,
        blocks: Range<usize>,
        parts: impl ExactSizeIterator<Item = ((Range<usize>, &'a [f32]), &'a [i32])>,
        of_x: &[[f32; SIDE]],
        sums: &mut [[f32; SIDE]],
    ) {
        let count = parts.len();
        for (part, ((columns, factors), starts)) in parts.enumerate() {
            let of_x = |block: usize| of_x.get(block * count + part);
            let fours = columns.start / FOUR..columns.end.div_ceil(FOUR);
            let rows = factors.as_chunks().0.iter().zip(starts.as_chunks().0);
            let (mut block, mut sums) = (blocks.start, &mut *sums);
            while block < blocks.end {
                // one block alone has too few sums for each to be ready when its turn comes
                let count = if blocks.end - block == 4 { 2 } else { WIDE.min(blocks.end - block) };
                let (these, others) = sums.split_at_mut(count * weight.rows());
                match count {
                    1 => tiles::<1>(weight, x, block, &fours, rows.clone(), of_x, these),
                    2 => tiles::<2>(weight, x, block, &fours, rows.clone(), of_x, these),
                    _ => tiles::<WIDE>(weight, x, block, &fours, rows.clone(), of_x, these),
                }
                (block, sums) = (block + count, others);
            }
        }
    }

    /// All rows of weights, of which eight at a time have these factors and starts, with `COUNT` blocks of `x`.
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    fn tiles<'a, const COUNT: usize>(
        weight: Panel<'_, i8>,
        x: &Packed<i8>,
        block: usize,
        fours: &Range<usize>,
        rows: impl Iterator<Item = (&'a [f32; TALL], &'a [i32; TALL])>,
        of_x: impl Fn(usize) -> Option<&'a [f32; SIDE]>,
        sums: &mut [[f32; SIDE]],
    ) {
        let (mut blocks, mut factors_of_x) = ([&[][..]; COUNT], [None; COUNT]);
        for (i, (numbers, factors)) in blocks.iter_mut().zip(&mut factors_of_x).enumerate() {
            *factors = of_x(block + i);
            *numbers = x.numbers(block + i, FOUR * fours.start..FOUR * fours.end).as_chunks::<{ FOUR * SIDE }>().0;
        }
        for (n, (factors, starts)) in rows.enumerate() {
            let mut rows = [&[][..]; TALL];
            for (i, row) in rows.iter_mut().enumerate() {
                *row = &weight.row(n * TALL + i).as_chunks::<FOUR>().0[fours.clone()];
            }
            let all = tile(&rows, &blocks, starts);
            for (i, (all, factor)) in all.iter().zip(factors).enumerate() {
                let sums = sums.chunks_exact_mut(weight.rows()).zip(factors_of_x);
                for (all, (sums, of_x)) in all.iter().zip(sums) {
                    add(&mut sums[n * TALL + i], *factor, of_x, *all);
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
        starts: &[i32; TALL],
    ) -> [[__m512i; COUNT]; TALL] {
        let mut all = [[_mm512_setzero_si512(); COUNT]; TALL];
        for (all, start) in all.iter_mut().zip(starts) {
            *all = [_mm512_set1_epi32(*start); COUNT];
        }
        let count = blocks[0].len();
        for k in 0..count {
            let mut now = [_mm512_setzero_si512(); COUNT];
            for (now, x) in now.iter_mut().zip(blocks) {
                *now = load_i8x64(&x[..count][k]);
            }
            for (all, row) in all.iter_mut().zip(rows) {
                let w = _mm512_set1_epi32(i32::from_le_bytes(row[..count][k].map(i8::cast_unsigned)));
                for (all, x) in all.iter_mut().zip(&now) {
                    *all = _mm512_dpbusd_epi32(*all, *x, w);
                }
            }
        }
        all
    }
}
