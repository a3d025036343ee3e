//! codebook_gemm with tables: a code is `dim` neighbouring rows of one column, the codes of such a strip are one bit stream.
//!
//! A few rows of `x`: each codeword is multiplied where it is looked up and added to the sums of its strip, which stay in
//! registers, two strips in one where a codeword is half as wide; limit: the look-ups, which miss the first cache where the table
//! does. Many rows: a panel of strips is decoded, column by column, and handed to a dense product; limit: multiplications.

use super::dense::{Left, PART, Products, Right};
use super::{Columns, columns};
use crate::codebook::Table;
use crate::pack::words_per_row;
use crate::simd::bytes;
use crate::{Error, Machine, Path, Result};
use std::borrow::Cow;
use std::ops::Range;

/// Rows of `x` that meet a codeword at a time: their sums are as many registers.
const FEW: usize = 8;
/// Rows of `x` from which on the weights are decoded for a dense product.
const MANY: usize = 17;
/// Rows of weights of one task where rows of `x` are few.
const TASK: usize = 64;
/// Rows of weights of one task of the dense product.
const PANEL: usize = 256;
/// Sums of one register.
const LANES: usize = 8;
/// Those of one strip where a codeword is narrow.
const HALF: usize = LANES / 2;
/// Columns whose codes are read before they are looked up.
const BLOCK: usize = 256;
/// Columns of a part whose codes are read before they are looked up.
const SOME: usize = 64;
/// Columns of one step.
const QUAD: usize = 4;

/// The codes of one strip.
#[derive(Clone, Copy)]
struct Stream<'a> {
    bytes: &'a [u8],
    bits: u32,
    low: u32,
}

impl Stream<'_> {
    /// Code `number`.
    #[inline(always)]
    fn code(&self, number: usize) -> u64 {
        self.window(number) & ((1u64 << self.bits) - 1)
    }

    /// Codes `number` and the ones behind it.
    #[inline(always)]
    fn read(&self, number: usize, codes: &mut [u32]) {
        match self.bits {
            8 => codes.iter_mut().zip(self.bytes.iter().skip(number)).for_each(|(code, byte)| *code = (*byte).into()),
            16 => {
                let pairs = self.bytes.as_chunks().0.iter().skip(number);
                codes.iter_mut().zip(pairs).for_each(|(code, pair)| *code = u16::from_le_bytes(*pair).into());
            }
            bits => {
                // a window holds 57 bits from any bit on
                let (each, mask) = (57 / bits.max(1), (1u64 << bits) - 1);
                for (number, codes) in (number..).step_by(each as usize).zip(codes.chunks_mut(each as usize)) {
                    let window = self.window(number);
                    (0..).zip(codes).for_each(|(i, code)| *code = (window >> (i * bits) & mask) as u32);
                }
            }
        }
    }

    /// Both stages' codes of one.
    #[inline(always)]
    fn split(&self, code: u64) -> [usize; 2] {
        [(code & ((1u64 << self.low) - 1)) as usize, (code >> self.low) as usize]
    }

    /// The stream from code `number` on.
    #[inline(always)]
    fn window(&self, number: usize) -> u64 {
        let bit = number * self.bits as usize;
        let window = match self.bytes.get(bit / 8..bit / 8 + 8).and_then(|bytes| bytes.try_into().ok()) {
            Some(window) => u64::from_le_bytes(window),
            None => self.last(bit / 8),
        };
        window >> (bit % 8)
    }

    /// The window that the end of the stream cuts short.
    #[cold]
    fn last(&self, from: usize) -> u64 {
        let rest = self.bytes.get(from..).unwrap_or(&[]);
        rest.iter().rev().fold(0, |window, &byte| window << 8 | u64::from(byte))
    }
}

/// A table whose codewords are filled up with zeros to whole registers, or to half of one.
struct Padded<'a> {
    dim: usize,
    /// Columns of a group.
    group: usize,
    /// Numbers of a group in each stage, and these, group after group.
    stages: [(usize, Cow<'a, [f32]>); 2],
}

impl<'a> Padded<'a> {
    fn of(table: Table<'a>, depth: usize) -> Self {
        let dim = if table.dim <= HALF { HALF } else { table.dim.next_multiple_of(LANES) };
        let [first, second] = table.counts();
        let stages = [(first, table.first), (second, table.second)].map(|(count, stage)| {
            if dim == table.dim {
                return (count * dim, Cow::Borrowed(stage));
            }
            let mut padded = vec![0.0; stage.len() / table.dim * dim];
            for (to, word) in padded.chunks_exact_mut(dim).zip(stage.chunks_exact(table.dim)) {
                to[..table.dim].copy_from_slice(word);
            }
            (count * dim, Cow::Owned(padded))
        });
        Self { dim, group: depth / table.groups, stages }
    }

    /// The codewords of both stages for one group.
    #[inline(always)]
    fn words(&self, group: usize) -> [&[f32]; 2] {
        self.stages.each_ref().map(|(size, stage)| &stage[group * size..][..*size])
    }
}

/// See `codebook_gemm`, which has checked all but the codes.
pub(super) fn product(
    m: &Machine,
    x: &[f32],
    words: &[i32],
    table: Table<'_>,
    [rows, cols, depth]: [usize; 3],
    out: &mut [f32],
) -> Result<()> {
    let ([low, high], [first, second]) = (table.bits(), table.counts());
    let width = words_per_row(depth, low + high);
    let stream = |s: usize| Stream { bytes: bytes(&words[s * width..(s + 1) * width]), bits: low + high, low };
    if !first.is_power_of_two() || !second.max(1).is_power_of_two() {
        for s in 0..cols.div_ceil(table.dim) {
            let beyond = (0..depth).map(|j| stream(s).split(stream(s).code(j)));
            if let Some([a, b]) = beyond.into_iter().find(|&[a, b]| a >= first || b >= second.max(1)) {
                let expected = format!("below {first} and {}", second.max(1));
                return Err(Error::range("words", format!("codes {a} and {b} in row {s}"), expected));
            }
        }
    }
    if rows >= MANY {
        dense(m, x, stream, table, [rows, cols, depth], out);
        return Ok(());
    }
    let padded = Padded::of(table, depth);
    m.each(columns(out, cols, TASK.next_multiple_of(2 * table.dim)), |Columns { range, rows: mut out }| {
        let mut turned = Vec::with_capacity(FEW * depth);
        for (x, out) in x.chunks(FEW * depth).zip(out.chunks_mut(FEW)) {
            turned.resize(x.len(), 0.0);
            for (t, x) in x.chunks_exact(depth).enumerate() {
                turned[t..].iter_mut().step_by(out.len()).zip(x).for_each(|(to, x)| *to = *x);
            }
            let strips = |at: usize| stream((range.start + at) / table.dim);
            let mut registers = |streams: [Stream<'_>; 2], lane: usize, parts: [Range<usize>; 2]| {
                let sums = match out.len() {
                    1 => sums::<1, 4>(m.path(), &turned, streams, &padded, lane),
                    2 => sums::<2, 4>(m.path(), &turned, streams, &padded, lane),
                    3 => sums::<3, 2>(m.path(), &turned, streams, &padded, lane),
                    4 => sums::<4, 2>(m.path(), &turned, streams, &padded, lane),
                    5 => sums::<5, 1>(m.path(), &turned, streams, &padded, lane),
                    6 => sums::<6, 1>(m.path(), &turned, streams, &padded, lane),
                    7 => sums::<7, 1>(m.path(), &turned, streams, &padded, lane),
                    _ => sums::<8, 1>(m.path(), &turned, streams, &padded, lane),
                };
                for (out, sums) in out.iter_mut().zip(&sums) {
                    for (part, sums) in parts.iter().zip(sums.as_chunks::<HALF>().0) {
                        out[part.clone()].iter_mut().zip(sums).for_each(|(out, sum)| *out = *sum);
                    }
                }
            };
            if padded.dim == HALF {
                for at in (0..range.len()).step_by(2 * table.dim) {
                    let middle = range.len().min(at + table.dim);
                    let second = if middle < range.len() { strips(middle) } else { strips(at) };
                    let end = range.len().min(middle + table.dim);
                    registers([strips(at), second], 0, [at..middle, middle..end]);
                }
                continue;
            }
            for at in (0..range.len()).step_by(table.dim) {
                for lane in (0..table.dim.min(range.len() - at)).step_by(LANES) {
                    let last = range.len().min(at + table.dim);
                    let [start, middle, end] = [0, HALF, LANES].map(|i| last.min(at + lane + i));
                    registers([strips(at); 2], lane, [start..middle, middle..end]);
                }
            }
        }
    });
    Ok(())
}

/// One register of sums for each of `ROWS` rows of `x` `[depth, ROWS]`: of `lane` and the ones behind it of the first strip, or of both
/// strips where codewords are half as wide. `CHAINS` are added up side by side, as one would wait for the one before.
fn sums<const ROWS: usize, const CHAINS: usize>(
    path: Path,
    x: &[f32],
    streams: [Stream<'_>; 2],
    table: &Padded<'_>,
    lane: usize,
) -> [[f32; LANES]; 8] {
    let mut sums = [[0.0; LANES]; 8];
    let x = x.as_chunks::<ROWS>().0;
    match path {
        // SAFETY: a machine with this path has AVX2 and FMA.
        Path::Amx | Path::Avx512 | Path::Avx2 => unsafe {
            avx2::sum::<ROWS, CHAINS>(x, streams, table, lane, &mut sums)
        },
        Path::Scalar => portable::sum::<ROWS, CHAINS>(x, streams, table, lane, &mut sums),
    }
    sums
}

/// Decodes panels of strips, column after column.
fn dense<'a>(
    m: &Machine,
    x: &[f32],
    stream: impl Fn(usize) -> Stream<'a> + Sync,
    table: Table<'_>,
    [rows, cols, depth]: [usize; 3],
    out: &mut [f32],
) {
    let dim = table.dim;
    let mut left = Left::new(m.path(), rows, depth);
    x.chunks_exact(depth).enumerate().for_each(|(t, x)| left.set(t, x));
    let height = PANEL.next_multiple_of(dim);
    let decode = match dim {
        2 => decode::<2>,
        4 => decode::<4>,
        6 => decode::<6>,
        8 => decode::<8>,
        12 => decode::<12>,
        16 => decode::<16>,
        _ => decode::<1>,
    };
    m.each_with(
        columns(out, cols, height),
        || (Right::new(m.path(), height, PART.min(depth)), Products::default()),
        |(weight, sums), Columns { range, rows: mut out }| {
            let width = range.len();
            let streams: Vec<_> = range.step_by(dim).map(|n| stream(n / dim)).collect();
            sums.clear();
            for (part, start) in (0..depth).step_by(PART).enumerate() {
                let columns = start..depth.min(start + PART);
                decode(table, depth / table.groups, &streams, columns.clone(), width, weight);
                sums.add(m.path(), &left, part, weight, 0..columns.len());
            }
            sums.each(&left, weight, |down, across, sums, width| {
                for (out, sums) in out[down].iter_mut().zip(sums.chunks_exact(width)) {
                    out[across.clone()].copy_from_slice(&sums[..across.len()]);
                }
            });
        },
    );
}

/// Some columns of the first `height` rows of strips, codewords in pieces of `PIECE` numbers.
fn decode<const PIECE: usize>(
    table: Table<'_>,
    group: usize,
    streams: &[Stream<'_>],
    columns: Range<usize>,
    height: usize,
    weight: &mut Right,
) {
    let ([first, second], parts) = (table.counts(), table.dim / PIECE);
    let stages = [table.first, table.second].map(|stage| stage.as_chunks::<PIECE>().0);
    let mut column = vec![[0.0; PIECE]; streams.len() * parts];
    // Strips are read some codes at a time: those of one column are as many cache lines, often of one set.
    let mut codes = vec![[0; SOME]; streams.len()];
    for start in columns.clone().step_by(SOME) {
        let some = start..columns.end.min(start + SOME);
        for (stream, codes) in streams.iter().zip(&mut codes) {
            stream.read(start, &mut codes[..some.len()]);
        }
        for (i, j) in some.enumerate() {
            let [words, more] = [(0, first), (1, second)]
                .map(|(stage, count)| &stages[stage][j / group * count * parts..(j / group + 1) * count * parts]);
            for ((values, codes), stream) in column.chunks_exact_mut(parts).zip(&codes).zip(streams) {
                let [a, b] = stream.split(codes[i].into());
                for (part, values) in values.iter_mut().enumerate() {
                    *values = words[a * parts + part];
                    if second > 0 {
                        values.iter_mut().zip(more[b * parts + part]).for_each(|(value, c)| *value += c);
                    }
                }
            }
            weight.set(j - columns.start, &column.as_flattened()[..height]);
        }
    }
}

mod portable {
    use super::{HALF, LANES, Padded, Stream};

    /// One chain.
    pub fn sum<const ROWS: usize, const CHAINS: usize>(
        x: &[[f32; ROWS]],
        streams: [Stream<'_>; 2],
        table: &Padded<'_>,
        lane: usize,
        sums: &mut [[f32; LANES]; 8],
    ) {
        for (j, x) in x.iter().enumerate() {
            let stages = table.words(j / table.group);
            for (half, stream) in streams.iter().enumerate() {
                let codes = stream.split(stream.code(j));
                let from = lane + if table.dim == HALF { 0 } else { half * HALF };
                for i in 0..HALF {
                    let parts = stages.iter().zip(codes).filter(|(stage, _)| !stage.is_empty());
                    let value = parts.map(|(stage, code)| stage[code * table.dim + from + i]).sum::<f32>();
                    for (sums, x) in sums.iter_mut().zip(x) {
                        sums[half * HALF + i] += x * value;
                    }
                }
            }
        }
    }
}

#[cfg(not(target_arch = "x86_64"))]
use portable as avx2;

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use super::{BLOCK, HALF, LANES, Padded, QUAD, Stream};
    use crate::simd::{load_f32x4, load_f32x8, store_f32x8};
    use std::arch::x86_64::*;

    #[target_feature(enable = "avx2,fma")]
    pub fn sum<const ROWS: usize, const CHAINS: usize>(
        x: &[[f32; ROWS]],
        streams: [Stream<'_>; 2],
        table: &Padded<'_>,
        lane: usize,
        sums: &mut [[f32; LANES]; 8],
    ) {
        match (table.stages[1].0 > 0, table.dim == HALF) {
            (false, false) => all::<ROWS, CHAINS, false, false>(x, streams, table, lane, sums),
            (false, true) => all::<ROWS, CHAINS, false, true>(x, streams, table, lane, sums),
            (true, false) => all::<ROWS, CHAINS, true, false>(x, streams, table, lane, sums),
            (true, true) => all::<ROWS, CHAINS, true, true>(x, streams, table, lane, sums),
        }
    }

    #[target_feature(enable = "avx2,fma")]
    #[inline]
    fn all<const ROWS: usize, const CHAINS: usize, const SECOND: bool, const PAIR: bool>(
        x: &[[f32; ROWS]],
        streams: [Stream<'_>; 2],
        table: &Padded<'_>,
        lane: usize,
        sums: &mut [[f32; LANES]; 8],
    ) {
        let mut chains = [[_mm256_setzero_ps(); ROWS]; CHAINS];
        let mut codes = [[0; BLOCK]; 2];
        for (group, x) in x.chunks_exact(table.group).enumerate() {
            let words = table.words(group);
            for (number, x) in x.chunks(BLOCK).enumerate() {
                let start = group * table.group + number * BLOCK;
                for (stream, codes) in streams.iter().zip(&mut codes).take(1 + usize::from(PAIR)) {
                    stream.read(start, &mut codes[..x.len()]);
                }
                let (quads, rest) = x.as_chunks::<QUAD>();
                let [ours, others] = codes.each_ref().map(|codes| codes.as_chunks::<QUAD>().0);
                for ((x, ours), others) in quads.iter().zip(ours).zip(others) {
                    for i in 0..QUAD {
                        let value = value::<SECOND, PAIR>(words, streams[0], table.dim, lane, [ours[i], others[i]]);
                        for t in 0..ROWS {
                            let sum = &mut chains[i % CHAINS][t];
                            *sum = _mm256_fmadd_ps(_mm256_set1_ps(x[i][t]), value, *sum);
                        }
                    }
                }
                for (at, x) in (quads.len() * QUAD..).zip(rest) {
                    let pair = [codes[0][at], codes[1][at]];
                    let value = value::<SECOND, PAIR>(words, streams[0], table.dim, lane, pair);
                    for t in 0..ROWS {
                        chains[0][t] = _mm256_fmadd_ps(_mm256_set1_ps(x[t]), value, chains[0][t]);
                    }
                }
            }
        }
        for (t, sums) in sums.iter_mut().take(ROWS).enumerate() {
            let all = chains[1..].iter().fold(chains[0][t], |sum, chain| _mm256_add_ps(sum, chain[t]));
            store_f32x8(sums, all);
        }
    }

    /// Eight numbers of a codeword, or four each of two.
    #[target_feature(enable = "avx2,fma")]
    #[inline]
    fn value<const SECOND: bool, const PAIR: bool>(
        [first, second]: [&[f32]; 2],
        stream: Stream<'_>,
        dim: usize,
        lane: usize,
        codes: [u32; 2],
    ) -> __m256 {
        let split = |code: u32| if SECOND { stream.split(code.into()) } else { [code as usize, 0] };
        let [[a, b], [c, d]] = [split(codes[0]), if PAIR { split(codes[1]) } else { [0; 2] }];
        if PAIR {
            let value = _mm256_set_m128(four(first, c), four(first, a));
            return if SECOND {
                _mm256_add_ps(value, _mm256_set_m128(four(second, d), four(second, b)))
            } else {
                value
            };
        }
        let value = eight(first, a * dim + lane);
        if SECOND { _mm256_add_ps(value, eight(second, b * dim + lane)) } else { value }
    }

    /// From a multiple of eight on.
    #[target_feature(enable = "avx2,fma")]
    #[inline]
    fn eight(from: &[f32], at: usize) -> __m256 {
        load_f32x8(&from.as_chunks::<LANES>().0[at / LANES])
    }

    /// Codeword `number`.
    #[target_feature(enable = "avx2,fma")]
    #[inline]
    fn four(from: &[f32], number: usize) -> __m128 {
        load_f32x4(&from.as_chunks::<HALF>().0[number])
    }
}
