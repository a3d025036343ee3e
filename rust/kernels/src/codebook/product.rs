//! product_encode, product_decode: one codebook for each stretch of a row. Limit: multiplications for encoding, memory for decoding.

use super::nearest_codeword::{expect_moderate, half_norm};
use super::search::Search;
use crate::error::expect_shape;
use crate::parts::Rows;
use crate::{Error, Machine, Result};

/// Rows encoded at a time: their coordinates stay in the second cache while all codebooks pass.
const ROWS: usize = 384;
/// Elements worth a thread.
const GRAIN: usize = 1 << 14;

/// The integers that hold codes.
pub trait Code: Copy + Send + Sync {
    /// The largest codebook.
    const COUNT: usize;
    /// From what the search found, below `COUNT`.
    fn of(index: i32) -> Self;
    /// As an index.
    fn index(self) -> usize;
}

impl Code for u8 {
    const COUNT: usize = 1 << 8;
    fn of(index: i32) -> Self {
        index as Self
    }
    fn index(self) -> usize {
        self.into()
    }
}

impl Code for u16 {
    const COUNT: usize = 1 << 16;
    fn of(index: i32) -> Self {
        index as Self
    }
    fn index(self) -> usize {
        self.into()
    }
}

/// The lengths of a product: `parts` codebooks of `count` codewords of `dim` numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Product {
    /// Codebooks, and codes of a row.
    pub parts: usize,
    /// Codewords of each.
    pub count: usize,
    /// Numbers of a codeword.
    pub dim: usize,
}

/// For each row of `x` `[rows, parts dim]` and each codebook of `codebooks` `[parts, count, dim]` the nearest codeword to the part
/// of the row: `codes` `[rows, parts]`. The search, its bound and its ties are those of [`super::nearest_codeword`].
///
/// Errors: `Range` for no codewords or more than the codes can count, or numbers whose squares overflow; `NotFinite`.
pub fn product_encode<C: Code>(
    m: &Machine,
    x: &[f32],
    codebooks: &[f32],
    rows: usize,
    Product { parts, count, dim }: Product,
    codes: &mut [C],
) -> Result<()> {
    expect_shape("x", x.len(), &[rows, parts, dim])?;
    expect_shape("codebooks", codebooks.len(), &[parts, count, dim])?;
    expect_shape("codes", codes.len(), &[rows, parts])?;
    if count == 0 || count > C::COUNT {
        return Err(Error::range("codebooks", format!("{count} codewords"), format!("1 to {}", C::COUNT)));
    }
    expect_moderate(x, codebooks, None, dim, dim)?;
    let width = parts * dim;
    let searches: Vec<Search> = (0..parts)
        .map(|part| {
            let codebook = &codebooks[part * count * dim..][..count * dim];
            Search::new(count, dim, |k| half_norm(codebook, dim, k), |k, j| codebook[k * dim + j])
        })
        .collect();
    m.split_parts(rows, GRAIN.div_ceil((width * count).max(1)).max(8), Rows::new(codes, parts), |range, codes| {
        let mut index = vec![0; ROWS.min(range.len())];
        let chunks = codes.all().chunks_mut((ROWS * parts).max(1));
        for (start, codes) in range.step_by(ROWS).zip(chunks) {
            let index = &mut index[..codes.len() / parts];
            for (part, search) in searches.iter().enumerate() {
                search.some(m.path(), index, |p, j| -x[(start + p) * width + part * dim + j]);
                for (codes, &k) in codes.chunks_exact_mut(parts).zip(&*index) {
                    codes[part] = C::of(k);
                }
            }
        }
    });
    Ok(())
}

/// The codewords of codes side by side: `x` `[rows, parts dim]`.
///
/// Errors: `Range` for a code beyond its codebook. Then nothing is written.
pub fn product_decode<C: Code>(
    m: &Machine,
    codes: &[C],
    codebooks: &[f32],
    rows: usize,
    Product { parts, count, dim }: Product,
    x: &mut [f32],
) -> Result<()> {
    expect_shape("codes", codes.len(), &[rows, parts])?;
    expect_shape("codebooks", codebooks.len(), &[parts, count, dim])?;
    expect_shape("x", x.len(), &[rows, parts, dim])?;
    if let Some(code) = codes.iter().map(|code| code.index()).find(|&code| code >= count) {
        return Err(Error::range("codes", code, format!("codes below {count}")));
    }
    let width = parts * dim;
    if width == 0 {
        return Ok(());
    }
    m.split_parts(rows, GRAIN.div_ceil(width), Rows::new(x, width), |range, x| {
        let (codes, x) = (&codes[range.start * parts..range.end * parts], x.all());
        // copies of a length that is known are one or two instructions
        match dim {
            2 => gather::<C, 2>(codes, codebooks, count, x),
            4 => gather::<C, 4>(codes, codebooks, count, x),
            8 => gather::<C, 8>(codes, codebooks, count, x),
            16 => gather::<C, 16>(codes, codebooks, count, x),
            _ => {
                for (i, (x, code)) in x.chunks_exact_mut(dim).zip(codes).enumerate() {
                    x.copy_from_slice(&codebooks[(i % parts * count + code.index()) * dim..][..dim]);
                }
            }
        }
    });
    Ok(())
}

/// The codewords of whole rows of codes, each of `D` numbers.
fn gather<C: Code, const D: usize>(codes: &[C], codebooks: &[f32], count: usize, x: &mut [f32]) {
    let (x, codewords) = (x.as_chunks_mut::<D>().0, codebooks.as_chunks::<D>().0);
    let parts = codewords.len() / count;
    for (x, codes) in x.chunks_exact_mut(parts).zip(codes.chunks_exact(parts)) {
        for ((x, code), codewords) in x.iter_mut().zip(codes).zip(codewords.chunks_exact(count)) {
            *x = codewords[code.index()];
        }
    }
}
