//! The body for few rows of `x` on AVX-512: codes are multiplied as they lie in memory, low nibbles by the even columns of `x` and high
//! ones by the odd columns, and summed in 32 bits at once. Limit: reading the codes, or eight instructions for 128 of them.

use super::{AHEAD, Codes, HEIGHT, Row};
use crate::Machine;
use crate::simd::{load_f32x16, load_i8x64, load_i32x16, load_u8x64, prefetch};
use std::arch::x86_64::*;
use std::ops::Range;

/// Codes that are multiplied at once: the 64 bytes of a vector.
const BLOCK: usize = 128;
/// Columns whose products one of its lanes gathers.
const LANE: usize = 8;
/// Lanes of a vector.
const LANES: usize = BLOCK / LANE;
/// Sums of long groups that do not wait for each other.
const CHAINS: usize = 2;

/// Whole lines of the cache.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Lines<T>(T);

/// Some columns of a row of `x`: the even ones before the odd ones.
type Block = Lines<[[i8; BLOCK / 2]; 2]>;
/// A number for each lane.
type Lanes<T> = Lines<[T; LANES]>;

/// Rows padded with zeros to whole blocks. A unit is a block, or all blocks of a group that has more.
pub(super) struct Blocks {
    /// [`HEIGHT`] rows together, first the first block of each.
    blocks: Vec<Block>,
    /// Less the sums over the columns of each lane of a unit, what a zero point multiplies, or eight times that if there are none; in the
    /// order of blocks.
    less: Vec<Lanes<i32>>,
    /// What multiplies the sums of each lane of a unit, if anything does.
    factors: Vec<Lanes<f32>>,
    /// Blocks of a row.
    stride: usize,
    /// Blocks of a unit.
    unit: usize,
    /// Whether rows of the weight have zero points.
    zeros: bool,
}

impl Blocks {
    /// Whether a block's groups are whole lanes, one group, two or four of a block or whole blocks of a group.
    pub fn suit(group: usize, depth: usize) -> bool {
        group == depth || group.is_multiple_of(BLOCK) || group == BLOCK / 2 || group == BLOCK / 4
    }

    /// `x` `[rows, depth]` and the factors `[rows, depth / group]` of its groups, or none.
    pub fn of(m: &Machine, x: &[i8], factors: Option<&[f32]>, codes: Codes<'_>, rows: usize, depth: usize) -> Self {
        let (stride, unit) = (depth.div_ceil(BLOCK), codes.group.div_ceil(BLOCK).max(1));
        let (units, zeros) = (stride.div_ceil(unit), codes.zero.is_some());
        let mut blocks = vec![Lines([[0; BLOCK / 2]; 2]); rows * stride];
        let mut less = vec![Lines([0; LANES]); rows * units];
        let mut lanes = vec![Lines([0.0; LANES]); if factors.is_some() { less.len() } else { 0 }];
        if depth > 0 {
            let tiles = blocks.chunks_mut(HEIGHT * stride).zip(less.chunks_mut(HEIGHT * units));
            let tiles: Vec<_> = tiles.zip(x.chunks(HEIGHT * depth)).collect();
            m.each(tiles, |((to, less), from)| {
                let height = from.len() / depth;
                for (row, from) in from.chunks(depth).enumerate() {
                    let blocks = to.iter_mut().skip(row).step_by(height);
                    for (at, (block, from)) in blocks.zip(from.chunks(BLOCK)).enumerate() {
                        fill(block, from);
                        let sums = from.chunks(LANE).map(|from| from.iter().map(|&x| i32::from(x)).sum::<i32>());
                        for (less, sum) in less[at / unit * height + row].0.iter_mut().zip(sums) {
                            *less -= if zeros { sum } else { 8 * sum };
                        }
                    }
                }
            });
            let groups = depth / codes.group;
            let tiles = lanes.chunks_mut(HEIGHT * units).zip(factors.unwrap_or_default().chunks(HEIGHT * groups));
            for (to, from) in tiles {
                let height = from.len() / groups;
                for (at, lanes) in to.iter_mut().enumerate() {
                    let (first, factors) = (at / height * unit * BLOCK, &from[at % height * groups..][..groups]);
                    for (lane, factor) in lanes.0.iter_mut().enumerate() {
                        *factor = factors[((first + lane * LANE) / codes.group).min(groups - 1)];
                    }
                }
            }
        }
        Self { blocks, less, factors: lanes, stride, unit, zeros }
    }

    /// What [`super::Operand::multiply`] does.
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    pub fn multiply(&self, tile: Range<usize>, weights: &[Row<'_>], sums: &mut [[f32; HEIGHT]]) {
        match weights.first().map_or(BLOCK, |row| row.group) {
            group if 4 * group == BLOCK => self.parts::<4, false>(tile, weights, sums),
            group if 2 * group == BLOCK => self.parts::<2, false>(tile, weights, sums),
            _ if self.unit == 1 => self.parts::<1, false>(tile, weights, sums),
            _ => self.parts::<1, true>(tile, weights, sums),
        }
    }

    /// With so many groups in a block or, if `LONG`, blocks in a group.
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    fn parts<const PARTS: usize, const LONG: bool>(
        &self,
        tile: Range<usize>,
        weights: &[Row<'_>],
        sums: &mut [[f32; HEIGHT]],
    ) {
        if weights.first().is_some_and(|row| row.whole) {
            self.rows::<PARTS, LONG, true>(tile, weights, sums);
        } else {
            self.rows::<PARTS, LONG, false>(tile, weights, sums);
        }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    fn rows<const PARTS: usize, const LONG: bool, const WHOLE: bool>(
        &self,
        tile: Range<usize>,
        weights: &[Row<'_>],
        sums: &mut [[f32; HEIGHT]],
    ) {
        match tile.len() {
            1 => self.tile::<1, 2, PARTS, LONG, WHOLE>(tile, weights, sums),
            2 => self.tile::<2, 2, PARTS, LONG, WHOLE>(tile, weights, sums),
            3 => self.tile::<3, 1, PARTS, LONG, WHOLE>(tile, weights, sums),
            4 => self.tile::<4, 1, PARTS, LONG, WHOLE>(tile, weights, sums),
            5 => self.tile::<5, 1, PARTS, LONG, WHOLE>(tile, weights, sums),
            _ => self.tile::<HEIGHT, 1, PARTS, LONG, WHOLE>(tile, weights, sums),
        }
    }

    /// `R` rows of `x`, `N` of weights at a time.
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    fn tile<const R: usize, const N: usize, const PARTS: usize, const LONG: bool, const WHOLE: bool>(
        &self,
        tile: Range<usize>,
        weights: &[Row<'_>],
        sums: &mut [[f32; HEIGHT]],
    ) {
        let units = self.stride.div_ceil(self.unit);
        let units = tile.start * units..tile.end * units;
        let x = Tile {
            blocks: self.blocks[tile.start * self.stride..tile.end * self.stride].as_chunks::<R>().0,
            less: self.less[units.clone()].as_chunks::<R>().0,
            factors: self.factors.get(units).unwrap_or_default().as_chunks::<R>().0,
            unit: self.unit,
            zeros: self.zeros,
        };
        for (rows, sums) in weights.chunks(N).zip(sums.chunks_mut(N)) {
            // behind the last row comes the last row again: nobody reads those sums
            multiply::<R, N, PARTS, LONG, WHOLE>(x, std::array::from_fn(|i| rows[i.min(rows.len() - 1)]), sums);
        }
    }
}

fn fill(Lines([even, odd]): &mut Block, from: &[i8]) {
    for ((pair, even), odd) in from.chunks(2).zip(even).zip(odd) {
        (*even, *odd) = (pair[0], pair.get(1).copied().unwrap_or(0));
    }
}

/// `R` rows of `x`, as [`Blocks`] has them.
#[derive(Clone, Copy)]
struct Tile<'a, const R: usize> {
    blocks: &'a [[Block; R]],
    less: &'a [[Lanes<i32>; R]],
    factors: &'a [[Lanes<f32>; R]],
    unit: usize,
    zeros: bool,
}

/// `N` rows of weights with `R` of `x`.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
#[inline]
fn multiply<const R: usize, const N: usize, const PARTS: usize, const LONG: bool, const WHOLE: bool>(
    x: Tile<'_, R>,
    rows: [Row<'_>; N],
    sums: &mut [[f32; HEIGHT]],
) {
    let whole = rows[0].bytes.len() / (BLOCK / 2);
    let count = whole / x.unit;
    let (mut codes, [mut factors, mut zeros]) = ([&[][..]; N], [[&[][..]; N]; 2]);
    for (i, row) in rows.iter().enumerate() {
        codes[i] = &row.bytes.as_chunks::<{ BLOCK / 2 }>().0[..whole];
        factors[i] = &row.factors.as_chunks::<PARTS>().0[..count];
        zeros[i] = &row.zeros.as_chunks::<PARTS>().0[..count];
    }
    let mut all = [[_mm512_setzero_si512(); R]; N];
    for (at, less) in x.less[..count].iter().enumerate() {
        let mut unit = start::<R, N, LONG>(less, x.zeros, |i| spread(&zeros[i][at]));
        if LONG {
            let blocks = at * x.unit..(at + 1) * x.unit;
            unit = long(&x.blocks[blocks.clone()], codes.map(|codes| &codes[blocks.clone()]), unit);
        } else {
            unit = block(&x.blocks[..count][at], codes.map(|codes| &codes[..count][at]), unit);
        }
        add::<R, N, WHOLE>(unit, |i| spread(&factors[i][at]), x.factors.get(at), &mut all);
    }
    if let (Some(less), Some(last)) = (x.less.get(count), x.blocks.get(whole)) {
        // the last block is no whole one, and may have fewer groups than the others
        let padded = |parameters: &[i32]| {
            let mut padded = [0; PARTS];
            let rest = &parameters[count * PARTS..];
            padded[..rest.len()].copy_from_slice(rest);
            spread(&padded)
        };
        let unit = start::<R, N, LONG>(less, x.zeros, |i| padded(rows[i].zeros));
        let blocks = count * x.unit..whole;
        let unit = long(&x.blocks[blocks.clone()], codes.map(|codes| &codes[blocks.clone()]), unit);
        let mut tails = [[0; BLOCK / 2]; N];
        for (to, row) in tails.iter_mut().zip(rows) {
            let tail = &row.bytes[whole * BLOCK / 2..];
            to[..tail.len()].copy_from_slice(tail);
        }
        let unit = block(last, tails.each_ref(), unit);
        add::<R, N, WHOLE>(unit, |i| padded(rows[i].factors), x.factors.get(count), &mut all);
    }
    for (sums, all) in sums.iter_mut().zip(all) {
        for (sum, all) in sums.iter_mut().zip(all) {
            let float = _mm512_reduce_add_ps(_mm512_castsi512_ps(all));
            *sum = if WHOLE { _mm512_reduce_add_epi32(all) as f32 } else { float };
        }
    }
}

/// What the sums of a unit start with: what zero points, if there are some, take off.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
#[inline]
fn start<const R: usize, const N: usize, const LONG: bool>(
    less: &[Lanes<i32>; R],
    zeros: bool,
    zero: impl Fn(usize) -> __m512i,
) -> [[__m512i; R]; N] {
    let mut sums = [[_mm512_setzero_si512(); R]; N];
    for (i, sums) in sums.iter_mut().enumerate() {
        for (sums, less) in sums.iter_mut().zip(less) {
            let less = load_i32x16(&less.0);
            *sums = if !zeros {
                less
            } else if LONG {
                _mm512_mullo_epi32(less, zero(i))
            } else {
                // of pairs of 16 bits, of which the second of a zero point is 0
                _mm512_dpwssd_epi32(_mm512_setzero_si512(), less, zero(i))
            };
        }
    }
    sums
}

/// The sums of a block behind others.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
#[inline]
fn block<const R: usize, const N: usize>(
    x: &[Block; R],
    codes: [&[u8; BLOCK / 2]; N],
    mut sums: [[__m512i; R]; N],
) -> [[__m512i; R]; N] {
    let nibble = _mm512_set1_epi8(15);
    for (sums, codes) in sums.iter_mut().zip(codes) {
        prefetch(codes, AHEAD);
        let codes = load_u8x64(codes);
        let low = _mm512_and_si512(codes, nibble);
        let high = _mm512_and_si512(_mm512_srli_epi16::<4>(codes), nibble);
        for (sums, Lines([even, odd])) in sums.iter_mut().zip(x) {
            *sums = _mm512_dpbusd_epi32(*sums, low, load_i8x64(even));
            *sums = _mm512_dpbusd_epi32(*sums, high, load_i8x64(odd));
        }
    }
    sums
}

/// The sums of blocks behind others, in chains that do not wait for each other.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
#[inline]
fn long<const R: usize, const N: usize>(
    x: &[[Block; R]],
    codes: [&[[u8; BLOCK / 2]]; N],
    mut sums: [[__m512i; R]; N],
) -> [[__m512i; R]; N] {
    let mut chains = [[[_mm512_setzero_si512(); R]; N]; CHAINS];
    let count = x.len();
    let codes = codes.map(|codes| &codes[..count]);
    let whole = count - count % CHAINS;
    for first in (0..whole).step_by(CHAINS) {
        for (i, chain) in chains.iter_mut().enumerate() {
            *chain = block(&x[first + i], codes.map(|codes| &codes[first + i]), *chain);
        }
    }
    for at in whole..count {
        sums = block(&x[at], codes.map(|codes| &codes[at]), sums);
    }
    for chain in chains {
        for (sums, chain) in sums.as_flattened_mut().iter_mut().zip(chain.as_flattened()) {
            *sums = _mm512_add_epi32(*sums, *chain);
        }
    }
    sums
}

/// Adds the sums of a unit times their factors.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
#[inline]
fn add<const R: usize, const N: usize, const WHOLE: bool>(
    sums: [[__m512i; R]; N],
    factor: impl Fn(usize) -> __m512i,
    of_x: Option<&[Lanes<f32>; R]>,
    all: &mut [[__m512i; R]; N],
) {
    for (i, (all, sums)) in all.iter_mut().zip(sums).enumerate() {
        let factor = factor(i);
        for (r, (all, sums)) in all.iter_mut().zip(sums).enumerate() {
            *all = if WHOLE {
                _mm512_add_epi32(*all, _mm512_mullo_epi32(sums, factor))
            } else {
                let mut factor = _mm512_castsi512_ps(factor);
                if let Some(of_x) = of_x {
                    factor = _mm512_mul_ps(load_f32x16(&of_x[r].0), factor);
                }
                let sums = _mm512_cvtepi32_ps(sums);
                _mm512_castps_si512(_mm512_fmadd_ps(sums, factor, _mm512_castsi512_ps(*all)))
            };
        }
    }
}

/// The parameters of the groups of a block, each in its lanes.
#[target_feature(enable = "avx512f")]
#[inline]
fn spread<const PARTS: usize>(parameters: &[i32; PARTS]) -> __m512i {
    let part = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
    match parameters[..] {
        [first, second] => {
            let two = _mm512_castsi128_si512(_mm_setr_epi32(first, second, 0, 0));
            _mm512_permutexvar_epi32(_mm512_srli_epi32::<1>(part), two)
        }
        [first, second, third, fourth] => {
            let four = _mm512_castsi128_si512(_mm_setr_epi32(first, second, third, fourth));
            _mm512_permutexvar_epi32(part, four)
        }
        _ => _mm512_set1_epi32(parameters[0]),
    }
}
