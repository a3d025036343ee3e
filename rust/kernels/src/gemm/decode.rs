//! One row of a dense bit stream as floats, `scale * (code - zero)` or `scale * table[code]`: decoded, or multiplied by a vector
//! on the way.

use crate::quantize::Zeros;
use crate::{Machine, Path};

/// Codes of one row of weights, with the parameters of its groups.
#[derive(Clone, Copy)]
pub(super) struct Row<'a> {
    /// The dense little-endian bit stream of the row, padded to whole words.
    pub words: &'a [i32],
    /// Bits a code, 1 to 8.
    pub bits: u32,
    /// One scale a group.
    pub scale: &'a [f32],
    /// What the scale multiplies.
    pub meaning: Meaning<'a>,
    /// Codes a group.
    pub group: usize,
}

/// What a code stands for, before the scale of its group.
#[derive(Clone, Copy)]
pub(super) enum Meaning<'a> {
    /// Itself less the zero point of its group; `2^(bits-1)` where there are none.
    Affine(Option<Zeros<'a>>),
    /// The value at its place, of [`values`] many.
    Table(&'a [f32]),
    /// The float of 8 bits that it is.
    E4m3fn,
}

/// Values of a table, some of which may stand for no code: a register full at least, and for every byte where a code may
/// have more than the 16 that two registers hold.
pub(super) const fn values(bits: u32) -> usize {
    match bits {
        0..=3 => EIGHT,
        4 => 2 * EIGHT,
        _ => 256,
    }
}

/// Values in a register.
const EIGHT: usize = 8;

impl<'a> Row<'a> {
    /// That of affine codes; any number for others.
    fn zero(&self, group: usize) -> f32 {
        match self.meaning {
            Meaning::Affine(Some(zero)) => zero.get(group),
            _ => (1u32 << (self.bits - 1)) as f32,
        }
    }
}

/// Fills `out` with the values of a row; `out.len()` is a whole number of groups.
pub(super) fn decode(m: &Machine, row: Row<'_>, out: &mut [f32]) {
    match m.path() {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a machine with this path has AVX2.
        Path::Amx | Path::Avx512 | Path::Avx2 => unsafe { avx2::decode(row, out) },
        #[cfg(not(target_arch = "x86_64"))]
        Path::Amx | Path::Avx512 | Path::Avx2 => portable::decode(row, out),
        Path::Scalar => portable::decode(row, out),
    }
}

/// The sum over a row of `x` times its values, in one pass over the codes; `x` is as long as the row.
pub(super) fn dot(m: &Machine, row: Row<'_>, x: &[f32]) -> f32 {
    match m.path() {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a machine with this path has AVX2 and FMA.
        Path::Amx | Path::Avx512 | Path::Avx2 => unsafe { avx2::dot(row, x) },
        #[cfg(not(target_arch = "x86_64"))]
        Path::Amx | Path::Avx512 | Path::Avx2 => portable::dot(row, x),
        Path::Scalar => portable::dot(row, x),
    }
}

mod portable {
    use super::{Meaning, Row};
    use crate::minifloat::{E4m3fn, portable::decode_one};

    pub fn decode(row: Row<'_>, out: &mut [f32]) {
        for (g, values) in out.chunks_exact_mut(row.group).enumerate() {
            decode_from(row, g, g * row.group, values);
        }
    }

    /// The codes from column `first` on, all of group `g`.
    pub fn decode_from(row: Row<'_>, g: usize, first: usize, values: &mut [f32]) {
        let (scale, zero) = (row.scale[g], row.zero(g));
        for (k, value) in values.iter_mut().enumerate() {
            *value = scale * meant(row, first + k, zero);
        }
    }

    /// What the code of a column stands for.
    fn meant(row: Row<'_>, column: usize, zero: f32) -> f32 {
        let code = code(row, column);
        match row.meaning {
            Meaning::Affine(_) => code as f32 - zero,
            Meaning::Table(table) => table[code],
            Meaning::E4m3fn => f32::from_bits(decode_one::<E4m3fn>(code as u32)),
        }
    }

    fn code(row: Row<'_>, column: usize) -> usize {
        let bit = column * row.bits as usize;
        let low = row.words[bit / 32] as u32;
        let high = row.words.get(bit / 32 + 1).map_or(0, |&word| word as u32);
        (((u64::from(high) << 32 | u64::from(low)) >> (bit % 32)) & ((1 << row.bits) - 1)) as usize
    }

    pub fn dot(row: Row<'_>, x: &[f32]) -> f32 {
        let sums = x.chunks_exact(row.group).enumerate().map(|(g, x)| dot_from(row, g, g * row.group, x));
        sums.fold(0.0, |all, sum| all + sum)
    }

    /// Over the codes from column `first` on, all of group `g`.
    pub fn dot_from(row: Row<'_>, g: usize, first: usize, x: &[f32]) -> f32 {
        let zero = row.zero(g);
        let products = x.iter().enumerate().map(|(k, x)| x * meant(row, first + k, zero));
        row.scale[g] * products.fold(0.0, |all, product| all + product)
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use super::{EIGHT, Meaning, Row, portable};
    use crate::simd::{bytes, load_f32x8, store_f32x8, sum_f32x8};
    use std::arch::x86_64::*;

    /// Which [`Meaning`] codes have.
    const AFFINE: u8 = 0;
    const TABLE: u8 = 1;
    const E4M3FN: u8 = 2;

    #[target_feature(enable = "avx2,f16c")]
    pub fn decode(row: Row<'_>, out: &mut [f32]) {
        match row.meaning {
            Meaning::Affine(_) => decode_of::<AFFINE>(row, &[], out),
            Meaning::Table(table) => decode_of::<TABLE>(row, table, out),
            Meaning::E4m3fn if nan(row) => portable::decode(row, out),
            Meaning::E4m3fn => bits::<8, E4M3FN>(row, &[], out),
        }
    }

    #[target_feature(enable = "avx2,fma,f16c")]
    pub fn dot(row: Row<'_>, x: &[f32]) -> f32 {
        match row.meaning {
            Meaning::Affine(_) => dot_of::<AFFINE>(row, &[], x),
            Meaning::Table(table) => dot_of::<TABLE>(row, table, x),
            Meaning::E4m3fn if nan(row) => portable::dot(row, x),
            Meaning::E4m3fn => dot_bits::<8, E4M3FN>(row, &[], x),
        }
    }

    /// Whether a code of E4M3 is NaN.
    #[target_feature(enable = "avx2")]
    fn nan(row: Row<'_>) -> bool {
        bytes(row.words).iter().fold(false, |any, code| any | (code & 0x7f == 0x7f))
    }

    #[target_feature(enable = "avx2,f16c")]
    fn decode_of<const MEANING: u8>(row: Row<'_>, table: &[f32], out: &mut [f32]) {
        match row.bits {
            1 => bits::<1, MEANING>(row, table, out),
            2 => bits::<2, MEANING>(row, table, out),
            3 => bits::<3, MEANING>(row, table, out),
            4 => bits::<4, MEANING>(row, table, out),
            5 => bits::<5, MEANING>(row, table, out),
            6 => bits::<6, MEANING>(row, table, out),
            7 => bits::<7, MEANING>(row, table, out),
            _ => bits::<8, MEANING>(row, table, out),
        }
    }

    #[target_feature(enable = "avx2,fma,f16c")]
    fn dot_of<const MEANING: u8>(row: Row<'_>, table: &[f32], x: &[f32]) -> f32 {
        match row.bits {
            1 => dot_bits::<1, MEANING>(row, table, x),
            2 => dot_bits::<2, MEANING>(row, table, x),
            3 => dot_bits::<3, MEANING>(row, table, x),
            4 => dot_bits::<4, MEANING>(row, table, x),
            5 => dot_bits::<5, MEANING>(row, table, x),
            6 => dot_bits::<6, MEANING>(row, table, x),
            7 => dot_bits::<7, MEANING>(row, table, x),
            _ => dot_bits::<8, MEANING>(row, table, x),
        }
    }

    /// A read of this many bytes holds eight codes.
    const fn width(bits: usize) -> usize {
        if bits <= 4 { 4 } else { 8 }
    }

    /// How many of the octets of a row can be read without passing its end.
    fn whole(bytes: &[u8], bits: usize, octets: usize) -> usize {
        bytes.len().checked_sub(width(bits)).map_or(0, |room| room / bits + 1).min(octets)
    }

    /// Eight codes. They are `BITS` bytes: read as one little-endian number, copied to every lane and shifted there.
    #[target_feature(enable = "avx2")]
    #[inline]
    fn octet<const BITS: usize>(bytes: &[u8], at: usize) -> __m256i {
        let steps = if BITS <= 4 {
            _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)
        } else {
            _mm256_setr_epi32(0, 1, 2, 3, 0, 1, 2, 3)
        };
        let (shift, mask) = (_mm256_mullo_epi32(steps, _mm256_set1_epi32(BITS as i32)), (1 << BITS) - 1);
        let lanes = if BITS <= 4 {
            let four = bytes[at..].first_chunk::<4>().map_or(0, |four| i32::from_le_bytes(*four));
            _mm256_set1_epi32(four)
        } else {
            let eight = eight(bytes, at);
            _mm256_set_m128i(_mm_set1_epi32((eight >> (4 * BITS)) as i32), _mm_set1_epi32(eight as i32))
        };
        _mm256_and_si256(_mm256_srlv_epi32(lanes, shift), _mm256_set1_epi32(mask))
    }

    /// As many bytes as one number.
    #[inline]
    fn eight(bytes: &[u8], at: usize) -> u64 {
        bytes[at..].first_chunk::<8>().map_or(0, |eight| u64::from_le_bytes(*eight))
    }

    /// The first 16 values of a table in registers, zeros beyond its end.
    #[target_feature(enable = "avx2")]
    #[inline]
    fn registers(table: &[f32]) -> [__m256; 2] {
        let mut parts = [_mm256_setzero_ps(); 2];
        for (part, values) in parts.iter_mut().zip(table.as_chunks::<EIGHT>().0) {
            *part = load_f32x8(values);
        }
        parts
    }

    /// What eight codes stand for; `near` holds the first values of a table, `far` all of them where they are 256.
    #[target_feature(enable = "avx2,f16c")]
    #[inline]
    fn meant<const BITS: usize, const MEANING: u8>(
        bytes: &[u8],
        at: usize,
        zero: __m256,
        near: [__m256; 2],
        far: &[f32; 256],
    ) -> __m256 {
        if MEANING == E4M3FN {
            // as binary16, whose exponents are larger by 8; widening copies the sign
            let wide = _mm_slli_epi16::<7>(_mm_cvtepi8_epi16(_mm_cvtsi64_si128(eight(bytes, at).cast_signed())));
            let half = _mm_and_si128(wide, _mm_set1_epi16(0xbf80_u16.cast_signed()));
            return _mm256_mul_ps(_mm256_cvtph_ps(half), _mm256_set1_ps(256.0));
        }
        if MEANING == TABLE && BITS > 4 {
            let eight = eight(bytes, at);
            let value = |i: usize| far[usize::from((eight >> (i * BITS)) as u8 & (0xff >> (8 - BITS)))];
            return load_f32x8(&[0, 1, 2, 3, 4, 5, 6, 7].map(value));
        }
        let codes = octet::<BITS>(bytes, at);
        match BITS {
            _ if MEANING == AFFINE => _mm256_sub_ps(_mm256_cvtepi32_ps(codes), zero),
            1..=3 => _mm256_permutevar8x32_ps(near[0], codes),
            _ => {
                let [low, high] = near.map(|values| _mm256_permutevar8x32_ps(values, codes));
                let fourth = _mm256_castsi256_ps(_mm256_slli_epi32::<28>(codes));
                _mm256_blendv_ps(low, high, fourth)
            }
        }
    }

    /// Octets whose sums are kept apart, so that no multiplication waits for the one before.
    const APART: usize = 4;

    #[target_feature(enable = "avx2,fma,f16c")]
    fn dot_bits<const BITS: usize, const MEANING: u8>(row: Row<'_>, table: &[f32], x: &[f32]) -> f32 {
        if !row.group.is_multiple_of(8) && row.group != x.len() {
            return portable::dot(row, x);
        }
        let bytes = bytes(row.words);
        let (near, far) = (registers(table), table.first_chunk().unwrap_or(&[0.0; 256]));
        let (mut total, mut rest) = (_mm256_setzero_ps(), 0.0);
        let (mut at, mut room) = (0, whole(bytes, BITS, x.len() / 8));
        for (g, x) in x.chunks_exact(row.group).enumerate() {
            let zero = _mm256_set1_ps(row.zero(g));
            let whole = room.min(x.len() / 8);
            let (octets, tail) = x.split_at(8 * whole);
            let mut sums = [_mm256_setzero_ps(); APART];
            let (quads, single) = octets.as_chunks::<8>().0.as_chunks::<APART>();
            for quad in quads {
                // Of one length: within it the compiler sees that every read is inside.
                let span = &bytes[at..at + (APART - 1) * BITS + width(BITS)];
                for (i, (sum, x)) in sums.iter_mut().zip(quad).enumerate() {
                    let value = meant::<BITS, MEANING>(span, i * BITS, zero, near, far);
                    *sum = _mm256_fmadd_ps(value, load_f32x8(x), *sum);
                }
                at += APART * BITS;
            }
            let mut last = _mm256_setzero_ps();
            for x in single {
                let value = meant::<BITS, MEANING>(&bytes[at..at + width(BITS)], 0, zero, near, far);
                last = _mm256_fmadd_ps(value, load_f32x8(x), last);
                at += BITS;
            }
            let sum = _mm256_add_ps(_mm256_add_ps(sums[0], sums[1]), _mm256_add_ps(sums[2], sums[3]));
            total = _mm256_fmadd_ps(_mm256_set1_ps(row.scale[g]), _mm256_add_ps(sum, last), total);
            if !tail.is_empty() {
                rest += portable::dot_from(row, g, g * row.group + 8 * whole, tail);
            }
            room -= whole;
        }
        sum_f32x8(total) + rest
    }

    #[target_feature(enable = "avx2,f16c")]
    fn bits<const BITS: usize, const MEANING: u8>(row: Row<'_>, table: &[f32], out: &mut [f32]) {
        if !row.group.is_multiple_of(8) && row.group != out.len() {
            return portable::decode(row, out);
        }
        let (near, far) = (registers(table), table.first_chunk().unwrap_or(&[0.0; 256]));
        let bytes = bytes(row.words);
        let (mut at, mut room) = (0, whole(bytes, BITS, out.len() / 8));
        for (g, values) in out.chunks_exact_mut(row.group).enumerate() {
            let (scale, zero) = (_mm256_set1_ps(row.scale[g]), _mm256_set1_ps(row.zero(g)));
            let whole = room.min(values.len() / 8);
            let (octets, tail) = values.split_at_mut(8 * whole);
            for values in octets.as_chunks_mut::<8>().0 {
                let value = meant::<BITS, MEANING>(&bytes[at..at + width(BITS)], 0, zero, near, far);
                store_f32x8(values, _mm256_mul_ps(scale, value));
                at += BITS;
            }
            portable::decode_from(row, g, g * row.group + 8 * whole, tail); // what a read would pass the end for
            room -= whole;
        }
    }
}
