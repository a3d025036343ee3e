//! The body for few rows of `x` on AVX-512: codes are multiplied as they lie in memory, low nibbles by the even columns of `x` and high
//! ones by the odd columns, and summed in 32 bits at once. Limit: reading the codes, or ten instructions for 128 of them.

use super::{HEIGHT, Row};
use crate::Machine;
use crate::simd::{load_f32x16, load_i8x64, load_i32x16, load_u8x64};
use std::arch::x86_64::*;

/// Codes that are multiplied at once: the 64 bytes of a vector.
const BLOCK: usize = 128;
/// Columns whose products one of its lanes gathers.
const LANE: usize = 8;

/// Some columns of a row of `x`.
#[derive(Clone, Copy)]
struct Block {
    /// The even columns before the odd ones.
    codes: [[i8; BLOCK / 2]; 2],
    /// Less the sum over the columns of each lane; what a zero point multiplies.
    less: [i32; BLOCK / LANE],
}

/// Rows padded with zeros to whole blocks; [`HEIGHT`] rows together, first the first block of each.
pub(super) struct Blocks {
    blocks: Vec<Block>,
    /// What multiplies the sums of each lane of a block, if anything does.
    factors: Vec<[f32; BLOCK / LANE]>,
    stride: usize,
}

impl Blocks {
    /// Whether a block's groups are whole lanes, one group, two or four of a block or whole blocks of a group.
    pub fn suit(group: usize, depth: usize) -> bool {
        group == depth || group.is_multiple_of(BLOCK) || group == BLOCK / 2 || group == BLOCK / 4
    }

    /// `x` `[rows, depth]` and the factors `[rows, depth / group]` of its groups, or none.
    pub fn of(m: &Machine, x: &[i8], factors: Option<&[f32]>, group: usize, rows: usize, depth: usize) -> Self {
        let stride = depth.div_ceil(BLOCK);
        let mut blocks = vec![Block { codes: [[0; BLOCK / 2]; 2], less: [0; BLOCK / LANE] }; rows * stride];
        let mut lanes = vec![[0.0; BLOCK / LANE]; if factors.is_some() { blocks.len() } else { 0 }];
        if depth > 0 {
            let tiles = blocks.chunks_mut(HEIGHT * stride).zip(x.chunks(HEIGHT * depth)).collect();
            m.each(tiles, |(to, from): (&mut [Block], &[i8])| {
                let height = from.len() / depth;
                for (row, from) in from.chunks(depth).enumerate() {
                    let blocks = to.iter_mut().skip(row).step_by(height);
                    blocks.zip(from.chunks(BLOCK)).for_each(|(block, from)| block.fill(from));
                }
            });
            let groups = depth / group;
            let tiles = lanes.chunks_mut(HEIGHT * stride).zip(factors.unwrap_or_default().chunks(HEIGHT * groups));
            for (to, from) in tiles {
                let height = from.len() / groups;
                for (at, lanes) in to.iter_mut().enumerate() {
                    let (block, factors) = (at / height, &from[at % height * groups..][..groups]);
                    for (lane, factor) in lanes.iter_mut().enumerate() {
                        *factor = factors[((block * BLOCK + lane * LANE) / group).min(groups - 1)];
                    }
                }
            }
        }
        Self { blocks, factors: lanes, stride }
    }

    /// What [`super::Operand::multiply`] does.
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    pub fn multiply(&self, first: usize, row: Row<'_>, sums: &mut [f32]) {
        match BLOCK / row.group.clamp(1, BLOCK) {
            2 => self.parts::<2>(first, row, sums),
            4 => self.parts::<4>(first, row, sums),
            _ => self.parts::<1>(first, row, sums),
        }
    }

    /// With so many groups in a block.
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    fn parts<const PARTS: usize>(&self, first: usize, row: Row<'_>, sums: &mut [f32]) {
        if row.whole { self.rows::<PARTS, true>(first, row, sums) } else { self.rows::<PARTS, false>(first, row, sums) }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    fn rows<const PARTS: usize, const WHOLE: bool>(&self, first: usize, row: Row<'_>, sums: &mut [f32]) {
        let tile = first * self.stride..(first + sums.len()) * self.stride;
        let (x, factors) = (&self.blocks[tile.clone()], self.factors.get(tile).unwrap_or_default());
        match sums.len() {
            1 => multiply::<1, PARTS, WHOLE>(x, factors, row, sums),
            2 => multiply::<2, PARTS, WHOLE>(x, factors, row, sums),
            3 => multiply::<3, PARTS, WHOLE>(x, factors, row, sums),
            4 => multiply::<4, PARTS, WHOLE>(x, factors, row, sums),
            5 => multiply::<5, PARTS, WHOLE>(x, factors, row, sums),
            _ => multiply::<HEIGHT, PARTS, WHOLE>(x, factors, row, sums),
        }
    }
}

impl Block {
    fn fill(&mut self, from: &[i8]) {
        let [even, odd] = &mut self.codes;
        for ((pair, even), odd) in from.chunks(2).zip(even).zip(odd) {
            (*even, *odd) = (pair[0], pair.get(1).copied().unwrap_or(0));
        }
        for (less, from) in self.less.iter_mut().zip(from.chunks(LANE)) {
            *less = -from.iter().map(|&x| i32::from(x)).sum::<i32>();
        }
    }
}

/// `R` rows of `x`.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn multiply<const R: usize, const PARTS: usize, const WHOLE: bool>(
    x: &[Block],
    factors: &[[f32; BLOCK / LANE]],
    row: Row<'_>,
    sums: &mut [f32],
) {
    let (x, of_x) = (x.as_chunks::<R>().0, factors.as_chunks::<R>().0);
    let (codes, tail) = row.bytes.as_chunks::<{ BLOCK / 2 }>();
    let ((factors, last_factors), (zeros, last_zeros)) =
        (row.factors.as_chunks::<PARTS>(), row.zeros.as_chunks::<PARTS>());
    let blocks = row.group.div_ceil(BLOCK).max(1);
    let mut all = [_mm512_setzero_si512(); R];
    let parameters = factors.iter().zip(zeros);
    if blocks == 1 {
        for (at, ((x, codes), (factor, zero))) in x.iter().zip(codes).zip(parameters).enumerate() {
            let (x, codes) = (std::slice::from_ref(x), std::slice::from_ref(codes));
            add::<R, WHOLE>(x, codes, spread(factor), spread(zero), of_x.get(at), &mut all);
        }
    } else {
        let parts = x.chunks(blocks).zip(codes.chunks(blocks)).zip(parameters);
        for (at, ((x, codes), (factor, zero))) in parts.enumerate() {
            add::<R, WHOLE>(x, codes, spread(factor), spread(zero), of_x.get(at * blocks), &mut all);
        }
    }
    if let Some(x) = x.get(codes.len()..).filter(|x| !x.is_empty()) {
        // the last block is no whole one: of the only group, or of groups fewer than the others have
        let ([mut factor, mut zero], mut last) = ([[0; PARTS]; 2], [0; BLOCK / 2]);
        factor[..last_factors.len()].copy_from_slice(last_factors);
        zero[..last_zeros.len()].copy_from_slice(last_zeros);
        if let (1, [.., of_all], [.., zero_of_all]) = (PARTS, factors, zeros) {
            (factor, zero) = (*of_all, *zero_of_all);
        }
        last[..tail.len()].copy_from_slice(tail);
        add::<R, WHOLE>(x, &[last], spread(&factor), spread(&zero), of_x.get(codes.len()), &mut all);
    }
    for (sum, all) in sums.iter_mut().zip(all) {
        *sum = if WHOLE { _mm512_reduce_add_epi32(all) as f32 } else { _mm512_reduce_add_ps(_mm512_castsi512_ps(all)) };
    }
}

/// Adds the sums of some blocks with the same parameters in each lane; three for each row of `x`, so that none waits for another.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
#[inline]
fn add<const R: usize, const WHOLE: bool>(
    x: &[[Block; R]],
    codes: &[[u8; BLOCK / 2]],
    factor: __m512i,
    zero: __m512i,
    of_x: Option<&[[f32; BLOCK / LANE]; R]>,
    all: &mut [__m512i; R],
) {
    let nibble = _mm512_set1_epi8(15);
    let [mut even, mut odd, mut less] = [[_mm512_setzero_si512(); R]; 3];
    for (x, codes) in x.iter().zip(codes) {
        let codes = load_u8x64(codes);
        let low = _mm512_and_si512(codes, nibble);
        let high = _mm512_and_si512(_mm512_srli_epi16::<4>(codes), nibble);
        for (r, x) in x.iter().enumerate() {
            even[r] = _mm512_dpbusd_epi32(even[r], low, load_i8x64(&x.codes[0]));
            odd[r] = _mm512_dpbusd_epi32(odd[r], high, load_i8x64(&x.codes[1]));
            // of pairs of 16 bits, of which the second of a zero point is 0
            less[r] = _mm512_dpwssd_epi32(less[r], load_i32x16(&x.less), zero);
        }
    }
    for (r, all) in all.iter_mut().enumerate() {
        let sums = _mm512_add_epi32(_mm512_add_epi32(even[r], odd[r]), less[r]);
        *all = if WHOLE {
            _mm512_add_epi32(*all, _mm512_mullo_epi32(sums, factor))
        } else {
            let mut factor = _mm512_castsi512_ps(factor);
            if let Some(of_x) = of_x {
                factor = _mm512_mul_ps(load_f32x16(&of_x[r]), factor);
            }
            let sums = _mm512_cvtepi32_ps(sums);
            _mm512_castps_si512(_mm512_fmadd_ps(sums, factor, _mm512_castsi512_ps(*all)))
        };
    }
}

/// The parameters of the groups of a block, each in its lanes.
#[target_feature(enable = "avx512f")]
#[inline]
fn spread<const PARTS: usize>(parameters: &[i32; PARTS]) -> __m512i {
    if let [one] = parameters[..] {
        return _mm512_set1_epi32(one);
    }
    let mut four = [0; 4];
    four[..PARTS].copy_from_slice(parameters);
    let four = _mm512_castsi128_si512(_mm_setr_epi32(four[0], four[1], four[2], four[3]));
    let part = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
    _mm512_permutexvar_epi32(if PARTS == 4 { part } else { _mm512_srli_epi32::<1>(part) }, four)
}
