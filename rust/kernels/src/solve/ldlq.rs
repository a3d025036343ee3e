//! ldlq: rounds a weight from its last columns to its first, each to the nearest codes of what it is plus what the errors behind
//! it ask for (QuIP, Chee et al., 2023, section 3.1; in blocks QuIP#, Tseng et al., 2024, section 4.1); then, sweep by sweep,
//! each block again to the nearest codes of its best value with all others as they are. Limit: the product behind each block.
//!
//! As in gptq, a chunk of rows is one task. A step rounds the columns of one codeword and moves those of its block that come
//! after it; one product moves all the others behind the block.

use super::finite;
use crate::codebook::Lattice;
use crate::codebook::lattice::Encoder;
use crate::error::{Detail, expect_len, expect_shape};
use crate::parts::Rows;
use crate::quantize::highest;
use crate::{Error, Machine, Path, Result};
use faer::dyn_stack::{MemBuffer, MemStack};
use faer::linalg::cholesky::llt::factor::{LltError, cholesky_in_place, cholesky_in_place_scratch};
use faer::linalg::matmul::matmul;
use faer::traits::RealField;
use faer::{Accum, MatMut, MatRef, Par};
use std::iter::Sum;

/// Rows of one task; fixed, so that every thread count cuts, and rounds, alike.
const CHUNK: usize = 128;
/// The widest codeword.
const WIDEST: usize = 8;
type Square = [[f32; WIDEST]; WIDEST];

/// What weights are rounded to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codewords {
    /// Whole numbers of so many bits, column by column.
    Integers(u32),
    /// Eight columns at a time.
    Lattice(Lattice),
}

impl Codewords {
    /// Columns of one codeword.
    pub fn dim(self) -> usize {
        match self {
            Self::Integers(_) => 1,
            Self::Lattice(_) => WIDEST,
        }
    }
}

/// How [`ldlq`] goes about it.
#[derive(Debug, Clone, Copy)]
pub struct Feedback {
    /// What weights are rounded to.
    pub codewords: Codewords,
    /// Passes after the first, at most: a row chunk ends where one changes nothing.
    pub sweeps: usize,
    /// The values given are where the sweeps begin; otherwise they begin at what the first pass found.
    pub started: bool,
    /// Columns between two updates of the rest: speed, and the order of sums.
    pub block: usize,
}

/// Rounds `weight` `[rows, cols]` in the units of the codewords towards the least `(w - q) H (w - q)^T` of each row, `H` the symmetric
/// `hessian` `[cols, cols]`; without one, to the nearest.
///
/// `values` `[rows, cols]` receive `q`, `codes` `[rows, cols / dim]` its codes, `loss` `[rows]` half that error. Sweeps over integers may leave
/// their range on the way; each ends with a clamp. [`Error::Singular`] for a Hessian that is not positive definite, [`Error::Range`]
/// for bits, a block of 0, sweeps without a Hessian, or a start without sweeps, [`Error::NotFinite`], [`Error::Shape`]. Where values overflow,
/// [`Error::NotFinite`] comes after writing.
#[allow(clippy::too_many_arguments)]
pub fn ldlq(
    m: &Machine,
    weight: &[f32],
    hessian: Option<&[f32]>,
    rows: usize,
    cols: usize,
    feedback: &Feedback,
    codes: &mut [i32],
    values: &mut [f32],
    loss: &mut [f32],
) -> Result<()> {
    let Feedback { codewords, sweeps, started, block } = *feedback;
    let dim = codewords.dim();
    if block == 0 {
        return Err(Error::range("block", block, "at least 1"));
    }
    if sweeps > 0 && hessian.is_none() {
        return Err(Error::range("sweeps", sweeps, "0 without a Hessian"));
    }
    if started && sweeps == 0 {
        return Err(Error::range("sweeps", sweeps, "1 or more from a start"));
    }
    if !cols.is_multiple_of(dim) {
        return Err(Error::shape("weight", format!("{cols} columns"), format!("a multiple of {dim}")));
    }
    let rounder = match codewords {
        Codewords::Integers(bits) => Rounder::Integers(f32::from(highest(bits)?)),
        Codewords::Lattice(lattice) => Rounder::Lattice(Encoder::of(lattice)),
    };
    expect_shape("weight", weight.len(), &[rows, cols])?;
    expect_shape("start", values.len(), &[rows, cols])?;
    expect_shape("codes", codes.len(), &[rows, cols / dim])?;
    expect_len("loss", loss.len(), rows)?;
    finite("weight", weight, cols)?;
    if started {
        finite("start", values, cols)?;
    }
    let problem = Problem { hessian, factor: vec![], cols, block: block.next_multiple_of(dim), rounder, dim };
    let problem = match hessian {
        Some(hessian) => {
            expect_shape("hessian", hessian.len(), &[cols, cols])?;
            finite("hessian", hessian, cols)?;
            Problem { factor: if started { vec![] } else { factor(m, hessian, cols, dim)? }, ..problem }
        }
        None => problem,
    };
    if weight.is_empty() {
        loss.fill(0.0);
        return Ok(());
    }
    let chunks: Vec<_> = weight
        .chunks(CHUNK * cols)
        .zip(values.chunks_mut(CHUNK * cols))
        .zip(codes.chunks_mut(CHUNK * (cols / dim)))
        .zip(loss.chunks_mut(CHUNK))
        .map(|(((weight, values), codes), loss)| Chunk { weight, values, codes, loss })
        .collect();
    m.each(chunks, |mut chunk| {
        if !started {
            problem.feed_back(m.path(), &mut chunk);
        }
        if sweeps > 0 || (hessian.is_some() && !started) {
            problem.descend(m.path(), &mut chunk, sweeps);
        }
    });
    match loss.iter().position(|loss| !loss.is_finite()) {
        None => Ok(()),
        Some(row) => Err(Error::not_finite("weight", format!("values that overflow in row {row}"))),
    }
}

/// `L` of `H = L D L^T`, with unit matrices of `dim` columns along its diagonal and zeros above, row-major: the Cholesky factor
/// times the inverses of its diagonal blocks. In f32; where a pivot does not survive that, once more in f64.
fn factor(m: &Machine, hessian: &[f32], n: usize, dim: usize) -> Result<Vec<f32>> {
    if let Ok(lower) = cholesky(m, hessian.to_vec(), n) {
        return Ok(unit(m, &lower, n, dim));
    }
    let wide: Vec<f64> = hessian.iter().map(|&x| x.into()).collect();
    let singular = |index| {
        Error::Singular(Detail {
            what: "hessian",
            given: format!("a pivot of zero or less at column {index}"),
            expected: "a positive definite matrix".to_string(),
            hint: "raise the damping or give more calibration samples",
        })
    };
    let lower = cholesky(m, wide, n).map_err(singular)?;
    for (index, (root, x)) in lower.iter().zip(hessian).step_by(n + 1).enumerate() {
        // What the sums before a pivot leave of it by their rounding alone is zero.
        if root * root <= (n + 4) as f64 * f64::EPSILON * f64::from(*x) {
            return Err(singular(index));
        }
    }
    Ok(unit(m, &lower, n, dim).into_iter().map(|x| x as f32).collect())
}

/// The Cholesky factor by columns, below what the matrix holds above its diagonal; the column of the first pivot that is not
/// positive, if there is one.
fn cholesky<T: RealField>(m: &Machine, mut hessian: Vec<T>, n: usize) -> std::result::Result<Vec<T>, usize> {
    let par = Par::rayon(m.threads());
    let mut memory = MemBuffer::new(cholesky_in_place_scratch::<T>(n, par, Default::default()));
    let lower = MatMut::from_column_major_slice_mut(&mut hessian, n, n);
    match cholesky_in_place(lower, Default::default(), par, MemStack::new(&mut memory), Default::default()) {
        Ok(_) => Ok(hessian),
        Err(LltError::NonPositivePivot { index }) => Err(index),
    }
}

/// Its rows, each block of `dim` columns times the inverse of its diagonal block.
fn unit<T: RealField + Copy + Sum + Send + Sync>(m: &Machine, lower: &[T], n: usize, dim: usize) -> Vec<T> {
    let mut unit = vec![T::zero(); n * n];
    m.split_parts(n, 64, Rows::new(&mut unit, n), |range, unit| {
        for (row, unit) in range.zip(unit.all().chunks_exact_mut(n)) {
            for first in (0..=row).step_by(dim) {
                // x D = r with a lower triangular D: from the last column to the first.
                for j in (first..first + dim).rev() {
                    let known: T = (j + 1..first + dim).map(|i| unit[i] * lower[j * n + i]).sum();
                    let given = if j <= row { lower[j * n + row] } else { T::zero() };
                    unit[j] = (given - known) / lower[j * n + j];
                }
            }
        }
    });
    unit
}

/// What one task owns: some rows of everything.
struct Chunk<'a> {
    weight: &'a [f32],
    values: &'a mut [f32],
    codes: &'a mut [i32],
    loss: &'a mut [f32],
}

enum Rounder {
    /// From 0 to this.
    Integers(f32),
    Lattice(&'static Encoder),
}

impl Rounder {
    /// The nearest codewords of `target`, which become its values; whole numbers may leave the range where `free`.
    fn round(&self, path: Path, target: &mut [f32], codes: &mut [u32], free: bool) {
        match self {
            Self::Integers(top) => {
                for (x, code) in target.iter_mut().zip(codes) {
                    let whole = (*x + 0.5).floor();
                    *x = if free { whole } else { whole.max(0.0).min(*top) };
                    *code = *x as u32;
                }
            }
            Self::Lattice(encoder) => {
                let points = target.as_chunks_mut::<WIDEST>().0;
                let mut values = vec![[0.0; WIDEST]; points.len()];
                encoder.encode(path, points, codes, &mut values);
                points.copy_from_slice(&values);
            }
        }
    }
}

/// What all tasks read.
struct Problem<'a> {
    hessian: Option<&'a [f32]>,
    /// What `factor` gives; empty where nothing is fed back.
    factor: Vec<f32>,
    cols: usize,
    block: usize,
    dim: usize,
    rounder: Rounder,
}

impl Problem<'_> {
    /// The first pass. What a column is to become is collected in `target`; half the squared errors give the loss where no
    /// Hessian measures them.
    fn feed_back(&self, path: Path, chunk: &mut Chunk<'_>) {
        let (cols, dim, rows) = (self.cols, self.dim, chunk.loss.len());
        let mut target = chunk.weight.to_vec();
        let mut step = vec![0.0; rows * dim];
        let mut codes = vec![0; rows];
        for start in (0..cols).step_by(self.block).rev() {
            let width = self.block.min(cols - start);
            let mut rates = vec![0.0; width * width];
            if let Some(lines) = self.factor.get(start * cols..(start + width) * cols) {
                gather(lines, cols, start, width, &mut rates);
            }
            let mut errors = vec![0.0; rows * width];
            for at in (0..width).step_by(dim).rev() {
                gather(&target, cols, start + at, dim, &mut step);
                self.rounder.round(path, &mut step, &mut codes, false);
                for (row, step) in step.chunks_exact(dim).enumerate() {
                    let place = row * cols + start + at;
                    chunk.values[place..place + dim].copy_from_slice(step);
                    chunk.codes[row * (cols / dim) + (start + at) / dim] = codes[row] as i32;
                    let missed = &mut errors[row * width + at..][..dim];
                    for ((missed, w), q) in missed.iter_mut().zip(&chunk.weight[place..]).zip(step) {
                        *missed = w - q;
                    }
                }
                push(path, &errors, &rates, [width, at, dim], &mut target[start..], cols);
            }
            if start > 0 && !self.factor.is_empty() {
                let unit = MatRef::from_row_major_slice(&self.factor, cols, cols).submatrix(start, 0, width, start);
                let rest = MatMut::from_row_major_slice_mut(&mut target, rows, cols).subcols_mut(0, start);
                matmul(rest, Accum::Add, MatRef::from_row_major_slice(&errors, rows, width), unit, 1.0, Par::Seq);
            }
        }
        let rows = chunk.weight.chunks_exact(cols).zip(chunk.values.chunks_exact(cols));
        for (loss, (weight, values)) in chunk.loss.iter_mut().zip(rows) {
            let squares = weight.iter().zip(values).map(|(w, q)| f64::from(w - q).powi(2));
            *loss = (0.5 * squares.sum::<f64>()) as f32;
        }
    }

    /// The sweeps, of which there may be none, and the loss. Kept for every row: `gradient`, `(w - q) H`.
    fn descend(&self, path: Path, chunk: &mut Chunk<'_>, sweeps: usize) {
        let (cols, dim, rows) = (self.cols, self.dim, chunk.loss.len());
        let hessian = self.hessian.unwrap_or_default();
        let whole = MatRef::from_row_major_slice(hessian, cols, cols);
        let mut gradient = vec![0.0; rows * cols];
        let measure = |weight: &[f32], values: &[f32], gradient: &mut [f32]| {
            let missed: Vec<f32> = weight.iter().zip(values).map(|(w, q)| w - q).collect();
            let missed = MatRef::from_row_major_slice(&missed, rows, cols);
            let to = MatMut::from_row_major_slice_mut(gradient, rows, cols);
            matmul(to, Accum::Replace, missed, whole, 1.0, Par::Seq);
        };
        measure(chunk.weight, chunk.values, &mut gradient);
        let mut step = vec![0.0; rows * dim];
        let mut codes = vec![0; rows];
        for _ in 0..sweeps {
            let before = chunk.values.to_vec();
            for start in (0..cols).step_by(self.block).rev() {
                let width = self.block.min(cols - start);
                let mut moves = vec![0.0; rows * width];
                let mut slopes = vec![0.0; rows * width];
                gather(&gradient, cols, start, width, &mut slopes);
                let mut rates = vec![0.0; width * width];
                gather(&hessian[start * cols..(start + width) * cols], cols, start, width, &mut rates);
                for at in (0..width).step_by(dim).rev() {
                    let inverse = inverse(hessian, cols, start + at, dim);
                    gather(chunk.values, cols, start + at, dim, &mut step);
                    for (row, step) in step.chunks_exact_mut(dim).enumerate() {
                        let slope = &slopes[row * width + at..][..dim];
                        for (j, value) in step.iter_mut().enumerate() {
                            *value += slope.iter().zip(&inverse).map(|(s, line)| s * line[j]).sum::<f32>();
                        }
                    }
                    self.rounder.round(path, &mut step, &mut codes, true);
                    for (row, step) in step.chunks_exact(dim).enumerate() {
                        let place = row * cols + start + at;
                        let moved = &mut moves[row * width + at..][..dim];
                        for ((moved, q), new) in moved.iter_mut().zip(&mut chunk.values[place..]).zip(step) {
                            *moved = *q - new;
                            *q = *new;
                        }
                        chunk.codes[row * (cols / dim) + (start + at) / dim] = codes[row] as i32;
                    }
                    push(path, &moves, &rates, [width, at, dim], &mut slopes, width);
                }
                let to = MatMut::from_row_major_slice_mut(&mut gradient, rows, cols);
                let moves = MatRef::from_row_major_slice(&moves, rows, width);
                matmul(to, Accum::Add, moves, whole.subrows(start, width), 1.0, Par::Seq);
            }
            if let Rounder::Integers(top) = self.rounder {
                let inside = |q: f32| q.max(0.0).min(top);
                if chunk.values.iter().any(|&q| q != inside(q)) {
                    chunk.values.iter_mut().for_each(|q| *q = inside(*q));
                    measure(chunk.weight, chunk.values, &mut gradient);
                }
                chunk.codes.iter_mut().zip(&*chunk.values).for_each(|(code, &q)| *code = q as i32);
            }
            if *chunk.values == *before {
                break;
            }
        }
        for (row, loss) in chunk.loss.iter_mut().enumerate() {
            let row = row * cols..(row + 1) * cols;
            let terms = chunk.weight[row.clone()].iter().zip(&chunk.values[row.clone()]).zip(&gradient[row]);
            *loss = (0.5 * terms.map(|((w, q), g)| f64::from(w - q) * f64::from(*g)).sum::<f64>()) as f32;
        }
    }
}

/// `width` columns of a row-major matrix, from `first` on.
fn gather(from: &[f32], cols: usize, first: usize, width: usize, to: &mut [f32]) {
    for (from, to) in from.chunks_exact(cols).zip(to.chunks_exact_mut(width)) {
        to.copy_from_slice(&from[first..first + width]);
    }
}

/// The inverse of a diagonal block of the Hessian, in f64; that of a singular one is zero: its columns stay.
fn inverse(hessian: &[f32], cols: usize, first: usize, dim: usize) -> Square {
    let mut left: [[f64; 2 * WIDEST]; WIDEST] = [[0.0; 2 * WIDEST]; WIDEST];
    for (i, line) in left.iter_mut().enumerate().take(dim) {
        for (j, value) in line.iter_mut().enumerate().take(dim) {
            *value = hessian[(first + i) * cols + first + j].into();
        }
        line[WIDEST + i] = 1.0;
    }
    // Gauss and Jordan; a positive definite matrix needs no pivoting.
    for k in 0..dim {
        let pivot = left[k][k];
        if pivot <= 0.0 {
            return [[0.0; WIDEST]; WIDEST];
        }
        left[k].iter_mut().for_each(|value| *value /= pivot);
        let line = left[k];
        for (_, other) in left.iter_mut().enumerate().take(dim).filter(|(i, _)| *i != k) {
            let rate = other[k];
            other.iter_mut().zip(&line).for_each(|(value, x)| *value -= rate * x);
        }
    }
    std::array::from_fn(|i| std::array::from_fn(|j| left[i][WIDEST + j] as f32))
}

/// What `dim` columns of `errors` `[rows, width]` from column `at` on add to those before them: `to[row, ..at]`, rows of `stride`.
fn push(path: Path, errors: &[f32], rates: &[f32], place: [usize; 3], to: &mut [f32], stride: usize) {
    match path {
        // SAFETY: a machine with this path has AVX2.
        Path::Amx | Path::Avx512 | Path::Avx2 => unsafe { avx2::push(errors, rates, place, to, stride) },
        Path::Scalar => portable::push(errors, rates, place, to, stride),
    }
}

mod portable {
    #[inline(always)]
    pub fn push(errors: &[f32], rates: &[f32], [width, at, dim]: [usize; 3], to: &mut [f32], stride: usize) {
        for (errors, to) in errors.chunks_exact(width).zip(to.chunks_mut(stride)) {
            for (error, rates) in errors[at..at + dim].iter().zip(rates[at * width..].chunks_exact(width)) {
                for (to, rate) in to[..at].iter_mut().zip(rates) {
                    *to += error * rate;
                }
            }
        }
    }
}

mod avx2 {
    //! The portable body, compiled to vectors of eight.

    #[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2"))]
    pub unsafe fn push(errors: &[f32], rates: &[f32], place: [usize; 3], to: &mut [f32], stride: usize) {
        super::portable::push(errors, rates, place, to, stride);
    }
}
