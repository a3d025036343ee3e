//! Affine quantization, `x ~ scale * (code - zero)`: fitting the grid, rounding to it, and back; and `x ~ scale * table[code]`.
//! Limit: memory, except for the two searches.
//!
//! A row-major `[rows, cols]` array has `cols / group` groups of consecutive columns in each row.

mod affine;
mod clip;
mod fit;
mod norm;
mod table;
mod tokens;

pub use affine::{dequantize_affine, quantize_affine, quantize_symmetric};
pub use clip::search_clip;
pub use fit::fit_affine;
pub(crate) use fit::fit_group;
pub use norm::{Norm, norm_quantize};
pub use table::{dequantize_table, quantize_table};
pub(crate) use tokens::by_row;
pub use tokens::{Int8, Token, quantize_tokens};

use crate::minifloat::{Bf16, F16, portable};
use crate::simd::{Eights, Lanes, ROUND, rint};
use crate::{Error, Result};

/// What a scale is rounded to, so that the codes fit the scale that will be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScaleType {
    /// f32: as computed.
    F32,
    /// IEEE binary16.
    F16,
    /// bfloat16.
    Bf16,
}

/// A search for a smaller range: for `i` in `0..steps`, `1 - i / grid` times the range; the first with the smallest sum of
/// `|Q(x) - x|^norm` wins.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shrink {
    /// The exponent of the error; above 0.
    pub norm: f32,
    /// The steps from the whole range to none.
    pub grid: u32,
    /// The steps to try, at least 1 and at most `grid`.
    pub steps: u32,
}

/// How the range of a group becomes scale and zero point.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Grid {
    /// Bits of a code: 1 to 8.
    pub bits: u32,
    /// The range is as wide below zero as above, and the zero point is `2^(bits-1)`.
    pub symmetric: bool,
    /// Symmetric, and the largest magnitude meets the code `2^(bits-1) - 1`, not half a step above it.
    pub narrow: bool,
    /// The range always contains zero.
    pub forced_zero: bool,
    /// The least range; with 0, a group of range 0 gets the range -1 to 1.
    pub eps: f32,
    /// What the scale is rounded to.
    pub scale_dtype: ScaleType,
    /// Whether to search for a smaller range.
    pub shrink: Option<Shrink>,
}

/// The zero point of each group.
#[derive(Debug, Clone, Copy)]
pub enum Zeros<'a> {
    /// Whole numbers, as codes.
    Codes(&'a [u8]),
    /// Any numbers, as half-quadratic quantization has them.
    Floats(&'a [f32]),
}

impl<'a> Zeros<'a> {
    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Codes(zero) => zero.len(),
            Self::Floats(zero) => zero.len(),
        }
    }
    /// Those of some groups.
    pub(crate) fn part(self, groups: std::ops::Range<usize>) -> Self {
        match self {
            Self::Codes(zero) => Self::Codes(&zero[groups]),
            Self::Floats(zero) => Self::Floats(&zero[groups]),
        }
    }
    /// That of one group.
    #[inline(always)]
    pub(crate) fn get(&self, group: usize) -> f32 {
        match self {
            Self::Codes(zero) => f32::from(zero[group]),
            Self::Floats(zero) => zero[group],
        }
    }
}

/// Groups of a row.
///
/// Errors: `Shape` where `group` does not divide `cols`.
pub fn groups(cols: usize, group: usize) -> Result<usize> {
    if cols == 0 {
        Ok(0)
    } else if group > 0 && cols.is_multiple_of(group) {
        Ok(cols / group)
    } else {
        Err(Error::shape("group", group, format!("a divisor of {cols} columns")))
    }
}

/// The highest code.
pub(crate) fn highest(bits: u32) -> Result<u8> {
    if (1..=8).contains(&bits) { Ok((0xff_u32 >> (8 - bits)) as u8) } else { Err(Error::range("bits", bits, "1 to 8")) }
}

impl Grid {
    /// Errors: `Range` for what no grid can be made of.
    pub(crate) fn check(&self) -> Result<()> {
        highest(self.bits)?;
        if self.narrow && !self.symmetric {
            return Err(Error::range("narrow", true, "a symmetric grid"));
        }
        if self.narrow && self.bits == 1 {
            return Err(Error::range("bits", 1, "at least 2 for a narrow grid"));
        }
        if !(self.eps >= 0.0 && self.eps.is_finite()) {
            return Err(Error::range("eps", self.eps, "a finite number, 0 or above"));
        }
        let Some(shrink) = self.shrink else { return Ok(()) };
        if !(shrink.norm > 0.0 && shrink.norm.is_finite()) {
            return Err(Error::range("norm", shrink.norm, "a finite number above 0"));
        }
        check_steps(shrink.steps, shrink.grid)
    }

    /// The highest code.
    #[inline(always)]
    fn top(&self) -> f32 {
        (0xff_u32 >> (8 - self.bits)) as f32
    }

    /// Scale and zero point for the range `lo..=hi` of a group.
    #[inline(always)]
    pub(crate) fn parameters(&self, lo: f32, hi: f32) -> (f32, u8) {
        let (lo, hi) = if self.forced_zero { (lo.min(0.0), hi.max(0.0)) } else { (lo, hi) };
        let top = self.top();
        if self.symmetric {
            let largest = lo.abs().max(hi.abs());
            let largest = if largest == 0.0 && self.eps == 0.0 { 1.0 } else { largest };
            let scale = if self.narrow {
                largest.max(self.eps) / ((1u32 << (self.bits - 1)) - 1) as f32
            } else {
                (2.0 * largest).max(self.eps) / top
            };
            (self.scale_dtype.round(scale), 1 << (self.bits - 1))
        } else {
            let (lo, hi) = if hi == lo && self.eps == 0.0 { (-1.0, 1.0) } else { (lo, hi) };
            let scale = self.scale_dtype.round((hi - lo).max(self.eps) / top);
            (scale, rint((-lo / scale).clamp(0.0, top)) as u8)
        }
    }
}

/// Errors: `Range` where a step would leave no range.
fn check_steps(steps: u32, grid: u32) -> Result<()> {
    if (1..=grid).contains(&steps) {
        Ok(())
    } else {
        Err(Error::range("steps", steps, format!("1 to {grid}, the steps to a range of 0")))
    }
}

/// What is left of the range at step `i`.
pub(crate) fn fraction(i: u32, grid: u32) -> f32 {
    1.0 - i as f32 / grid as f32
}

impl ScaleType {
    /// The nearest value of this type, ties to even; never infinity (the largest finite value instead) and never zero (the
    /// smallest normal one), as both lose the group.
    pub(crate) fn round(self, scale: f32) -> f32 {
        let smallest = if self == Self::F16 { 1.0 / 16384.0 } else { f32::MIN_POSITIVE };
        let rounded = self.nearest(scale);
        if rounded == 0.0 { smallest } else { rounded }
    }

    /// The nearest finite value of this type, ties to even.
    pub(crate) fn nearest(self, x: f32) -> f32 {
        let bits = x.to_bits();
        match self {
            Self::F32 => x.clamp(f32::MIN, f32::MAX),
            Self::F16 => f32::from_bits(portable::decode_one::<F16>(portable::encode_one::<F16>(bits, true))),
            Self::Bf16 => f32::from_bits(portable::decode_one::<Bf16>(portable::encode_one::<Bf16>(bits, true))),
        }
    }
}

/// The steps by which codes are cut among threads: a cache line of them.
const BLOCK: usize = 64;
/// Elements worth a thread.
const GRAIN: usize = 1 << 16;

/// The parts of `flat`, a range of elements, that lie in one group each: the group's number and the part.
#[inline(always)]
fn by_group(flat: std::ops::Range<usize>, group: usize) -> impl Iterator<Item = (usize, std::ops::Range<usize>)> {
    let mut rest = flat;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let number = rest.start / group;
        let part = rest.start..rest.end.min((number + 1) * group);
        rest.start = part.end;
        Some((number, part))
    })
}

/// The smallest and the largest value; `None` if there is none, or if not all are finite.
#[inline(always)]
pub(crate) fn range<V: Lanes>(x: &[f32]) -> Option<(f32, f32)> {
    let first = *x.first()?;
    let (mut lo, mut hi, mut nothing) = (V::splat(first), V::splat(first), V::splat(0.0));
    let x = Eights::of(x, first);
    for i in 0..x.len() {
        let x = V::load(x.get(i));
        (lo, hi) = (x.min(lo), x.max(hi));
        // infinity and NaN leave NaN
        nothing = nothing.add(x.mul(V::splat(0.0)));
    }
    let lo = lo.array().into_iter().fold(first, |a, b| if b < a { b } else { a });
    let hi = hi.array().into_iter().fold(first, |a, b| if b > a { b } else { a });
    (nothing.sum() == 0.0).then_some((lo, hi))
}

/// `scale rint(x / scale) - x`, with the quotient held between the integers `lo` and `hi`.
#[inline(always)]
fn error_of<V: Lanes>(x: V, scale: V, lo: V, hi: V) -> V {
    scale.mul(x.div(scale).max(lo).min(hi).rint()).sub(x)
}

/// The bits of `|x|`, which are ordered as the magnitudes are; those of infinity and NaN are not below [`INFINITE`].
#[inline(always)]
fn magnitude(x: f32) -> i32 {
    (x.to_bits() & 0x7fff_ffff) as i32
}

/// See [`magnitude`].
const INFINITE: i32 = 0x7f80_0000;

/// The low byte, in two's complement, of `rint(x / scale)` held between the integers `lo` and `hi`; NaN becomes `lo`.
#[inline(always)]
fn code(x: f32, scale: f32, lo: f32, hi: f32) -> u8 {
    // integers as bounds may come before the rounding, and keep it in reach of `ROUND`
    let steps = x / scale;
    let steps = if steps > lo { steps } else { lo };
    let steps = if steps < hi { steps } else { hi };
    (steps + ROUND).to_bits() as u8
}

/// The first element that is NaN or infinite, as an error.
fn not_finite(what: &'static str, x: &[f32], cols: usize) -> Error {
    let (at, x) = x.iter().enumerate().find(|(_, x)| !x.is_finite()).unwrap_or((0, &f32::NAN));
    Error::not_finite(what, format!("{x} in row {}, column {}", at / cols, at % cols))
}

/// Errors: `Range` for a scale that is not a positive finite number.
fn check_scales(scale: &[f32]) -> Result<()> {
    match scale.iter().position(|&scale| !(scale > 0.0 && scale.is_finite())) {
        None => Ok(()),
        Some(at) => Err(Error::range("scale", format!("{} at {at}", scale[at]), "finite numbers above 0")),
    }
}

#[cfg(test)]
mod tests;
