//! One row of a dense bit stream as floats, `scale * (code - zero)`: decoded, or multiplied by a vector on the way.

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
    /// One zero point a group; `2^(bits-1)` where there are none.
    pub zero: Option<Zeros<'a>>,
    /// Codes a group.
    pub group: usize,
}

impl Row<'_> {
    fn zero(&self, group: usize) -> f32 {
        self.zero.map_or((1u32 << (self.bits - 1)) as f32, |zero| zero.get(group))
    }
}

/// Fills `out` with the values of a row; `out.len()` is a whole number of groups.
pub(super) fn decode(m: &Machine, row: Row<'_>, out: &mut [f32]) {
    match m.path() {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a machine with this path has AVX2.
        Path::Avx512 | Path::Avx2 => unsafe { avx2::decode(row, out) },
        #[cfg(not(target_arch = "x86_64"))]
        Path::Avx512 | Path::Avx2 => portable::decode(row, out),
        Path::Scalar => portable::decode(row, out),
    }
}

/// The sum over a row of `x` times its values, in one pass over the codes; `x` is as long as the row.
pub(super) fn dot(m: &Machine, row: Row<'_>, x: &[f32]) -> f32 {
    match m.path() {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a machine with this path has AVX2 and FMA.
        Path::Avx512 | Path::Avx2 => unsafe { avx2::dot(row, x) },
        #[cfg(not(target_arch = "x86_64"))]
        Path::Avx512 | Path::Avx2 => portable::dot(row, x),
        Path::Scalar => portable::dot(row, x),
    }
}

mod portable {
    use super::Row;

    pub fn decode(row: Row<'_>, out: &mut [f32]) {
        for (g, values) in out.chunks_exact_mut(row.group).enumerate() {
            decode_from(row, g, g * row.group, values);
        }
    }

    /// The codes from column `first` on, all of group `g`.
    pub fn decode_from(row: Row<'_>, g: usize, first: usize, values: &mut [f32]) {
        let (scale, zero) = (row.scale[g], row.zero(g));
        for (k, value) in values.iter_mut().enumerate() {
            *value = scale * (code(row, first + k) - zero);
        }
    }

    fn code(row: Row<'_>, column: usize) -> f32 {
        let bit = column * row.bits as usize;
        let low = row.words[bit / 32] as u32;
        let high = row.words.get(bit / 32 + 1).map_or(0, |&word| word as u32);
        (((u64::from(high) << 32 | u64::from(low)) >> (bit % 32)) & ((1 << row.bits) - 1)) as f32
    }

    pub fn dot(row: Row<'_>, x: &[f32]) -> f32 {
        let sums = x.chunks_exact(row.group).enumerate().map(|(g, x)| dot_from(row, g, g * row.group, x));
        sums.fold(0.0, |all, sum| all + sum)
    }

    /// Over the codes from column `first` on, all of group `g`.
    pub fn dot_from(row: Row<'_>, g: usize, first: usize, x: &[f32]) -> f32 {
        let zero = row.zero(g);
        let products = x.iter().enumerate().map(|(k, x)| x * (code(row, first + k) - zero));
        row.scale[g] * products.fold(0.0, |all, product| all + product)
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use super::{Row, portable};
    use crate::simd::{bytes, load_f32x8, store_f32x8, sum_f32x8};
    use std::arch::x86_64::*;

    #[target_feature(enable = "avx2")]
    pub fn decode(row: Row<'_>, out: &mut [f32]) {
        match row.bits {
            1 => bits::<1>(row, out),
            2 => bits::<2>(row, out),
            3 => bits::<3>(row, out),
            4 => bits::<4>(row, out),
            5 => bits::<5>(row, out),
            6 => bits::<6>(row, out),
            7 => bits::<7>(row, out),
            _ => bits::<8>(row, out),
        }
    }

    #[target_feature(enable = "avx2,fma")]
    pub fn dot(row: Row<'_>, x: &[f32]) -> f32 {
        match row.bits {
            1 => dot_bits::<1>(row, x),
            2 => dot_bits::<2>(row, x),
            3 => dot_bits::<3>(row, x),
            4 => dot_bits::<4>(row, x),
            5 => dot_bits::<5>(row, x),
            6 => dot_bits::<6>(row, x),
            7 => dot_bits::<7>(row, x),
            _ => dot_bits::<8>(row, x),
        }
    }

    /// A read of this many bytes holds eight codes.
    const fn width(bits: usize) -> usize {
        if bits <= 4 { 4 } else { 8 }
    }

    /// How many of the octets from byte `start` on can be read without passing the end of the row.
    fn whole(bytes: &[u8], bits: usize, start: usize, octets: usize) -> usize {
        (bytes.len() - start).checked_sub(width(bits)).map_or(0, |room| room / bits + 1).min(octets)
    }

    /// Eight codes as floats. They are `BITS` bytes: read as one little-endian number, copied to every lane and shifted there.
    #[target_feature(enable = "avx2")]
    #[inline]
    fn octet<const BITS: usize>(bytes: &[u8], at: usize) -> __m256 {
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
            let eight = bytes[at..].first_chunk::<8>().map_or(0, |eight| u64::from_le_bytes(*eight));
            _mm256_set_m128i(_mm_set1_epi32((eight >> (4 * BITS)) as i32), _mm_set1_epi32(eight as i32))
        };
        _mm256_cvtepi32_ps(_mm256_and_si256(_mm256_srlv_epi32(lanes, shift), _mm256_set1_epi32(mask)))
    }

    /// Octets whose sums are kept apart, so that no multiplication waits for the one before.
    const APART: usize = 4;

    #[target_feature(enable = "avx2,fma")]
    fn dot_bits<const BITS: usize>(row: Row<'_>, x: &[f32]) -> f32 {
        if !row.group.is_multiple_of(8) && row.group != x.len() {
            return portable::dot(row, x);
        }
        let bytes = bytes(row.words);
        let (mut total, mut rest) = (_mm256_setzero_ps(), 0.0);
        for (g, x) in x.chunks_exact(row.group).enumerate() {
            let zero = _mm256_set1_ps(row.zero(g));
            let first = g * row.group;
            let start = first / 8 * BITS;
            let whole = whole(bytes, BITS, start, x.len() / 8);
            let (octets, tail) = x.split_at(8 * whole);
            let mut sums = [_mm256_setzero_ps(); APART];
            let (quads, single) = octets.as_chunks::<8>().0.as_chunks::<APART>();
            // Windows of one length: within them the compiler sees that every read is inside.
            let spans = bytes[start..].windows((APART - 1) * BITS + width(BITS)).step_by(APART * BITS);
            for (bytes, quad) in spans.zip(quads) {
                for (i, (sum, x)) in sums.iter_mut().zip(quad).enumerate() {
                    let value = _mm256_sub_ps(octet::<BITS>(bytes, i * BITS), zero);
                    *sum = _mm256_fmadd_ps(value, load_f32x8(x), *sum);
                }
            }
            let after = start + APART * quads.len() * BITS;
            for ((bytes, sum), x) in bytes[after..].windows(width(BITS)).step_by(BITS).zip(&mut sums).zip(single) {
                let value = _mm256_sub_ps(octet::<BITS>(bytes, 0), zero);
                *sum = _mm256_fmadd_ps(value, load_f32x8(x), *sum);
            }
            let sum = _mm256_add_ps(_mm256_add_ps(sums[0], sums[1]), _mm256_add_ps(sums[2], sums[3]));
            total = _mm256_fmadd_ps(_mm256_set1_ps(row.scale[g]), sum, total);
            if !tail.is_empty() {
                rest += portable::dot_from(row, g, first + 8 * whole, tail);
            }
        }
        sum_f32x8(total) + rest
    }

    #[target_feature(enable = "avx2")]
    fn bits<const BITS: usize>(row: Row<'_>, out: &mut [f32]) {
        if !row.group.is_multiple_of(8) && row.group != out.len() {
            return portable::decode(row, out);
        }
        let bytes = bytes(row.words);
        for (g, values) in out.chunks_exact_mut(row.group).enumerate() {
            let (scale, zero) = (_mm256_set1_ps(row.scale[g]), _mm256_set1_ps(row.zero(g)));
            let first = g * row.group;
            let (octets, _) = values.as_chunks_mut::<8>();
            let start = first / 8 * BITS;
            let whole = whole(bytes, BITS, start, octets.len()); // the others are left to the portable body
            let spans = bytes[start..].windows(width(BITS)).step_by(BITS);
            for (bytes, values) in spans.zip(&mut octets[..whole]) {
                let value = _mm256_sub_ps(octet::<BITS>(bytes, 0), zero);
                store_f32x8(values, _mm256_mul_ps(scale, value));
            }
            portable::decode_from(row, g, first + 8 * whole, &mut values[8 * whole..]);
        }
    }
}
