//! codebook_descent: the step of coordinate_descent for codewords: the codes of a column are found anew with those of all others as
//! they are, one column after the other, sweep after sweep. Limit: the multiplications of the search and behind each block.
//!
//! Kept for every row: the error `e = w - q` of its codes and the slope `g = e H`. As in gptq_codebook a chunk of rows is one task,
//! and the columns of a block lie one after another; behind it `g` is brought up to date by one product.

use super::finite;
use super::gptq_codebook::update;
use crate::codebook::Table;
use crate::codebook::search::Search;
use crate::error::expect_shape;
use crate::{Error, Machine, Path, Result};
use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};

/// Rows of one task at least; fixed, so that every thread count cuts, and rounds, alike.
const CHUNK: usize = 96;
/// Codewords of a task come in multiples of the points that the search takes side by side.
const POINTS: usize = 6;
/// No codeword is that far: what a nearly flat Hessian asks for is held to this, and stays within what the search can compare.
const FAR: f32 = 1e15;

/// What all tasks read.
struct Problem<'a> {
    hessian: &'a [f32],
    cols: usize,
    sweeps: usize,
    block: usize,
    table: Table<'a>,
    /// For each group, the search among the codewords of each stage that there is.
    searches: Vec<Vec<Search>>,
}

/// Lowers `(w - q) H (w - q)^T`, `w` a row of `weight` `[rows, cols]`, `q` what its codes stand for and `H` the symmetric `hessian`
/// `[cols, cols]`, by at most `sweeps` over all columns; each takes the codewords nearest to where the column would be best, where
/// these are nearer than its own.
///
/// `codes` `[rows.div_ceil(dim), cols]`, as [`Table`] reads them, are where it begins and ends; of two stages each is chosen beside
/// the other one, the first before the second. `beside` `[rows, cols]`, where given, is added to `(w - q) H`: what columns do that
/// are not here. Columns whose diagonal is 0 stay. `block` columns lie between two updates of the rest: speed, and the order of
/// sums. [`Error::NotFinite`] for NaN or infinity, [`Error::Range`] for a negative diagonal, no sweeps, a block of 0, codes beyond
/// the codebooks and what [`Table`] refuses, [`Error::Shape`].
#[allow(clippy::too_many_arguments)]
pub fn codebook_descent(
    m: &Machine,
    weight: &[f32],
    hessian: &[f32],
    beside: Option<&[f32]>,
    rows: usize,
    cols: usize,
    table: Table<'_>,
    sweeps: usize,
    block: usize,
    codes: &mut [i32],
) -> Result<()> {
    for (what, given) in [("sweeps", sweeps), ("block", block)] {
        if given == 0 {
            return Err(Error::range(what, given, "at least 1"));
        }
    }
    table.check(cols)?;
    let dim = table.dim;
    expect_shape("weight", weight.len(), &[rows, cols])?;
    expect_shape("hessian", hessian.len(), &[cols, cols])?;
    expect_shape("codes", codes.len(), &[rows.div_ceil(dim), cols])?;
    finite("weight", weight, cols)?;
    finite("hessian", hessian, cols)?;
    finite("codebook", table.first, dim)?;
    finite("residual", table.second, dim)?;
    if let Some(beside) = beside {
        expect_shape("beside", beside.len(), &[rows, cols])?;
        finite("beside", beside, cols)?;
    }
    if let Some(j) = (0..cols).find(|&j| hessian[j * cols + j] < 0.0) {
        let given = format!("{} in column {j}", hessian[j * cols + j]);
        return Err(Error::range("hessian", given, "a diagonal of 0 or more"));
    }
    table.expect_codes(codes)?;
    if weight.is_empty() {
        return Ok(());
    }
    let problem = Problem { hessian, cols, sweeps, block: block.min(cols), table, searches: table.searches() };
    let strips = CHUNK.div_ceil(POINTS * dim) * POINTS;
    let chunks: Vec<_> = weight
        .chunks(strips * dim * cols)
        .zip(codes.chunks_mut(strips * cols))
        .enumerate()
        .map(|(i, (weight, codes))| {
            let start = i * strips * dim * cols;
            (weight, beside.map(|beside| &beside[start..start + weight.len()]), codes)
        })
        .collect();
    m.each(chunks, |(weight, beside, codes)| problem.solve(m.path(), weight, beside, codes));
    Ok(())
}

impl Problem<'_> {
    /// All sweeps over some rows.
    fn solve(&self, path: Path, weight: &[f32], beside: Option<&[f32]>, codes: &mut [i32]) {
        let (cols, dim) = (self.cols, self.table.dim);
        let rows = weight.len() / cols;
        let height = rows.next_multiple_of(dim);
        let whole = MatRef::from_row_major_slice(self.hessian, cols, cols);
        let (mut error, mut word) = (weight.to_vec(), vec![0.0; dim]);
        for (error, codes) in error.chunks_mut(dim * cols).zip(codes.chunks_exact(cols)) {
            for (j, &code) in codes.iter().enumerate() {
                self.word(j, code, &mut word);
                error.chunks_exact_mut(cols).zip(&word).for_each(|(row, value)| row[j] -= value);
            }
        }
        let mut slope = beside.map_or_else(|| vec![0.0; rows * cols], <[f32]>::to_vec);
        let to = MatMut::from_row_major_slice_mut(&mut slope, rows, cols);
        matmul(to, Accum::Add, MatRef::from_row_major_slice(&error, rows, cols), whole, 1.0, Par::Seq);

        let mut column = Column::new(height, dim);
        let (mut slopes, mut steps) = (vec![0.0; self.block * height], vec![0.0; self.block * height]);
        for _ in 0..self.sweeps {
            let mut moved = false;
            for start in (0..cols).step_by(self.block) {
                let end = cols.min(start + self.block);
                for (row, slope) in slope.chunks_exact(cols).enumerate() {
                    let block = slopes.chunks_exact_mut(height).zip(&slope[start..end]);
                    block.for_each(|(column, &value)| column[row] = value);
                }
                for j in start..end {
                    let (done, later) = slopes.split_at_mut((j + 1 - start) * height);
                    let step = &mut steps[(j - start) * height..][..height];
                    step.fill(0.0);
                    let pivot = self.hessian[j * cols + j];
                    if pivot == 0.0 {
                        continue;
                    }
                    // Rows that are none are to be zeros, whatever the codeword has there.
                    if rows < height {
                        self.word(j, codes[codes.len() - cols + j], &mut column.now[height - dim..]);
                    }
                    for row in 0..rows {
                        let (w, e) = (weight[row * cols + j], error[row * cols + j]);
                        column.now[row] = w - e;
                        let best = w - e + done[(j - start) * height + row] / pivot;
                        column.ideal[row] = if best.abs() < FAR { best } else { FAR.copysign(best) };
                    }
                    if self.choose(path, j, &mut column, codes) {
                        moved = true;
                        for row in 0..rows {
                            step[row] = column.found[row] - column.now[row];
                            error[row * cols + j] = weight[row * cols + j] - column.found[row];
                        }
                        update(path, later, step, &self.hessian[j * cols + j + 1..j * cols + end]);
                    }
                }
                let to = MatMut::from_row_major_slice_mut(&mut slope, rows, cols);
                let steps = MatRef::from_column_major_slice(&steps[..(end - start) * height], height, end - start);
                matmul(to, Accum::Add, steps.subrows(0, rows), whole.subrows(start, end - start), -1.0, Par::Seq);
            }
            if !moved {
                break;
            }
        }
    }

    fn group(&self, j: usize) -> usize {
        j / (self.cols / self.table.groups)
    }

    /// What a code of column `j` stands for.
    fn word(&self, j: usize, code: i32, word: &mut [f32]) {
        word.fill(0.0);
        for (words, k) in self.table.stages(self.group(j)).zip(self.table.parts(code)) {
            word.iter_mut().zip(&words[k * self.table.dim..]).for_each(|(sum, value)| *sum += value);
        }
    }

    /// Gives a column the codewords nearest to its ideal, where they are nearer than its own; whether it got any.
    fn choose(&self, path: Path, j: usize, column: &mut Column, codes: &mut [i32]) -> bool {
        let Column { ideal, now, found, left, index } = column;
        let (dim, low) = (self.table.dim, self.table.bits()[0]);
        let group = self.group(j);
        let mut stages = self.searches[group].iter().zip(self.table.stages(group));
        let Some((search, words)) = stages.next() else { return false };
        let rest = stages.next();
        left.copy_from_slice(ideal);
        if let Some((_, second)) = rest {
            for (left, codes) in left.chunks_exact_mut(dim).zip(codes.chunks(self.cols)) {
                let word = &second[self.table.parts(codes[j])[1] * dim..][..dim];
                left.iter_mut().zip(word).for_each(|(left, value)| *left -= value);
            }
        }
        search.some(path, &mut index[0], |point, i| -left[point * dim + i]);
        for (found, &k) in found.chunks_exact_mut(dim).zip(&index[0]) {
            found.copy_from_slice(&words[k as usize * dim..][..dim]);
        }
        if let Some((search, second)) = rest {
            left.iter_mut().zip(&*ideal).zip(&*found).for_each(|((left, ideal), found)| *left = ideal - found);
            search.some(path, &mut index[1], |point, i| -left[point * dim + i]);
            for (found, &k) in found.chunks_exact_mut(dim).zip(&index[1]) {
                found.iter_mut().zip(&second[k as usize * dim..][..dim]).for_each(|(found, value)| *found += value);
            }
        }
        let mut moved = false;
        for (strip, codes) in codes.chunks_mut(self.cols).enumerate() {
            let at = strip * dim..(strip + 1) * dim;
            let (ideal, now, found) = (&ideal[at.clone()], &now[at.clone()], &mut found[at]);
            let away = |values: &[f32]| values.iter().zip(ideal).map(|(v, x)| (v - x) * (v - x)).sum::<f32>();
            if away(found) < away(now) {
                codes[j] = index[0][strip] | (i64::from(index[1][strip]) << low) as i32;
                moved = true;
            } else {
                found.copy_from_slice(now);
            }
        }
        moved
    }
}

/// The numbers of one column, and the codewords found for it.
struct Column {
    ideal: Vec<f32>,
    now: Vec<f32>,
    found: Vec<f32>,
    left: Vec<f32>,
    index: [Vec<i32>; 2],
}

impl Column {
    fn new(height: usize, dim: usize) -> Self {
        let [ideal, now, found, left] = std::array::from_fn(|_| vec![0.0; height]);
        Self { ideal, now, found, left, index: std::array::from_fn(|_| vec![0; height / dim]) }
    }
}
