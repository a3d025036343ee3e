//! w4a4: 4-bit codes times 4-bit codes with scales of groups on both sides, and outliers of 8 bits beside them: the product under
//! Atom, and with one group that under `QuaRot`.
//!
//! No CPU multiplies 4 bits: the codes of `x` become bytes, those of the weight are multiplied as they lie in memory by the body of
//! `w4a8`, the outliers by that of `w8a8`. Limits: theirs.

use super::w4a8::{self, Codes, Factor, w4a8};
use super::w8a8::w8a8;
use crate::error::expect_shape;
use crate::pack::{Order, unpack};
use crate::quantize::groups;
use crate::{Error, Machine, Result};

/// The longest sum that no choice of codes overflows in 32 bits, on any device.
const DEPTH_LIMIT: usize = (1 << 17) - 1;
/// The zero point of codes of 4 bits.
const ZERO: u8 = 8;

/// One operand: codes in groups, each with a scale.
#[derive(Debug, Clone, Copy)]
pub struct Operand<'a> {
    /// `[rows, depth / 8]`, dense order; a code stands for itself less 8.
    pub words: &'a [i32],
    /// `[rows, depth / group]`.
    pub scale: &'a [f32],
}

/// Columns of both operands beside the codes.
#[derive(Debug, Clone, Copy)]
pub struct Outliers<'a> {
    /// `[rows, count]`.
    pub x: &'a [i8],
    /// `[cols, count]`.
    pub w: &'a [i8],
    /// `[rows]`.
    pub x_scale: &'a [f32],
    /// `[cols]`.
    pub w_scale: &'a [f32],
    /// How many.
    pub count: usize,
}

/// `out[t, n] = sum_g s_g * x_scale[t, g] * w_scale[n, g] + o * x_outlier_scale[t] * w_outlier_scale[n] + bias[n]`, `s_g` the sum of
/// `(x[t, k] - 8) * (w[n, k] - 8)` over group `g`, `o` that of the outliers' products.
///
/// `out` `[rows, cols]`. Sums of groups and of outliers are exact, their sum is f32; with one group and no outliers `s * x_scale *
/// w_scale + bias` is rounded in this order. Errors: `Range` for a `depth` or a number of outliers above 131071; `Shape` for a `depth`
/// that 8 does not divide, a group that does not divide it, and lengths that do not fit. Then nothing is written.
#[allow(clippy::too_many_arguments)]
pub fn w4a4(
    m: &Machine,
    x: Operand<'_>,
    w: Operand<'_>,
    outliers: Option<Outliers<'_>>,
    bias: Option<&[f32]>,
    rows: usize,
    cols: usize,
    depth: usize,
    group: usize,
    out: &mut [f32],
) -> Result<()> {
    for (what, given) in [("depth", depth), ("outliers", outliers.map_or(0, |outliers| outliers.count))] {
        if given > DEPTH_LIMIT {
            return Err(Error::range(what, given, format!("at most {DEPTH_LIMIT}")));
        }
    }
    if !depth.is_multiple_of(8) {
        return Err(Error::shape("depth", depth, "a multiple of 8"));
    }
    let count = groups(depth, group)?;
    for (what, words, scale, items) in [("x", x.words, x.scale, rows), ("words", w.words, w.scale, cols)] {
        expect_shape(what, words.len(), &[items, depth / 8])?;
        expect_shape(if what == "x" { "x_scale" } else { "w_scale" }, scale.len(), &[items, count])?;
    }
    if let Some(Outliers { x, w, x_scale, w_scale, count }) = outliers {
        expect_shape("x_outliers", x.len(), &[rows, count])?;
        expect_shape("w_outliers", w.len(), &[cols, count])?;
        expect_shape("x_outlier_scale", x_scale.len(), &[rows])?;
        expect_shape("w_outlier_scale", w_scale.len(), &[cols])?;
    }
    bias.map_or(Ok(()), |bias| expect_shape("bias", bias.len(), &[cols]))?;
    expect_shape("out", out.len(), &[rows, cols])?;

    let mut codes = vec![0; rows * depth];
    unpack(m, x.words, rows, depth, 4, Order::Dense, &mut codes)?;
    let bytes: Vec<_> = codes.iter().map(|code| code.wrapping_sub(ZERO).cast_signed()).collect();
    let whole = Codes { words: w.words, factor: Factor::One, zero: None, group: depth.max(1) };
    if outliers.is_none() && count == 1 {
        return w4a8(m, &bytes, whole, x.scale, w.scale, bias, rows, cols, depth, out);
    }
    let scaled = Codes { factor: Factor::Scale(w.scale), group, ..whole };
    w4a8::product(m, &bytes, Some(x.scale), scaled, [rows, cols, depth], |_, _, _| (), out);
    if let Some(Outliers { x, w, x_scale, w_scale, count }) = outliers {
        let mut beside = vec![0.0; rows * cols];
        w8a8(m, x, w, x_scale, w_scale, None, rows, cols, count, &mut beside)?;
        out.iter_mut().zip(beside).for_each(|(y, beside)| *y += beside);
    }
    if let Some(bias) = bias {
        for out in out.chunks_mut(cols.max(1)) {
            out.iter_mut().zip(bias).for_each(|(y, bias)| *y += bias);
        }
    }
    Ok(())
}
