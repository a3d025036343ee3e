//! Rounding to a given grid, and back.

use super::{BLOCK, GRAIN, Zeros, check_scales, groups, highest, not_finite};
use crate::error::expect_shape;
use crate::parts::Rows;
use crate::{Error, Machine, Path, Result};
use std::sync::atomic::{AtomicBool, Ordering};

/// `codes = clamp(rint(x / scale) + zero, 0, 2^bits - 1)`, half to even; `scale`, `zero` are `[rows, cols / group]`.
///
/// Errors: `Shape` for lengths that do not fit; `Range` for bits outside 1..=8, a scale that is not a positive finite
/// number, a zero point of more bits; `NotFinite` for NaN or infinity in `x` (it is read once: the codes then hold nothing
/// of use).
#[allow(clippy::too_many_arguments)]
pub fn quantize_affine(
    m: &Machine,
    x: &[f32],
    rows: usize,
    cols: usize,
    group: usize,
    bits: u32,
    scale: &[f32],
    zero: &[u8],
    codes: &mut [u8],
) -> Result<()> {
    let count = groups(cols, group)?;
    let top = highest(bits)?;
    expect_shape("x", x.len(), &[rows, cols])?;
    expect_shape("scale", scale.len(), &[rows, count])?;
    expect_shape("zero", zero.len(), &[rows, count])?;
    expect_shape("codes", codes.len(), &[rows, cols])?;
    check_scales(scale)?;
    if let Some(zero) = zero.iter().find(|&&zero| zero > top) {
        return Err(Error::range("zero", zero, format!("at most {top} for {bits} bits")));
    }
    let finite = AtomicBool::new(true);
    m.split_parts(x.len().div_ceil(BLOCK), GRAIN / BLOCK, Rows::new(codes, BLOCK), |range, codes| {
        let start = range.start * BLOCK;
        let codes = codes.all();
        let fine = match m.path() {
            // SAFETY: a machine with this path has AVX2.
            Path::Amx | Path::Avx512 | Path::Avx2 => unsafe {
                avx2::quantize(x, start, group, top, scale, zero, codes)
            },
            Path::Scalar => portable::quantize(x, start, group, top, scale, zero, codes),
        };
        finite.fetch_and(fine, Ordering::Relaxed);
    });
    if finite.into_inner() { Ok(()) } else { Err(not_finite("x", x, cols)) }
}

/// `codes = clamp(rint(x / scale), -2^(bits-1), 2^(bits-1) - 1)`, without the lowest code if `narrow`; `scale` is
/// `[rows, cols / group]`.
///
/// Errors: those of [`quantize_affine`]; and `Range` for a narrow grid of 1 bit.
#[allow(clippy::too_many_arguments)]
pub fn quantize_symmetric(
    m: &Machine,
    x: &[f32],
    rows: usize,
    cols: usize,
    group: usize,
    bits: u32,
    narrow: bool,
    scale: &[f32],
    codes: &mut [i8],
) -> Result<()> {
    let count = groups(cols, group)?;
    highest(bits)?;
    if narrow && bits == 1 {
        return Err(Error::range("bits", bits, "at least 2 for a narrow grid"));
    }
    expect_shape("x", x.len(), &[rows, cols])?;
    expect_shape("scale", scale.len(), &[rows, count])?;
    expect_shape("codes", codes.len(), &[rows, cols])?;
    check_scales(scale)?;
    let half = (1u32 << (bits - 1)) as f32;
    let (lo, hi) = (if narrow { 1.0 - half } else { -half }, half - 1.0);
    let finite = AtomicBool::new(true);
    m.split_parts(x.len().div_ceil(BLOCK), GRAIN / BLOCK, Rows::new(codes, BLOCK), |range, codes| {
        let start = range.start * BLOCK;
        let codes = codes.all();
        let fine = match m.path() {
            // SAFETY: a machine with this path has AVX2.
            Path::Amx | Path::Avx512 | Path::Avx2 => unsafe {
                avx2::quantize_signed(x, start, group, lo, hi, scale, codes)
            },
            Path::Scalar => portable::quantize_signed(x, start, group, lo, hi, scale, codes),
        };
        finite.fetch_and(fine, Ordering::Relaxed);
    });
    if finite.into_inner() { Ok(()) } else { Err(not_finite("x", x, cols)) }
}

/// `out = scale * (codes - zero)`; `scale`, `zero` are `[rows, cols / group]`. The difference is rounded too where zero
/// points are floats.
///
/// NaN and infinity in `scale` and in float zero points spread as in any product. Errors: `Shape` for lengths that do not fit.
#[allow(clippy::too_many_arguments)]
pub fn dequantize_affine(
    m: &Machine,
    codes: &[u8],
    rows: usize,
    cols: usize,
    group: usize,
    scale: &[f32],
    zero: Zeros<'_>,
    out: &mut [f32],
) -> Result<()> {
    let count = groups(cols, group)?;
    expect_shape("codes", codes.len(), &[rows, cols])?;
    expect_shape("scale", scale.len(), &[rows, count])?;
    expect_shape("zero", zero.len(), &[rows, count])?;
    expect_shape("out", out.len(), &[rows, cols])?;
    m.split_parts(codes.len().div_ceil(BLOCK), GRAIN / BLOCK, Rows::new(out, BLOCK), |range, out| {
        let start = range.start * BLOCK;
        let out = out.all();
        match m.path() {
            // SAFETY: a machine with this path has AVX2.
            Path::Amx | Path::Avx512 | Path::Avx2 => unsafe { avx2::dequantize(codes, start, group, scale, zero, out) },
            Path::Scalar => portable::dequantize(codes, start, group, scale, zero, out),
        }
    });
    Ok(())
}

mod portable {
    //! Each works on the elements from `start` on, as many as its output holds, whose groups it finds by their place.

    use crate::quantize::{INFINITE, Zeros, by_group, code, magnitude};

    /// Whether all of `x` is finite.
    #[inline(always)]
    pub fn quantize(
        x: &[f32],
        start: usize,
        group: usize,
        top: u8,
        scale: &[f32],
        zero: &[u8],
        codes: &mut [u8],
    ) -> bool {
        let mut largest = 0;
        for (g, at) in by_group(start..start + codes.len(), group) {
            let (scale, zero) = (scale[g], zero[g]);
            let (lo, hi) = (-f32::from(zero), f32::from(top) - f32::from(zero));
            for (&x, out) in x[at.clone()].iter().zip(&mut codes[at.start - start..at.end - start]) {
                largest = largest.max(magnitude(x));
                *out = code(x, scale, lo, hi).wrapping_add(zero);
            }
        }
        largest < INFINITE
    }

    /// Whether all of `x` is finite.
    #[inline(always)]
    pub fn quantize_signed(
        x: &[f32],
        start: usize,
        group: usize,
        lo: f32,
        hi: f32,
        scale: &[f32],
        codes: &mut [i8],
    ) -> bool {
        let mut largest = 0;
        for (g, at) in by_group(start..start + codes.len(), group) {
            let scale = scale[g];
            for (&x, out) in x[at.clone()].iter().zip(&mut codes[at.start - start..at.end - start]) {
                largest = largest.max(magnitude(x));
                *out = code(x, scale, lo, hi) as i8;
            }
        }
        largest < INFINITE
    }

    #[inline(always)]
    pub fn dequantize(codes: &[u8], start: usize, group: usize, scale: &[f32], zero: Zeros<'_>, out: &mut [f32]) {
        for (g, at) in by_group(start..start + out.len(), group) {
            let (scale, zero) = (scale[g], zero.get(g));
            for (&code, out) in codes[at.clone()].iter().zip(&mut out[at.start - start..at.end - start]) {
                *out = scale * (f32::from(code) - zero);
            }
        }
    }
}

mod avx2 {
    //! The portable bodies, compiled to vectors of eight.

    use super::{Zeros, portable};

    #[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2"))]
    pub unsafe fn quantize(
        x: &[f32],
        start: usize,
        group: usize,
        top: u8,
        scale: &[f32],
        zero: &[u8],
        codes: &mut [u8],
    ) -> bool {
        portable::quantize(x, start, group, top, scale, zero, codes)
    }

    #[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2"))]
    pub unsafe fn quantize_signed(
        x: &[f32],
        start: usize,
        group: usize,
        lo: f32,
        hi: f32,
        scale: &[f32],
        codes: &mut [i8],
    ) -> bool {
        portable::quantize_signed(x, start, group, lo, hi, scale, codes)
    }

    #[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2"))]
    pub unsafe fn dequantize(
        codes: &[u8],
        start: usize,
        group: usize,
        scale: &[f32],
        zero: Zeros<'_>,
        out: &mut [f32],
    ) {
        portable::dequantize(codes, start, group, scale, zero, out);
    }
}
