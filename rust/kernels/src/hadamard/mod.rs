//! The Hadamard transform of rows, in place: `n log2 n` additions, and `n K` more where `n = K 2^t`. Limit: memory; for large
//! `K` the multiplications of the dense product with `H_K`, near the speed of sgemm (`benches/bench_hadamard.py`).

mod matrix;

use std::sync::Arc;

use crate::error::{expect_len, expect_shape};
use crate::minifloat::Narrow;
use crate::parts::Rows;
use crate::quantize::{Token, by_row};
use crate::{Error, Machine, Path, Result};
use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};

/// Elements worth a thread.
const GRAIN: usize = 1 << 15;
/// Elements, in whole rows, that are read right before they are transformed: they are in the first cache then.
const PIECE: usize = 1 << 11;

/// The outer factor for rows of `n`: its order `K`, and `H_K` row by row, entries 1 and -1; 1 and nothing for powers of two.
/// For an odd `K`, of which there are no such, Hartley's matrix.
///
/// Errors: `Range` for an `n` that is no `K 2^t`.
pub fn outer(n: usize) -> Result<(usize, Arc<[f32]>)> {
    let order = matrix::order(n).ok_or_else(|| {
        Error::range("n", n, "1 or more, with an odd part of at most 4096 where no Hadamard matrix is known here")
    })?;
    Ok((order, if order > 1 { matrix::matrix(order) } else { Arc::default() }))
}

/// `x [rows, n] = scale * from H^T`, in place (of `x`) without `from`, with `H` the Kronecker product of `H_K` and `H_2^t`: `H_K` as in [`matrix`], and
/// `H_2^t[i, j] = (-1)^popcount(i & j)` (Sylvester's order). `transpose`: `scale * from H`, its inverse for a scale of `1 / n`.
///
/// NaN and infinity spread over their row. Errors: `Range` for an `n` that is no `K 2^t`, `Shape` for another length.
pub fn hadamard(
    m: &Machine,
    from: Option<Narrow<'_>>,
    x: &mut [f32],
    rows: usize,
    n: usize,
    scale: f32,
    transpose: bool,
) -> Result<()> {
    let transform = Transform::new(n, scale, transpose)?;
    expect_shape("x", x.len(), &[rows, n])?;
    if let Some(from) = from {
        expect_len("from", from.len(), x.len())?;
    }
    m.split_parts(rows, GRAIN.div_ceil(n), Rows::new(x, n), |range, x| {
        let piece = PIECE.div_ceil(n) * n;
        for (start, x) in (range.start * n..).step_by(piece).zip(x.all().chunks_mut(piece)) {
            let range = start..start + x.len();
            match from {
                Some(Narrow::F32(values)) => transform.apply(m.path(), Some(&values[range]), x),
                Some(from) => {
                    from.read(m.path(), range, x);
                    transform.apply(m.path(), None, x);
                }
                None => transform.apply(m.path(), None, x),
            }
        }
    });
    Ok(())
}

/// The transform of `x [rows, n] * signs`, each row quantized as [`quantize_tokens`](crate::quantize::quantize_tokens) does it.
///
/// `signs [n]`, or `None`: 1; any factors will do. Errors: of both, `Shape` for another length.
#[expect(clippy::too_many_arguments, reason = "an array and its shape, a transform, two results")]
pub fn hadamard_quantize<F: Token>(
    m: &Machine,
    x: &[f32],
    signs: Option<&[f32]>,
    rows: usize,
    n: usize,
    scale: f32,
    transpose: bool,
    eps: f32,
    codes: &mut [F::Code],
    scales: &mut [f32],
) -> Result<()> {
    let transform = Transform::new(n, scale, transpose)?;
    expect_shape("x", x.len(), &[rows, n])?;
    if let Some(signs) = signs {
        expect_len("signs", signs.len(), n)?;
    }
    by_row::<F>(m, rows, n, eps, codes, scales, |path, row, room| {
        room.clear();
        room.extend_from_slice(&x[row * n..(row + 1) * n]);
        for (x, sign) in room.iter_mut().zip(signs.unwrap_or_default()) {
            *x *= sign;
        }
        transform.apply(path, None, room);
        None
    })
}

/// One transform, ready for any rows.
struct Transform {
    order: usize,
    matrix: Arc<[f32]>,
    span: usize,
    scale: f32,
    transpose: bool,
}

impl Transform {
    fn new(n: usize, scale: f32, transpose: bool) -> Result<Self> {
        let (order, matrix) = outer(n)?;
        Ok(Self { order, matrix, span: n / order, scale, transpose })
    }

    /// Transforms rows in place, or those of `from` to `x`.
    fn apply(&self, path: Path, from: Option<&[f32]>, x: &mut [f32]) {
        let factor = if self.order > 1 { 1.0 } else { self.scale };
        match path {
            // SAFETY: whoever has this path of a machine has AVX2.
            Path::Amx | Path::Avx512 | Path::Avx2 => unsafe { avx2::hadamard(from, x, self.span, factor) },
            Path::Scalar => portable::hadamard(from, x, self.span, factor),
        }
        if self.order > 1 {
            let matrix = MatRef::from_row_major_slice(&self.matrix, self.order, self.order);
            mix(x, if self.transpose { matrix.transpose() } else { matrix }, self.span, self.scale);
        }
    }
}

/// The outer factor: every row, seen as `[K, span]`, times `matrix` from the left. One body: the product finds its own vectors.
fn mix(x: &mut [f32], matrix: MatRef<'_, f32>, span: usize, scale: f32) {
    let order = matrix.nrows();
    let mut before = vec![0.0; order * span];
    for row in x.chunks_exact_mut(order * span) {
        before.copy_from_slice(row);
        let (before, row) =
            (MatRef::from_row_major_slice(&before, order, span), MatMut::from_row_major_slice_mut(row, order, span));
        matmul(row, Accum::Replace, matrix, before, scale, Par::Seq);
    }
}

mod portable {
    /// Sums and differences at distance 1, 2, 4, ...; every body adds in this order, so that all give the same bits.
    #[inline(always)]
    pub fn hadamard(from: Option<&[f32]>, x: &mut [f32], n: usize, scale: f32) {
        if let Some(from) = from {
            x.copy_from_slice(from);
        }
        for row in x.chunks_exact_mut(n) {
            let mut distance = 1;
            while distance < n {
                for pair in row.chunks_exact_mut(2 * distance) {
                    let (low, high) = pair.split_at_mut(distance);
                    for (a, b) in low.iter_mut().zip(high) {
                        (*a, *b) = (*a + *b, *a - *b);
                    }
                }
                distance *= 2;
            }
            for x in row {
                *x *= scale;
            }
        }
    }
}

#[cfg(not(target_arch = "x86_64"))]
use portable as avx2;

#[cfg(target_arch = "x86_64")]
mod avx2 {
    //! Blocks of up to 64 elements in eight registers, then three distances at a time over memory.

    use crate::simd::{load_f32x8, store_f32x8};
    use std::arch::x86_64::*;

    #[target_feature(enable = "avx2,fma")]
    pub fn hadamard(from: Option<&[f32]>, x: &mut [f32], n: usize, scale: f32) {
        match n {
            0..8 => super::portable::hadamard(from, x, n, scale),
            8 => within::<1>(from, x, scale),
            16 => within::<2>(from, x, scale),
            32 => within::<4>(from, x, scale),
            64 => within::<8>(from, x, scale),
            128.. => {
                for (start, row) in (0..).step_by(n).zip(x.chunks_exact_mut(n)) {
                    long(from.map(|from| &from[start..start + n]), row, scale);
                }
            }
            _ => {}
        }
    }

    #[target_feature(enable = "avx2,fma")]
    fn long(from: Option<&[f32]>, row: &mut [f32], scale: f32) {
        within::<8>(from, row, 1.0);
        let mut distance = 64;
        while distance < row.len() {
            match row.len() / distance {
                2 => across::<2, true>(row, distance, scale),
                4 => across::<4, true>(row, distance, scale),
                8 => across::<8, true>(row, distance, scale),
                _ => across::<8, false>(row, distance, scale),
            }
            distance *= 8;
        }
    }

    /// All distances in blocks of `8 R` elements, which are read from `from`: so memory is read while registers are added.
    #[target_feature(enable = "avx2,fma")]
    fn within<const R: usize>(from: Option<&[f32]>, x: &mut [f32], scale: f32) {
        let scale = _mm256_set1_ps(scale);
        // x * sign + swapped is rounded once, hence the same sum or difference
        let sign1 = _mm256_setr_ps(1.0, -1.0, 1.0, -1.0, 1.0, -1.0, 1.0, -1.0);
        let sign2 = _mm256_setr_ps(1.0, 1.0, -1.0, -1.0, 1.0, 1.0, -1.0, -1.0);
        let sign4 = _mm256_setr_ps(1.0, 1.0, 1.0, 1.0, -1.0, -1.0, -1.0, -1.0);
        let mut sources = from.unwrap_or_default().as_chunks::<8>().0.as_chunks::<R>().0.iter();
        for block in x.as_chunks_mut::<8>().0.as_chunks_mut::<R>().0 {
            let mut v = [_mm256_setzero_ps(); R];
            let source = sources.next().unwrap_or(&*block);
            for (v, x) in v.iter_mut().zip(source) {
                let x = load_f32x8(x);
                let x = _mm256_fmadd_ps(x, sign1, _mm256_permute_ps::<0b10_11_00_01>(x));
                let x = _mm256_fmadd_ps(x, sign2, _mm256_permute_ps::<0b01_00_11_10>(x));
                *v = _mm256_fmadd_ps(x, sign4, _mm256_permute2f128_ps::<1>(x, x));
            }
            butterflies(&mut v);
            for (v, x) in v.iter().zip(block) {
                store_f32x8(x, _mm256_mul_ps(*v, scale));
            }
        }
    }

    /// The distances `distance`, 2 `distance`, ... below `R distance`; after the last ones the scale.
    #[target_feature(enable = "avx2,fma")]
    fn across<const R: usize, const LAST: bool>(x: &mut [f32], distance: usize, scale: f32) {
        let (count, scale) = (distance / 8, _mm256_set1_ps(scale));
        for block in x.chunks_exact_mut(R * distance) {
            let mut parts = cut::<R>(block, count);
            for at in 0..count {
                let mut v = [_mm256_setzero_ps(); R];
                for (v, part) in v.iter_mut().zip(&parts) {
                    *v = load_f32x8(&part[at]);
                }
                butterflies(&mut v);
                for (v, part) in v.iter().zip(&mut parts) {
                    store_f32x8(&mut part[at], if LAST { _mm256_mul_ps(*v, scale) } else { *v });
                }
            }
        }
    }

    /// The `R` parts of a block, `count` vectors each. By a loop: what a closure does here would not be inlined.
    #[inline(always)]
    fn cut<const R: usize>(block: &mut [f32], count: usize) -> [&mut [[f32; 8]]; R] {
        let mut parts: [&mut [[f32; 8]]; R] = std::array::from_fn(|_| Default::default());
        for (part, x) in parts.iter_mut().zip(block.as_chunks_mut().0.chunks_exact_mut(count)) {
            *part = &mut x[..count];
        }
        parts
    }

    /// All distances between the registers.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn butterflies<const R: usize>(v: &mut [__m256; R]) {
        let mut distance = 1;
        while distance < R {
            for first in 0..R {
                if first & distance == 0 {
                    let (a, b) = (v[first], v[first + distance]);
                    v[first] = _mm256_add_ps(a, b);
                    v[first + distance] = _mm256_sub_ps(a, b);
                }
            }
            distance *= 2;
        }
    }
}

#[cfg(test)]
mod tests;
