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
/// some groups.
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

/// Which operand AVX-512 has raised by 128, as it multiplies unsigned bytes by signed ones.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Raised {
    /// `x`; for weights that are taken as they lie in memory, in one group.
    X,
    /// The weights.
    Weight,
}

/// Whether the path is one of these, and there are rows enough and groups of whole steps.
pub(super) fn suit(m: &Machine, rows: usize, depth: usize, group: usize) -> bool {
    m.path() >= Path::Avx512 && rows >= MANY && depth > 0 && (group == depth || group.is_multiple_of(FOUR))
}

/// `x W^T` for `x` `[rows, depth]`, if [`suit`] says so; `panel(rows, raised)` has these rows of `W` as [`padded`] has them, or with more
/// behind each, and the columns of one; raised by 128 if it says so, which it does if `raised` says weights. `finish(t, columns, sums)`
/// turns some sums of row `t` into what `out` holds.
#[allow(clippy::too_many_arguments)]
pub(super) fn product<'a>(
    m: &Machine,
    x: &[i8],
    [cols, depth]: [usize; 2],
    raised: Raised,
    panel: impl Fn(Range<usize>, bool) -> (Cow<'a, [i8]>, usize) + Sync,
    groups: Option<Groups<'_>>,
    finish: impl Fn(usize, Range<usize>, &mut [f32]) + Sync,
    out: &mut [f32],
) {
    let group = groups.map_or(depth, |groups| groups.group);
    let count = depth / group;
    let tiles = m.path() == Path::Amx && (group == depth || group.is_multiple_of(i8::STEP));
    let x = Packed::new(m, x, depth, 1, |&x, _| if raised == Raised::X && !tiles { x ^ i8::MIN } else { x });
    let width = if groups.is_some() { PANEL / 2 } else { PANEL };
    // for each block of sixteen rows those of the first group, then of the second
    let of_x: Vec<_> = groups.and_then(|groups| groups.of_x).map_or_else(Vec::new, |of_x| {
        let block = |rows: &[f32]| (0..count).map(|g| sixteen(rows, count, g)).collect::<Vec<_>>();
        of_x.chunks(SIDE * count).flat_map(block).collect()
    });
    // likewise
    let starts_of_x = if tiles || raised == Raised::X {
        Vec::new()
    } else {
        // SAFETY: the path includes AVX-512.
        unsafe { avx512::starts_of_x(&x, out.len().div_ceil(SIDE * cols.max(1)), depth, group) }
    };
    m.each(columns(out, cols, width), |Columns { range, rows: mut out }| {
        let (numbers, stride) = panel(range.clone(), !tiles && raised == Raised::Weight);
        let panel = Panel { numbers: &numbers, parts: 1, stride };
        let tall = panel.rows();
        let scale = groups.map(|groups| &groups.scale[range.start * count..range.end * count]);
        let starts_of_weight = if tiles || raised == Raised::Weight {
            Vec::new()
        } else {
            // SAFETY: the path includes AVX-512.
            unsafe { avx512::starts_of_weight(panel, depth) }
        };
        for (at, out) in out.chunks_mut(ROWS).enumerate() {
            let first = at * ROWS / SIDE;
            let blocks = first..first + out.len().div_ceil(SIDE);
            // for each block of `x` and row of weights, the sums of sixteen rows of `x`
            let mut sums = vec![[0.0; SIDE]; blocks.len() * tall];
            // SAFETY: the machine has this path, both have AVX-512, and `scaled` knows nothing of tiles.
            unsafe {
                if tiles {
                    with_tiles(|tiles| {
                        for g in 0..count {
                            let steps = g * group / i8::STEP..((g + 1) * group).div_ceil(i8::STEP);
                            tiled::multiply(tiles, panel, &x, blocks.clone(), steps, |n, block, all| {
                                let sums = &mut sums[(block - first) * tall + n..];
                                let of_x = of_x.get(block * count + g);
                                for (i, (to, all)) in sums.iter_mut().zip(all).enumerate() {
                                    let factor = factors(scale, n + i, count)[g];
                                    store_f32x16(to, scaled(load_i32x16(all), factor, of_x, load_f32x16(to)));
                                }
                            });
                        }
                    });
                } else {
                    let product = avx512::Product {
                        weight: panel,
                        x: &x,
                        columns: depth,
                        group,
                        scale,
                        of_x: &of_x,
                        starts_of_x: &starts_of_x,
                        starts_of_weight: &starts_of_weight,
                    };
                    product.multiply(blocks, &mut sums);
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

/// Some rows of `W` with zeros behind each and rows of zeros behind them, so that all are whole tiles; as they are where they are. And
/// the columns of one.
pub(super) fn padded(rows: &[i8], depth: usize) -> (Cow<'_, [i8]>, usize) {
    if rows.len().is_multiple_of(SIDE * depth) && depth.is_multiple_of(i8::STEP) {
        return (Cow::Borrowed(rows), depth);
    }
    let stride = depth.next_multiple_of(i8::STEP);
    let mut numbers = vec![0; (rows.len() / depth).next_multiple_of(SIDE) * stride];
    for (to, from) in numbers.chunks_mut(stride).zip(rows.chunks(depth)) {
        to[..depth].copy_from_slice(from);
    }
    (Cow::Owned(numbers), stride)
}

/// The factors of one row of weights in `count` groups; those of the last row for rows behind it, whose sums nobody reads.
fn factors(scale: Option<&[f32]>, n: usize, count: usize) -> &[f32] {
    scale.map_or(&[1.0], |scale| &scale[n.min(scale.len() / count - 1) * count..][..count])
}

/// Number `at` of each of at most sixteen rows, zeros behind them.
fn sixteen(rows: &[f32], width: usize, at: usize) -> [f32; SIDE] {
    let mut numbers = [0.0; SIDE];
    numbers.iter_mut().zip(rows.chunks(width)).for_each(|(number, row)| *number = row[at]);
    numbers
}

/// Sums of sixteen rows of `x` times the factor of a row of weights and, if there are some, those of `x`, added to others.
#[target_feature(enable = "avx512f")]
#[inline]
fn scaled(sums: __m512i, factor: f32, of_x: Option<&[f32; SIDE]>, others: __m512) -> __m512 {
    let mut factor = _mm512_set1_ps(factor);
    if let Some(of_x) = of_x {
        factor = _mm512_mul_ps(factor, load_f32x16(of_x));
    }
    _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums), factor, others)
}

/// Four columns at a time: those of sixteen rows of `x` as they are packed for AMX times those of one row of weights, one of which is
/// raised by 128; as many times the sums of the other go off, where sums start.
mod avx512 {
    use super::{FOUR, Packed, Panel, SIDE, factors, scaled};
    use crate::simd::{first_i8x64, load_f32x16, load_i8x64, load_i32x16, store_f32x16, store_i32x16};
    use std::arch::x86_64::*;
    use std::ops::Range;

    /// Blocks of `x` whose sums stay in registers.
    const WIDE: usize = 3;
    /// Registers for the sums of a short group, beside those of all groups.
    const HALF: usize = 12;
    /// Columns from which on a group is long enough for its sums to have all registers.
    const LONG: usize = 128;
    /// Columns whose groups are added before their sums are kept: those of `x` stay in the first cache.
    const STRETCH: usize = 512;
    /// What one operand is raised by.
    const RAISE: i8 = i8::MIN;

    /// Minus 128 times the sum of each row of weights.
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    pub fn starts_of_weight(weight: Panel<'_, i8>, depth: usize) -> Vec<i32> {
        let mut starts = vec![0; weight.rows()];
        for (n, start) in starts.iter_mut().enumerate() {
            let (whole, rest) = weight.row(n)[..depth].as_chunks();
            let raise = _mm512_set1_epi8(RAISE);
            let mut sums = _mm512_dpbusd_epi32(_mm512_setzero_si512(), raise, first_i8x64(rest));
            for numbers in whole {
                sums = _mm512_dpbusd_epi32(sums, raise, load_i8x64(numbers));
            }
            *start = -_mm512_reduce_add_epi32(sums);
        }
        starts
    }

    /// Minus 128 times the sum of each group of each row of `x`, sixteen rows together: all groups of the first rows, then of the next.
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    pub fn starts_of_x(x: &Packed<i8>, blocks: usize, depth: usize, group: usize) -> Vec<[i32; SIDE]> {
        let count = depth / group;
        let mut starts = vec![[0; SIDE]; blocks * count];
        for (at, start) in starts.iter_mut().enumerate() {
            let columns = at % count * group..(at % count * group + group).next_multiple_of(FOUR);
            let mut sums = _mm512_setzero_si512();
            for numbers in x.numbers(at / count, columns).as_chunks().0 {
                sums = _mm512_dpbusd_epi32(sums, _mm512_set1_epi8(RAISE), load_i8x64(numbers));
            }
            store_i32x16(start, _mm512_sub_epi32(_mm512_setzero_si512(), sums));
        }
        starts
    }

    /// Rows of weights times those of `x`, with sums of groups of so many columns.
    #[derive(Clone, Copy)]
    pub struct Product<'a> {
        pub weight: Panel<'a, i8>,
        pub x: &'a Packed<i8>,
        pub columns: usize,
        pub group: usize,
        /// Of the groups of each row of weights; none: 1.
        pub scale: Option<&'a [f32]>,
        /// As [`scaled`] has them: of all groups for the first block, then for the next.
        pub of_x: &'a [[f32; SIDE]],
        /// Where sums start, as [`starts_of_x`] has it, or none if `x` is raised.
        pub starts_of_x: &'a [[i32; SIDE]],
        /// Or as [`starts_of_weight`] has it.
        pub starts_of_weight: &'a [i32],
    }

    impl Product<'_> {
        /// Adds to the sums of each block of `x` and row of weights.
        #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
        pub fn multiply(&self, blocks: Range<usize>, sums: &mut [[f32; SIDE]]) {
            let count = self.columns / self.group;
            let together = (STRETCH / self.group).max(1);
            for start in (0..count).step_by(together) {
                let groups = start..count.min(start + together);
                let (mut block, mut sums) = (blocks.start, &mut *sums);
                while block < blocks.end {
                    // one block alone has too few sums for each to be ready when its turn comes
                    let wide = if blocks.end - block == 4 { 2 } else { WIDE.min(blocks.end - block) };
                    let (these, others) = sums.split_at_mut(wide * self.weight.rows());
                    // up to 24 sums; or 12 and 12 of short groups, as else they leave the registers at the end of each
                    match (wide, self.group) {
                        (1, _) => self.tiles::<8, 1>(block, &groups, these),
                        (2, LONG..) => self.tiles::<8, 2>(block, &groups, these),
                        (2, _) => self.tiles::<4, 2>(block, &groups, these),
                        (_, LONG..) => self.tiles::<8, WIDE>(block, &groups, these),
                        (_, _) => self.tiles::<4, WIDE>(block, &groups, these),
                    }
                    (block, sums) = (block + wide, others);
                }
            }
        }

        #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
        fn tiles<const TALL: usize, const COUNT: usize>(
            &self,
            block: usize,
            groups: &Range<usize>,
            sums: &mut [[f32; SIDE]],
        ) {
            if self.starts_of_x.is_empty() {
                self.some::<TALL, COUNT, false>(block, groups, sums);
            } else {
                self.some::<TALL, COUNT, true>(block, groups, sums);
            }
        }

        /// Some groups of all rows of weights, `TALL` of which at a time, with `COUNT` blocks of `x`.
        #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
        fn some<const TALL: usize, const COUNT: usize, const RAISED: bool>(
            &self,
            block: usize,
            groups: &Range<usize>,
            sums: &mut [[f32; SIDE]],
        ) {
            let (tall, all_groups) = (self.weight.rows(), self.columns / self.group);
            let fours = self.columns.div_ceil(FOUR);
            let mut blocks = [&[][..]; COUNT];
            for (i, numbers) in blocks.iter_mut().enumerate() {
                *numbers = self.x.numbers(block + i, 0..FOUR * fours).as_chunks::<{ FOUR * SIDE }>().0;
            }
            for n in (0..tall).step_by(TALL) {
                let (mut rows, mut scales) = ([&[][..]; TALL], [&[][..]; TALL]);
                for (i, (row, scales)) in rows.iter_mut().zip(&mut scales).enumerate() {
                    *row = &self.weight.row(n + i).as_chunks::<FOUR>().0[..fours];
                    *scales = factors(self.scale, n + i, all_groups);
                }
                let mut total = [[_mm512_setzero_ps(); COUNT]; TALL];
                for g in groups.clone() {
                    let mut all = [[_mm512_setzero_si512(); COUNT]; TALL];
                    for (i, all) in all.iter_mut().enumerate() {
                        for (j, all) in all.iter_mut().enumerate() {
                            *all = if RAISED {
                                load_i32x16(&self.starts_of_x[(block + j) * all_groups + g])
                            } else {
                                _mm512_set1_epi32(self.starts_of_weight[n + i])
                            };
                        }
                    }
                    let fours = g * self.group / FOUR..((g + 1) * self.group).div_ceil(FOUR);
                    if TALL * COUNT > HALF {
                        long::<TALL, COUNT, RAISED>(&rows, &blocks, fours, &mut all);
                    } else {
                        tile::<TALL, COUNT, RAISED>(&rows, &blocks, fours, &mut all);
                    }
                    for ((total, all), scales) in total.iter_mut().zip(all).zip(scales) {
                        for (j, (total, all)) in total.iter_mut().zip(all).enumerate() {
                            *total = scaled(all, scales[g], self.of_x.get((block + j) * all_groups + g), *total);
                        }
                    }
                }
                for (i, total) in total.iter().enumerate() {
                    for (total, sums) in total.iter().zip(sums.chunks_exact_mut(tall)) {
                        let sums = &mut sums[n + i];
                        store_f32x16(sums, _mm512_add_ps(load_f32x16(sums), *total));
                    }
                }
            }
        }
    }

    /// [`tile`] as a function of its own: beside its sums no others have registers.
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    #[inline(never)]
    fn long<const TALL: usize, const COUNT: usize, const RAISED: bool>(
        rows: &[&[[i8; FOUR]]; TALL],
        blocks: &[&[[i8; FOUR * SIDE]]; COUNT],
        fours: Range<usize>,
        all: &mut [[__m512i; COUNT]; TALL],
    ) {
        let mut sums = *all;
        tile::<TALL, COUNT, RAISED>(rows, blocks, fours, &mut sums);
        *all = sums;
    }

    /// Adds the products of some columns of some rows of weights and blocks of `x`; weights are raised, or `x` is.
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    #[inline]
    fn tile<const TALL: usize, const COUNT: usize, const RAISED: bool>(
        rows: &[&[[i8; FOUR]]; TALL],
        blocks: &[&[[i8; FOUR * SIDE]]; COUNT],
        fours: Range<usize>,
        all: &mut [[__m512i; COUNT]; TALL],
    ) {
        let count = blocks[0].len();
        // never the lesser one, but then no index has to be checked
        for k in fours.start..fours.end.min(count) {
            let mut now = [_mm512_setzero_si512(); COUNT];
            for (now, x) in now.iter_mut().zip(blocks) {
                *now = load_i8x64(&x[..count][k]);
            }
            for (all, row) in all.iter_mut().zip(rows) {
                let w = _mm512_set1_epi32(i32::from_le_bytes(row[..count][k].map(i8::cast_unsigned)));
                for (all, x) in all.iter_mut().zip(&now) {
                    *all = if RAISED { _mm512_dpbusd_epi32(*all, w, *x) } else { _mm512_dpbusd_epi32(*all, *x, w) };
                }
            }
        }
    }
}
