//! codebook_gemm: `out = x W^T` with `W` in codes of whole vectors, looked up on the way: E8P along the inputs (QuIP#), or codewords
//! of tables along the outputs, with a residual stage and groups of columns (VPTQ).
//!
//! One row of `x` and E8P: values are multiplied where they are looked up, in tables of 16 KiB; limit: the look-ups. More rows: a
//! row of weights is decoded at a time, see `decoded`. Tables: `tables`.

use super::{decoded, tables};
use crate::codebook::lattice::Decoder;
use crate::codebook::{Lattice, Table};
use crate::error::expect_shape;
use crate::pack::words_per_row;
use crate::simd::bytes;
use crate::{Error, Machine, Path, Result};

/// Numbers of an E8P codeword.
const EIGHT: usize = 8;

/// What codes stand for.
#[derive(Debug, Clone, Copy)]
pub enum Codebook<'a> {
    /// Eight neighbouring columns of a row a code.
    Lattice(Lattice),
    /// `dim` neighbouring rows of a column a code.
    Table(Table<'a>),
}

impl Codebook<'_> {
    /// Rows of a strip, codes of a strip, bits of a code.
    fn layout(&self, depth: usize) -> (usize, usize, u32) {
        match self {
            Self::Lattice(lattice) => (1, depth / EIGHT, (EIGHT * lattice.bits()) as u32),
            Self::Table(table) => (table.dim, depth, table.bits().iter().sum()),
        }
    }

    /// Words of the codes of each strip of a weight `[cols, depth]`, and how many strips there are.
    pub fn words(&self, cols: usize, depth: usize) -> [usize; 2] {
        let (height, codes, bits) = self.layout(depth);
        [cols.div_ceil(height.max(1)), words_per_row(codes, bits)]
    }
}

/// `out[t, n] = sum_k x[t, k] * W[n, k]`.
///
/// `x` `[rows, depth]`, `words` of the shape that [`Codebook::words`] gives: the codes of each strip as a dense bit stream, at most
/// 32 bits each; `out` `[rows, cols]`. [`Error::Range`] for a table without codewords or dimension, codes of more bits, or one that
/// has no codeword, [`Error::Shape`] for a depth that is no multiple of 8 (E8P) or of the groups, and lengths; then nothing is
/// written. NaN and infinity pass through. Does not depend on the threads.
#[allow(clippy::too_many_arguments)]
pub fn codebook_gemm(
    m: &Machine,
    x: &[f32],
    words: &[i32],
    codebook: Codebook<'_>,
    rows: usize,
    cols: usize,
    depth: usize,
    out: &mut [f32],
) -> Result<()> {
    match codebook {
        Codebook::Lattice(_) if !depth.is_multiple_of(EIGHT) => {
            return Err(Error::shape("x", format!("{depth} columns"), "a multiple of 8"));
        }
        Codebook::Lattice(_) => {}
        Codebook::Table(table) => table.check(depth)?,
    }
    let [strips, width] = codebook.words(cols, depth);
    expect_shape("x", x.len(), &[rows, depth])?;
    expect_shape("words", words.len(), &[strips, width])?;
    expect_shape("out", out.len(), &[rows, cols])?;
    if depth == 0 {
        out.fill(0.0);
        return Ok(());
    }
    let strip = |s: usize| bytes(&words[s * width..(s + 1) * width]);
    match codebook {
        Codebook::Lattice(lattice) => {
            let decoder = Decoder::of(lattice);
            if rows == 1 {
                m.each(out.chunks_mut(64).enumerate().collect(), |(chunk, sums)| {
                    for (at, sum) in sums.iter_mut().enumerate() {
                        *sum = dot(m, decoder, lattice, strip(64 * chunk + at), x);
                    }
                });
                return Ok(());
            }
            let eights = |s: usize, values: &mut [f32]| {
                let values = values.as_chunks_mut::<EIGHT>().0;
                match m.path() {
                    // SAFETY: a machine with this path has AVX2 and FMA.
                    Path::Amx | Path::Avx512 | Path::Avx2 => unsafe {
                        avx2::eights(decoder, lattice, strip(s), values)
                    },
                    Path::Scalar => portable::eights(decoder, lattice, strip(s), values),
                }
            };
            decoded::product(m, x, [rows, cols, depth], eights, out);
        }
        Codebook::Table(table) => tables::product(m, x, words, table, [rows, cols, depth], out)?,
    }
    Ok(())
}

/// The sum over a row of `x` times its values.
fn dot(m: &Machine, decoder: &Decoder, lattice: Lattice, stream: &[u8], x: &[f32]) -> f32 {
    match m.path() {
        // SAFETY: a machine with this path has AVX2 and FMA.
        Path::Amx | Path::Avx512 | Path::Avx2 => unsafe { avx2::dot(decoder, lattice, stream, x) },
        Path::Scalar => portable::dot(decoder, lattice, stream, x),
    }
}

/// The codes of a row, each of whole bytes.
#[inline(always)]
fn codes<const BYTES: usize>(stream: &[u8]) -> impl Iterator<Item = u32> {
    stream.as_chunks::<BYTES>().0.iter().map(|bytes| {
        let mut four = [0; 4];
        four[..BYTES].copy_from_slice(bytes);
        u32::from_le_bytes(four)
    })
}

mod portable {
    use super::{Decoder, EIGHT, Lattice, codes};

    pub fn eights(decoder: &Decoder, lattice: Lattice, stream: &[u8], values: &mut [[f32; EIGHT]]) {
        match lattice {
            Lattice::Two => fill(decoder, codes::<2>(stream), values),
            Lattice::Three => fill(decoder, codes::<3>(stream), values),
            Lattice::Four => fill(decoder, codes::<4>(stream), values),
        }
    }

    fn fill(decoder: &Decoder, codes: impl Iterator<Item = u32>, values: &mut [[f32; EIGHT]]) {
        values.iter_mut().zip(codes).for_each(|(value, code)| *value = decoder.value(code));
    }

    pub fn dot(decoder: &Decoder, lattice: Lattice, stream: &[u8], x: &[f32]) -> f32 {
        match lattice {
            Lattice::Two => sum(decoder, codes::<2>(stream), x),
            Lattice::Three => sum(decoder, codes::<3>(stream), x),
            Lattice::Four => sum(decoder, codes::<4>(stream), x),
        }
    }

    /// Eight running sums.
    fn sum(decoder: &Decoder, codes: impl Iterator<Item = u32>, x: &[f32]) -> f32 {
        let mut sums = [0.0f32; EIGHT];
        for (code, x) in codes.zip(x.as_chunks::<EIGHT>().0) {
            let value = decoder.value(code);
            for j in 0..EIGHT {
                sums[j] += value[j] * x[j];
            }
        }
        sums.iter().sum()
    }
}

#[cfg(not(target_arch = "x86_64"))]
use portable as avx2;

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use super::{Decoder, EIGHT, Lattice, codes};
    use crate::codebook::lattice::{Points, Second};
    use crate::simd::{load_f32x8, store_f32x8, sum_f32x8};
    use std::arch::x86_64::*;

    #[target_feature(enable = "avx2,fma")]
    pub fn eights(decoder: &Decoder, lattice: Lattice, stream: &[u8], values: &mut [[f32; EIGHT]]) {
        match lattice {
            Lattice::Two => fill(decoder, codes::<2>(stream), values),
            Lattice::Three => fill(decoder, codes::<3>(stream), values),
            Lattice::Four => fill(decoder, codes::<4>(stream), values),
        }
    }

    #[target_feature(enable = "avx2,fma")]
    #[inline]
    fn fill(decoder: &Decoder, codes: impl Iterator<Item = u32>, values: &mut [[f32; EIGHT]]) {
        for (value, code) in values.iter_mut().zip(codes) {
            store_f32x8(value, self::value(decoder, code));
        }
    }

    #[target_feature(enable = "avx2,fma")]
    pub fn dot(decoder: &Decoder, lattice: Lattice, stream: &[u8], x: &[f32]) -> f32 {
        match lattice {
            Lattice::Two => sum(decoder, codes::<2>(stream), x),
            Lattice::Three => sum(decoder, codes::<3>(stream), x),
            Lattice::Four => sum(decoder, codes::<4>(stream), x),
        }
    }

    /// The sums of both stages apart, so that one division serves all; two vectors of each, as one multiplication would wait for
    /// the one before.
    #[target_feature(enable = "avx2,fma")]
    #[inline]
    fn sum(decoder: &Decoder, mut codes: impl Iterator<Item = u32>, x: &[f32]) -> f32 {
        let mut sums = [[_mm256_setzero_ps(); 2]; 2];
        let (pairs, last) = x.as_chunks::<EIGHT>().0.as_chunks::<2>();
        for pair in pairs {
            let (Some(first), Some(second)) = (codes.next(), codes.next()) else { break };
            for ((sums, code), x) in sums.iter_mut().zip([first, second]).zip(pair) {
                add(decoder, code, x, sums);
            }
        }
        for (code, x) in codes.zip(last) {
            add(decoder, code, x, &mut sums[0]);
        }
        let [even, odd] = sums;
        let (first, second) = (sum_f32x8(_mm256_add_ps(even[0], odd[0])), sum_f32x8(_mm256_add_ps(even[1], odd[1])));
        if let Second::E8p(scale) = decoder.second { first + second / scale } else { first + second }
    }

    /// Adds the products with eight numbers of each stage.
    #[target_feature(enable = "avx2,fma")]
    #[inline]
    fn add(decoder: &Decoder, code: u32, x: &[f32; EIGHT], [first, second]: &mut [__m256; 2]) {
        let x = load_f32x8(x);
        *first = _mm256_fmadd_ps(point(&decoder.first, code), x, *first);
        match &decoder.second {
            Second::None => {}
            Second::E8(table) => *second = _mm256_fmadd_ps(load_f32x8(&table[(code >> 16 & 255) as usize]), x, *second),
            Second::E8p(_) => *second = _mm256_fmadd_ps(point(&decoder.first, code >> 16), x, *second),
        }
    }

    /// The bits of `Decoder::value`.
    #[target_feature(enable = "avx2,fma")]
    #[inline]
    fn value(decoder: &Decoder, code: u32) -> __m256 {
        let first = point(&decoder.first, code);
        match &decoder.second {
            Second::None => first,
            Second::E8(table) => _mm256_add_ps(first, load_f32x8(&table[(code >> 16 & 255) as usize])),
            Second::E8p(scale) => {
                _mm256_add_ps(first, _mm256_div_ps(point(&decoder.first, code >> 16), _mm256_set1_ps(*scale)))
            }
        }
    }

    #[target_feature(enable = "avx2,fma")]
    #[inline]
    fn point(points: &Points, code: u32) -> __m256 {
        let (magnitudes, byte) = ((code >> 8 & 255) as usize, (code & 255) as usize);
        let flipped = _mm256_xor_ps(load_f32x8(&points.table[magnitudes]), load_f32x8(&points.signs[byte]));
        _mm256_add_ps(flipped, _mm256_set1_ps(points.shifts[byte]))
    }
}
