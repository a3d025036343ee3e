//! Sixteen codes at a time, on AVX-512.

use super::{AFFINE, E4M3FN, E5M2, Meaning, Row, TABLE, avx2, portable};
use crate::simd::avx512::Table;
use crate::simd::{load_f32x16, load_i8x64, load_i32x16, load_u8x16, store_f32x16};
use std::arch::x86_64::*;

/// Codes that are read at once.
const WIDE: usize = 16;

#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")]
pub fn decode(row: Row<'_>, out: &mut [f32]) {
    of_kind!(row, bits, portable::decode, out);
}

#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")]
pub fn dot(row: Row<'_>, x: &[f32]) -> f32 {
    of_kind!(row, dot_bits, portable::dot, x)
}

/// A read of this many bytes holds sixteen codes.
const fn width(bits: usize) -> usize {
    if bits <= 4 { 8 } else { 16 }
}

/// How many times sixteen codes of a row can be read without passing its end.
fn whole(bytes: &[u8], bits: usize, count: usize) -> usize {
    bytes.len().checked_sub(width(bits)).map_or(0, |room| room / (2 * bits) + 1).min(count)
}

/// For each code the two bytes that it may lie in, and zeros.
const fn places(bits: usize) -> [i8; 64] {
    let mut places = [i8::MIN; 64];
    let mut code = 0;
    while code < WIDE {
        let first = (code * bits / 8) as i8;
        (places[4 * code], places[4 * code + 1]) = (first, first + 1);
        code += 1;
    }
    places
}

/// Where each code begins in the first of them.
const fn shifts(bits: usize) -> [i32; WIDE] {
    let mut shifts = [0; WIDE];
    let mut code = 0;
    while code < WIDE {
        shifts[code] = (code * bits % 8) as i32;
        code += 1;
    }
    shifts
}

/// Sixteen codes, with other bits above those of each. They are `2 BITS` bytes.
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
fn sixteen<const BITS: usize>(bytes: &[u8], at: usize) -> __m512i {
    let sixteen = if BITS <= 4 {
        let eight = bytes[at..].first_chunk().map_or(0, |eight| u64::from_le_bytes(*eight));
        _mm_set1_epi64x(eight.cast_signed())
    } else {
        load_u8x16(bytes[at..].first_chunk().unwrap_or(&[0; 16]))
    };
    if BITS == 8 {
        return _mm512_cvtepu8_epi32(sixteen);
    }
    let pairs = _mm512_shuffle_epi8(_mm512_broadcast_i32x4(sixteen), load_i8x64(&const { places(BITS) }));
    _mm512_srlv_epi32(pairs, load_i32x16(&const { shifts(BITS) }))
}

/// Codes of at most four bits less a zero point, in their order and again and again.
#[target_feature(enable = "avx512f")]
#[inline]
pub fn near(bits: usize, zero: f32) -> __m512 {
    let codes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    let codes = _mm512_and_si512(codes, _mm512_set1_epi32((1 << bits) - 1));
    _mm512_sub_ps(_mm512_cvtepi32_ps(codes), _mm512_set1_ps(zero))
}

/// What sixteen codes stand for, 1/256 of it for `E4M3FN`. `table`: the values, or those of [`near`] first.
#[target_feature(enable = "avx2,f16c,avx512f,avx512bw,avx512dq,avx512vl")]
#[inline]
fn meant<const BITS: usize, const MEANING: u8>(bytes: &[u8], at: usize, zero: __m512, table: &Table) -> __m512 {
    if MEANING == E5M2 || MEANING == E4M3FN {
        let codes = _mm256_cvtepi8_epi16(load_u8x16(bytes[at..].first_chunk().unwrap_or(&[0; 16])));
        if MEANING == E5M2 {
            return _mm512_cvtph_ps(_mm256_slli_epi16::<8>(codes));
        }
        // as binary16, whose exponents are larger by 8; widening copies the sign
        let wide = _mm256_slli_epi16::<7>(codes);
        return _mm512_cvtph_ps(_mm256_and_si256(wide, _mm256_set1_epi16(0xbf80_u16.cast_signed())));
    }
    let codes = sixteen::<BITS>(bytes, at);
    if MEANING == AFFINE && BITS > 4 {
        let codes = _mm512_and_si512(codes, _mm512_set1_epi32((1 << BITS) - 1));
        return _mm512_sub_ps(_mm512_cvtepi32_ps(codes), zero);
    }
    table.values::<BITS>(codes)
}

/// Registers whose sums are kept apart, so that no multiplication waits for the one before.
const APART: usize = 4;

#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")]
fn dot_bits<const BITS: usize, const MEANING: u8>(row: Row<'_>, table: &[f32], x: &[f32]) -> f32 {
    if !row.group.is_multiple_of(WIDE) && row.group != x.len() {
        return avx2::dot(row, x);
    }
    let bytes = row.bytes;
    let mut table = Table::of(BITS, table);
    let (mut total, mut rest) = (_mm512_setzero_ps(), 0.0);
    let (mut at, mut room) = (0, whole(bytes, BITS, x.len() / WIDE));
    for (g, x) in x.chunks(row.group).enumerate() {
        let zero = row.zero(g);
        if MEANING == AFFINE && BITS <= 4 {
            table = Table::sixteen(near(BITS, zero));
        }
        let whole = room.min(x.len() / WIDE);
        let (parts, tail) = x.split_at(WIDE * whole);
        let mut sums = [_mm512_setzero_ps(); APART];
        let (quads, single) = parts.as_chunks::<WIDE>().0.as_chunks::<APART>();
        for quad in quads {
            // Of one length: within it the compiler sees that every read is inside.
            let span = &bytes[at..at + (APART - 1) * 2 * BITS + width(BITS)];
            for (i, (sum, x)) in sums.iter_mut().zip(quad).enumerate() {
                let value = meant::<BITS, MEANING>(span, i * 2 * BITS, _mm512_set1_ps(zero), &table);
                *sum = _mm512_fmadd_ps(value, load_f32x16(x), *sum);
            }
            at += APART * 2 * BITS;
        }
        for (sum, x) in sums.iter_mut().zip(single) {
            let value = meant::<BITS, MEANING>(&bytes[at..at + width(BITS)], 0, _mm512_set1_ps(zero), &table);
            *sum = _mm512_fmadd_ps(value, load_f32x16(x), *sum);
            at += 2 * BITS;
        }
        let sum = _mm512_add_ps(_mm512_add_ps(sums[0], sums[1]), _mm512_add_ps(sums[2], sums[3]));
        total = _mm512_fmadd_ps(_mm512_set1_ps(row.scale[g]), sum, total);
        if !tail.is_empty() {
            rest += portable::dot_from(row, g, g * row.group + WIDE * whole, tail);
        }
        room -= whole;
    }
    _mm512_reduce_add_ps(total) * if MEANING == E4M3FN { 256.0 } else { 1.0 } + rest
}

#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")]
fn bits<const BITS: usize, const MEANING: u8>(row: Row<'_>, table: &[f32], out: &mut [f32]) {
    if !row.group.is_multiple_of(WIDE) && row.group != out.len() {
        return avx2::decode(row, out);
    }
    let mut table = Table::of(BITS, table);
    let bytes = row.bytes;
    let (mut at, mut room) = (0, whole(bytes, BITS, out.len() / WIDE));
    for (g, values) in out.chunks_mut(row.group).enumerate() {
        let (scale, zero) = (_mm512_set1_ps(row.scale[g]), row.zero(g));
        if MEANING == AFFINE && BITS <= 4 {
            table = Table::sixteen(near(BITS, zero));
        }
        let whole = room.min(values.len() / WIDE);
        let (parts, tail) = values.split_at_mut(WIDE * whole);
        for values in parts.as_chunks_mut::<WIDE>().0 {
            let mut value = meant::<BITS, MEANING>(&bytes[at..at + width(BITS)], 0, _mm512_set1_ps(zero), &table);
            if MEANING == E4M3FN {
                value = _mm512_mul_ps(value, _mm512_set1_ps(256.0));
            }
            store_f32x16(values, _mm512_mul_ps(scale, value));
            at += 2 * BITS;
        }
        if !tail.is_empty() {
            portable::decode_from(row, g, g * row.group + WIDE * whole, tail); // what a read would pass the end for
        }
        room -= whole;
    }
}
