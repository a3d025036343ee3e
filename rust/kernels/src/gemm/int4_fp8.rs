//! int4_fp8: 8-bit floats times 4-bit codes whose scales belong to groups: the product under FireQ.
//!
//! `x` is widened once, the codes are multiplied where they are decoded: `decoded`. Limit: the decoding.

use super::decode::{Meaning, Row};
use super::{decoded, expect_scale};
use crate::error::expect_shape;
use crate::minifloat::{E4m3fn, decode};
use crate::quantize::groups;
use crate::simd::bytes;
use crate::{Error, Machine, Result};
use std::borrow::Cow;

/// Scales of groups of a weight.
#[derive(Debug, Clone, Copy)]
pub enum GroupScales<'a> {
    /// Codes of E4M3.
    E4m3fn(&'a [u8]),
    /// Themselves.
    Floats(&'a [f32]),
}

impl<'a> GroupScales<'a> {
    fn len(self) -> usize {
        match self {
            Self::E4m3fn(codes) => codes.len(),
            Self::Floats(values) => values.len(),
        }
    }

    fn widen(self, m: &Machine) -> Result<Cow<'a, [f32]>> {
        match self {
            Self::E4m3fn(codes) => {
                let mut values = vec![0.0; codes.len()];
                decode::<E4m3fn>(m, codes, &mut values)?;
                Ok(Cow::Owned(values))
            }
            Self::Floats(values) => Ok(Cow::Borrowed(values)),
        }
    }
}

/// `out[t, n] = (sum_k x[t, k] * w_scale[n, k / group] * (code[n, k] - 8)) * x_scale[t] * tensor_scale + bias[n]`.
///
/// `x` `[rows, depth]` holds codes of E4M3, `words` `[cols, ceil(depth / 8)]` codes of 4 bits in dense order, `w_scale` `[cols, depth /
/// group]`, `out` `[rows, cols]`; one `x_scale` for all rows or one a row. Products and sums are f32. NaN and infinity spread. Errors:
/// `Range` for a `tensor_scale` that is no normal number above 0; `Shape` for a group that does not divide `depth` and lengths that do
/// not fit. Then nothing is written.
#[allow(clippy::too_many_arguments)]
pub fn int4_fp8(
    m: &Machine,
    x: &[u8],
    words: &[i32],
    x_scale: &[f32],
    w_scale: GroupScales<'_>,
    tensor_scale: f32,
    bias: Option<&[f32]>,
    rows: usize,
    cols: usize,
    depth: usize,
    group: usize,
    out: &mut [f32],
) -> Result<()> {
    if !(tensor_scale.is_normal() && tensor_scale > 0.0) {
        return Err(Error::range("tensor_scale", tensor_scale, "a normal number above 0"));
    }
    let (groups, width) = (groups(depth, group)?, depth.div_ceil(8));
    expect_shape("x", x.len(), &[rows, depth])?;
    expect_shape("words", words.len(), &[cols, width])?;
    expect_shape("w_scale", w_scale.len(), &[cols, groups])?;
    expect_scale("x_scale", x_scale.len(), rows)?;
    bias.map_or(Ok(()), |bias| expect_shape("bias", bias.len(), &[cols]))?;
    expect_shape("out", out.len(), &[rows, cols])?;
    let mut wide = vec![0.0; x.len()];
    decode::<E4m3fn>(m, x, &mut wide)?;
    let scale = w_scale.widen(m)?;
    let row = |n: usize| Row {
        bytes: bytes(&words[n * width..(n + 1) * width]),
        bits: 4,
        scale: &scale[n * groups..(n + 1) * groups],
        meaning: Meaning::Affine(None),
        group,
    };
    decoded::packed(m, &wide, [rows, cols, depth], row, out);
    for (t, out) in out.chunks_mut(cols.max(1)).enumerate() {
        let x_scale = if x_scale.len() == 1 { x_scale[0] } else { x_scale[t] };
        out.iter_mut().for_each(|y| *y = *y * x_scale * tensor_scale);
        if let Some(bias) = bias {
            out.iter_mut().zip(bias).for_each(|(y, bias)| *y += bias);
        }
    }
    Ok(())
}
