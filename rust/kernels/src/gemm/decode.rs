//! One row of a dense bit stream to floats: `scale * (code - zero)`, what every weight-only product starts with.

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

mod portable {
    use super::Row;

    pub fn decode(row: Row<'_>, out: &mut [f32]) {
        for (g, values) in out.chunks_exact_mut(row.group).enumerate() {
            decode_from(row, g, g * row.group, values);
        }
    }

    /// The codes from column `first` on, all of group `g`.
    pub fn decode_from(row: Row<'_>, g: usize, first: usize, values: &mut [f32]) {
        let (bits, mask) = (row.bits as usize, (1u64 << row.bits) - 1);
        let (scale, zero) = (row.scale[g], row.zero(g));
        for (k, value) in values.iter_mut().enumerate() {
            let bit = (first + k) * bits;
            let low = row.words[bit / 32] as u32;
            let high = row.words.get(bit / 32 + 1).map_or(0, |&word| word as u32);
            let code = ((u64::from(high) << 32 | u64::from(low)) >> (bit % 32)) & mask;
            *value = scale * (code as f32 - zero);
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use super::{Row, portable};
    use crate::simd::{bytes, store_f32x8};
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

    /// Eight codes are `BITS` bytes: they are read as one little-endian number, copied to every lane and shifted there.
    #[target_feature(enable = "avx2")]
    fn bits<const BITS: usize>(row: Row<'_>, out: &mut [f32]) {
        if !row.group.is_multiple_of(8) && row.group != out.len() {
            return portable::decode(row, out);
        }
        let bytes = bytes(row.words);
        let shift = if BITS <= 4 {
            _mm256_mullo_epi32(_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), _mm256_set1_epi32(BITS as i32))
        } else {
            _mm256_mullo_epi32(_mm256_setr_epi32(0, 1, 2, 3, 0, 1, 2, 3), _mm256_set1_epi32(BITS as i32))
        };
        let mask = _mm256_set1_epi32((1 << BITS) - 1);
        for (g, values) in out.chunks_exact_mut(row.group).enumerate() {
            let (scale, zero) = (_mm256_set1_ps(row.scale[g]), _mm256_set1_ps(row.zero(g)));
            let first = g * row.group;
            let (octets, _) = values.as_chunks_mut::<8>();
            // A read of 4 or 8 bytes may pass the end of the row: the octets for which it would are left to the portable body.
            let width = if BITS <= 4 { 4 } else { 8 };
            let start = first / 8 * BITS;
            let whole = (bytes.len() - start).checked_sub(width).map_or(0, |room| room / BITS + 1).min(octets.len());
            let mut at = start;
            for octet in &mut octets[..whole] {
                let lanes = if BITS <= 4 {
                    let four = bytes[at..].first_chunk::<4>().map_or(0, |four| i32::from_le_bytes(*four));
                    _mm256_set1_epi32(four)
                } else {
                    let eight = bytes[at..].first_chunk::<8>().map_or(0, |eight| u64::from_le_bytes(*eight));
                    _mm256_set_m128i(_mm_set1_epi32((eight >> (4 * BITS)) as i32), _mm_set1_epi32(eight as i32))
                };
                at += BITS;
                let code = _mm256_and_si256(_mm256_srlv_epi32(lanes, shift), mask);
                let value = _mm256_mul_ps(scale, _mm256_sub_ps(_mm256_cvtepi32_ps(code), zero));
                store_f32x8(octet, value);
            }
            portable::decode_from(row, g, first + 8 * whole, &mut values[8 * whole..]);
        }
    }
}
