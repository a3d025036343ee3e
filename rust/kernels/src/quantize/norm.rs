//! Normalized rows, quantized where they are made: what stands between the residual stream and a quantized product.

use super::tokens::{Token, by_row};
use crate::error::{expect_len, expect_shape};
use crate::{Error, Machine, Path, Result};

/// `y = x_hat * weight + bias` of each row, quantized as [`super::quantize_tokens`] does it.
#[derive(Debug, Clone, Copy)]
pub struct Norm<'a> {
    /// Whether the mean is taken away (LayerNorm), or not (RMSNorm).
    pub centred: bool,
    /// A factor a column.
    pub weight: &'a [f32],
    /// An addend a column.
    pub bias: Option<&'a [f32]>,
    /// Added to the mean square.
    pub eps: f32,
}

/// For each row of `x [rows, cols]`: `x_hat = (x - mean) / sqrt(mean((x - mean)^2) + norm.eps)`, without the mean unless
/// `norm.centred`; then scale and codes of `x_hat * weight + bias`.
///
/// Sums are f64; the mean and `1 / sqrt(..)` are rounded to f32 once, as are the difference and each product and sum after it.
/// Errors: as for [`super::quantize_tokens`]; `Range` for a `norm.eps` that is negative or not finite.
#[expect(clippy::too_many_arguments, reason = "an array and its shape, a norm, two results")]
pub fn norm_quantize<F: Token>(
    m: &Machine,
    x: &[f32],
    rows: usize,
    cols: usize,
    norm: Norm<'_>,
    eps: f32,
    codes: &mut [F::Code],
    scale: &mut [f32],
) -> Result<()> {
    if !(norm.eps >= 0.0 && norm.eps.is_finite()) {
        return Err(Error::range("norm_eps", norm.eps, "a finite number, 0 or above"));
    }
    expect_shape("x", x.len(), &[rows, cols])?;
    expect_len("weight", norm.weight.len(), cols)?;
    if let Some(bias) = norm.bias {
        expect_len("bias", bias.len(), cols)?;
    }
    by_row::<F>(m, rows, cols, eps, codes, scale, |path, row, room| {
        room.resize(cols, 0.0);
        let x = &x[row * cols..(row + 1) * cols];
        match path {
            // SAFETY: a machine with this path has AVX2.
            Path::Amx | Path::Avx512 | Path::Avx2 => unsafe { avx2::normalize(x, norm, room) },
            Path::Scalar => portable::normalize(x, norm, room),
        }
        None
    })
}

mod portable {
    use super::Norm;

    /// Partial sums: two vectors of four f64.
    const LANES: usize = 8;

    #[inline(always)]
    pub fn normalize(x: &[f32], norm: Norm<'_>, y: &mut [f32]) {
        let count = x.len() as f64;
        let mean = if norm.centred { sum(x, |x| x) / count } else { 0.0 };
        let square = sum(x, |x| (x - mean) * (x - mean)) / count;
        let (mean, factor) = (mean as f32, (1.0 / (square + f64::from(norm.eps)).sqrt()) as f32);
        for ((y, &x), &weight) in y.iter_mut().zip(x).zip(norm.weight) {
            *y = (x - mean) * factor * weight;
        }
        if let Some(bias) = norm.bias {
            for (y, &bias) in y.iter_mut().zip(bias) {
                *y += bias;
            }
        }
    }

    #[inline(always)]
    fn sum(x: &[f32], of: impl Fn(f64) -> f64) -> f64 {
        let (parts, rest) = x.as_chunks::<LANES>();
        let mut sums = [0.0; LANES];
        for part in parts {
            for (sum, &x) in sums.iter_mut().zip(part) {
                *sum += of(f64::from(x));
            }
        }
        sums.into_iter().chain(rest.iter().map(|&x| of(f64::from(x)))).sum()
    }
}

mod avx2 {
    //! The portable body, compiled to vectors.

    use super::Norm;

    #[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2"))]
    pub unsafe fn normalize(x: &[f32], norm: Norm<'_>, y: &mut [f32]) {
        super::portable::normalize(x, norm, y);
    }
}
