//! Rounding other than to the nearest, ties to even: one body of integers for all of it.

use super::Format;
use super::portable::{MAGNITUDE, finish};

/// What becomes of a number between two values of a format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rounding {
    /// The nearest; of two, the one with the even code.
    Even,
    /// The nearest; of two, the one with the larger magnitude.
    Away,
    /// The nearest; of two, the larger.
    Up,
    /// The one with the smaller magnitude.
    Zero,
    /// The upper magnitude with a probability of how far the number is from the lower one, by a seed.
    ///
    /// `floor(2^24 fraction) 2^8 + random >= 2^32`, where `random` is that of the number's place: so no machine and no cut
    /// among threads changes a code.
    Stochastic(u64),
}

/// What is added to the bits that fall away, so that they carry where the number is to be rounded up.
pub(super) trait Step: Copy {
    /// For the number at a place that loses `shift` bits, 1 to 24.
    fn add(self, shift: u32, negative: u32, at: u32) -> u32;
    /// Those of the 2^32 numbers from `start` on.
    #[must_use]
    fn from(self, start: usize) -> Self;
}

/// A half, less the least bit for a negative number; or nothing.
#[derive(Clone, Copy)]
pub(super) struct Fixed {
    pub half: bool,
    pub up: bool,
}

impl Step for Fixed {
    #[inline(always)]
    fn add(self, shift: u32, negative: u32, _: u32) -> u32 {
        let half = u32::from(self.half) << (shift - 1);
        half - (negative & u32::from(self.up))
    }
    #[inline(always)]
    fn from(self, _: usize) -> Self {
        self
    }
}

/// As many random bits as fall away.
#[derive(Clone, Copy)]
pub(super) struct Random {
    low: u32,
    high: u32,
}

impl Random {
    pub fn new(seed: u64) -> Self {
        // The steps of SplitMix64: seeds that follow each other have nothing in common.
        let mut key = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        key = (key ^ key >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        key = (key ^ key >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        key ^= key >> 31;
        Self { low: key as u32, high: (key >> 32) as u32 }
    }
}

/// All bits of a number depend on all of another: the last steps of MurmurHash3.
#[inline(always)]
fn mixed(mut x: u32) -> u32 {
    x = (x ^ x >> 16).wrapping_mul(0x85eb_ca6b);
    x = (x ^ x >> 13).wrapping_mul(0xc2b2_ae35);
    x ^ x >> 16
}

impl Step for Random {
    #[inline(always)]
    fn add(self, shift: u32, _: u32, at: u32) -> u32 {
        mixed(mixed(at ^ self.low) ^ self.high) >> (32 - shift)
    }
    #[inline(always)]
    fn from(self, start: usize) -> Self {
        Self { high: self.high ^ (start as u64 >> 32) as u32, ..self }
    }
}

/// Numbers with a step of their own.
const BLOCK: usize = 64;

/// Casts `x`, whose first number is the one at `start`, a multiple of 64, by any rounding but `Even`.
#[inline(always)]
pub(super) fn encode<F: Format>(x: &[f32], start: usize, rounding: Rounding, saturate: bool, codes: &mut [F::Code]) {
    let (half, up) = (rounding != Rounding::Zero, rounding == Rounding::Up);
    match rounding {
        Rounding::Stochastic(seed) => by::<F, _>(x, start, Random::new(seed), saturate, codes),
        _ => by::<F, _>(x, start, Fixed { half, up }, saturate, codes),
    }
}

#[inline(always)]
fn by<F: Format, S: Step>(x: &[f32], start: usize, step: S, saturate: bool, codes: &mut [F::Code]) {
    for (block, (x, codes)) in x.chunks(BLOCK).zip(codes.chunks_mut(BLOCK)).enumerate() {
        let start = start + block * BLOCK;
        let step = step.from(start);
        for (at, (x, code)) in (start as u32..).zip(x.iter().zip(codes)) {
            *code = F::narrow(encode_one::<F, S>(x.to_bits(), step, at, saturate));
        }
    }
}

/// Without a branch, so that the loop becomes vectors.
#[inline(always)]
pub(super) fn encode_one<F: Format, S: Step>(bits: u32, step: S, at: u32, saturate: bool) -> u32 {
    let (magnitude, negative) = (bits & MAGNITUDE, bits >> 31);
    let (drop, least) = (23 - F::MANTISSA, F::REBIAS + 1);
    let code = if F::GRADUAL {
        // a subnormal of f32 has the exponent of its least normal numbers, without the leading one
        let exponent = (magnitude >> 23).max(1);
        let significand = (magnitude & 0x007f_ffff) | (magnitude >> 23).min(1) << 23;
        // below its least exponent the format has fewer places
        let shift = drop + least.saturating_sub(exponent);
        let (beyond, shift) = (shift.saturating_sub(24).min(31), shift.min(24));
        let rounded = ((significand >> beyond) + step.add(shift, negative, at)) >> shift;
        rounded + ((exponent.max(least) - least) << F::MANTISSA)
    } else {
        // f32 has 2^-127, the smallest scale, as a subnormal: on as if it were normal
        let scale = F::MANTISSA == 0 && magnitude < 1 << 23;
        let linear = if scale { magnitude.max(0x0040_0000) * 2 - 0x0080_0000 } else { magnitude };
        let rounded = (linear + step.add(drop, negative, at)) >> drop;
        rounded.wrapping_sub(F::REBIAS << F::MANTISSA).cast_signed().max(F::LEAST.cast_signed()).cast_unsigned()
    };
    finish::<F>(bits, code, saturate)
}
