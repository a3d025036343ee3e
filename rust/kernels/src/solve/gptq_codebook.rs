//! gptq_codebook: the column loop of gptq with codewords in place of codes: `dim` neighbouring rows of a column are rounded
//! together, to the nearest (VPTQ, Liu et al., 2024, algorithm 1). Limit: the multiplications of the search.
//!
//! As in gptq, a chunk of rows is one task. The columns of a block lie one after another, so that the points of a column, and
//! its errors on their way to the next ones, are neighbours.

use super::{expect_factor, finite};
use crate::codebook::Table;
use crate::codebook::search::Search;
use crate::error::{expect_len, expect_shape};
use crate::{Error, Machine, Path, Result};
use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};

/// Rows of one task at least; fixed, so that every thread count cuts, and rounds, alike.
const CHUNK: usize = 128;
/// Codewords of a task come in multiples of the points that the search takes side by side.
const POINTS: usize = 6;

/// What all tasks read.
struct Problem<'a> {
    factor: &'a [f32],
    cols: usize,
    block: usize,
    table: Table<'a>,
    /// For each group, the search among the codewords of each stage that there is.
    stages: Vec<Vec<Search>>,
}

/// What one task owns: some rows of everything.
struct Chunk<'a> {
    weight: &'a mut [f32],
    codes: &'a mut [i32],
    loss: &'a mut [f32],
}

/// Rounds `weight` `[rows, cols]` to codewords along the rows, given the `factor` `[cols, cols]` of `inverse_factor`.
///
/// `codes` `[rows.div_ceil(dim), cols]` receive the codes as [`Table`] reads them, the second stage's nearest to what the first
/// leaves; `loss` `[rows]` half the sum of squared errors, each over the factor's diagonal; `weight` each column as it was when
/// it was rounded. Rows that the last codeword lacks count as zeros, and their errors as none. Columns are taken in blocks of
/// `block`, which changes speed and the order of sums but no more. [`Error::NotFinite`] for NaN or infinity, [`Error::Range`] for
/// a factor with a diagonal that is not positive, a block of 0, and what [`Table`] refuses, [`Error::Shape`]. Where the updates
/// overflow, [`Error::NotFinite`] comes after writing.
#[allow(clippy::too_many_arguments)]
pub fn gptq_codebook(
    m: &Machine,
    weight: &mut [f32],
    factor: &[f32],
    rows: usize,
    cols: usize,
    table: Table<'_>,
    block: usize,
    codes: &mut [i32],
    loss: &mut [f32],
) -> Result<()> {
    if block == 0 {
        return Err(Error::range("block", block, "at least 1"));
    }
    table.check(cols)?;
    let dim = table.dim;
    expect_shape("weight", weight.len(), &[rows, cols])?;
    expect_shape("factor", factor.len(), &[cols, cols])?;
    expect_shape("codes", codes.len(), &[rows.div_ceil(dim), cols])?;
    expect_len("loss", loss.len(), rows)?;
    finite("weight", weight, cols)?;
    finite("codebook", table.first, dim)?;
    finite("residual", table.second, dim)?;
    expect_factor(factor, cols)?;
    if weight.is_empty() {
        loss.fill(0.0);
        return Ok(());
    }
    let problem = Problem { factor, cols, block, table, stages: table.searches() };
    let strips = CHUNK.div_ceil(POINTS * dim) * POINTS;
    let chunks: Vec<_> = weight
        .chunks_mut(strips * dim * cols)
        .zip(codes.chunks_mut(strips * cols))
        .zip(loss.chunks_mut(strips * dim))
        .map(|((weight, codes), loss)| Chunk { weight, codes, loss })
        .collect();
    m.each(chunks, |chunk| problem.solve(m.path(), chunk));
    match loss.iter().position(|loss| !loss.is_finite()) {
        None => Ok(()),
        Some(row) => Err(Error::not_finite("weight", format!("updates that overflow in row {row}"))),
    }
}

impl Problem<'_> {
    /// All columns of some rows.
    fn solve(&self, path: Path, chunk: Chunk<'_>) {
        let Chunk { weight, codes, loss } = chunk;
        let (rows, cols) = (loss.len(), self.cols);
        let height = rows.next_multiple_of(self.table.dim);
        let (mut panel, mut errors) =
            (vec![0.0; self.block.min(cols) * height], vec![0.0; self.block.min(cols) * height]);
        let mut sums = vec![0.0f64; rows];
        for start in (0..cols).step_by(self.block) {
            let end = cols.min(start + self.block);
            for (row, weight) in weight.chunks_exact(cols).enumerate() {
                for (column, &value) in panel.chunks_exact_mut(height).zip(&weight[start..end]) {
                    column[row] = value;
                }
            }
            for j in start..end {
                let (done, later) = panel.split_at_mut((j + 1 - start) * height);
                let (now, error) = (&done[(j - start) * height..], &mut errors[(j - start) * height..][..height]);
                self.round(path, j, now, codes, error);
                // What the last codeword says of rows that are none is no error.
                error[rows..].fill(0.0);
                sums.iter_mut().zip(&*error).for_each(|(sum, &error)| *sum += f64::from(error) * f64::from(error));
                update(path, later, error, &self.factor[j * cols + j + 1..j * cols + end]);
            }
            for (row, weight) in weight.chunks_exact_mut(cols).enumerate() {
                for (column, value) in panel.chunks_exact(height).zip(&mut weight[start..end]) {
                    *value = column[row];
                }
            }
            if end < cols {
                let rest = MatMut::from_row_major_slice_mut(weight, rows, cols).subcols_mut(end, cols - end);
                let errors = MatRef::from_column_major_slice(&errors[..(end - start) * height], height, end - start);
                let factor = MatRef::from_row_major_slice(&self.factor[start * cols..end * cols], end - start, cols);
                let behind = factor.subcols(end, cols - end);
                matmul(rest, Accum::Add, errors.subrows(0, rows), behind, -1.0, Par::Seq);
            }
        }
        for (loss, &sum) in loss.iter_mut().zip(&sums) {
            *loss = (0.5 * sum) as f32;
        }
    }

    /// Codes of column `j`, which is `now`, and its errors over the factor's diagonal.
    fn round(&self, path: Path, j: usize, now: &[f32], codes: &mut [i32], error: &mut [f32]) {
        let Table { dim, groups, .. } = self.table;
        let (group, [low, _]) = (j / (self.cols / groups), self.table.bits());
        let mut index = vec![0; now.len() / dim];
        error.copy_from_slice(now);
        for ((search, words), shift) in self.stages[group].iter().zip(self.table.stages(group)).zip([0, low]) {
            search.some(path, &mut index, |point, i| -error[point * dim + i]);
            for ((&k, left), codes) in index.iter().zip(error.chunks_exact_mut(dim)).zip(codes.chunks_mut(self.cols)) {
                let word = &words[k as usize * dim..][..dim];
                left.iter_mut().zip(word).for_each(|(left, value)| *left -= value);
                codes[j] = if shift == 0 { k } else { codes[j] | k << shift };
            }
        }
        let pivot = self.factor[j * self.cols + j];
        error.iter_mut().for_each(|error| *error /= pivot);
    }
}

/// Every column of `later` less the errors times its entry of `behind`.
pub(super) fn update(path: Path, later: &mut [f32], error: &[f32], behind: &[f32]) {
    match path {
        // SAFETY: a machine with this path has AVX2.
        Path::Amx | Path::Avx512 | Path::Avx2 => unsafe { avx2::update(later, error, behind) },
        Path::Scalar => portable::update(later, error, behind),
    }
}

mod portable {
    /// Every column of `later` less the errors times its entry of `behind`.
    #[inline(always)]
    pub fn update(later: &mut [f32], error: &[f32], behind: &[f32]) {
        for (column, &u) in later.chunks_exact_mut(error.len()).zip(behind) {
            column.iter_mut().zip(error).for_each(|(value, error)| *value -= error * u);
        }
    }
}

mod avx2 {
    //! The portable body, compiled to vectors of eight.

    use super::portable;

    #[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2"))]
    pub unsafe fn update(later: &mut [f32], error: &[f32], behind: &[f32]) {
        portable::update(later, error, behind);
    }
}
