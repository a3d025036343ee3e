//! Products with a weight that is decoded by strips of rows: `out = x W^T`, every sum in f32.
//!
//! One row of `x`: packed codes are multiplied where they are decoded; limit: the decoding. A few: one strip of weights at a time is decoded into a scratch that stays in the first cache and multiplied
//! at once; limit: the decoding. Many rows: a panel of rows is decoded and handed to a dense product; limit: multiplications.

use super::decode::{self, Row};
use super::{Columns, columns};
use crate::{Machine, Path};
use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};

/// Rows of `x` up to which a row of weights is multiplied as soon as it is decoded.
const FEW: usize = 8;
/// Rows of weights of one task where rows of `x` are few.
const TASK: usize = 64;
/// Rows of weights decoded at a time for the dense product: wide enough that packing `x` again for each costs little.
const PANEL: usize = 256;

/// [`product`] with a weight whose row `n` is `row(n)`, packed codes.
pub(super) fn packed<'a>(
    m: &Machine,
    x: &[f32],
    [rows, cols, depth]: [usize; 3],
    row: impl Fn(usize) -> Row<'a> + Sync,
    out: &mut [f32],
) {
    if rows != 1 || depth == 0 {
        return product(m, x, [rows, cols, depth], 1, |n, values| decode::decode(m, row(n), values), out);
    }
    m.each(out.chunks_mut(TASK).enumerate().collect(), |(chunk, sums)| {
        for (at, sum) in sums.iter_mut().enumerate() {
            *sum = decode::dot(m, row(TASK * chunk + at), x);
        }
    });
}

/// `out = x W^T` for `x` `[rows, depth]`, `W` `[cols, depth]`, `out` `[rows, cols]`. `decode(s, values)` fills `[height, depth]` with
/// the rows of strip `s`; the last strip may have rows beyond `cols`, which are ignored.
pub(super) fn product(
    m: &Machine,
    x: &[f32],
    [rows, cols, depth]: [usize; 3],
    height: usize,
    decode: impl Fn(usize, &mut [f32]) + Sync,
    out: &mut [f32],
) {
    if depth == 0 {
        return out.fill(0.0);
    }
    if rows <= FEW {
        m.each(columns(out, cols, TASK.next_multiple_of(height)), |Columns { range, rows: mut out }| {
            let mut strip = vec![0.0; height * depth];
            for (at, n) in range.clone().enumerate().step_by(height) {
                decode(n / height, &mut strip);
                for (at, weight) in (at..range.len()).zip(strip.chunks_exact(depth)) {
                    for (sum, x) in out.iter_mut().zip(x.chunks_exact(depth)) {
                        sum[at] = dot(m, weight, x);
                    }
                }
            }
        });
        return;
    }
    let x = MatRef::from_row_major_slice(x, rows, depth);
    m.each(columns(out, cols, PANEL.next_multiple_of(height)), |Columns { range, rows: mut out }| {
        let width = range.len();
        let (mut weight, mut product) = (vec![0.0; width.next_multiple_of(height) * depth], vec![0.0; rows * width]);
        for (n, values) in range.step_by(height).zip(weight.chunks_exact_mut(height * depth)) {
            decode(n / height, values);
        }
        let weight = MatRef::from_row_major_slice(&weight[..width * depth], width, depth);
        let target = MatMut::from_row_major_slice_mut(&mut product, rows, width);
        matmul(target, Accum::Replace, x, weight.transpose(), 1.0, Par::Seq);
        for (row, sums) in out.iter_mut().zip(product.chunks_exact(width)) {
            row.copy_from_slice(sums);
        }
    });
}

fn dot(m: &Machine, a: &[f32], b: &[f32]) -> f32 {
    match m.path() {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a machine with this path has AVX-512 F and DQ.
        Path::Amx | Path::Avx512 => unsafe { avx512::dot(a, b) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a machine with this path has AVX2 and FMA.
        Path::Avx2 => unsafe { avx2::dot(a, b) },
        #[cfg(not(target_arch = "x86_64"))]
        Path::Amx | Path::Avx512 | Path::Avx2 => portable::dot(a, b),
        Path::Scalar => portable::dot(a, b),
    }
}

mod portable {
    /// Eight running sums, so that rounding grows with an eighth of the length.
    pub fn dot(a: &[f32], b: &[f32]) -> f32 {
        let mut sums = [0.0f32; 8];
        for (a, b) in a.chunks(8).zip(b.chunks(8)) {
            for (sum, (a, b)) in sums.iter_mut().zip(a.iter().zip(b)) {
                *sum += a * b;
            }
        }
        sums.iter().sum()
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use super::portable;
    use crate::simd::{load_f32x8, sum_f32x8};
    use std::arch::x86_64::*;

    /// Eight vectors of sums, as many as two multiply-adds a cycle of four cycles each keep busy.
    #[target_feature(enable = "avx2,fma")]
    pub fn dot(a: &[f32], b: &[f32]) -> f32 {
        let mut sums = [_mm256_setzero_ps(); 8];
        let (a_blocks, a_rest) = a.as_chunks::<64>();
        let (b_blocks, b_rest) = b.as_chunks::<64>();
        for (a, b) in a_blocks.iter().zip(b_blocks) {
            for ((sum, a), b) in sums.iter_mut().zip(a.as_chunks::<8>().0).zip(b.as_chunks::<8>().0) {
                *sum = _mm256_fmadd_ps(load_f32x8(a), load_f32x8(b), *sum);
            }
        }
        let all = sums.into_iter().fold(_mm256_setzero_ps(), |all, sum| _mm256_add_ps(all, sum));
        sum_f32x8(all) + portable::dot(a_rest, b_rest)
    }
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use super::portable;
    use crate::simd::{load_f32x16, sum_f32x8};
    use std::arch::x86_64::*;

    /// Two of the AVX2 body's vectors of sums in each register, for half of its loads; added in its order, to its bits. Not timed
    /// on such a processor so far.
    #[target_feature(enable = "avx512f,avx512dq")]
    pub fn dot(a: &[f32], b: &[f32]) -> f32 {
        let mut sums = [_mm512_setzero_ps(); 4];
        let (a_blocks, a_rest) = a.as_chunks::<64>();
        let (b_blocks, b_rest) = b.as_chunks::<64>();
        for (a, b) in a_blocks.iter().zip(b_blocks) {
            for ((sum, a), b) in sums.iter_mut().zip(a.as_chunks::<16>().0).zip(b.as_chunks::<16>().0) {
                *sum = _mm512_fmadd_ps(load_f32x16(a), load_f32x16(b), *sum);
            }
        }
        let mut all = _mm256_setzero_ps();
        for sum in sums {
            all = _mm256_add_ps(all, _mm512_castps512_ps256(sum));
            all = _mm256_add_ps(all, _mm512_extractf32x8_ps::<1>(sum));
        }
        sum_f32x8(all) + portable::dot(a_rest, b_rest)
    }
}
