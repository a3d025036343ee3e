//! Dynamic quantization of activations: one scale a row, found and used in one pass over memory.

use super::GRAIN;
use crate::error::expect_shape;
use crate::parts::Rows;
use crate::{Error, Machine, Path, Result};

/// For each row of `x [rows, cols]`: `scale = max(max |x|, eps) / 127`, `codes = rint(x / scale)`, half to even, within
/// -127..=127.
///
/// A row with NaN or infinity gets the scale NaN and codes 0: what is computed from it is NaN, and no other row is touched.
/// Errors: `Shape` for lengths that do not fit; `Range` for `eps` that is not a positive finite number.
pub fn quantize_tokens(
    m: &Machine,
    x: &[f32],
    rows: usize,
    cols: usize,
    eps: f32,
    codes: &mut [i8],
    scale: &mut [f32],
) -> Result<()> {
    if !(eps >= 127.0 * f32::MIN_POSITIVE && eps.is_finite()) {
        return Err(Error::range("eps", eps, "a finite number above 1.5e-36"));
    }
    expect_shape("x", x.len(), &[rows, cols])?;
    expect_shape("codes", codes.len(), &[rows, cols])?;
    expect_shape("scale", scale.len(), &[rows])?;
    m.split_parts(rows, GRAIN.div_ceil(cols.max(1)), (Rows::new(codes, cols), Rows::new(scale, 1)), |range, outs| {
        let (codes, scale) = (outs.0.all(), outs.1.all());
        for (i, (row, scale)) in range.zip(scale).enumerate() {
            let (x, codes) = (&x[row * cols..(row + 1) * cols], &mut codes[i * cols..(i + 1) * cols]);
            *scale = match m.path() {
                // SAFETY: a machine with this path has AVX2.
                Path::Avx512 | Path::Avx2 => unsafe { avx2::quantize(x, eps, codes) },
                Path::Scalar => portable::quantize(x, eps, codes),
            };
        }
    });
    Ok(())
}

mod portable {
    use crate::quantize::code;

    #[inline(always)]
    pub fn quantize(x: &[f32], eps: f32, codes: &mut [i8]) -> f32 {
        // magnitudes of floats are ordered as their bits are, NaN above infinity
        let largest = x.iter().fold(0, |largest: i32, x| largest.max((x.to_bits() & 0x7fff_ffff) as i32));
        let largest = f32::from_bits(largest as u32);
        if !largest.is_finite() {
            codes.fill(0);
            return f32::NAN;
        }
        let scale = largest.max(eps) / 127.0;
        for (&x, out) in x.iter().zip(codes) {
            *out = code(x, scale, -127.0, 127.0) as i8;
        }
        scale
    }
}

mod avx2 {
    //! The portable body, compiled to vectors of eight.

    #[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2"))]
    pub unsafe fn quantize(x: &[f32], eps: f32, codes: &mut [i8]) -> f32 {
        super::portable::quantize(x, eps, codes)
    }
}
