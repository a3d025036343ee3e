//! Codes, one per byte, to and from 32-bit words that hold `bits` bits of each. Limit: memory.

use crate::error::expect_shape;
use crate::parts::Rows;
use crate::simd::{bytes, bytes_mut};
use crate::{Error, Machine, Path, Result};
use std::sync::atomic::{AtomicU8, Ordering};

/// Where the bits of a row's codes lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// One endless little-endian bit stream per row, padded with zero bits to whole words.
    Dense,
    /// 4 bits, 8 codes a word: nibble `k` of word `c` holds column `8 c + [0, 2, 4, 6, 1, 3, 5, 7][k]`.
    Awq,
    /// 32 codes in `bits` words, as bit planes whose widths are the powers of two in `bits`, the widest with the lowest
    /// bits first; each plane is the dense stream of its field.
    Planar,
}

/// Codes per piece of work where rows end at words, so that rows may be cut and joined; a whole number of words.
const PIECE: usize = 1 << 14;
/// Codes worth a thread: fewer are packed before a sleeping one wakes.
const GRAIN: usize = 1 << 19;

/// Words in a packed row.
pub fn words_per_row(cols: usize, bits: u32) -> usize {
    // by blocks of 32, as cols * bits could overflow
    cols / 32 * bits as usize + (cols % 32 * bits as usize).div_ceil(32)
}

/// `codes [rows, cols]`, each below `2^bits`, to `words [rows, words_per_row(cols, bits)]`.
///
/// Errors: `Range` for bits outside 1..=8, for an order that lacks them, and for a code that needs more (the codes are
/// read only once: the words then hold nothing of use); `Shape` for other lengths, and for rows that are not whole
/// blocks of 8 (Awq) or 32 (Planar) codes.
pub fn pack(
    m: &Machine,
    codes: &[u8],
    rows: usize,
    cols: usize,
    bits: u32,
    order: Order,
    words: &mut [i32],
) -> Result<()> {
    check(cols, bits, order)?;
    expect_shape("codes", codes.len(), &[rows, cols])?;
    expect_shape("words", words.len(), &[rows, words_per_row(cols, bits)])?;
    let piece = piece(rows, cols, bits);
    let width = words_per_row(piece, bits);
    let seen = AtomicU8::new(0);
    m.split_parts(codes.len().div_ceil(piece), GRAIN.div_ceil(piece), Rows::new(words, width), |range, words| {
        let codes = &codes[range.start * piece..codes.len().min(range.end * piece)];
        let mut union = 0;
        for (codes, words) in codes.chunks(piece).zip(words.all().chunks_mut(width)) {
            union |= match m.path() {
                // SAFETY: a machine with this path has AVX2.
                Path::Amx | Path::Avx512 | Path::Avx2 => unsafe { avx2::pack(codes, bits, order, bytes_mut(words)) },
                Path::Scalar => portable::pack(codes, bits, order, bytes_mut(words)),
            };
        }
        seen.fetch_or(union, Ordering::Relaxed);
    });
    if u32::from(seen.into_inner()) >> bits == 0 {
        return Ok(());
    }
    let (at, code) = codes.iter().enumerate().find(|&(_, &code)| u32::from(code) >> bits != 0).unwrap_or((0, &0));
    Err(Error::range(
        "codes",
        format!("{code} in row {}, column {}", at / cols, at % cols),
        format!("at most {} for {bits} bits", (1u32 << bits) - 1),
    ))
}

/// The inverse of [`pack`]: `words [rows, words_per_row(cols, bits)]` to `codes [rows, cols]`; padding is not looked at.
///
/// Errors: those of [`pack`], without the range of codes.
pub fn unpack(
    m: &Machine,
    words: &[i32],
    rows: usize,
    cols: usize,
    bits: u32,
    order: Order,
    codes: &mut [u8],
) -> Result<()> {
    check(cols, bits, order)?;
    expect_shape("words", words.len(), &[rows, words_per_row(cols, bits)])?;
    expect_shape("codes", codes.len(), &[rows, cols])?;
    let piece = piece(rows, cols, bits);
    let width = words_per_row(piece, bits);
    m.split_parts(codes.len().div_ceil(piece), GRAIN.div_ceil(piece), Rows::new(codes, piece), |range, codes| {
        let words = &words[range.start * width..words.len().min(range.end * width)];
        for (words, codes) in words.chunks(width).zip(codes.all().chunks_mut(piece)) {
            match m.path() {
                // SAFETY: a machine with this path has AVX2.
                Path::Amx | Path::Avx512 | Path::Avx2 => unsafe { avx2::unpack(bytes(words), bits, order, codes) },
                Path::Scalar => portable::unpack(bytes(words), bits, order, codes),
            }
        }
    });
    Ok(())
}

/// Checks what does not depend on the arrays.
fn check(cols: usize, bits: u32, order: Order) -> Result<()> {
    if !(1..=8).contains(&bits) {
        return Err(Error::range("bits", bits, "1 to 8"));
    }
    if order == Order::Awq && bits != 4 {
        return Err(Error::range("bits", bits, "4 for the AWQ order"));
    }
    let block = match order {
        Order::Dense => 1,
        Order::Awq => 8,
        Order::Planar => 32,
    };
    if cols.is_multiple_of(block) { Ok(()) } else { Err(Error::shape("cols", cols, format!("a multiple of {block}"))) }
}

/// Codes that are packed by themselves: one row, unless rows join without padding.
fn piece(rows: usize, cols: usize, bits: u32) -> usize {
    if rows == 1 || (cols % 32 * bits as usize).is_multiple_of(32) { PIECE } else { cols }
}

mod portable {
    //! Eight codes of `B` bits fill `B` bytes, and a `u64` holds eight codes, one per byte: three rounds of shift and mask
    //! close the gaps between single codes, pairs and quadruples. Four such `u64` at a time become vectors.

    use super::Order;

    /// `byte`, `pair` or `quad` of ones repeated over a `u64` of fields `width` bits wide.
    const fn fields(ones: u32, width: u32) -> u64 {
        let mut mask = 0;
        let mut at = 0;
        while at < 64 {
            mask |= (u64::MAX >> (64 - ones)) << at;
            at += width;
        }
        mask
    }

    /// Closes the gaps: eight codes below `2^B`, one per byte, to their `8 B` bits.
    #[inline(always)]
    pub fn squeeze<const B: u32>(x: u64) -> u64 {
        let x = (x & fields(B, 16)) | ((x >> (8 - B)) & (fields(B, 16) << B));
        let x = (x & fields(2 * B, 32)) | ((x >> (16 - 2 * B)) & (fields(2 * B, 32) << (2 * B)));
        (x & fields(4 * B, 64)) | ((x >> (32 - 4 * B)) & (fields(4 * B, 64) << (4 * B)))
    }

    /// The inverse of [`squeeze`]; bits above `8 B` are not looked at.
    #[inline(always)]
    pub fn spread<const B: u32>(x: u64) -> u64 {
        let x = (x & fields(4 * B, 64)) | ((x << (32 - 4 * B)) & (fields(4 * B, 64) << 32));
        let x = (x & fields(2 * B, 32)) | ((x << (16 - 2 * B)) & (fields(2 * B, 32) << 16));
        (x & fields(B, 16)) | ((x << (8 - B)) & (fields(B, 16) << 8))
    }

    /// Columns 0 to 7, one per byte, to the order in which AWQ's nibbles hold them: 0, 2, 4, 6, 1, 3, 5, 7.
    #[inline(always)]
    fn evens_first(x: u64) -> u64 {
        let x = (x & 0xff00_00ff_ff00_00ff) | ((x >> 8) & 0x0000_ff00_0000_ff00) | ((x << 8) & 0x00ff_0000_00ff_0000);
        (x & 0xffff_0000_0000_ffff) | ((x >> 16) & 0xffff_0000) | ((x << 16) & 0xffff_0000_0000)
    }

    /// The inverse of [`evens_first`].
    #[inline(always)]
    fn evens_back(x: u64) -> u64 {
        let x = (x & 0xffff_0000_0000_ffff) | ((x >> 16) & 0xffff_0000) | ((x << 16) & 0xffff_0000_0000);
        (x & 0xff00_00ff_ff00_00ff) | ((x >> 8) & 0x0000_ff00_0000_ff00) | ((x << 8) & 0x00ff_0000_00ff_0000)
    }

    /// One row; returns the union of all codes' bits.
    #[inline(always)]
    pub fn pack(codes: &[u8], bits: u32, order: Order, bytes: &mut [u8]) -> u8 {
        match (order, bits) {
            (Order::Dense, 1) | (Order::Planar, 1) => pack_dense::<1>(codes, bytes, |x| x),
            (Order::Dense, 2) | (Order::Planar, 2) => pack_dense::<2>(codes, bytes, |x| x),
            (Order::Dense, 3) => pack_dense::<3>(codes, bytes, |x| x),
            (Order::Dense, 4) | (Order::Planar, 4) => pack_dense::<4>(codes, bytes, |x| x),
            (Order::Dense, 5) => pack_dense::<5>(codes, bytes, |x| x),
            (Order::Dense, 6) => pack_dense::<6>(codes, bytes, |x| x),
            (Order::Dense, 7) => pack_dense::<7>(codes, bytes, |x| x),
            (Order::Awq, _) => pack_dense::<4>(codes, bytes, evens_first),
            (Order::Planar, 3) => pack_planar::<3>(codes, bytes),
            (Order::Planar, 5) => pack_planar::<5>(codes, bytes),
            (Order::Planar, 6) => pack_planar::<6>(codes, bytes),
            (Order::Planar, 7) => pack_planar::<7>(codes, bytes),
            (Order::Dense | Order::Planar, _) => pack_dense::<8>(codes, bytes, |x| x),
        }
    }

    #[inline(always)]
    pub fn unpack(bytes: &[u8], bits: u32, order: Order, codes: &mut [u8]) {
        match (order, bits) {
            (Order::Dense, 1) | (Order::Planar, 1) => unpack_dense::<1>(bytes, codes, |x| x),
            (Order::Dense, 2) | (Order::Planar, 2) => unpack_dense::<2>(bytes, codes, |x| x),
            (Order::Dense, 3) => unpack_dense::<3>(bytes, codes, |x| x),
            (Order::Dense, 4) | (Order::Planar, 4) => unpack_dense::<4>(bytes, codes, |x| x),
            (Order::Dense, 5) => unpack_dense::<5>(bytes, codes, |x| x),
            (Order::Dense, 6) => unpack_dense::<6>(bytes, codes, |x| x),
            (Order::Dense, 7) => unpack_dense::<7>(bytes, codes, |x| x),
            (Order::Awq, _) => unpack_dense::<4>(bytes, codes, evens_back),
            (Order::Planar, 3) => unpack_planar::<3>(bytes, codes),
            (Order::Planar, 5) => unpack_planar::<5>(bytes, codes),
            (Order::Planar, 6) => unpack_planar::<6>(bytes, codes),
            (Order::Planar, 7) => unpack_planar::<7>(bytes, codes),
            (Order::Dense | Order::Planar, _) => unpack_dense::<8>(bytes, codes, |x| x),
        }
    }

    /// The first bytes of a `u64`, the rest zero.
    #[inline(always)]
    fn load(bytes: &[u8]) -> u64 {
        let mut all = [0; 8];
        all[..bytes.len()].copy_from_slice(bytes);
        u64::from_le_bytes(all)
    }

    #[inline(always)]
    fn pack_dense<const B: u32>(codes: &[u8], bytes: &mut [u8], arrange: impl Fn(u64) -> u64) -> u8 {
        let (blocks, tail) = codes.as_chunks::<32>();
        let (outs, rest) = bytes.split_at_mut(blocks.len() * 4 * B as usize);
        let mut union = [0u64; 4];
        for (block, out) in blocks.iter().zip(outs.chunks_exact_mut(4 * B as usize)) {
            let x: [u64; 4] = std::array::from_fn(|i| load(&block[8 * i..8 * i + 8]));
            union = std::array::from_fn(|i| union[i] | x[i]);
            let x = x.map(|x| squeeze::<B>(arrange(x)).to_le_bytes());
            for (x, out) in x.iter().zip(out.chunks_exact_mut(B as usize)) {
                out.copy_from_slice(&x[..B as usize]);
            }
        }
        rest.fill(0);
        for (codes, out) in tail.chunks(8).zip(rest.chunks_mut(B as usize)) {
            let x = load(codes);
            union[0] |= x;
            out.copy_from_slice(&squeeze::<B>(arrange(x)).to_le_bytes()[..out.len()]);
        }
        let union = union[0] | union[1] | union[2] | union[3];
        union.to_le_bytes().into_iter().fold(0, |a, b| a | b)
    }

    #[inline(always)]
    fn unpack_dense<const B: u32>(bytes: &[u8], codes: &mut [u8], arrange: impl Fn(u64) -> u64) {
        let (blocks, tail) = codes.as_chunks_mut::<32>();
        let (ins, rest) = bytes.split_at(blocks.len() * 4 * B as usize);
        for (block, bytes) in blocks.iter_mut().zip(ins.chunks_exact(4 * B as usize)) {
            let x: [u64; 4] = std::array::from_fn(|i| load(&bytes[i * B as usize..(i + 1) * B as usize]));
            let x = x.map(|x| arrange(spread::<B>(x)).to_le_bytes());
            block.copy_from_slice(x.as_flattened());
        }
        for (codes, bytes) in tail.chunks_mut(8).zip(rest.chunks(B as usize)) {
            codes.copy_from_slice(&arrange(spread::<B>(load(bytes))).to_le_bytes()[..codes.len()]);
        }
    }

    #[inline(always)]
    fn pack_planar<const B: u32>(codes: &[u8], bytes: &mut [u8]) -> u8 {
        let mut union = 0;
        for (block, out) in codes.chunks_exact(32).zip(bytes.chunks_exact_mut(4 * B as usize)) {
            let x: [u64; 4] = std::array::from_fn(|i| load(&block[8 * i..8 * i + 8]));
            union |= x[0] | x[1] | x[2] | x[3];
            let out = pack_plane::<4>(x, B & 4 != 0, 0, out);
            let out = pack_plane::<2>(x, B & 2 != 0, B & 4, out);
            pack_plane::<1>(x, B & 1 != 0, B & 6, out);
        }
        union.to_le_bytes().into_iter().fold(0, |a, b| a | b)
    }

    /// Writes one plane, if there is one, of fields `W` bits wide from bit `low` on, and returns what is left of `out`.
    #[inline(always)]
    fn pack_plane<const W: u32>(x: [u64; 4], there: bool, low: u32, out: &mut [u8]) -> &mut [u8] {
        if !there {
            return out;
        }
        let (plane, rest) = out.split_at_mut(4 * W as usize);
        for (x, plane) in x.iter().zip(plane.chunks_exact_mut(W as usize)) {
            plane.copy_from_slice(&squeeze::<W>((x >> low) & fields(W, 8)).to_le_bytes()[..W as usize]);
        }
        rest
    }

    #[inline(always)]
    fn unpack_planar<const B: u32>(bytes: &[u8], codes: &mut [u8]) {
        for (block, bytes) in codes.chunks_exact_mut(32).zip(bytes.chunks_exact(4 * B as usize)) {
            let mut x = [0; 4];
            let bytes = unpack_plane::<4>(&mut x, B & 4 != 0, 0, bytes);
            let bytes = unpack_plane::<2>(&mut x, B & 2 != 0, B & 4, bytes);
            unpack_plane::<1>(&mut x, B & 1 != 0, B & 6, bytes);
            block.copy_from_slice(x.map(u64::to_le_bytes).as_flattened());
        }
    }

    /// The inverse of [`pack_plane`]: adds the fields of one plane to `x`.
    #[inline(always)]
    fn unpack_plane<'a, const W: u32>(x: &mut [u64; 4], there: bool, low: u32, bytes: &'a [u8]) -> &'a [u8] {
        if !there {
            return bytes;
        }
        let (plane, rest) = bytes.split_at(4 * W as usize);
        for (x, plane) in x.iter_mut().zip(plane.chunks_exact(W as usize)) {
            *x |= spread::<W>(load(plane)) << low;
        }
        rest
    }
}

#[cfg(not(target_arch = "x86_64"))]
use portable as avx2;

#[cfg(target_arch = "x86_64")]
mod avx2 {
    //! 32 codes at a time: the portable shifts on vectors of four `u64`; a byte shuffle then joins their bytes, which
    //! two overlapping stores of 16 bytes write. What these cannot reach is left to the portable body.

    use super::{Order, portable};
    use crate::simd::{load_u8x16, load_u8x32, store_u8x16, store_u8x32};
    use std::arch::x86_64::*;

    #[target_feature(enable = "avx2")]
    pub fn pack(codes: &[u8], bits: u32, order: Order, bytes: &mut [u8]) -> u8 {
        match (order, bits) {
            (Order::Dense, 1) => pack_dense::<1>(codes, order, bytes),
            (Order::Dense, 2) => pack_dense::<2>(codes, order, bytes),
            (Order::Dense, 3) => pack_dense::<3>(codes, order, bytes),
            (Order::Dense | Order::Awq, 4) => pack_dense::<4>(codes, order, bytes),
            (Order::Dense, 5) => pack_dense::<5>(codes, order, bytes),
            (Order::Dense, 6) => pack_dense::<6>(codes, order, bytes),
            (Order::Dense, 7) => pack_dense::<7>(codes, order, bytes),
            (Order::Dense | Order::Awq | Order::Planar, _) => portable::pack(codes, bits, order, bytes),
        }
    }

    #[target_feature(enable = "avx2")]
    pub fn unpack(bytes: &[u8], bits: u32, order: Order, codes: &mut [u8]) {
        match (order, bits) {
            (Order::Dense, 1) => unpack_dense::<1>(bytes, order, codes),
            (Order::Dense, 2) => unpack_dense::<2>(bytes, order, codes),
            (Order::Dense, 3) => unpack_dense::<3>(bytes, order, codes),
            (Order::Dense | Order::Awq, 4) => unpack_dense::<4>(bytes, order, codes),
            (Order::Dense, 5) => unpack_dense::<5>(bytes, order, codes),
            (Order::Dense, 6) => unpack_dense::<6>(bytes, order, codes),
            (Order::Dense, 7) => unpack_dense::<7>(bytes, order, codes),
            (Order::Dense | Order::Awq | Order::Planar, _) => portable::unpack(bytes, bits, order, codes),
        }
    }

    /// A shuffle of 16 bytes, for both halves of a vector; 0x80 gives zero.
    #[target_feature(enable = "avx2")]
    fn shuffle(from: impl Fn(u8) -> u8) -> __m256i {
        let half: [u8; 16] = std::array::from_fn(|i| from(i as u8));
        _mm256_broadcastsi128_si256(load_u8x16(&half))
    }

    /// Where AWQ's order takes the byte from: even columns first, in each eight.
    fn evens_first(i: u8) -> u8 {
        i & 8 | i << 1 & 6 | i >> 2 & 1
    }

    /// The inverse of [`evens_first`].
    fn evens_back(i: u8) -> u8 {
        i & 8 | i >> 1 & 3 | i << 2 & 4
    }

    #[target_feature(enable = "avx2")]
    fn pack_dense<const B: u32>(codes: &[u8], order: Order, bytes: &mut [u8]) -> u8 {
        let (width, half) = (4 * B as usize, 2 * B as usize);
        let arrange = shuffle(|i| if order == Order::Awq { evens_first(i) } else { i });
        let join = shuffle(|i| if i < 2 * B as u8 { i / B as u8 * 8 + i % B as u8 } else { 0x80 });
        // the second store of a block reaches 16 bytes beyond its first half
        let blocks = (codes.len() / 32).min((bytes.len() + half).saturating_sub(16) / width);
        let (body, tail) = codes.split_at(32 * blocks);
        let mut union = _mm256_setzero_si256();
        for (i, block) in body.as_chunks::<32>().0.iter().enumerate() {
            let x = load_u8x32(block);
            union = _mm256_or_si256(union, x);
            let x = squeeze::<B>(_mm256_shuffle_epi8(x, arrange));
            let x = _mm256_shuffle_epi8(x, join);
            if let Some(out) = bytes[i * width..].first_chunk_mut() {
                store_u8x16(out, _mm256_castsi256_si128(x));
            }
            if let Some(out) = bytes[i * width + half..].first_chunk_mut() {
                store_u8x16(out, _mm256_extracti128_si256::<1>(x));
            }
        }
        let mut seen = [0; 32];
        store_u8x32(&mut seen, union);
        let last = portable::pack(tail, B, order, &mut bytes[blocks * width..]);
        seen.into_iter().fold(last, |a, b| a | b)
    }

    #[target_feature(enable = "avx2")]
    fn unpack_dense<const B: u32>(bytes: &[u8], order: Order, codes: &mut [u8]) {
        let (width, half) = (4 * B as usize, 2 * B as usize);
        let arrange = shuffle(|i| if order == Order::Awq { evens_back(i) } else { i });
        let part = shuffle(|i| if i % 8 < B as u8 { i / 8 * B as u8 + i % 8 } else { 0x80 });
        // the second load of a block reaches 16 bytes beyond its first half
        let blocks = (codes.len() / 32).min((bytes.len() + half).saturating_sub(16) / width);
        let (body, tail) = codes.split_at_mut(32 * blocks);
        for (i, block) in body.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            let (Some(low), Some(high)) = (bytes[i * width..].first_chunk(), bytes[i * width + half..].first_chunk())
            else {
                break;
            };
            let x = _mm256_set_m128i(load_u8x16(high), load_u8x16(low));
            let x = spread::<B>(_mm256_shuffle_epi8(x, part));
            store_u8x32(block, _mm256_shuffle_epi8(x, arrange));
        }
        portable::unpack(&bytes[blocks * width..], B, order, tail);
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    pub fn squeeze<const B: u32>(x: __m256i) -> __m256i {
        lanes(x, portable::squeeze::<B>)
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn spread<const B: u32>(x: __m256i) -> __m256i {
        lanes(x, portable::spread::<B>)
    }

    /// One function on all four `u64`, for the compiler to make vectors of.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn lanes(x: __m256i, f: impl Fn(u64) -> u64) -> __m256i {
        let mut bytes = [0; 32];
        store_u8x32(&mut bytes, x);
        for lane in bytes.as_chunks_mut().0 {
            *lane = f(u64::from_le_bytes(*lane)).to_le_bytes();
        }
        load_u8x32(&bytes)
    }
}

#[cfg(test)]
mod tests;
