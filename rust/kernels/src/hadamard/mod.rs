//! The Walsh-Hadamard transform of rows, in place: `n log2 n` additions. Limit: memory.

use crate::error::expect_shape;
use crate::parts::Rows;
use crate::{Error, Machine, Path, Result};

/// Elements worth a thread.
const GRAIN: usize = 1 << 15;

/// `x [rows, n] = scale * x H`, with `H[i, j] = (-1)^popcount(i & j)` (Sylvester's order) and `n` a power of two.
///
/// NaN and infinity spread over their row. Errors: `Range` for another `n`, `Shape` for another length.
pub fn hadamard(m: &Machine, x: &mut [f32], rows: usize, n: usize, scale: f32) -> Result<()> {
    if !n.is_power_of_two() {
        return Err(Error::range("n", n, "a power of two"));
    }
    expect_shape("x", x.len(), &[rows, n])?;
    m.split_parts(rows, GRAIN.div_ceil(n), Rows::new(x, n), |_, x| {
        let x = x.all();
        match m.path() {
            // SAFETY: a machine with this path has AVX2.
            Path::Avx512 | Path::Avx2 => unsafe { avx2::hadamard(x, n, scale) },
            Path::Scalar => portable::hadamard(x, n, scale),
        }
    });
    Ok(())
}

mod portable {
    /// Sums and differences at distance 1, 2, 4, ...; every body adds in this order, so that all give the same bits.
    #[inline(always)]
    pub fn hadamard(x: &mut [f32], n: usize, scale: f32) {
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

mod avx2 {
    #[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2"))]
    pub unsafe fn hadamard(x: &mut [f32], n: usize, scale: f32) {
        super::portable::hadamard(x, n, scale);
    }
}
