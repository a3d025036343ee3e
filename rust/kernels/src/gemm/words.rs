//! One row of codes of 1, 2 or 4 bits times a vector on AVX-512, sixteen words at a time: codes come down by shifts, and a permutation
//! finds what the four lowest bits of each word stand for. Limit: a shift, a permutation and a multiplication for 16 codes, two a
//! cycle; or memory.

use super::decode::{Meaning, Row, near};
use crate::quantize::Zeros;
use crate::simd::avx512::Table;
use crate::simd::{first_f32x16, load_f32x16, load_u8x64};
use std::arch::x86_64::*;

/// Words of a step.
const WORDS: usize = 16;

/// Whether rows like this one, of `depth` codes, are whole steps, and their groups whole steps or whole words.
pub(super) fn suit(row: Row<'_>, depth: usize) -> bool {
    if !matches!(row.bits, 1 | 2 | 4) || matches!(row.meaning, Meaning::E4m3fn | Meaning::E5m2) {
        return false;
    }
    let of_word = (32 / row.bits) as usize;
    let step = WORDS * of_word;
    let words = row.group.is_multiple_of(of_word) && step.is_multiple_of(row.group);
    depth.is_multiple_of(step) && (row.group.is_multiple_of(step) || words)
}

/// `x` in the order in which codes come out of the words.
pub(super) fn arranged(bits: u32, x: &[f32]) -> Vec<f32> {
    let of_word = (32 / bits) as usize;
    let step = |x: &[f32]| (0..WORDS * of_word).map(|at| x[at % WORDS * of_word + at / WORDS]).collect::<Vec<_>>();
    x.chunks_exact(WORDS * of_word).flat_map(step).collect()
}

/// The sum over a row of `x`, arranged for it, times its values.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(super) fn dot(row: Row<'_>, x: &[f32]) -> f32 {
    match row.bits {
        1 => dot_bits::<1>(row, x),
        2 => dot_bits::<2>(row, x),
        _ => dot_bits::<4>(row, x),
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn dot_bits<const BITS: u32>(row: Row<'_>, x: &[f32]) -> f32 {
    let step = const { WORDS * (32 / BITS) as usize };
    let (steps, groups) = if row.group < step { (1, step / row.group) } else { (row.group / step, 1) };
    // of each word, the group in a step
    let places = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    let places = _mm512_srlv_epi32(places, _mm512_set1_epi32((WORDS / groups).ilog2() as i32));
    let fixed = match row.meaning {
        Meaning::Table(table) => Some(Table::of(BITS as usize, table).lowest()),
        Meaning::Affine(None) => Some(near(BITS as usize, (1 << (BITS - 1)) as f32)),
        _ => None,
    };
    let mut total = _mm512_setzero_ps();
    let parts = row.bytes.chunks_exact(steps * WORDS * 4).zip(x.chunks_exact(steps * step));
    for (part, (bytes, x)) in parts.enumerate() {
        let of_part = part * groups..(part + 1) * groups;
        let (bytes, x) = (bytes.as_chunks::<{ WORDS * 4 }>().0, x.as_chunks::<WORDS>().0);
        let [scale, sums] = match (fixed, row.meaning) {
            (Some(table), _) => [splat(&row.scale[of_part], places), sums::<BITS, false>(bytes, x, table, table)],
            (None, Meaning::Affine(Some(zero))) if groups > 1 => {
                let apart = match zero.part(of_part.clone()) {
                    Zeros::Codes(zero) => {
                        let mut floats = [0.0; WORDS];
                        floats.iter_mut().zip(zero).for_each(|(float, &zero)| *float = f32::from(zero));
                        _mm512_permutexvar_ps(places, load_f32x16(&floats))
                    }
                    Zeros::Floats(zero) => splat(zero, places),
                };
                let codes = near(BITS as usize, 0.0);
                [splat(&row.scale[of_part], places), sums::<BITS, true>(bytes, x, codes, apart)]
            }
            _ => {
                let table = near(BITS as usize, row.zero(part));
                [_mm512_set1_ps(row.scale[part]), sums::<BITS, false>(bytes, x, table, table)]
            }
        };
        total = _mm512_fmadd_ps(scale, sums, total);
    }
    _mm512_reduce_add_ps(total)
}

/// The parameters of the groups of a step, at most sixteen, where they belong.
#[target_feature(enable = "avx512f")]
#[inline]
fn splat(of_groups: &[f32], places: __m512i) -> __m512 {
    if let [one] = of_groups { _mm512_set1_ps(*one) } else { _mm512_permutexvar_ps(places, first_f32x16(of_groups)) }
}

/// The products of some steps, added up in each word by itself; `APART` says whether zero points are not in the table.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
#[inline]
fn sums<const BITS: u32, const APART: bool>(
    bytes: &[[u8; 4 * WORDS]],
    x: &[[f32; WORDS]],
    table: __m512,
    zero: __m512,
) -> __m512 {
    let of_word = const { (32 / BITS) as usize };
    let mut sums = [_mm512_setzero_ps(); 4];
    for (bytes, x) in bytes.iter().zip(x.chunks_exact(of_word)) {
        let mut words = load_u8x64(bytes);
        for (i, x) in x.iter().enumerate() {
            let mut value = _mm512_permutexvar_ps(words, table);
            if APART {
                value = _mm512_sub_ps(value, zero);
            }
            sums[i % 4] = _mm512_fmadd_ps(value, load_f32x16(x), sums[i % 4]);
            words = _mm512_srli_epi32::<BITS>(words);
        }
    }
    _mm512_add_ps(_mm512_add_ps(sums[0], sums[1]), _mm512_add_ps(sums[2], sums[3]))
}
