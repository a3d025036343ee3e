//! bilevel: rounds a weight column by column on grids whose scales and zero points are quantized themselves, keeping
//! apart what would cost too much (SpQR, Dettmers et al., 2023, algorithm 1). Limit: the multiplications behind each block.
//!
//! The second level ties the rows of a run together, so a chunk of whole runs is one task. The grids of a group are fitted
//! when the loop reaches it, on weights that hold every error so far: a block never ends inside a group that it begins.

use super::{expect_factor, finite};
use crate::error::{expect_len, expect_shape};
use crate::quantize::{ScaleType, groups, highest};
use crate::simd::rint;
use crate::{Error, Machine, Path, Result};
use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};
use std::sync::Mutex;

/// Rows of one task at least; fixed, so that every thread count cuts, and rounds, alike.
const CHUNK: usize = 128;
/// What a scale counts as at least where a weight is divided by it.
const LEAST: f32 = 1e-9;

/// The grids, and what is kept apart from them.
#[derive(Debug, Clone, Copy)]
pub struct Bilevel {
    /// Bits of a code: 1 to 8.
    pub bits: u32,
    /// Columns that share a scale and a zero point.
    pub group: usize,
    /// Bits of a scale's code, up to 8; 0: scales stay floats.
    pub scale_bits: u32,
    /// The same of zero points.
    pub zero_bits: u32,
    /// Rows whose scales, of one group, share a grid of the second level.
    pub run: usize,
    /// Zero points of the first level are whole numbers before they are quantized.
    pub round_zero: bool,
    /// The squared error above which a weight is kept apart; infinity: none is. Not looked at where a mask is given.
    pub threshold: f32,
    /// Grids are fitted to all weights of a group, without looking for those that it would be better off without.
    pub simplified: bool,
    /// What floats are rounded to that are stored: the grids of the second level, or where it is missing those of the first.
    pub dtype: ScaleType,
    /// Columns between two updates of the rest: speed, and the order of sums.
    pub block: usize,
}

/// The arrays that [`bilevel`] fills; `[rows, groups]` where nothing else is said.
pub struct Found<'a> {
    /// `[rows, cols]`: the weight; each column as it was when it was rounded.
    pub weight: &'a mut [f32],
    /// `[rows, cols]`.
    pub codes: &'a mut [u8],
    /// `[rows, cols]`: 1 for what is kept apart. Read first, where the mask is given.
    pub mask: &'a mut [u8],
    /// What the codes are decoded by.
    pub scale: &'a mut [f32],
    /// The same.
    pub zero: &'a mut [f32],
    /// Codes of the scales; zeros where they stay floats.
    pub scale_codes: &'a mut [u8],
    /// Codes of the zero points; zeros where they stay floats.
    pub zero_codes: &'a mut [u8],
    /// `[rows / run, groups, 2]`: scale and zero point of the second level of the scales.
    pub scale_grid: &'a mut [f32],
    /// `[rows / run, groups, 2]`: the same of the zero points.
    pub zero_grid: &'a mut [f32],
    /// `[rows]`: half the squared errors, those of what is kept apart left out.
    pub loss: &'a mut [f32],
}

/// Rounds `found.weight` `[rows, cols]`, given the `factor` `[cols, cols]` of `inverse_factor`, or without error feedback.
///
/// `masked`: `found.mask` says what is kept apart. [`Error::NotFinite`] for NaN or infinity in the weight or the factor,
/// [`Error::Range`] for a factor without a positive diagonal and for options out of range, [`Error::Shape`] for lengths and a
/// run that does not divide the rows. Where the updates overflow, [`Error::NotFinite`] comes after writing.
pub fn bilevel(
    m: &Machine,
    factor: Option<&[f32]>,
    rows: usize,
    cols: usize,
    options: &Bilevel,
    masked: bool,
    found: Found<'_>,
) -> Result<()> {
    highest(options.bits)?;
    for (what, bits) in [("scale_bits", options.scale_bits), ("zero_bits", options.zero_bits)] {
        if bits > 8 {
            return Err(Error::range(what, bits, "0 to 8"));
        }
    }
    if options.block == 0 {
        return Err(Error::range("block", options.block, "at least 1"));
    }
    if options.threshold.is_nan() || options.threshold < 0.0 {
        return Err(Error::range("threshold", options.threshold, "0 or above"));
    }
    if options.run == 0 || !rows.is_multiple_of(options.run) {
        return Err(Error::shape("run", options.run, format!("a divisor of {rows} rows")));
    }
    let count = groups(cols, options.group)?;
    let runs = rows / options.run;
    expect_shape("weight", found.weight.len(), &[rows, cols])?;
    expect_shape("codes", found.codes.len(), &[rows, cols])?;
    expect_shape("mask", found.mask.len(), &[rows, cols])?;
    expect_shape("scale", found.scale.len(), &[rows, count])?;
    expect_shape("zero", found.zero.len(), &[rows, count])?;
    expect_shape("scale_codes", found.scale_codes.len(), &[rows, count])?;
    expect_shape("zero_codes", found.zero_codes.len(), &[rows, count])?;
    expect_shape("scale_grid", found.scale_grid.len(), &[runs, count, 2])?;
    expect_shape("zero_grid", found.zero_grid.len(), &[runs, count, 2])?;
    expect_len("loss", found.loss.len(), rows)?;
    if let Some(factor) = factor {
        expect_shape("factor", factor.len(), &[cols, cols])?;
        expect_factor(factor, cols)?;
    }
    finite("weight", found.weight, cols)?;
    if found.weight.is_empty() {
        found.loss.fill(0.0);
        return Ok(());
    }
    let problem = Problem { factor, cols, count, options, masked };
    let (rows, runs) = (CHUNK.next_multiple_of(options.run), CHUNK.div_ceil(options.run));
    let Found { weight, codes, mask, scale, zero, scale_codes, zero_codes, scale_grid, zero_grid, loss } = found;
    let chunks: Vec<_> = weight
        .chunks_mut(rows * cols)
        .zip(codes.chunks_mut(rows * cols).zip(mask.chunks_mut(rows * cols)))
        .zip(scale.chunks_mut(rows * count).zip(zero.chunks_mut(rows * count)))
        .zip(scale_codes.chunks_mut(rows * count).zip(zero_codes.chunks_mut(rows * count)))
        .zip(scale_grid.chunks_mut(runs * count * 2).zip(zero_grid.chunks_mut(runs * count * 2)))
        .zip(loss.chunks_mut(rows))
        .map(|(((((weight, (codes, mask)), (scale, zero)), level), grid), loss)| {
            let ((scale_codes, zero_codes), (scale_grid, zero_grid)) = (level, grid);
            Found { weight, codes, mask, scale, zero, scale_codes, zero_codes, scale_grid, zero_grid, loss }
        })
        .collect();
    let overflow = Mutex::new(false);
    m.each(chunks, |mut chunk| {
        solve(m, &problem, &mut chunk);
        if chunk.loss.iter().any(|loss| !loss.is_finite())
            && let Ok(mut overflow) = overflow.lock()
        {
            *overflow = true;
        }
    });
    match overflow.into_inner() {
        Ok(false) => Ok(()),
        _ => Err(Error::not_finite("weight", "updates that overflow")),
    }
}

/// What all tasks read.
struct Problem<'a> {
    factor: Option<&'a [f32]>,
    cols: usize,
    count: usize,
    options: &'a Bilevel,
    masked: bool,
}

impl Problem<'_> {
    /// What the error of a column is measured by.
    #[inline(always)]
    fn pivot(&self, column: usize) -> f32 {
        self.factor.map_or(1.0, |factor| factor[column * self.cols + column])
    }
}

/// All columns of some rows, block by block.
fn solve(m: &Machine, problem: &Problem<'_>, chunk: &mut Found<'_>) {
    let (cols, group, rows) = (problem.cols, problem.options.group, chunk.loss.len());
    let mut sums = vec![0.0f64; rows];
    let mut start = 0;
    while start < cols {
        // Whole groups, or a part of one.
        let block = problem.options.block;
        let end = if block < group {
            (start - start % group + group).min(start + block)
        } else {
            start + block / group * group
        };
        let end = end.min(cols);
        let mut errors = vec![0.0; rows * (end - start)];
        match m.path() {
            // SAFETY: a machine with this path has AVX2.
            Path::Amx | Path::Avx512 | Path::Avx2 => unsafe {
                avx2::block(problem, chunk, start, end, &mut errors, &mut sums)
            },
            Path::Scalar => portable::block(problem, chunk, start, end, &mut errors, &mut sums),
        }
        if let Some(factor) = problem.factor
            && end < cols
        {
            let rest = MatMut::from_row_major_slice_mut(chunk.weight, rows, cols).subcols_mut(end, cols - end);
            let errors = MatRef::from_row_major_slice(&errors, rows, end - start);
            let factor = MatRef::from_row_major_slice(&factor[start * cols..end * cols], end - start, cols);
            matmul(rest, Accum::Add, errors, factor.subcols(end, cols - end), -1.0, Par::Seq);
        }
        start = end;
    }
    for (loss, &sum) in chunk.loss.iter_mut().zip(&sums) {
        *loss = (0.5 * sum) as f32;
    }
}

mod portable {
    use super::{Bilevel, Found, LEAST, Problem, ScaleType, rint};

    /// The grid of a group or run: `value ~ scale * (code - zero)`.
    #[derive(Clone, Copy)]
    struct Line {
        scale: f32,
        zero: f32,
    }

    impl Line {
        #[inline(always)]
        fn encode(self, value: f32, top: f32) -> f32 {
            // Integers as bounds may come before the rounding, and keep it in reach of `rint`.
            rint((value / self.scale.max(LEAST) + self.zero).max(0.0).min(top))
        }
        #[inline(always)]
        fn decode(self, code: f32) -> f32 {
            self.scale * (code - self.zero)
        }
    }

    /// From the least to the largest value, neither forced through zero; values that are all the same get the range -1 to 1.
    #[inline(always)]
    fn fit(values: impl Iterator<Item = f32> + Clone, top: f32, round_zero: bool) -> Line {
        let (lo, hi) = values.fold((f32::INFINITY, f32::NEG_INFINITY), |(lo, hi), x| (lo.min(x), hi.max(x)));
        let (lo, hi) = if lo < hi { (lo, hi) } else { (-1.0, 1.0) };
        let scale = (hi - lo) / top;
        let zero = -lo / scale.max(LEAST);
        Line { scale, zero: if round_zero { zero.round_ties_even() } else { zero } }
    }

    /// The same for the second level, in floats that can be stored; values that are all the same, or too near to each other
    /// for that, are all the first, exactly or as near as the type comes.
    #[inline(always)]
    fn fit_stored(values: impl Iterator<Item = f32> + Clone, top: f32, dtype: ScaleType) -> Line {
        let (lo, hi) = values.fold((f32::INFINITY, f32::NEG_INFINITY), |(lo, hi), x| (lo.min(x), hi.max(x)));
        let scale = dtype.nearest((hi - lo) / top);
        let zero = -lo / scale;
        if scale > 0.0 && zero.abs() < 65504.0 {
            return Line { scale, zero: dtype.nearest(zero) };
        }
        let value = dtype.nearest(lo);
        if value == 0.0 { Line { scale: 1.0, zero: 0.0 } } else { Line { scale: value.abs(), zero: -value.signum() } }
    }

    /// The columns `start..end` of a chunk; `errors` `[rows, end - start]`.
    #[inline(always)]
    pub fn block(
        problem: &Problem<'_>,
        chunk: &mut Found<'_>,
        start: usize,
        end: usize,
        errors: &mut [f32],
        sums: &mut [f64],
    ) {
        let group = problem.options.group;
        let mut first = start;
        while first < end {
            if first.is_multiple_of(group) {
                grids(problem, chunk, first);
            }
            let last = end.min(first - first % group + group);
            columns(problem, chunk, first..last, start..end, errors, sums);
            first = last;
        }
    }

    /// The grids of the group that begins at column `first`.
    #[inline(always)]
    fn grids(problem: &Problem<'_>, chunk: &mut Found<'_>, first: usize) {
        let (Problem { cols, count, options, .. }, rows) = (problem, chunk.loss.len());
        let (at, top) = (first / options.group, ((1u32 << options.bits) - 1) as f32);
        let mut values = vec![0.0; options.group];
        let mut apart = vec![false; options.group];
        for row in 0..rows {
            let place = row * cols + first..row * cols + first + options.group;
            values.copy_from_slice(&chunk.weight[place.clone()]);
            if problem.masked {
                apart.iter_mut().zip(&chunk.mask[place]).for_each(|(apart, &mask)| *apart = mask != 0);
            } else if options.threshold < f32::INFINITY && !options.simplified {
                leave_one_out(problem, &values, first, top, &mut apart);
            }
            without(&mut values, &apart);
            let line = fit(values.iter().copied(), top, options.round_zero);
            (chunk.scale[row * count + at], chunk.zero[row * count + at]) = (line.scale, line.zero);
        }
        second(options, chunk.scale, chunk.scale_codes, chunk.scale_grid, options.scale_bits, *count, at);
        second(options, chunk.zero, chunk.zero_codes, chunk.zero_grid, options.zero_bits, *count, at);
    }

    /// Which weights of a group cost the others more than `threshold`, by the range that they ask for.
    #[inline(always)]
    fn leave_one_out(problem: &Problem<'_>, values: &[f32], first: usize, top: f32, apart: &mut [bool]) {
        let options = problem.options;
        let error = |left: usize| {
            let others = values.iter().enumerate().filter(|(i, _)| *i != left);
            let line = fit(others.clone().map(|(_, &value)| value), top, options.round_zero);
            others.fold(0.0, |sum, (i, &value)| {
                let missed = (value - line.decode(line.encode(value, top))) / problem.pivot(first + i);
                sum + missed * missed
            })
        };
        let all = error(usize::MAX);
        for (i, apart) in apart.iter_mut().enumerate() {
            *apart = values.len() > 1 && all - error(i) > options.threshold;
        }
    }

    /// Puts the mean of the others in place of what is kept apart.
    #[inline(always)]
    fn without(values: &mut [f32], apart: &[bool]) {
        let others = values.iter().zip(apart).filter(|(_, apart)| !**apart);
        let (count, sum) = others.fold((0.0f32, 0.0), |(count, sum), (value, _)| (count + 1.0, sum + value));
        let mean = sum / count.max(1.0);
        values.iter_mut().zip(apart).filter(|(_, apart)| **apart).for_each(|(value, _)| *value = mean);
    }

    /// Quantizes the scales, or zero points, of group `at`, run by run; without bits they are rounded to what is stored.
    #[inline(always)]
    fn second(
        options: &Bilevel,
        values: &mut [f32],
        codes: &mut [u8],
        grid: &mut [f32],
        bits: u32,
        count: usize,
        at: usize,
    ) {
        if bits == 0 {
            values.iter_mut().skip(at).step_by(count).for_each(|value| *value = options.dtype.nearest(*value));
            return;
        }
        let (top, run) = (((1u32 << bits) - 1) as f32, options.run * count);
        for ((values, codes), grid) in
            values.chunks_exact_mut(run).zip(codes.chunks_exact_mut(run)).zip(grid.chunks_exact_mut(2 * count))
        {
            let line = fit_stored(values.iter().skip(at).step_by(count).copied(), top, options.dtype);
            (grid[2 * at], grid[2 * at + 1]) = (line.scale, line.zero);
            for (value, code) in values.iter_mut().zip(codes).skip(at).step_by(count) {
                let level = line.encode(*value, top);
                (*value, *code) = (line.decode(level), level as u8);
            }
        }
    }

    /// Rounds the columns `now` of one group; errors go to the columns up to the end of the block.
    #[inline(always)]
    fn columns(
        problem: &Problem<'_>,
        chunk: &mut Found<'_>,
        now: std::ops::Range<usize>,
        block: std::ops::Range<usize>,
        errors: &mut [f32],
        sums: &mut [f64],
    ) {
        let (Problem { factor, cols, count, options, .. }, width) = (problem, block.len());
        let (at, top) = (now.start / options.group, ((1u32 << options.bits) - 1) as f32);
        for (row, sum) in sums.iter_mut().enumerate() {
            let line = Line { scale: chunk.scale[row * count + at], zero: chunk.zero[row * count + at] };
            let weight = &mut chunk.weight[row * cols..(row + 1) * cols];
            for j in now.clone() {
                let (code, place) = (line.encode(weight[j], top), row * cols + j);
                let error = (weight[j] - line.decode(code)) / problem.pivot(j);
                let apart = if problem.masked { chunk.mask[place] != 0 } else { error * error > options.threshold };
                chunk.mask[place] = u8::from(apart);
                chunk.codes[place] = if apart { line.encode(0.0, top) } else { code } as u8;
                if apart {
                    continue;
                }
                *sum += f64::from(error) * f64::from(error);
                errors[row * width + j - block.start] = error;
                if let Some(factor) = factor {
                    let later = weight[j + 1..block.end].iter_mut();
                    later.zip(&factor[j * cols + j + 1..]).for_each(|(value, &u)| *value -= error * u);
                }
            }
        }
    }
}

mod avx2 {
    //! The portable body, compiled to vectors of eight.

    use super::{Found, Problem, portable};

    #[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2"))]
    pub unsafe fn block(
        problem: &Problem<'_>,
        chunk: &mut Found<'_>,
        start: usize,
        end: usize,
        errors: &mut [f32],
        sums: &mut [f64],
    ) {
        portable::block(problem, chunk, start, end, errors, sums);
    }
}
