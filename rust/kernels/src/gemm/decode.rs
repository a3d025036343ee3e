//! One row of a dense bit stream as floats, `scale * (code - zero)` or `scale * table[code]`: decoded, or multiplied by a vector
//! on the way: many codes at a time where they are arranged as `nibbles` or, on AVX-512, `words` have them, all others by eight or
//! sixteen.

use super::nibbles::Kind;
#[cfg(target_arch = "x86_64")]
use super::words;
use crate::minifloat::{E4m3fn, E5m2, Element};
use crate::quantize::Zeros;
use crate::{Machine, Path};
use std::any::TypeId;
use std::borrow::Cow;
#[cfg(target_arch = "x86_64")]
pub(super) use wide::near;

/// Which [`Meaning`] codes have.
#[cfg(target_arch = "x86_64")]
const AFFINE: u8 = 0;
#[cfg(target_arch = "x86_64")]
const TABLE: u8 = 1;
#[cfg(target_arch = "x86_64")]
const E4M3FN: u8 = 2;
#[cfg(target_arch = "x86_64")]
const E5M2: u8 = 3;

/// Calls a body for the width of the codes and what they mean, `body::<BITS, MEANING>(row, table, rest)`; the portable one for E4M3
/// with a NaN.
#[cfg(target_arch = "x86_64")]
macro_rules! of_kind {
    ($row:ident, $body:ident, $portable:path, $rest:expr) => {
        match $row.meaning {
            Meaning::Affine(_) => of_kind!($row, $body::<AFFINE>, &[], $rest),
            Meaning::Table(table) => of_kind!($row, $body::<TABLE>, table, $rest),
            Meaning::E4m3fn if $crate::gemm::decode::avx2::nan($row) => $portable($row, $rest),
            Meaning::E4m3fn => $body::<8, E4M3FN>($row, &[], $rest),
            Meaning::E5m2 => $body::<8, E5M2>($row, &[], $rest),
        }
    };
    ($row:ident, $body:ident::<$meaning:ident>, $table:expr, $rest:expr) => {
        match $row.bits {
            1 => $body::<1, $meaning>($row, $table, $rest),
            2 => $body::<2, $meaning>($row, $table, $rest),
            3 => $body::<3, $meaning>($row, $table, $rest),
            4 => $body::<4, $meaning>($row, $table, $rest),
            5 => $body::<5, $meaning>($row, $table, $rest),
            6 => $body::<6, $meaning>($row, $table, $rest),
            7 => $body::<7, $meaning>($row, $table, $rest),
            _ => $body::<8, $meaning>($row, $table, $rest),
        }
    };
}

#[cfg(target_arch = "x86_64")]
mod wide;

/// Codes of one row of weights, with the parameters of its groups.
#[derive(Clone, Copy)]
pub(super) struct Row<'a> {
    /// The dense little-endian bit stream of the row; what lies behind it counts for nothing.
    pub bytes: &'a [u8],
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
    /// The other one.
    E5m2,
}

impl<'a> Meaning<'a> {
    /// That of codes of `E` in so many bits; `table` is where its values go.
    pub fn of<E: Element>(bits: u32, table: &'a mut Vec<f32>) -> Self {
        if TypeId::of::<E>() == TypeId::of::<E4m3fn>() {
            return Self::E4m3fn;
        }
        if TypeId::of::<E>() == TypeId::of::<E5m2>() {
            return Self::E5m2;
        }
        table.resize(values(bits), 0.0);
        (0..1u16 << bits).zip(table.iter_mut()).for_each(|(code, value)| *value = E::decode(code as u8));
        Self::Table(table)
    }
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
    pub(super) fn zero(&self, group: usize) -> f32 {
        match self.meaning {
            Meaning::Affine(Some(zero)) => zero.get(group),
            _ => (1i32 << (self.bits - 1)) as f32,
        }
    }
}

/// Fills `out` with the values of a row, whose last group may be short.
pub(super) fn decode(m: &Machine, row: Row<'_>, out: &mut [f32]) {
    match m.path() {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a machine with this path has AVX-512.
        Path::Amx | Path::Avx512 => unsafe { wide::decode(row, out) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a machine with this path has AVX2.
        Path::Avx2 => unsafe { avx2::decode(row, out) },
        #[cfg(not(target_arch = "x86_64"))]
        Path::Amx | Path::Avx512 | Path::Avx2 => portable::decode(row, out),
        Path::Scalar => portable::decode(row, out),
    }
}

/// A vector that is multiplied with many rows of one kind.
pub(super) struct Vector<'a> {
    numbers: Cow<'a, [f32]>,
    order: Order,
}

/// What codes the numbers of a vector are arranged for.
#[derive(Clone, Copy)]
enum Order {
    /// Those of a row, one after the other.
    Columns,
    Nibbles(Kind),
    #[cfg(target_arch = "x86_64")]
    Words,
}

impl<'a> Vector<'a> {
    /// `x` for rows like this one, which are as long.
    pub fn of(m: &Machine, x: &'a [f32], row: Row<'_>) -> Self {
        #[cfg(target_arch = "x86_64")]
        if m.path() >= Path::Avx512 {
            return if words::suit(row, x.len()) {
                Self { numbers: words::arranged(row.bits, x).into(), order: Order::Words }
            } else {
                Self { numbers: x.into(), order: Order::Columns }
            };
        }
        let vectors = m.path() != Path::Scalar && cfg!(target_arch = "x86_64");
        match Kind::of(row, x.len()).filter(|_| vectors) {
            Some(kind) => Self { numbers: kind.arranged(x).into(), order: Order::Nibbles(kind) },
            None => Self { numbers: x.into(), order: Order::Columns },
        }
    }

    /// The sum over a row of this times its values, in one pass over the codes.
    pub fn dot(&self, m: &Machine, row: Row<'_>) -> f32 {
        match (m.path(), self.order) {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: a machine with this path has AVX-512.
            (Path::Amx | Path::Avx512, Order::Words) => unsafe { words::dot(row, &self.numbers) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            (Path::Amx | Path::Avx512, Order::Columns) => unsafe { wide::dot(row, &self.numbers) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: a machine with this path has AVX2 and FMA.
            (Path::Avx2, Order::Nibbles(kind)) => unsafe { super::nibbles::avx2::dot(kind, row, &self.numbers) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above, and F16C.
            (Path::Avx2, Order::Columns) => unsafe { avx2::dot(row, &self.numbers) },
            _ => portable::dot(row, &self.numbers),
        }
    }
}

mod portable {
    use super::{Meaning, Row};
    use crate::minifloat::{E4m3fn, E5m2, portable::decode_one};

    pub fn decode(row: Row<'_>, out: &mut [f32]) {
        for (g, values) in out.chunks_mut(row.group).enumerate() {
            decode_from(row, g, g * row.group, values);
        }
    }

    /// The codes from column `first` on, all of group `g`. Apart from the bodies that call it for what they leave: inside them it would
    /// be made of their instructions.
    #[inline(never)]
    pub fn decode_from(row: Row<'_>, g: usize, first: usize, values: &mut [f32]) {
        let scale = row.scale[g];
        meant(row, g, first, values.len(), |k, value| values[k] = scale * value);
    }

    /// Calls `put(k, value)` with what each of so many codes from column `first` on, all of group `g`, stands for.
    #[inline(always)]
    fn meant(row: Row<'_>, g: usize, first: usize, count: usize, mut put: impl FnMut(usize, f32)) {
        let zero = row.zero(g);
        let codes = (0..count).map(|k| (k, code(row, first + k)));
        match row.meaning {
            Meaning::Affine(_) => codes.for_each(|(k, code)| put(k, code as f32 - zero)),
            Meaning::Table(table) => codes.for_each(|(k, code)| put(k, table[code])),
            Meaning::E4m3fn => codes.for_each(|(k, code)| put(k, f32::from_bits(decode_one::<E4m3fn>(code as u32)))),
            Meaning::E5m2 => codes.for_each(|(k, code)| put(k, f32::from_bits(decode_one::<E5m2>(code as u32)))),
        }
    }

    #[inline(always)]
    fn code(row: Row<'_>, column: usize) -> usize {
        let bit = column * row.bits as usize;
        let high = row.bytes.get(bit / 8 + 1).copied().unwrap_or(0);
        usize::from(u16::from_le_bytes([row.bytes[bit / 8], high])) >> (bit % 8) & ((1 << row.bits) - 1)
    }

    pub fn dot(row: Row<'_>, x: &[f32]) -> f32 {
        let sums = x.chunks(row.group).enumerate().map(|(g, x)| dot_from(row, g, g * row.group, x));
        sums.fold(0.0, |all, sum| all + sum)
    }

    /// Over the codes from column `first` on, all of group `g`; apart, as above.
    #[inline(never)]
    pub fn dot_from(row: Row<'_>, g: usize, first: usize, x: &[f32]) -> f32 {
        let mut all = 0.0;
        meant(row, g, first, x.len(), |k, value| all += x[k] * value);
        row.scale[g] * all
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use super::{AFFINE, E4M3FN, E5M2, EIGHT, Meaning, Row, TABLE, portable};
    use crate::simd::{load_f32x8, store_f32x8, sum_f32x8};
    use std::arch::x86_64::*;

    #[target_feature(enable = "avx2,f16c")]
    pub fn decode(row: Row<'_>, out: &mut [f32]) {
        of_kind!(row, bits, portable::decode, out);
    }

    #[target_feature(enable = "avx2,fma,f16c")]
    pub fn dot(row: Row<'_>, x: &[f32]) -> f32 {
        of_kind!(row, dot_bits, portable::dot, x)
    }

    /// Whether a code of E4M3 is NaN.
    #[target_feature(enable = "avx2")]
    pub fn nan(row: Row<'_>) -> bool {
        row.bytes.iter().fold(false, |any, code| any | (code & 0x7f == 0x7f))
    }

    /// A read of this many bytes holds eight codes.
    const fn width(bits: usize) -> usize {
        if bits <= 4 { 4 } else { 8 }
    }

    /// How many of the octets of a row can be read without passing its end.
    fn whole(bytes: &[u8], bits: usize, octets: usize) -> usize {
        bytes.len().checked_sub(width(bits)).map_or(0, |room| room / bits + 1).min(octets)
    }

    /// Eight codes. They are `BITS` bytes: read as one little-endian number, whose parts are copied to where they are shifted.
    #[target_feature(enable = "avx2")]
    #[inline]
    fn octet<const BITS: usize>(bytes: &[u8], at: usize) -> __m256i {
        let (steps, mask) = (_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), _mm256_set1_epi32((1 << BITS) - 1));
        let shifts = _mm256_mullo_epi32(steps, _mm256_set1_epi32(BITS as i32));
        if BITS <= 4 {
            let four = bytes[at..].first_chunk::<4>().map_or(0, |four| i32::from_le_bytes(*four));
            return _mm256_and_si256(_mm256_srlv_epi32(_mm256_set1_epi32(four), shifts), mask);
        }
        let eight = eight(bytes, at).cast_signed();
        if BITS == 8 {
            return _mm256_cvtepu8_epi32(_mm_cvtsi64_si128(eight));
        }
        // the two bytes that a code may lie in
        let first = _mm256_srli_epi32::<3>(shifts);
        let pairs = _mm256_or_si256(first, _mm256_slli_epi32::<8>(_mm256_add_epi32(first, _mm256_set1_epi32(1))));
        let pairs = _mm256_or_si256(pairs, _mm256_set1_epi32(0x8080_0000_u32.cast_signed()));
        let lanes = _mm256_shuffle_epi8(_mm256_set1_epi64x(eight), pairs);
        _mm256_and_si256(_mm256_srlv_epi32(lanes, _mm256_and_si256(shifts, _mm256_set1_epi32(7))), mask)
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

    /// What eight codes stand for, 1/256 of it for `E4M3FN`; `near` holds the first values of a table, `far` all of them where they are 256.
    #[target_feature(enable = "avx2,f16c")]
    #[inline]
    fn meant<const BITS: usize, const MEANING: u8>(
        bytes: &[u8],
        at: usize,
        zero: __m256,
        near: [__m256; 2],
        far: &[f32; 256],
    ) -> __m256 {
        if MEANING == E5M2 {
            let eight = _mm_cvtsi64_si128(eight(bytes, at).cast_signed());
            return _mm256_cvtph_ps(_mm_unpacklo_epi8(_mm_setzero_si128(), eight));
        }
        if MEANING == E4M3FN {
            // as binary16, whose exponents are larger by 8; widening copies the sign
            let wide = _mm_slli_epi16::<7>(_mm_cvtepi8_epi16(_mm_cvtsi64_si128(eight(bytes, at).cast_signed())));
            return _mm256_cvtph_ps(_mm_and_si128(wide, _mm_set1_epi16(0xbf80_u16.cast_signed())));
        }
        if MEANING == TABLE && BITS > 4 {
            let eight = eight(bytes, at);
            let value = |i: usize| far[usize::from((eight >> (i * BITS)) as u8 & (0xff >> (8 - BITS)))];
            let [a, b, c, d, e, f, g, h] = [0, 1, 2, 3, 4, 5, 6, 7].map(value);
            return _mm256_setr_ps(a, b, c, d, e, f, g, h);
        }
        let codes = octet::<BITS>(bytes, at);
        match BITS {
            _ if MEANING == AFFINE => _mm256_sub_ps(_mm256_cvtepi32_ps(codes), zero),
            1..=3 => _mm256_permutevar8x32_ps(near[0], codes),
            _ => {
                let low = _mm256_permutevar8x32_ps(near[0], codes);
                let high = _mm256_permutevar8x32_ps(near[1], codes);
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
        let bytes = row.bytes;
        let (near, far) = (registers(table), table.first_chunk().unwrap_or(&[0.0; 256]));
        let (mut total, mut rest) = (_mm256_setzero_ps(), 0.0);
        let (mut at, mut room) = (0, whole(bytes, BITS, x.len() / 8));
        for (g, x) in x.chunks(row.group).enumerate() {
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
            for x in single {
                let value = meant::<BITS, MEANING>(&bytes[at..at + width(BITS)], 0, zero, near, far);
                sums[0] = _mm256_fmadd_ps(value, load_f32x8(x), sums[0]);
                at += BITS;
            }
            let sum = _mm256_add_ps(_mm256_add_ps(sums[0], sums[1]), _mm256_add_ps(sums[2], sums[3]));
            total = _mm256_fmadd_ps(_mm256_set1_ps(row.scale[g]), sum, total);
            if !tail.is_empty() {
                rest += portable::dot_from(row, g, g * row.group + 8 * whole, tail);
            }
            room -= whole;
        }
        sum_f32x8(total) * if MEANING == E4M3FN { 256.0 } else { 1.0 } + rest
    }

    #[target_feature(enable = "avx2,f16c")]
    fn bits<const BITS: usize, const MEANING: u8>(row: Row<'_>, table: &[f32], out: &mut [f32]) {
        if !row.group.is_multiple_of(8) && row.group != out.len() {
            return portable::decode(row, out);
        }
        let (near, far) = (registers(table), table.first_chunk().unwrap_or(&[0.0; 256]));
        let bytes = row.bytes;
        let (mut at, mut room) = (0, whole(bytes, BITS, out.len() / 8));
        for (g, values) in out.chunks_mut(row.group).enumerate() {
            let (scale, zero) = (_mm256_set1_ps(row.scale[g]), _mm256_set1_ps(row.zero(g)));
            let whole = room.min(values.len() / 8);
            let (octets, tail) = values.split_at_mut(8 * whole);
            for values in octets.as_chunks_mut::<8>().0 {
                let mut value = meant::<BITS, MEANING>(&bytes[at..at + width(BITS)], 0, zero, near, far);
                if MEANING == E4M3FN {
                    value = _mm256_mul_ps(value, _mm256_set1_ps(256.0));
                }
                store_f32x8(values, _mm256_mul_ps(scale, value));
                at += BITS;
            }
            if !tail.is_empty() {
                portable::decode_from(row, g, g * row.group + 8 * whole, tail); // what a read would pass the end for
            }
            room -= whole;
        }
    }
}
