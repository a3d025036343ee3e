//! Casts between f32 and narrower floats, and blocks of them that share a scale. Limit: memory.
//!
//! NaN becomes the quiet NaN named by the format, with its sign; zeros keep theirs; subnormals, of either side, are exact.
//! Formats below 8 bits, and those of OliVe, have neither NaN nor infinity: both become the largest value, with their sign.

mod block;
mod narrow;
mod rounding;

pub use block::{BlockScale, Element, Int, Rule, dequantize_block, quantize_block};
pub use narrow::Narrow;
pub use rounding::Rounding;

use crate::error::expect_len;
use crate::parts::Rows;
use crate::{Machine, Path, Result};

/// Floats narrower than f32, in the terms the casts need; sealed.
pub trait Format: sealed::Sealed + Copy + Send + Sync + 'static {
    /// What holds a code: `u8` or `u16`.
    type Code: Bits;
    /// Bits of the mantissa.
    const MANTISSA: u32;
    /// Bias of the exponent.
    const BIAS: i32;
    /// The least magnitude: 0, or 1 where that stands for no number.
    const LEAST: u32;
    /// The magnitude of the largest finite value.
    const LARGEST: u32;
    /// The magnitude that stands for what lies above it, unless saturating.
    const OVERFLOW: u32;
    /// The magnitude of the quiet NaN.
    const NAN: u32;
    /// The place of the sign.
    const SIGN: u32;
    /// What the biased exponents of f32 are larger by.
    #[doc(hidden)]
    const REBIAS: u32 = (127 - Self::BIAS).cast_unsigned();
    /// Whether the least exponent is that of zero and of subnormals.
    #[doc(hidden)]
    const GRADUAL: bool = Self::LEAST == 0 && Self::MANTISSA > 0;
    #[doc(hidden)]
    fn narrow(code: u32) -> Self::Code;
    #[doc(hidden)]
    fn widen(code: Self::Code) -> u32;
}

mod sealed {
    pub trait Sealed {}
}

/// What holds a code; sealed.
pub trait Bits: sealed::Sealed + Copy + Send + Sync {
    #[doc(hidden)]
    fn halves(codes: &[Self]) -> Option<&[u16]>;
    #[doc(hidden)]
    fn bytes(codes: &[Self]) -> Option<&[u8]>;
    #[doc(hidden)]
    fn held(codes: &mut [Self]) -> Held<'_>;
}

/// Codes by what holds them, for bodies that differ in that.
#[doc(hidden)]
pub enum Held<'a> {
    Bytes(&'a mut [u8]),
    Halves(&'a mut [u16]),
}

impl sealed::Sealed for u8 {}
impl Bits for u8 {
    fn halves(_: &[Self]) -> Option<&[u16]> {
        None
    }
    fn bytes(codes: &[Self]) -> Option<&[u8]> {
        Some(codes)
    }
    fn held(codes: &mut [Self]) -> Held<'_> {
        Held::Bytes(codes)
    }
}

impl sealed::Sealed for u16 {}
impl Bits for u16 {
    fn halves(codes: &[Self]) -> Option<&[u16]> {
        Some(codes)
    }
    fn bytes(_: &[Self]) -> Option<&[u8]> {
        None
    }
    fn held(codes: &mut [Self]) -> Held<'_> {
        Held::Halves(codes)
    }
}

macro_rules! format {
    ($name:ident, $code:ty, $sign:literal, $mantissa:literal, $bias:literal, $least:literal, $largest:literal, $overflow:literal, $nan:literal, $doc:literal) => {
        #[doc = $doc]
        #[derive(Debug, Clone, Copy)]
        pub struct $name;
        impl sealed::Sealed for $name {}
        impl Format for $name {
            type Code = $code;
            const MANTISSA: u32 = $mantissa;
            const BIAS: i32 = $bias;
            const LEAST: u32 = $least;
            const LARGEST: u32 = $largest;
            const OVERFLOW: u32 = $overflow;
            const NAN: u32 = $nan;
            const SIGN: u32 = $sign;
            #[inline(always)]
            fn narrow(code: u32) -> $code {
                code as $code
            }
            #[inline(always)]
            fn widen(code: $code) -> u32 {
                code.into()
            }
        }
    };
}

format!(E4m3fn, u8, 7, 3, 7, 0, 0x7e, 0x7f, 0x7f, "OCP FP8 E4M3: largest 448, no infinity, NaN 0x7f.");
format!(E5m2, u8, 7, 2, 15, 0, 0x7b, 0x7c, 0x7e, "OCP FP8 E5M2: largest 57344, infinity 0x7c, NaN 0x7e.");
format!(E3m2, u8, 5, 2, 3, 0, 0x1f, 0x1f, 0x1f, "OCP FP6 E3M2: largest 28.");
format!(E2m3, u8, 5, 3, 1, 0, 0x1f, 0x1f, 0x1f, "OCP FP6 E2M3: largest 7.5.");
format!(E2m1, u8, 3, 1, 1, 0, 0x07, 0x07, 0x07, "OCP FP4 E2M1: largest 6.");
format!(
    E8m0,
    u8, 8, 0, 127, 0, 0xfe, 0xff, 0xff, "OCP scales: 2^(code - 127), NaN 0xff; no zero and no sign, ties go up."
);
format!(Bf16, u16, 15, 7, 127, 0, 0x7f7f, 0x7f80, 0x7fc0, "bfloat16: the upper half of an f32, NaN 0x7fc0.");
format!(F16, u16, 15, 10, 15, 0, 0x7bff, 0x7c00, 0x7e00, "IEEE binary16: largest 65504, NaN 0x7e00.");
format!(AbE2m1, u8, 3, 1, -1, 1, 0x07, 0x07, 0x07, "OliVe's abfloat of 4 bits: (2 + m) 2^e, 3 to 24, no zero.");
format!(AbE2m5, u8, 7, 5, -5, 1, 0x7f, 0x7f, 0x7f, "OliVe's abfloat of 8 bits, its code's: (32 + m) 2^e, 33 to 504.");
format!(AbE4m3, u8, 7, 3, -3, 1, 0x7f, 0x7f, 0x7f, "OliVe's abfloat of 8 bits, its paper's: (8 + m) 2^e, 9 to 491520.");

/// Elements worth a thread, and the unit in which they are cut. The fastest casts do so many in the time in which a
/// sleeping thread wakes.
const GRAIN: usize = 1 << 17;
const BLOCK: usize = 64;

/// Casts `x` to `codes` of the same length. What rounds beyond the largest finite value becomes that value with `saturate`,
/// infinity included; else infinity, which for [`E4m3fn`] is NaN.
///
/// Errors: `Shape` for another length.
pub fn encode<F: Format>(
    m: &Machine,
    x: Narrow<'_>,
    rounding: Rounding,
    saturate: bool,
    codes: &mut [F::Code],
) -> Result<()> {
    expect_len("codes", codes.len(), x.len())?;
    m.split_parts(x.len().div_ceil(BLOCK), GRAIN / BLOCK, Rows::new(codes, BLOCK), |range, codes| {
        let (start, codes) = (range.start * BLOCK, codes.all());
        x.pieces(m.path(), start..start + codes.len(), |at, x| {
            let (start, codes) = (start + at, &mut codes[at..at + x.len()]);
            match m.path() {
                // SAFETY: a machine with this path has AVX2.
                Path::Amx | Path::Avx512 | Path::Avx2 => unsafe {
                    avx2::encode::<F>(x, start, rounding, saturate, codes)
                },
                Path::Scalar => portable::encode::<F>(x, start, rounding, saturate, codes),
            }
        });
    });
    Ok(())
}

/// Casts `codes` to `x` of the same length, exactly; NaN becomes 0x7fc00000 with its sign. Bits of a code above those of
/// its format count for nothing.
///
/// Errors: `Shape` for another length.
pub fn decode<F: Format>(m: &Machine, codes: &[F::Code], x: &mut [f32]) -> Result<()> {
    expect_len("x", x.len(), codes.len())?;
    m.split_parts(codes.len().div_ceil(BLOCK), GRAIN / BLOCK, Rows::new(x, BLOCK), |range, x| {
        let codes = &codes[range.start * BLOCK..codes.len().min(range.end * BLOCK)];
        decode_some::<F>(m.path(), codes, x.all());
    });
    Ok(())
}

/// [`decode`] on the caller's thread.
pub(crate) fn decode_some<F: Format>(path: Path, codes: &[F::Code], x: &mut [f32]) {
    match path {
        // SAFETY: whoever has this path of a machine has AVX2.
        Path::Amx | Path::Avx512 | Path::Avx2 => unsafe { avx2::decode::<F>(codes, x) },
        Path::Scalar => portable::decode::<F>(codes, x),
    }
}

pub(crate) mod portable {
    use super::{Format, Rounding, rounding};

    pub(super) const MAGNITUDE: u32 = 0x7fff_ffff;
    const INFINITY: u32 = 0x7f80_0000;

    /// Casts `x`, whose first number is the one at `start`.
    #[inline(always)]
    pub(super) fn encode<F: Format>(x: &[f32], start: usize, by: Rounding, saturate: bool, codes: &mut [F::Code]) {
        if by == Rounding::Even {
            for (x, code) in x.iter().zip(codes) {
                *code = F::narrow(encode_one::<F>(x.to_bits(), saturate));
            }
        } else {
            rounding::encode::<F>(x, start, by, saturate, codes);
        }
    }

    #[inline(always)]
    pub fn decode<F: Format>(codes: &[F::Code], x: &mut [f32]) {
        for (code, x) in codes.iter().zip(x) {
            *x = f32::from_bits(decode_one::<F>(F::widen(*code)));
        }
    }

    /// To nearest, ties to even. Without a branch, so that the loop becomes vectors.
    #[inline(always)]
    pub fn encode_one<F: Format>(bits: u32, saturate: bool) -> u32 {
        let magnitude = bits & MAGNITUDE;
        let drop = 23 - F::MANTISSA;
        // without a mantissa nothing is even: ties go up, as everyone casts scales
        let odd = if F::MANTISSA == 0 { 1 } else { (magnitude >> drop) & 1 };
        let rounded = (magnitude + ((1 << (drop - 1)) - 1) + odd) >> drop;
        let mut code = rounded.wrapping_sub(F::REBIAS << F::MANTISSA);
        if F::GRADUAL && F::REBIAS != 0 {
            // the unit of this float in the last place is the smallest subnormal: the addition rounds to it
            let unit = (F::REBIAS + drop + 1) << 23;
            let subnormal = (f32::from_bits(magnitude) + f32::from_bits(unit)).to_bits().wrapping_sub(unit);
            code = if magnitude < (F::REBIAS + 1) << 23 { subnormal } else { code };
        }
        if F::LEAST > 0 {
            code = if code.cast_signed() > F::LEAST.cast_signed() { code } else { F::LEAST };
        }
        if F::MANTISSA == 0 {
            // f32 has 2^-127, the smallest scale, as a subnormal; 1.5 of it is a tie
            code = if magnitude < 1 << 23 { (magnitude >= 0x0060_0000).into() } else { code };
        }
        finish::<F>(bits, code, saturate)
    }

    /// The code of a number whose magnitude is rounded, on as if there were no largest one.
    #[inline(always)]
    pub(super) fn finish<F: Format>(bits: u32, code: u32, saturate: bool) -> u32 {
        let past = if saturate { F::LARGEST } else { F::OVERFLOW };
        let code = if code > F::LARGEST { past } else { code };
        let code = if bits & MAGNITUDE > INFINITY { F::NAN } else { code };
        code | (bits >> 31) << F::SIGN
    }

    #[inline(always)]
    pub fn decode_one<F: Format>(code: u32) -> u32 {
        let magnitude = code & ((1 << F::SIGN) - 1);
        let shifted = magnitude << (23 - F::MANTISSA);
        let mut bits = shifted + (F::REBIAS << 23);
        if F::GRADUAL && F::REBIAS != 0 {
            // a subnormal: give it a leading one, then take that away
            let one = (F::REBIAS + 1) << 23;
            let subnormal = (f32::from_bits(shifted + one) - f32::from_bits(one)).to_bits();
            bits = if magnitude < 1 << F::MANTISSA { subnormal } else { bits };
        }
        if F::MANTISSA == 0 {
            bits = if magnitude == 0 { 0x0040_0000 } else { bits };
        }
        bits = if magnitude > F::LARGEST { INFINITY } else { bits };
        bits = if magnitude > F::LARGEST && (F::OVERFLOW == F::NAN || magnitude > F::OVERFLOW) {
            0x7fc0_0000
        } else {
            bits
        };
        bits | (code >> F::SIGN) << 31
    }
}

#[cfg(not(target_arch = "x86_64"))]
use portable as avx2;

#[cfg(target_arch = "x86_64")]
mod avx2 {
    //! To nearest, ties to even: the 16-bit formats by their instructions, the 8-bit ones as the portable body does it; else
    //! the portable bodies, compiled to vectors of eight.

    use super::{Bits, F16, Format, Held, Rounding, portable};
    use crate::simd::{load_f32x8, load_u8x32, load_u16x8, store_f32x8, store_u8x32, store_u16x8};
    use std::arch::x86_64::*;

    #[target_feature(enable = "avx2,f16c")]
    pub fn encode<F: Format>(x: &[f32], start: usize, rounding: Rounding, saturate: bool, codes: &mut [F::Code]) {
        let done = match F::Code::held(codes) {
            _ if rounding != Rounding::Even => 0,
            Held::Halves(codes) => encode_halves::<F>(x, saturate, codes),
            Held::Bytes(codes) => encode_bytes::<F>(x, saturate, codes),
        };
        portable::encode::<F>(&x[done..], start + done, rounding, saturate, &mut codes[done..]);
    }

    #[target_feature(enable = "avx2,f16c")]
    pub fn decode<F: Format>(codes: &[F::Code], x: &mut [f32]) {
        let done = match (F::Code::halves(codes), F::Code::bytes(codes)) {
            (Some(codes), _) => decode_halves::<F>(codes, x),
            (_, Some(codes)) if F::GRADUAL && F::SIGN == 7 => decode_bytes::<F>(codes, x),
            _ => 0,
        };
        portable::decode::<F>(&codes[done..], &mut x[done..]);
    }

    /// Casts all whole parts of 32; returns how many numbers those are.
    #[target_feature(enable = "avx2,f16c")]
    fn encode_halves<F: Format>(x: &[f32], saturate: bool, codes: &mut [u16]) -> usize {
        let largest = portable::decode_one::<F>(F::LARGEST);
        let limit = _mm256_set1_ps(f32::from_bits(largest));
        let (x, codes) = (x.as_chunks::<32>().0, codes.as_chunks_mut::<32>().0);
        for (x, codes) in x.iter().zip(codes) {
            let [a, b, c, d] = x.as_chunks().0 else { unreachable!("32 are four times eight") };
            let mut x = [load_f32x8(a), load_f32x8(b), load_f32x8(c), load_f32x8(d)];
            // one comparison for all 32: NaN, infinity and what is too large are rare
            if above(&x, largest) {
                for x in &mut x {
                    *x = quiet(*x);
                    if saturate {
                        // where one is NaN, minimum and maximum are their second operand
                        *x = _mm256_max_ps(_mm256_sub_ps(_mm256_setzero_ps(), limit), _mm256_min_ps(limit, *x));
                    }
                }
            }
            for (x, codes) in x.into_iter().zip(codes.as_chunks_mut().0) {
                let code = if F::MANTISSA == 10 { _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(x) } else { bf16(x) };
                store_u16x8(codes, code);
            }
        }
        32 * x.len()
    }

    /// Whether a magnitude, as an integer, is above `limit`; those of NaN are above that of infinity.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn above(x: &[__m256; 4], limit: u32) -> bool {
        let magnitude = |x: &__m256| _mm256_and_si256(_mm256_castps_si256(*x), _mm256_set1_epi32(0x7fff_ffff));
        let largest = _mm256_max_epu32(
            _mm256_max_epu32(magnitude(&x[0]), magnitude(&x[1])),
            _mm256_max_epu32(magnitude(&x[2]), magnitude(&x[3])),
        );
        _mm256_movemask_epi8(_mm256_cmpgt_epi32(largest, _mm256_set1_epi32(limit.cast_signed()))) != 0
    }

    /// Casts all whole vectors of 32; returns how many numbers those are.
    #[target_feature(enable = "avx2,f16c")]
    fn encode_bytes<F: Format>(x: &[f32], saturate: bool, codes: &mut [u8]) -> usize {
        if !F::GRADUAL {
            return 0;
        }
        let (x, codes) = (x.as_chunks::<32>().0, codes.as_chunks_mut::<32>().0);
        for (x, codes) in x.iter().zip(codes) {
            let mut code = [_mm256_setzero_si256(); 4];
            for (code, x) in code.iter_mut().zip(x.as_chunks().0) {
                *code = round::<F>(load_f32x8(x), saturate);
            }
            store_u8x32(codes, narrow(code));
        }
        32 * x.len()
    }

    /// `portable::encode_one` of eight.
    #[inline]
    #[target_feature(enable = "avx2")]
    pub(super) fn round<F: Format>(x: __m256, saturate: bool) -> __m256i {
        let set = |bits: u32| _mm256_set1_epi32(bits.cast_signed());
        let shift = |bits: u32| _mm_cvtsi32_si128(bits.cast_signed());
        let (drop, bits) = (23 - F::MANTISSA, _mm256_castps_si256(x));
        let magnitude = _mm256_and_si256(bits, set(0x7fff_ffff));
        let odd = _mm256_and_si256(_mm256_srl_epi32(magnitude, shift(drop)), set(1));
        let half = set(((1u32 << (drop - 1)) - 1).wrapping_sub(F::REBIAS << 23));
        let normal = _mm256_srl_epi32(_mm256_add_epi32(_mm256_add_epi32(magnitude, half), odd), shift(drop));
        let unit = set((F::REBIAS + drop + 1) << 23);
        let added = _mm256_add_ps(_mm256_castsi256_ps(magnitude), _mm256_castsi256_ps(unit));
        let subnormal = _mm256_sub_epi32(_mm256_castps_si256(added), unit);
        let small = _mm256_cmpgt_epi32(set((F::REBIAS + 1) << 23), magnitude);
        let code = _mm256_blendv_epi8(normal, subnormal, small);
        let past = if saturate { F::LARGEST } else { F::OVERFLOW };
        let mut code = if past == F::LARGEST {
            _mm256_min_epu32(code, set(past))
        } else {
            let fits = _mm256_cmpeq_epi32(_mm256_min_epu32(code, set(F::LARGEST)), code);
            _mm256_blendv_epi8(set(past), code, fits)
        };
        if past != F::NAN {
            code = _mm256_blendv_epi8(code, set(F::NAN), _mm256_cmpgt_epi32(magnitude, set(0x7f80_0000)));
        }
        let sign = _mm256_and_si256(_mm256_srl_epi32(bits, shift(31 - F::SIGN)), set(1 << F::SIGN));
        _mm256_or_si256(code, sign)
    }

    /// The low bytes, in order, of numbers below 256.
    #[inline]
    #[target_feature(enable = "avx2")]
    pub(super) fn narrow(codes: [__m256i; 4]) -> __m256i {
        let halves = [_mm256_packus_epi32(codes[0], codes[1]), _mm256_packus_epi32(codes[2], codes[3])];
        let bytes = _mm256_packus_epi16(halves[0], halves[1]);
        // both packed within the halves of the register
        _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7))
    }

    /// The upper halves, rounded; the carry turns the largest finite magnitude into infinity.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn bf16(x: __m256) -> __m128i {
        let bits = _mm256_castps_si256(x);
        let odd = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
        let rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
        let upper = _mm256_srli_epi32::<16>(rounded);
        _mm_packus_epi32(_mm256_castsi256_si128(upper), _mm256_extracti128_si256::<1>(upper))
    }

    /// Casts all whole parts of 32 by way of binary16, which has the formats of 8 bits but for a power of two; returns how many
    /// numbers those are.
    #[target_feature(enable = "avx2,f16c")]
    fn decode_bytes<F: Format>(codes: &[u8], x: &mut [f32]) -> usize {
        let power = _mm256_set1_ps(f32::from_bits((F::REBIAS - F16::REBIAS + 127) << 23));
        let shift = _mm_cvtsi32_si128((F16::MANTISSA - F::MANTISSA).cast_signed());
        // what widening copies of the sign lies between it and the magnitude
        let bits = _mm256_set1_epi16((0x8000 | (0x7f << (F16::MANTISSA - F::MANTISSA))) as i16);
        let (codes, x) = (codes.as_chunks::<32>().0, x.as_chunks_mut::<32>().0);
        for (codes, x) in codes.iter().zip(x) {
            let bytes = load_u8x32(codes);
            let magnitude = _mm256_and_si256(bytes, _mm256_set1_epi8(0x7f));
            if _mm256_movemask_epi8(_mm256_cmpgt_epi8(magnitude, _mm256_set1_epi8(F::LARGEST as i8))) != 0 {
                // NaN and infinity are rare
                for (code, x) in codes.iter().zip(x) {
                    *x = f32::from_bits(portable::decode_one::<F>((*code).into()));
                }
                continue;
            }
            let halves = [_mm256_castsi256_si128(bytes), _mm256_extracti128_si256::<1>(bytes)];
            for (codes, x) in halves.into_iter().zip(x.as_chunks_mut::<16>().0) {
                let wide = _mm256_and_si256(_mm256_sll_epi16(_mm256_cvtepi8_epi16(codes), shift), bits);
                let [low, high] = x.as_chunks_mut().0 else { unreachable!("16 are two times eight") };
                store_f32x8(low, _mm256_mul_ps(power, _mm256_cvtph_ps(_mm256_castsi256_si128(wide))));
                store_f32x8(high, _mm256_mul_ps(power, _mm256_cvtph_ps(_mm256_extracti128_si256::<1>(wide))));
            }
        }
        32 * codes.len()
    }

    /// Casts all whole parts of 32; returns how many numbers those are.
    #[target_feature(enable = "avx2,f16c")]
    fn decode_halves<F: Format>(codes: &[u16], x: &mut [f32]) -> usize {
        let infinity = f32::INFINITY.to_bits();
        let (codes, x) = (codes.as_chunks::<32>().0, x.as_chunks_mut::<32>().0);
        for (codes, x) in codes.iter().zip(x) {
            let [a, b, c, d] = codes.as_chunks().0 else { unreachable!("32 are four times eight") };
            let mut value = [widen::<F>(a), widen::<F>(b), widen::<F>(c), widen::<F>(d)];
            if above(&value, infinity) {
                for value in &mut value {
                    *value = quiet(*value);
                }
            }
            for (x, value) in x.as_chunks_mut().0.iter_mut().zip(value) {
                store_f32x8(x, value);
            }
        }
        32 * codes.len()
    }

    /// The values of eight halves, NaN with its payload.
    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    fn widen<F: Format>(codes: &[u16; 8]) -> __m256 {
        let code = load_u16x8(codes);
        if F::MANTISSA == 10 {
            _mm256_cvtph_ps(code)
        } else {
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(code)))
        }
    }

    /// NaN to the quiet NaN without payload, of the same sign.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn quiet(x: __m256) -> __m256 {
        let sign = _mm256_and_ps(x, _mm256_set1_ps(-0.0));
        let nan = _mm256_or_ps(sign, _mm256_castsi256_ps(_mm256_set1_epi32(0x7fc0_0000)));
        _mm256_blendv_ps(x, nan, _mm256_cmp_ps::<_CMP_UNORD_Q>(x, x))
    }
}

#[cfg(test)]
mod tests;
