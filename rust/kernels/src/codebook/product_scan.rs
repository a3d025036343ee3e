//! product_scan: sums of a table's values over 4-bit codes, for each row that was product-encoded (docs/layouts.md, "scan"):
//! asymmetric distances by tables in registers (Andre et al., 2019, "Quicker ADC"; faiss calls it fast scan).
//!
//! A table of sixteen values is rounded to bytes, so that one shuffle looks 32 of them up; sums are of 16 bits. Limit: the
//! shuffles and additions while the codes are in the cache, reading the codes beyond it.

use crate::error::{expect_len, expect_shape};
use crate::{Error, Machine, Path, Result};

/// Rows of a block.
const BLOCK: usize = 32;
/// Values of a table, and bytes of a block's part: two codes each.
const COUNT: usize = 16;
/// Queries that share a reading of the codes.
const QUERIES: usize = 2;
/// Bytes of codes that all queries scan while they are in the second cache.
const PIECE: usize = 1 << 18;
/// Bytes of codes, once for each query, from which on threads are worth it.
const GRAIN: usize = 1 << 19;

/// The tables of one query, in bytes.
struct Bytes {
    /// Those of two parts beside each other; an odd part has zeros beside it.
    tables: Vec<[u8; 2 * COUNT]>,
    /// What a sum is multiplied by, and what is added then.
    step: f32,
    base: f32,
    /// How far a sum may be from that of the values.
    bound: f32,
}

impl Bytes {
    /// The common step makes the largest range 255, if the largest sum stays below 2^16.
    fn new(values: &[[f32; COUNT]]) -> Self {
        let least = |table: &[f32; COUNT]| f64::from(table.iter().copied().fold(f32::INFINITY, f32::min));
        let range =
            |table: &[f32; COUNT]| f64::from(table.iter().copied().fold(f32::NEG_INFINITY, f32::max)) - least(table);
        let (widest, all) =
            values.iter().map(range).fold((0.0, 0.0), |(widest, all), r| (f64::max(widest, r), all + r));
        let half = 0.5 * values.len() as f64;
        // Half a unit more for each table, where all are rounded up.
        let scale = if all > 0.0 { (255.0 / widest).min((65535.0 - half) / all) } else { 0.0 };
        let byte = |x: f32, least: f64| (scale * (f64::from(x) - least) + 0.5) as u8;
        let pair = |tables: &[[f32; COUNT]]| {
            let mut pair = [0; 2 * COUNT];
            for (bytes, table) in pair.as_chunks_mut().0.iter_mut().zip(tables) {
                *bytes = table.map(|x| byte(x, least(table)));
            }
            pair
        };
        let step = if scale > 0.0 { 1.0 / scale } else { 0.0 };
        Self {
            tables: values.chunks(2).map(pair).collect(),
            step: step as f32,
            base: values.iter().map(least).sum::<f64>() as f32,
            bound: (half * step) as f32,
        }
    }
}

/// One stretch of blocks for up to two queries.
struct Task<'a> {
    /// The first block.
    first: usize,
    /// The first query.
    query: usize,
    /// For each query the sums of the rows.
    sums: Vec<&'a mut [f32]>,
}

/// `sums[q, n] = sum_p tables[q, p, code[n, p]]`, but for what rounding the tables to bytes moves: at most `bound[q]`, and the
/// rounding of f32.
///
/// `tables` `[queries, parts, 16]`, `blocks` `[rows.div_ceil(32), parts, 16]`: byte `j` of a part holds row `j` of the block in its
/// low half and row `j + 16` in the high one; `sums` `[queries, rows]`, `bound` `[queries]`. The same bits on every path.
///
/// Errors: `Range` for more than 65535 parts; `NotFinite` for tables; `Shape`. Then nothing is written.
#[expect(clippy::too_many_arguments, reason = "two arrays and their shape, two results")]
pub fn product_scan(
    m: &Machine,
    tables: &[f32],
    blocks: &[u8],
    queries: usize,
    rows: usize,
    parts: usize,
    sums: &mut [f32],
    bound: &mut [f32],
) -> Result<()> {
    if parts > usize::from(u16::MAX) {
        return Err(Error::range("tables", format!("{parts} parts"), "at most 65535"));
    }
    expect_shape("tables", tables.len(), &[queries, parts, COUNT])?;
    expect_shape("blocks", blocks.len(), &[rows.div_ceil(BLOCK), parts, COUNT])?;
    expect_shape("sums", sums.len(), &[queries, rows])?;
    expect_len("bound", bound.len(), queries)?;
    if let Some(at) = tables.iter().position(|value| !value.is_finite()) {
        return Err(Error::not_finite("tables", format!("{} at {at}", tables[at])));
    }
    let tables = tables.as_chunks::<COUNT>().0;
    let bytes: Vec<_> = (0..queries).map(|q| Bytes::new(&tables[q * parts..(q + 1) * parts])).collect();
    bound.iter_mut().zip(&bytes).for_each(|(bound, bytes)| *bound = bytes.bound);
    if sums.is_empty() || parts == 0 {
        sums.fill(0.0);
        return Ok(());
    }
    let width = parts * COUNT;
    let piece = PIECE.div_ceil(width);
    let mut tasks: Vec<Task<'_>> = Vec::new();
    for (pair, sums) in sums.chunks_mut(QUERIES * rows).enumerate() {
        let mut sums: Vec<_> = sums.chunks_mut(rows).map(|sums| sums.chunks_mut(piece * BLOCK)).collect();
        for first in (0..rows.div_ceil(BLOCK)).step_by(piece) {
            let sums = sums.iter_mut().filter_map(Iterator::next).collect();
            tasks.push(Task { first, query: pair * QUERIES, sums });
        }
    }
    // All queries pass over a piece before the next one.
    tasks.sort_by_key(|task| task.first);
    let work = |Task { first, query, mut sums }: Task<'_>| {
        let count = sums[0].len().div_ceil(BLOCK);
        let blocks = &blocks[first * width..(first + count) * width];
        match (&bytes[query..], &mut sums[..]) {
            ([one, two, ..], [to, other]) => scan(m.path(), blocks, width, [one, two], [to, other]),
            ([one, ..], [to]) => scan(m.path(), blocks, width, [one], [to]),
            _ => unreachable!("a task has one or two queries"),
        }
    };
    if blocks.len() * queries < GRAIN {
        tasks.into_iter().for_each(work)
    } else {
        m.each(tasks, work)
    }
    Ok(())
}

/// Scans blocks of `width` bytes.
fn scan<const Q: usize>(path: Path, blocks: &[u8], width: usize, bytes: [&Bytes; Q], to: [&mut [f32]; Q]) {
    match path {
        // SAFETY: whoever has this path of a machine has AVX2.
        Path::Amx | Path::Avx512 | Path::Avx2 => unsafe { avx2::scan(blocks, width, bytes, to) },
        Path::Scalar => portable::scan(blocks, width, bytes, to),
    }
}

/// Sums of a block's rows as floats; the last block may have fewer.
#[inline(always)]
fn finish(sums: &[u16; BLOCK], bytes: &Bytes, to: &mut [f32]) {
    for (to, &sum) in to.iter_mut().zip(sums) {
        *to = f32::from(sum) * bytes.step + bytes.base;
    }
}

mod portable {
    use super::{BLOCK, Bytes, COUNT, finish};

    pub fn scan<const Q: usize>(blocks: &[u8], width: usize, bytes: [&Bytes; Q], to: [&mut [f32]; Q]) {
        for (bytes, to) in bytes.into_iter().zip(to) {
            let tables = bytes.tables.as_flattened().as_chunks::<COUNT>().0;
            for (block, to) in blocks.chunks_exact(width).zip(to.chunks_mut(BLOCK)) {
                let mut sums = [0; BLOCK];
                for (codes, table) in block.as_chunks::<COUNT>().0.iter().zip(tables) {
                    for (j, code) in codes.iter().enumerate() {
                        sums[j] += u16::from(table[usize::from(code & 15)]);
                        sums[j + COUNT] += u16::from(table[usize::from(code >> 4)]);
                    }
                }
                finish(&sums, bytes, to);
            }
        }
    }
}

#[cfg(not(target_arch = "x86_64"))]
use portable as avx2;

#[cfg(target_arch = "x86_64")]
mod avx2 {
    //! Two parts a register, one in each half, whose tables it has beside each other.

    use super::{BLOCK, Bytes, COUNT, finish};
    use crate::simd::{load_u8x16, load_u8x32, store_u16x8};
    use std::arch::x86_64::*;

    /// Sums of the rows 0 to 15 and 16 to 31 of a block: those of even bytes with those of odd ones above them, and of odd ones.
    type Sums = [[__m256i; 2]; 2];

    #[target_feature(enable = "avx2")]
    pub fn scan<const Q: usize>(blocks: &[u8], width: usize, bytes: [&Bytes; Q], mut to: [&mut [f32]; Q]) {
        let whole = width / (2 * COUNT);
        // of one length, which the compiler knows: the loop checks none of them
        let tables: [&[_]; Q] = std::array::from_fn(|q| &bytes[q].tables[..whole]);
        for (number, block) in blocks.chunks_exact(width).enumerate() {
            let mut sums: [Sums; Q] = [[[_mm256_setzero_si256(); 2]; 2]; Q];
            let (pairs, rest) = block.as_chunks::<{ 2 * COUNT }>();
            for (p, codes) in pairs[..whole].iter().enumerate() {
                let codes = halves(load_u8x32(codes));
                for (sums, tables) in sums.iter_mut().zip(tables) {
                    add(sums, load_u8x32(&tables[p]), codes);
                }
            }
            // an odd part is alone in its register
            if let [codes] = rest.as_chunks::<COUNT>().0 {
                let codes = halves(_mm256_zextsi128_si256(load_u8x16(codes)));
                for (sums, bytes) in sums.iter_mut().zip(bytes) {
                    add(sums, load_u8x32(&bytes.tables[whole]), codes);
                }
            }
            for ((sums, bytes), to) in sums.iter().zip(bytes).zip(&mut to) {
                let end = to.len().min((number + 1) * BLOCK);
                finish(&rows(sums), bytes, &mut to[number * BLOCK..end]);
            }
        }
    }

    /// The codes of low and of high halves of bytes.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn halves(codes: __m256i) -> [__m256i; 2] {
        let low = _mm256_set1_epi8(15);
        [_mm256_and_si256(codes, low), _mm256_and_si256(_mm256_srli_epi16::<4>(codes), low)]
    }

    /// Adds what 64 codes stand for; odd bytes are taken out of the sums of even ones at the end.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn add(sums: &mut Sums, table: __m256i, codes: [__m256i; 2]) {
        for ([even, odd], codes) in sums.iter_mut().zip(codes) {
            let found = _mm256_shuffle_epi8(table, codes);
            *even = _mm256_add_epi16(*even, found);
            *odd = _mm256_add_epi16(*odd, _mm256_srli_epi16::<8>(found));
        }
    }

    /// The sums in the order of the rows: both halves of the registers, which had different parts, together.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn rows(sums: &Sums) -> [u16; BLOCK] {
        let mut rows = [0; BLOCK];
        for ([even, odd], rows) in sums.iter().zip(rows.as_chunks_mut::<16>().0) {
            let even = _mm256_sub_epi16(*even, _mm256_slli_epi16::<8>(*odd));
            let both = |sums| _mm_add_epi16(_mm256_castsi256_si128(sums), _mm256_extracti128_si256::<1>(sums));
            let (even, odd) = (both(even), both(*odd));
            let [first, second] = rows.as_chunks_mut::<8>().0 else { unreachable!("sixteen are two times eight") };
            store_u16x8(first, _mm_unpacklo_epi16(even, odd));
            store_u16x8(second, _mm_unpackhi_epi16(even, odd));
        }
        rows
    }
}
