//! Products with a weight that is decoded by rows: `out = x W^T`, every sum in f32.
//!
//! One row of `x`: packed codes are multiplied where they are decoded; limit: the decoding. A few: four rows of weights at a time
//! are decoded into a scratch that stays in the second cache and multiplied by three of `x` at a time, on AVX-512 by six, whose sums
//! stay in registers; limit: the decoding, or multiplications. Many: some rows are decoded at a time for a dense product; limit:
//! multiplications. On AMX from 16 rows on: `halves`.

use super::decode::{self, Row, Vector};
use super::dense::{Left, PART, Products, Right};
#[cfg(target_arch = "x86_64")]
use super::halves;
use super::{Columns, columns};
#[cfg(target_arch = "x86_64")]
use crate::simd::Fused;
use crate::{Machine, Path};
use std::borrow::Cow;
use std::ops::Range;

/// Rows of `x` up to which a row of weights is multiplied where it was decoded.
const fn few_rows(path: Path) -> usize {
    match path {
        Path::Amx | Path::Avx512 => 24,
        Path::Avx2 | Path::Scalar => 48,
    }
}
/// Rows of weights of one task where rows of `x` are few.
const TASK: usize = 64;
/// Rows of weights that are multiplied at a time, and registers of rows of `x`: their sums are 12 registers.
const TALL: usize = 4;
const WIDE: usize = 3;
/// Sums of a row of each.
const LANES: usize = 8;
/// Columns that are multiplied at a time: those of seven or ten rows stay in the first cache.
const BLOCK: usize = 1024;
/// Numbers of the rows of weights decoded at a time for the dense product: they stay in the second cache.
const PANEL: usize = 1 << 18;
/// The most of these rows, so that there is work for all threads.
const TALLEST: usize = 256;

/// The sums of a row of `x` with [`TALL`] rows of weights.
type Sums = [[f32; LANES]; TALL];

/// [`product`] with a weight whose row `n` is `row(n)`, packed codes.
pub(super) fn packed<'a>(
    m: &Machine,
    x: &[f32],
    [rows, cols, depth]: [usize; 3],
    row: impl Fn(usize) -> Row<'a> + Sync,
    out: &mut [f32],
) {
    if rows == 1 && cols > 0 && depth > 0 {
        let x = Vector::of(m, x, row(0));
        m.each(out.chunks_mut(TASK).enumerate().collect(), |(chunk, sums)| {
            for (at, sum) in sums.iter_mut().enumerate() {
                *sum = x.dot(m, row(TASK * chunk + at));
            }
        });
        return;
    }
    let decode = |n: usize, values: &mut [f32]| decode::decode(m, row(n), values);
    #[cfg(target_arch = "x86_64")]
    if m.path() == Path::Amx && cols > 0 && halves::suit(rows, depth, row(0).group) {
        // What the codes mean, which is often exact in bf16; the scales come last.
        let ones = vec![1.0; row(0).scale.len()];
        let values = |n: usize, values: &mut [f32]| decode::decode(m, Row { scale: &ones, ..row(n) }, values);
        let weight = halves::Weight { group: row(0).group, values, scale: |n| row(n).scale };
        return halves::product(m, x, [cols, depth], weight, |x, columns| apart(m, x, depth, decode, columns), out);
    }
    product(m, x, [rows, cols, depth], decode, out);
}

/// `out = x W^T` for `x` `[rows, depth]`, `W` `[cols, depth]`, `out` `[rows, cols]`. `decode(n, values)` writes row `n` of `W`.
pub(super) fn product(
    m: &Machine,
    x: &[f32],
    [rows, cols, depth]: [usize; 3],
    decode: impl Fn(usize, &mut [f32]) + Sync,
    out: &mut [f32],
) {
    if depth == 0 {
        return out.fill(0.0);
    }
    #[cfg(target_arch = "x86_64")]
    if m.path() == Path::Amx && halves::suit(rows, depth, depth) {
        let weight = halves::Weight { group: depth, values: &decode, scale: |_| &[1.0][..] };
        return halves::product(m, x, [cols, depth], weight, |x, columns| apart(m, x, depth, &decode, columns), out);
    }
    if rows <= few_rows(m.path()) {
        return few(m, x, depth, decode, columns(out, cols, TASK));
    }
    let (x, height) = (Right::of(m.path(), x, depth), Left::rows_of(m.path(), PANEL, depth, TALLEST));
    m.each_with(
        columns(out, cols, height),
        || Scratch::new(m, height, depth),
        |scratch, columns| dense(m, &x, &decode, scratch, columns),
    );
}

/// What a thread needs for [`dense`]: a task's rows of weights, one of them, and their sums.
struct Scratch {
    weight: Left,
    row: Vec<f32>,
    sums: Products,
}

impl Scratch {
    fn new(m: &Machine, rows: usize, depth: usize) -> Self {
        Self { weight: Left::new(m.path(), rows, depth), row: vec![0.0; depth], sums: Products::default() }
    }
}

/// Some columns of [`product`], from a copy of the decoded weight.
fn dense(m: &Machine, x: &Right, decode: impl Fn(usize, &mut [f32]), scratch: &mut Scratch, columns: Columns<'_>) {
    let Columns { range, rows: mut out } = columns;
    let Scratch { weight, row, sums } = scratch;
    weight.resize(range.len());
    for (at, n) in range.enumerate() {
        decode(n, row);
        weight.set(at, row);
    }
    sums.clear();
    for (part, start) in (0..row.len()).step_by(PART).enumerate() {
        sums.add(m.path(), weight, part, x, start..row.len().min(start + PART));
    }
    sums.each(weight, x, |down, across, sums, width| {
        for (t, out) in out[across].iter_mut().enumerate() {
            let sums = sums[t..].iter().step_by(width);
            out[down.clone()].iter_mut().zip(sums).for_each(|(y, sum)| *y = *sum);
        }
    });
}

/// [`dense`] for some rows of `x` alone.
fn apart(m: &Machine, x: &[f32], depth: usize, decode: impl Fn(usize, &mut [f32]), columns: Columns<'_>) {
    let scratch = &mut Scratch::new(m, columns.range.len(), depth);
    dense(m, &Right::of(m.path(), x, depth), decode, scratch, columns);
}

/// [`product`] without a copy of the decoded weight.
fn few(m: &Machine, x: &[f32], depth: usize, decode: impl Fn(usize, &mut [f32]) + Sync, panels: Vec<Columns<'_>>) {
    let width = depth.next_multiple_of(LANES);
    let together = together(m.path());
    let x = arranged(x, depth, together);
    m.each(panels, |Columns { range, rows: mut out }| {
        let mut weight = vec![0.0; TALL * width];
        let mut sums: Vec<Sums> = vec![[[0.0; LANES]; TALL]; out.len().next_multiple_of(together)];
        for first in (0..range.len()).step_by(TALL) {
            let count = TALL.min(range.len() - first);
            for (at, values) in weight.chunks_exact_mut(width).take(count).enumerate() {
                decode(range.start + first + at, &mut values[..depth]);
            }
            sums.fill([[0.0; LANES]; TALL]);
            for start in (0..width).step_by(BLOCK) {
                let block = start..width.min(start + BLOCK);
                let weight = std::array::from_fn(|at| &weight[at * width..][block.clone()]);
                for (sums, x) in sums.chunks_mut(WIDE * together).zip(x.chunks(WIDE * together * width)) {
                    match sums.len() / together {
                        1 => multiply::<1>(m.path(), weight, x, &block, sums),
                        2 => multiply::<2>(m.path(), weight, x, &block, sums),
                        _ => multiply::<WIDE>(m.path(), weight, x, &block, sums),
                    }
                }
            }
            for (out, sums) in out.iter_mut().zip(&sums) {
                let sums = sums.iter().map(|[a, b, c, d, e, f, g, h]| ((a + e) + (c + g)) + ((b + f) + (d + h)));
                out[first..first + count].iter_mut().zip(sums).for_each(|(out, sum)| *out = sum);
            }
        }
    });
}

/// Rows of `x` that share a register.
fn together(path: Path) -> usize {
    match path {
        Path::Amx | Path::Avx512 if cfg!(target_arch = "x86_64") => 2,
        Path::Amx | Path::Avx512 | Path::Avx2 | Path::Scalar => 1,
    }
}

/// Rows of `x` that end with zeros that fill a register, those that share one in turns of eight columns.
fn arranged(x: &[f32], depth: usize, together: usize) -> Cow<'_, [f32]> {
    let width = depth.next_multiple_of(LANES);
    if together == 1 && width == depth {
        return Cow::Borrowed(x);
    }
    let mut padded = vec![0.0; (x.len() / depth).next_multiple_of(together) * width];
    for (to, x) in padded.chunks_exact_mut(together * width).zip(x.chunks(together * depth)) {
        for (row, x) in x.chunks_exact(depth).enumerate() {
            let eights = to.chunks_exact_mut(LANES).skip(row).step_by(together);
            eights.zip(x.chunks(LANES)).for_each(|(to, x)| to[..x.len()].copy_from_slice(x));
        }
    }
    Cow::Owned(padded)
}

/// Adds the products of some columns of four rows of weights with those of `COUNT` registers of rows of `x`.
fn multiply<const COUNT: usize>(
    path: Path,
    weight: [&[f32]; TALL],
    x: &[f32],
    block: &Range<usize>,
    sums: &mut [Sums],
) {
    let weight = weight.map(|weight| weight.as_chunks().0);
    match path {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a machine with this path has AVX-512 F.
        Path::Amx | Path::Avx512 => unsafe { avx512::multiply::<COUNT>(weight, columns_of(x, block), sums) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a machine with this path has AVX2 and FMA.
        Path::Avx2 => unsafe { avx2::multiply::<COUNT>(weight, columns_of(x, block), sums) },
        #[cfg(not(target_arch = "x86_64"))]
        Path::Amx | Path::Avx512 | Path::Avx2 => portable::multiply::<COUNT>(weight, columns_of(x, block), sums),
        Path::Scalar => portable::multiply::<COUNT>(weight, columns_of(x, block), sums),
    }
}

/// A block of columns of `COUNT` registers of rows.
fn columns_of<'a, const N: usize, const COUNT: usize>(x: &'a [f32], block: &Range<usize>) -> [&'a [[f32; N]]; COUNT] {
    let width = x.len() / COUNT;
    let columns = block.start * (N / LANES)..block.end * (N / LANES);
    std::array::from_fn(|t| x[t * width..][columns.clone()].as_chunks().0)
}

mod portable {
    use super::{LANES, Sums, TALL};

    pub fn multiply<const COUNT: usize>(
        weight: [&[[f32; LANES]]; TALL],
        x: [&[[f32; LANES]]; COUNT],
        sums: &mut [Sums],
    ) {
        for (x, sums) in x.iter().zip(sums) {
            for (weight, sums) in weight.iter().zip(sums) {
                for (weight, x) in weight.iter().zip(*x) {
                    sums.iter_mut().zip(weight.iter().zip(x)).for_each(|(sum, (weight, x))| *sum += weight * x);
                }
            }
        }
    }
}

/// The same in registers of one or two rows of `x`.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn multiply_in<V: Fused<N>, const N: usize, const COUNT: usize>(
    weight: [&[[f32; LANES]]; TALL],
    x: [&[[f32; N]]; COUNT],
    sums: &mut [Sums],
) {
    let mut all = [[V::splat(0.0); TALL]; COUNT];
    let count = weight[0].len();
    let (weight, x) = (weight.map(|weight| &weight[..count]), x.map(|x| &x[..count]));
    for k in 0..count {
        let mut now = [V::splat(0.0); COUNT];
        for (now, x) in now.iter_mut().zip(x) {
            *now = V::load(&x[k]);
        }
        for (i, weight) in weight.iter().enumerate() {
            let weight = V::copies(&weight[k]);
            for (all, now) in all.iter_mut().zip(now) {
                all[i] = weight.multiply_add(now, all[i]);
            }
        }
    }
    for (sums, all) in sums.chunks_exact_mut(N / LANES).zip(all) {
        for (i, all) in all.into_iter().enumerate() {
            for (sums, all) in sums.iter_mut().zip(all.array().as_chunks::<LANES>().0) {
                sums[i].iter_mut().zip(all).for_each(|(sum, one)| *sum += one);
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use super::{LANES, Sums, TALL, multiply_in};
    use crate::simd::avx2::F32x8;

    #[target_feature(enable = "avx2,fma")]
    pub fn multiply<const COUNT: usize>(
        weight: [&[[f32; LANES]]; TALL],
        x: [&[[f32; LANES]]; COUNT],
        sums: &mut [Sums],
    ) {
        multiply_in::<F32x8, LANES, COUNT>(weight, x, sums);
    }
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use super::{LANES, Sums, TALL, multiply_in};
    use crate::simd::avx512::F32x16;

    #[target_feature(enable = "avx512f")]
    pub fn multiply<const COUNT: usize>(
        weight: [&[[f32; LANES]]; TALL],
        x: [&[[f32; 2 * LANES]]; COUNT],
        sums: &mut [Sums],
    ) {
        multiply_in::<F32x16, { 2 * LANES }, COUNT>(weight, x, sums);
    }
}
