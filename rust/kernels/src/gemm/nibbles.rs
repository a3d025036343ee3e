//! One row of codes of 2 or 4 bits times a vector. What four bits stand for is looked up by shuffles of bytes, 32 at a time: one
//! shuffle for each byte of the floats, which interleaving then puts together. No code is shifted, masked, cast or less a zero point
//! by itself. Limit: shuffles and shifts, 13 for 64 affine codes of 4 bits and 25 for as many of a table; or memory.

use super::decode::{Meaning, Row};
use crate::quantize::Zeros;

/// Codes of one step; the first half may be of one group and the second half of the next.
const STEP: usize = 64;

/// What four bits stand for as the first code or the second of two, or as one.
const FIRST: usize = 0;
const SECOND: usize = 1;

/// Codes of `bits` bits less each zero point; these floats have no bits in the two lower bytes, as all are whole and below 256.
const fn less_zeros(bits: u32, place: usize) -> [[[u8; 16]; 2]; 256] {
    let mut planes = [[[0; 16]; 2]; 256];
    let mut at = 0;
    while at < 256 * 16 {
        let (zero, four) = (at / 16, at % 16);
        let code = four >> (place as u32 * bits) & ((1 << bits) - 1);
        let float = (code as f32 - zero as f32).to_bits();
        planes[zero][0][four] = (float >> 16) as u8;
        planes[zero][1][four] = (float >> 24) as u8;
        at += 1;
    }
    planes
}

static TWO_BITS: [[[[u8; 16]; 2]; 256]; 2] = [less_zeros(2, FIRST), less_zeros(2, SECOND)];
static FOUR_BITS: [[[u8; 16]; 2]; 256] = less_zeros(4, FIRST);

/// How codes are read and what they stand for.
#[derive(Clone, Copy)]
pub(super) struct Kind {
    /// Two codes in four bits.
    two: bool,
    /// All bytes of the floats count.
    wide: bool,
}

impl Kind {
    /// That of rows like this one, of `depth` codes, if they can be read so.
    pub fn of(row: Row<'_>, depth: usize) -> Option<Self> {
        let whole = depth.is_multiple_of(STEP) && (2 * row.group == STEP || row.group.is_multiple_of(STEP));
        let wide = match row.meaning {
            Meaning::Affine(None | Some(Zeros::Codes(_))) => false,
            Meaning::Table(_) => true,
            _ => return None,
        };
        ((row.bits == 2 || row.bits == 4) && whole).then_some(Self { two: row.bits == 2, wide })
    }

    /// `x` in the order in which values come out of the shuffles.
    pub fn arranged(self, x: &[f32]) -> Vec<f32> {
        let order: [usize; STEP] = std::array::from_fn(|at| self.column(at));
        x.as_chunks::<STEP>().0.iter().flat_map(|x| order.map(|column| x[column])).collect()
    }

    /// The column of a step that is at a place.
    fn column(self, at: usize) -> usize {
        let (draw, upper, second, half, i) = (at / 32, at / 16 % 2, at / 8 % 2, at / 4 % 2, at % 4);
        // of 16 in this half of a register
        let four = 8 * upper + if self.wide { 4 * second + i } else { 2 * i + second };
        let four = if self.two { 2 * (four % 8) + four / 8 } else { four };
        32 * half + 2 * four + draw
    }
}

#[cfg(target_arch = "x86_64")]
pub(super) mod avx2 {
    use super::{FOUR_BITS, Kind, STEP, TWO_BITS};
    use crate::gemm::decode::{Meaning, Row};
    use crate::quantize::Zeros;
    use crate::simd::{load_f32x8, load_u8x16, load_u8x32, sum_f32x8};
    use std::arch::x86_64::*;

    /// The bytes of 16 floats for each half of a step.
    type Planes = [__m256i; 4];

    /// The sum over a row of `x`, arranged for this kind, times its values.
    #[target_feature(enable = "avx2,fma")]
    pub fn dot(kind: Kind, row: Row<'_>, x: &[f32]) -> f32 {
        match (kind.two, kind.wide) {
            (false, false) => dot_of::<false, false>(row, x),
            (false, true) => dot_of::<false, true>(row, x),
            (true, false) => dot_of::<true, false>(row, x),
            (true, true) => dot_of::<true, true>(row, x),
        }
    }

    #[target_feature(enable = "avx2,fma")]
    fn dot_of<const TWO: bool, const WIDE: bool>(row: Row<'_>, x: &[f32]) -> f32 {
        let (zero, fixed) = match row.meaning {
            Meaning::Table(table) if WIDE => (None, planes::<TWO>(table)),
            Meaning::Affine(Some(Zeros::Codes(zero))) => (Some(zero), less::<TWO>([0; 2])),
            _ => (None, less::<TWO>([if TWO { 2 } else { 8 }; 2])),
        };
        let mut total = _mm256_setzero_ps();
        // parameters of a step, or of the halves of one
        let (steps, halves) = if row.group < STEP { (1, 2) } else { (row.group / STEP, 1) };
        let bytes = if TWO { STEP / 4 } else { STEP / 2 };
        let parts = row.bytes.chunks_exact(steps * bytes).zip(x.chunks_exact(steps * STEP));
        for (part, (codes, x)) in parts.enumerate() {
            let groups = [part * halves, part * halves + halves - 1];
            let [low, high] = groups.map(|g| row.scale[g]);
            let scale = _mm256_set_m128(_mm_set1_ps(high), _mm_set1_ps(low));
            let table = match zero {
                Some(zero) if !WIDE => less::<TWO>(groups.map(|g| zero[g].into())),
                _ => fixed,
            };
            for (codes, x) in codes.chunks_exact(bytes).zip(x.as_chunks::<STEP>().0) {
                total = _mm256_fmadd_ps(scale, step::<TWO, WIDE>(codes, &table, x), total);
            }
        }
        sum_f32x8(total)
    }

    /// Codes less the zero points of both halves.
    #[target_feature(enable = "avx2")]
    #[inline]
    fn less<const TWO: bool>([low, high]: [usize; 2]) -> [Planes; 2] {
        if TWO {
            [both(&TWO_BITS[0][low], &TWO_BITS[0][high]), both(&TWO_BITS[1][low], &TWO_BITS[1][high])]
        } else {
            [both(&FOUR_BITS[low], &FOUR_BITS[high]); 2]
        }
    }

    /// The upper bytes of 16 floats for each half.
    #[target_feature(enable = "avx2")]
    #[inline]
    fn both(low: &[[u8; 16]; 2], high: &[[u8; 16]; 2]) -> Planes {
        let none = _mm256_setzero_si256();
        let third = _mm256_set_m128i(load_u8x16(&high[0]), load_u8x16(&low[0]));
        [none, none, third, _mm256_set_m128i(load_u8x16(&high[1]), load_u8x16(&low[1]))]
    }

    /// The values of a table for four bits, as the first of two codes and as the second.
    #[target_feature(enable = "avx2")]
    fn planes<const TWO: bool>(table: &[f32]) -> [Planes; 2] {
        let [mut low, mut high] = [_mm256_setzero_ps(); 2];
        if let Some(eight) = table.first_chunk() {
            low = load_f32x8(eight);
        }
        if let Some(eight) = table.get(8..16).and_then(<[f32]>::first_chunk) {
            high = load_f32x8(eight);
        }
        if !TWO {
            return [bytes(low, high); 2];
        }
        let first = _mm256_permutevar8x32_ps(low, _mm256_setr_epi32(0, 1, 2, 3, 0, 1, 2, 3));
        let second = [
            _mm256_permutevar8x32_ps(low, _mm256_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1)),
            _mm256_permutevar8x32_ps(low, _mm256_setr_epi32(2, 2, 2, 2, 3, 3, 3, 3)),
        ];
        [bytes(first, first), bytes(second[0], second[1])]
    }

    /// The bytes of sixteen floats by their significance, in both halves of registers.
    #[target_feature(enable = "avx2")]
    #[inline]
    fn bytes(low: __m256, high: __m256) -> Planes {
        let sorted = _mm256_setr_epi8(
            0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15, 0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15,
        );
        let a = _mm256_shuffle_epi8(_mm256_castps_si256(low), sorted);
        let b = _mm256_shuffle_epi8(_mm256_castps_si256(high), sorted);
        let order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
        let low = _mm256_permutevar8x32_epi32(_mm256_unpacklo_epi32(a, b), order);
        let high = _mm256_permutevar8x32_epi32(_mm256_unpackhi_epi32(a, b), order);
        [
            _mm256_permute2x128_si256::<0x00>(low, low),
            _mm256_permute2x128_si256::<0x11>(low, low),
            _mm256_permute2x128_si256::<0x00>(high, high),
            _mm256_permute2x128_si256::<0x11>(high, high),
        ]
    }

    /// The products of 64 codes with `x`, added up in each half by itself.
    #[target_feature(enable = "avx2,fma")]
    #[inline]
    fn step<const TWO: bool, const WIDE: bool>(codes: &[u8], table: &[Planes; 2], x: &[f32; STEP]) -> __m256 {
        let four = _mm256_set1_epi8(0x0f);
        let mut draws = [_mm256_setzero_si256(); 2];
        if let (true, Some(codes)) = (TWO, codes.first_chunk()) {
            let halves = _mm256_permute4x64_epi64::<0b01_01_00_00>(_mm256_castsi128_si256(load_u8x16(codes)));
            draws = [_mm256_and_si256(_mm256_srlv_epi64(halves, _mm256_setr_epi64x(0, 4, 0, 4)), four); 2];
        }
        if let (false, Some(codes)) = (TWO, codes.first_chunk()) {
            let all = load_u8x32(codes);
            draws = [_mm256_and_si256(all, four), _mm256_and_si256(_mm256_srli_epi16::<4>(all), four)];
        }
        let x = x.as_chunks::<8>().0;
        let mut sums = [_mm256_setzero_ps(); 4];
        for (draw, (four, planes)) in draws.into_iter().zip(table).enumerate() {
            let [a, b] = [_mm256_shuffle_epi8(planes[0], four), _mm256_shuffle_epi8(planes[1], four)];
            let [c, d] = [_mm256_shuffle_epi8(planes[2], four), _mm256_shuffle_epi8(planes[3], four)];
            let lower = [_mm256_unpacklo_epi8(a, b), _mm256_unpackhi_epi8(a, b)];
            let upper = [_mm256_unpacklo_epi8(c, d), _mm256_unpackhi_epi8(c, d)];
            for (half, (lower, upper)) in lower.into_iter().zip(upper).enumerate() {
                let values = if WIDE {
                    [_mm256_unpacklo_epi16(lower, upper), _mm256_unpackhi_epi16(lower, upper)]
                } else {
                    [_mm256_slli_epi32::<16>(upper), _mm256_and_si256(upper, _mm256_set1_epi32(!0xffff))]
                };
                for (second, value) in values.into_iter().enumerate() {
                    let (sum, x) = (&mut sums[2 * half + second], load_f32x8(&x[4 * draw + 2 * half + second]));
                    let value = _mm256_castsi256_ps(value);
                    *sum = if draw == 0 { _mm256_mul_ps(value, x) } else { _mm256_fmadd_ps(value, x, *sum) };
                }
            }
        }
        _mm256_add_ps(_mm256_add_ps(sums[0], sums[1]), _mm256_add_ps(sums[2], sums[3]))
    }
}
