//! What every vector body shares: views of memory, and arithmetic written so that the compiler turns it into vectors.
//!
//! Most bodies are one `#[inline(always)]` function over fixed-size arrays, compiled once as it is and once inside a
//! `#[target_feature]` function: the same operations in the same order, hence the same bits on every path.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

#[cfg(target_endian = "big")]
compile_error!("packed words are little-endian in memory");

/// The bytes of packed words, in memory order.
pub(crate) fn bytes(words: &[i32]) -> &[u8] {
    // SAFETY: every byte of an i32 is initialised, u8 has no alignment, and the length covers the same memory.
    unsafe { std::slice::from_raw_parts(words.as_ptr().cast(), size_of_val(words)) }
}

/// The bytes of packed words, in memory order, to be written.
pub(crate) fn bytes_mut(words: &mut [i32]) -> &mut [u8] {
    // SAFETY: as for `bytes`; any byte pattern is a valid i32, and the borrow stays exclusive.
    unsafe { std::slice::from_raw_parts_mut(words.as_mut_ptr().cast(), size_of_val(words)) }
}

/// 1.5 * 2^23: adding it to |x| < 2^22 leaves `x` rounded to the nearest integer, half to even, in the low bits.
pub(crate) const ROUND: f32 = 12_582_912.0;

/// `x` rounded to the nearest integer, half to even, for |x| < 2^22; two vector additions on every machine.
#[inline(always)]
pub(crate) fn rint(x: f32) -> f32 {
    (x + ROUND) - ROUND
}

/// `x^p` for finite `x >= 0` and `p > 0`, within about 2e-6 of it, held to 2^-126..2^127 (0 stays 0): the same operations
/// on every machine, where the C library's differ.
#[inline(always)]
pub(crate) fn pow(x: f32, p: f32) -> f32 {
    // x = 2^e m with m between the square roots of 1/2 and 2; both polynomials are least-maximum fits
    const LOG2: [f32; 9] = [
        std::f32::consts::LOG2_E,
        -0.721_347_2,
        0.480_910_27,
        -0.360_716_25,
        0.287_939_07,
        -0.238_675_82,
        0.215_212_54,
        -0.208_933,
        0.129_262_5,
    ];
    const EXP2: [f32; 6] = [1.000_000_1, 0.693_147_24, 0.240_221_07, 0.055_502_973, 0.009_676_036, 0.001_341];
    let e = (x.to_bits() as i32 - 0x3f35_04f3) >> 23;
    let f = f32::from_bits((x.to_bits() as i32 - (e << 23)) as u32) - 1.0;
    let log = e as f32 + f * LOG2.iter().rev().fold(0.0, |sum, c| sum * f + c);
    let power = p * log;
    let power = if power > -126.0 { power } else { -126.0 };
    let power = if power < 127.0 { power } else { 127.0 };
    let whole = rint(power);
    let part = power - whole;
    let mantissa = EXP2.iter().rev().fold(0.0, |sum, c| sum * part + c);
    let result = mantissa * f32::from_bits((whole as i32 + 127) as u32 * (1 << 23));
    if x == 0.0 { 0.0 } else { result }
}

/// Eight floats.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
#[inline]
pub(crate) fn load_f32x8(from: &[f32; 8]) -> __m256 {
    // SAFETY: an unaligned read of the whole array.
    unsafe { _mm256_loadu_ps(from.as_ptr()) }
}

/// Eight floats.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
#[inline]
pub(crate) fn store_f32x8(to: &mut [f32; 8], value: __m256) {
    // SAFETY: an unaligned write of the whole array.
    unsafe { _mm256_storeu_ps(to.as_mut_ptr(), value) }
}

/// Sixteen integers.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
#[inline]
pub(crate) fn load_i16x16(from: &[i16; 16]) -> __m256i {
    // SAFETY: an unaligned read of the whole array.
    unsafe { _mm256_loadu_si256(from.as_ptr().cast()) }
}

/// Sixteen bytes with their signs, each widened to two.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
#[inline]
pub(crate) fn load_i8x16_wide(from: &[i8; 16]) -> __m256i {
    // SAFETY: an unaligned read of the whole array.
    _mm256_cvtepi8_epi16(unsafe { _mm_loadu_si128(from.as_ptr().cast()) })
}

/// Sixty-four signed bytes.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
#[inline]
pub(crate) fn load_i8x64(from: &[i8; 64]) -> __m512i {
    // SAFETY: an unaligned read of the whole array.
    unsafe { _mm512_loadu_si512(from.as_ptr().cast()) }
}

/// Sixty-four unsigned bytes.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
#[inline]
pub(crate) fn load_u8x64(from: &[u8; 64]) -> __m512i {
    // SAFETY: an unaligned read of the whole array.
    unsafe { _mm512_loadu_si512(from.as_ptr().cast()) }
}

/// The sum of eight floats: of the halves, then of the quarters, then of the last two.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
#[inline]
pub(crate) fn sum_f32x8(value: __m256) -> f32 {
    let four = _mm_add_ps(_mm256_castps256_ps128(value), _mm256_extractf128_ps::<1>(value));
    let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
}

/// The sum of eight integers, modulo 2^32.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
#[inline]
pub(crate) fn sum_i32x8(value: __m256i) -> i32 {
    let four = _mm_add_epi32(_mm256_castsi256_si128(value), _mm256_extracti128_si256::<1>(value));
    let two = _mm_add_epi32(four, _mm_shuffle_epi32::<0b1110>(four));
    _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32::<0b01>(two)))
}
