//! Blocks of 16 or 32 elements that share a scale of one byte: MX (32, powers of two) and NV (16, E4M3 and one f32 for all).
//!
//! `x ~ code * scale * tensor_scale`. A block with NaN or infinity gets the scale NaN and codes 0, and no other is touched.

use super::portable::{decode_one, encode_one};
use super::rounding::{self, Fixed};
use super::{E4m3fn, E8m0, Format, GRAIN, Narrow, Rounding, sealed};
use crate::error::expect_len;
use crate::parts::Rows;
use crate::simd::ROUND;
use crate::{Error, Machine, Path, Result};

/// What the codes of a block are; sealed. All floats of a byte at most, and [`Int`].
pub trait Element: sealed::Sealed + Copy + Send + Sync + 'static {
    /// Bits of a code.
    const BITS: u32;
    /// The exponent of the largest value.
    const EXPONENT: u32;
    /// Bits of the mantissa behind its leading one.
    const MANTISSA: u32;
    #[doc(hidden)]
    fn largest() -> f32;
    #[doc(hidden)]
    fn encode(x: f32) -> u8;
    /// Ties away from zero with `half`, else all towards it.
    #[doc(hidden)]
    fn encode_otherwise(x: f32, half: bool) -> u8;
    #[doc(hidden)]
    fn decode(code: u8) -> f32;
}

impl<F: Format<Code = u8>> Element for F {
    const BITS: u32 = F::SIGN + 1;
    const EXPONENT: u32 = (F::LARGEST >> F::MANTISSA).wrapping_add_signed(-F::BIAS);
    const MANTISSA: u32 = F::MANTISSA;
    #[inline(always)]
    fn largest() -> f32 {
        f32::from_bits(decode_one::<F>(F::LARGEST))
    }
    #[inline(always)]
    fn encode(x: f32) -> u8 {
        F::narrow(encode_one::<F>(x.to_bits(), true))
    }
    #[inline(always)]
    fn encode_otherwise(x: f32, half: bool) -> u8 {
        F::narrow(rounding::encode_one::<F, _>(x.to_bits(), Fixed { half, up: false }, 0, true))
    }
    #[inline(always)]
    fn decode(code: u8) -> f32 {
        f32::from_bits(decode_one::<F>(F::widen(code)))
    }
}

/// Integers of so many bits, 3 to 8, in two's complement; the lowest is read but not written, so that `-x` has `-code`.
#[derive(Debug, Clone, Copy)]
pub struct Int<const BITS: u32>;

impl<const BITS: u32> sealed::Sealed for Int<BITS> {}
impl<const BITS: u32> Element for Int<BITS> {
    const BITS: u32 = BITS;
    const EXPONENT: u32 = BITS - 2;
    const MANTISSA: u32 = BITS - 2;
    #[inline(always)]
    fn largest() -> f32 {
        ((1u32 << (BITS - 1)) - 1) as f32
    }
    #[inline(always)]
    fn encode(x: f32) -> u8 {
        let top = Self::largest();
        let x = if x > -top { x } else { -top };
        let x = if x < top { x } else { top };
        (x + ROUND).to_bits() as u8 & (0xff >> (8 - BITS))
    }
    #[inline(always)]
    fn encode_otherwise(x: f32, half: bool) -> u8 {
        let size = x.abs().min(Self::largest());
        let whole = size as i32;
        let size = whole + i32::from(half & (size - whole as f32 >= 0.5));
        let code = if x < 0.0 { -size } else { size };
        code as u8 & (0xff >> (8 - BITS))
    }
    #[inline(always)]
    fn decode(code: u8) -> f32 {
        f32::from((code << (8 - BITS)).cast_signed() >> (8 - BITS))
    }
}

/// How the largest magnitude `a` of a block becomes a power of two, for elements of largest value `M`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// OCP: `floor(log2 a) - floor(log2 M)`; what lies above `M` saturates.
    Floor,
    /// `ceil(log2 a) - floor(log2 M)`.
    Ceil,
    /// `floor(log2 a')  - floor(log2 M)`, where `a'` is `a` with its mantissa rounded to that of the element, ties up.
    Even,
    /// `log2(a / M)` rounded to nearest.
    Round,
    /// `ceil(log2(a / M))`: nothing saturates.
    Rceil,
    /// `floor(log2 a)`, for a tensor scale of 1/3: E2M1 then never saturates.
    Thirds,
}

/// What a block's scale is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum BlockScale {
    /// A power of two.
    E8m0(Rule),
    /// E4M3, `a / M / tensor_scale` rounded to nearest; the tensor scale is positive and a normal number.
    E4m3fn(f32),
}

impl Rule {
    /// The code of the scale, for the bits of `a`.
    #[inline(always)]
    fn code<E: Element>(self, largest: u32) -> u32 {
        let (top, fraction) = (E::EXPONENT, 0x007f_ffff);
        let quotient = (f32::from_bits(largest) / E::largest()).to_bits();
        let code = match self {
            Self::Floor => (largest >> 23).saturating_sub(top),
            Self::Ceil => ((largest >> 23) + u32::from(largest & fraction != 0)).saturating_sub(top),
            Self::Even => ((largest + (1 << (22 - E::MANTISSA))) >> 23).saturating_sub(top),
            // 2^-127, the smallest scale, is a subnormal of f32; the mantissa of the square root of 2 is 0x3504f3 and some
            Self::Round if quotient < 1 << 23 => (quotient > 0x005a_8279).into(),
            Self::Round => (quotient >> 23) + u32::from(quotient & fraction > 0x0035_04f3),
            Self::Rceil if quotient < 1 << 23 => (quotient > 0x0040_0000).into(),
            Self::Rceil => (quotient >> 23) + u32::from(quotient & fraction != 0),
            Self::Thirds => largest >> 23,
        };
        code.min(254)
    }
}

impl BlockScale {
    /// Scale and codes of one block.
    #[inline(always)]
    fn quantize<E: Element, const B: usize, const EVEN: bool>(
        self,
        x: &[f32; B],
        half: bool,
        codes: &mut [u8; B],
    ) -> u8 {
        let largest = x.iter().fold(0, |largest, x| i32::max(largest, (x.to_bits() & 0x7fff_ffff).cast_signed()));
        let largest = largest.cast_unsigned();
        let finite = largest < 0x7f80_0000;
        match self {
            Self::E8m0(rule) if finite => {
                let code = rule.code::<E>(largest);
                // 2^(127 - code), so that the product is the quotient: exact, or far below the smallest element
                let inverse = f32::from_bits(if code == 254 { 0x0040_0000 } else { (254 - code) << 23 });
                let thrice = if rule == Rule::Thirds { 3.0 } else { 1.0 };
                for (code, x) in codes.iter_mut().zip(x) {
                    *code = encode::<E, EVEN>(x * inverse * thrice, half);
                }
                code as u8
            }
            Self::E4m3fn(tensor_scale) if finite => {
                let scale = f32::from_bits(largest) / E::largest() / tensor_scale;
                let code = encode_one::<E4m3fn>(scale.to_bits(), true);
                let scale = f32::from_bits(decode_one::<E4m3fn>(code)) * tensor_scale;
                if code == 0 {
                    *codes = [0; B];
                } else {
                    for (code, x) in codes.iter_mut().zip(x) {
                        *code = encode::<E, EVEN>(x / scale, half);
                    }
                }
                code as u8
            }
            Self::E8m0(_) => {
                *codes = [0; B];
                0xff
            }
            Self::E4m3fn(_) => {
                *codes = [0; B];
                0x7f
            }
        }
    }

    fn check(self) -> Result<()> {
        match self {
            Self::E8m0(_) => Ok(()),
            Self::E4m3fn(tensor_scale) => check_scale(tensor_scale),
        }
    }
}

/// The code of a number that the scale of its block has been taken off: `EVEN`, or as [`Element::encode_otherwise`] says.
#[inline(always)]
fn encode<E: Element, const EVEN: bool>(x: f32, half: bool) -> u8 {
    if EVEN { E::encode(x) } else { E::encode_otherwise(x, half) }
}

fn check_scale(tensor_scale: f32) -> Result<()> {
    if tensor_scale.is_normal() && tensor_scale > 0.0 {
        Ok(())
    } else {
        Err(Error::range("tensor_scale", tensor_scale, "a normal number above 0"))
    }
}

/// The number of blocks.
fn blocks(elements: usize, block: usize) -> Result<usize> {
    if block != 16 && block != 32 {
        return Err(Error::range("block", block, "16 or 32"));
    }
    if elements.is_multiple_of(block) {
        Ok(elements / block)
    } else {
        Err(Error::shape("x", elements, format!("whole blocks of {block}")))
    }
}

/// Rounds each `block` consecutive elements of `x` to codes and one scale, whose bits `scale` gets.
///
/// Scales are rounded as `by` says, whatever the rounding of the codes. Errors: `Range` for a block other than 16 or 32, an impossible
/// tensor scale, and roundings other than `Even`, `Away` and `Zero`; `Shape` for lengths that do not fit.
pub fn quantize_block<E: Element>(
    m: &Machine,
    x: Narrow<'_>,
    block: usize,
    by: BlockScale,
    rounding: Rounding,
    codes: &mut [u8],
    scale: &mut [u8],
) -> Result<()> {
    by.check()?;
    if matches!(rounding, Rounding::Up | Rounding::Stochastic(_)) {
        return Err(Error::range("rounding", format!("{rounding:?}"), "Even, Away or Zero"));
    }
    let count = blocks(x.len(), block)?;
    expect_len("codes", codes.len(), x.len())?;
    expect_len("scale", scale.len(), count)?;
    m.split_parts(count, GRAIN / block, (Rows::new(codes, block), Rows::new(scale, 1)), |range, outs| {
        let (codes, scale) = (outs.0.all(), outs.1.all());
        x.pieces(m.path(), range.start * block..range.end * block, |at, x| {
            let (codes, scale) = (&mut codes[at..at + x.len()], &mut scale[at / block..(at + x.len()) / block]);
            match m.path() {
                // SAFETY: a machine with this path has AVX2.
                Path::Amx | Path::Avx512 | Path::Avx2 => unsafe {
                    avx2::quantize::<E>(x, block, by, rounding, codes, scale)
                },
                Path::Scalar => portable::quantize::<E>(x, block, by, rounding, codes, scale),
            }
        });
    });
    Ok(())
}

/// `x = code * scale * tensor_scale`, in that order, in f32; a scale NaN makes a block of NaN.
///
/// `power` tells scales that are powers of two from E4M3. Errors: as for [`quantize_block`].
pub fn dequantize_block<E: Element>(
    m: &Machine,
    codes: &[u8],
    scale: &[u8],
    block: usize,
    power: bool,
    tensor_scale: f32,
    x: &mut [f32],
) -> Result<()> {
    check_scale(tensor_scale)?;
    expect_len("scale", scale.len(), blocks(codes.len(), block)?)?;
    expect_len("x", x.len(), codes.len())?;
    m.split_parts(scale.len(), GRAIN / block, Rows::new(x, block), |range, x| {
        let (codes, scale) = (&codes[range.start * block..range.end * block], &scale[range]);
        match m.path() {
            // SAFETY: a machine with this path has AVX2.
            Path::Amx | Path::Avx512 | Path::Avx2 => unsafe {
                avx2::dequantize::<E>(codes, scale, block, power, tensor_scale, x.all());
            },
            Path::Scalar => portable::dequantize::<E>(codes, scale, block, power, tensor_scale, x.all()),
        }
    });
    Ok(())
}

mod portable {
    use super::{BlockScale, E4m3fn, E8m0, Element, Rounding, decode_one};

    #[inline(always)]
    pub fn quantize<E: Element>(
        x: &[f32],
        block: usize,
        by: BlockScale,
        rounding: Rounding,
        codes: &mut [u8],
        scale: &mut [u8],
    ) {
        let half = rounding == Rounding::Away;
        match (block, rounding) {
            (16, Rounding::Even) => of::<E, 16, true>(x, by, half, codes, scale),
            (16, _) => of::<E, 16, false>(x, by, half, codes, scale),
            (_, Rounding::Even) => of::<E, 32, true>(x, by, half, codes, scale),
            (_, _) => of::<E, 32, false>(x, by, half, codes, scale),
        }
    }

    #[inline(always)]
    fn of<E: Element, const B: usize, const EVEN: bool>(
        x: &[f32],
        by: BlockScale,
        half: bool,
        codes: &mut [u8],
        scale: &mut [u8],
    ) {
        let (x, codes) = (x.as_chunks::<B>().0, codes.as_chunks_mut::<B>().0);
        for ((x, codes), scale) in x.iter().zip(codes).zip(scale) {
            *scale = by.quantize::<E, B, EVEN>(x, half, codes);
        }
    }

    #[inline(always)]
    pub fn dequantize<E: Element>(
        codes: &[u8],
        scale: &[u8],
        block: usize,
        power: bool,
        tensor_scale: f32,
        x: &mut [f32],
    ) {
        // every block is made of sixteens
        let (codes, x) = (codes.as_chunks::<16>().0, x.as_chunks_mut::<16>().0);
        let sixteens = block / 16;
        for ((codes, x), scale) in codes.chunks(sixteens).zip(x.chunks_mut(sixteens)).zip(scale) {
            let bits = (*scale).into();
            let scale = f32::from_bits(if power { decode_one::<E8m0>(bits) } else { decode_one::<E4m3fn>(bits) });
            for (codes, x) in codes.iter().zip(x) {
                for (&code, x) in codes.iter().zip(x) {
                    *x = E::decode(code) * scale * tensor_scale;
                }
            }
        }
    }
}

mod avx2 {
    //! The portable bodies, compiled to vectors of eight.

    use super::{BlockScale, Element, Rounding, portable};

    #[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2"))]
    pub unsafe fn quantize<E: Element>(
        x: &[f32],
        block: usize,
        by: BlockScale,
        rounding: Rounding,
        codes: &mut [u8],
        scale: &mut [u8],
    ) {
        portable::quantize::<E>(x, block, by, rounding, codes, scale);
    }

    #[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2"))]
    pub unsafe fn dequantize<E: Element>(
        codes: &[u8],
        scale: &[u8],
        block: usize,
        power: bool,
        tensor_scale: f32,
        x: &mut [f32],
    ) {
        portable::dequantize::<E>(codes, scale, block, power, tensor_scale, x);
    }
}
