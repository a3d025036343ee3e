//! Dynamic quantization of activations: one scale a row, found and used in one pass over memory.

use super::{GRAIN, INFINITE, code, magnitude};
use crate::error::expect_shape;
use crate::minifloat::{E4m3fn, portable as cast};
use crate::parts::Rows;
use crate::{Error, Machine, Path, Result};

/// What the codes of a row are; sealed.
pub trait Token: sealed::Sealed {
    /// What holds a code.
    type Code: Copy + Default + Send + Sync;
    /// The largest value of a code.
    const LARGEST: f32;
    #[doc(hidden)]
    fn code(x: f32, scale: f32) -> Self::Code;
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::Int8 {}
    impl Sealed for super::E4m3fn {}
}

/// Whole numbers from -127 to 127.
pub struct Int8;

impl Token for Int8 {
    type Code = i8;
    const LARGEST: f32 = 127.0;
    #[inline(always)]
    fn code(x: f32, scale: f32) -> i8 {
        code(x, scale, -127.0, 127.0) as i8
    }
}

impl Token for E4m3fn {
    type Code = u8;
    const LARGEST: f32 = 448.0;
    #[inline(always)]
    fn code(x: f32, scale: f32) -> u8 {
        cast::encode_one::<Self>((x / scale).to_bits(), true) as u8
    }
}

/// For each row of `x [rows, cols]`: `scale = max(max |x|, eps) / F::LARGEST` and `codes = x / scale`, rounded to nearest, half to
/// even.
///
/// A row with NaN or infinity gets the scale NaN and codes 0: what is computed from it is NaN, and no other row is touched.
/// Errors: `Shape` for lengths that do not fit; `Range` for `eps` that is not a positive finite number.
pub fn quantize_tokens<F: Token>(
    m: &Machine,
    x: &[f32],
    rows: usize,
    cols: usize,
    eps: f32,
    codes: &mut [F::Code],
    scale: &mut [f32],
) -> Result<()> {
    expect_shape("x", x.len(), &[rows, cols])?;
    by_row::<F>(m, rows, cols, eps, codes, scale, |_, row, _| Some(&x[row * cols..(row + 1) * cols]))
}

/// Quantizes rows that `make` gives, told the path and the number of a row, or leaves in the room that it is lent.
pub(crate) fn by_row<'a, F: Token>(
    m: &Machine,
    rows: usize,
    cols: usize,
    eps: f32,
    codes: &mut [F::Code],
    scale: &mut [f32],
    make: impl Fn(Path, usize, &mut Vec<f32>) -> Option<&'a [f32]> + Sync,
) -> Result<()> {
    if !(eps >= F::LARGEST * f32::MIN_POSITIVE && eps.is_finite()) {
        return Err(Error::range("eps", eps, "a finite number above 5.3e-36"));
    }
    expect_shape("codes", codes.len(), &[rows, cols])?;
    expect_shape("scale", scale.len(), &[rows])?;
    m.split_parts(rows, GRAIN.div_ceil(cols.max(1)), (Rows::new(codes, cols), Rows::new(scale, 1)), |range, outs| {
        let (codes, scale, mut room) = (outs.0.all(), outs.1.all(), Vec::new());
        for (i, (row, scale)) in range.zip(scale).enumerate() {
            let given = make(m.path(), row, &mut room);
            let (x, codes) = (given.unwrap_or(&room), &mut codes[i * cols..(i + 1) * cols]);
            *scale = match m.path() {
                // SAFETY: a machine with this path has AVX2.
                Path::Amx | Path::Avx512 | Path::Avx2 => unsafe { avx2::quantize::<F>(x, eps, codes) },
                Path::Scalar => portable::quantize::<F>(x, eps, codes),
            };
        }
    });
    Ok(())
}

mod portable {
    use super::{INFINITE, Token, magnitude};

    #[inline(always)]
    pub fn quantize<F: Token>(x: &[f32], eps: f32, codes: &mut [F::Code]) -> f32 {
        let largest = x.iter().fold(0, |largest, &x| i32::max(largest, magnitude(x)));
        if largest >= INFINITE {
            codes.fill(F::Code::default());
            return f32::NAN;
        }
        let scale = f32::from_bits(largest as u32).max(eps) / F::LARGEST;
        for (&x, out) in x.iter().zip(codes) {
            *out = F::code(x, scale);
        }
        scale
    }
}

mod avx2 {
    //! The portable body, compiled to vectors of eight.

    use super::Token;

    #[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2"))]
    pub unsafe fn quantize<F: Token>(x: &[f32], eps: f32, codes: &mut [F::Code]) -> f32 {
        super::portable::quantize::<F>(x, eps, codes)
    }
}
