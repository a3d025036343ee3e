//! gptq: rounds a weight column by column and pushes each error into the columns not yet rounded
//! (Frantar et al., 2023, algorithm 1). Limit: the multiplications of the update behind each block.
//!
//! Rows know nothing of each other: a chunk of them is one task. Inside, a tile of rows lies transposed, one row a vector
//! lane, so that rounding a column and updating the rest of its block are vector operations without a chain between rows.

use super::{expect_factor, finite};
use crate::error::{expect_len, expect_shape};
use crate::quantize::{self, Grid, fit_group};
use crate::{Error, Machine, Path, Result};
use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};
use std::sync::Mutex;

/// Rows of one task: their weights stay in the second and third cache while the factor streams by. Fixed, so that every
/// thread count cuts, and rounds, alike.
const CHUNK: usize = 128;
/// Rows of one tile: four AVX2 vectors, whose updates hide each other's latency.
const LANES: usize = 32;
/// One number for each row of a tile.
type Lane = [f32; LANES];

/// Which columns share a grid, and when it is fitted.
#[derive(Debug, Clone, Copy)]
pub enum Groups<'a> {
    /// `size` consecutive columns, fitted when the loop reaches the first of them.
    Dynamic {
        /// Columns a group; divides the columns.
        size: usize,
        /// Fit on weights with all errors so far pushed in; otherwise on those of the last block end, as released.
        fresh: bool,
    },
    /// Grids are given; column `j` uses that of group `index[j]`.
    Static {
        /// Groups a row.
        count: usize,
        /// The group of each column.
        index: &'a [u32],
    },
}

/// What one task owns: some rows of everything.
struct Chunk<'a> {
    first: usize,
    weight: &'a mut [f32],
    codes: &'a mut [u8],
    scale: &'a mut [f32],
    zero: &'a mut [u8],
    loss: &'a mut [f32],
}

/// What all tasks read.
struct Problem<'a> {
    factor: &'a [f32],
    cols: usize,
    groups: Groups<'a>,
    count: usize,
    grid: &'a Grid,
    block: usize,
}

/// Rounds `weight` `[rows, cols]` on affine grids of `grid.bits` bits, given the `factor` `[cols, cols]` of `inverse_factor`.
///
/// `codes` `[rows, cols]` receive the codes, `loss` `[rows]` half the sum of squared errors, `scale` and `zero` `[rows, groups]` the
/// grids (for [`Groups::Static`] they are read), and `weight` each column as it was when it was rounded. Columns are
/// taken in blocks of `block`, which changes speed and rounding but no more. [`Error::NotFinite`] for NaN or infinity in
/// `weight` or `factor`, [`Error::Range`] for a factor with a diagonal that is not positive, for bits, scales, zeros or
/// groups outside their range, [`Error::Shape`] for lengths. Where the updates overflow, [`Error::NotFinite`] comes after writing.
#[allow(clippy::too_many_arguments)]
pub fn gptq(
    m: &Machine,
    weight: &mut [f32],
    factor: &[f32],
    rows: usize,
    cols: usize,
    groups: Groups<'_>,
    grid: &Grid,
    block: usize,
    codes: &mut [u8],
    scale: &mut [f32],
    zero: &mut [u8],
    loss: &mut [f32],
) -> Result<()> {
    grid.check()?;
    if block == 0 {
        return Err(Error::range("block", block, "at least 1"));
    }
    let count = match groups {
        Groups::Dynamic { size, .. } => quantize::groups(cols, size)?,
        Groups::Static { count, .. } => count,
    };
    expect_shape("weight", weight.len(), &[rows, cols])?;
    expect_shape("factor", factor.len(), &[cols, cols])?;
    expect_shape("codes", codes.len(), &[rows, cols])?;
    expect_shape("scale", scale.len(), &[rows, count])?;
    expect_shape("zero", zero.len(), &[rows, count])?;
    expect_len("loss", loss.len(), rows)?;
    if let Groups::Static { index, .. } = groups {
        expect_len("index", index.len(), cols)?;
        if let Some(group) = index.iter().find(|&&group| group as usize >= count) {
            return Err(Error::range("index", group, format!("less than {count}")));
        }
        if let Some(scale) = scale.iter().find(|scale| !(scale.is_finite() && **scale > 0.0)) {
            return Err(Error::range("scale", scale, "finite numbers over 0"));
        }
        if let Some(zero) = zero.iter().find(|&&zero| u32::from(zero) >> grid.bits != 0) {
            return Err(Error::range("zero", zero, format!("less than {}", 1 << grid.bits)));
        }
    }
    finite("weight", weight, cols)?;
    expect_factor(factor, cols)?;
    if weight.is_empty() {
        loss.fill(0.0);
        return Ok(());
    }
    let problem = Problem { factor, cols, groups, count, grid, block };
    let failed = Mutex::new(None::<(usize, Error)>);
    let chunks: Vec<_> = weight
        .chunks_mut(CHUNK * cols)
        .zip(codes.chunks_mut(CHUNK * cols))
        .zip(scale.chunks_mut(CHUNK * count).zip(zero.chunks_mut(CHUNK * count)))
        .zip(loss.chunks_mut(CHUNK))
        .enumerate()
        .map(|(i, (((weight, codes), (scale, zero)), loss))| Chunk {
            first: i * CHUNK,
            weight,
            codes,
            scale,
            zero,
            loss,
        })
        .collect();
    m.each(chunks, |chunk| {
        let first = chunk.first;
        if let Err(error) = solve(m, &problem, chunk)
            && let Ok(mut failed) = failed.lock()
            && failed.as_ref().is_none_or(|(row, _)| *row > first)
        {
            *failed = Some((first, error));
        }
    });
    match failed.into_inner() {
        Ok(Some((_, error))) => Err(error),
        _ => Ok(()),
    }
}

fn overflow(row: usize) -> Error {
    Error::not_finite("weight", format!("updates that overflow in row {row}"))
}

/// All columns of some rows.
fn solve(m: &Machine, problem: &Problem<'_>, chunk: Chunk<'_>) -> Result<()> {
    let Problem { factor, cols, groups, count, grid, block } = *problem;
    let Chunk { first, weight, codes, scale, zero, loss } = chunk;
    let rows = loss.len();
    let padded = rows.next_multiple_of(LANES);
    let mut errors = vec![0.0; block.min(cols) * padded];
    let mut sums = vec![0.0f64; rows];
    let mut start = 0;
    while start < cols {
        let mut end = cols.min(start - start % block + block);
        if let Groups::Dynamic { size, fresh } = groups {
            if fresh {
                end = end.min(start - start % size + size);
            }
            for column in (start.next_multiple_of(size)..end).step_by(size) {
                for row in 0..rows {
                    let values = &weight[row * cols + column..][..size];
                    let at = row * count + column / size;
                    (scale[at], zero[at]) = fit_group(m, grid, values).ok_or_else(|| overflow(first + row))?;
                }
            }
        }
        let columns = Columns { factor, cols, start, end, grid, groups };
        for tile in (0..rows).step_by(LANES) {
            let height = LANES.min(rows - tile);
            let mut tile = Tile {
                weight: &mut weight[tile * cols..][..height * cols],
                codes: &mut codes[tile * cols..][..height * cols],
                scale: &scale[tile * count..][..height * count],
                zero: &zero[tile * count..][..height * count],
                sums: &mut sums[tile..][..height],
                errors: &mut errors[tile..],
                padded,
            };
            match m.path() {
                // SAFETY: a machine with this path has AVX2.
                Path::Amx | Path::Avx512 | Path::Avx2 => unsafe { avx2::round(&columns, &mut tile) },
                Path::Scalar => portable::round(&columns, &mut tile),
            }
        }
        if end < cols {
            let rest = MatMut::from_row_major_slice_mut(weight, rows, cols).subcols_mut(end, cols - end);
            let errors = MatRef::from_column_major_slice(&errors[..(end - start) * padded], padded, end - start);
            let factor = MatRef::from_row_major_slice(&factor[start * cols..end * cols], end - start, cols);
            let behind = factor.subcols(end, cols - end);
            matmul(rest, Accum::Add, errors.subrows(0, rows), behind, -1.0, Par::Seq);
        }
        start = end;
    }
    for (row, (loss, &sum)) in loss.iter_mut().zip(&sums).enumerate() {
        *loss = (0.5 * sum) as f32;
        if !loss.is_finite() {
            return Err(overflow(first + row));
        }
    }
    Ok(())
}

/// The columns of one block, and what rounds them.
struct Columns<'a> {
    factor: &'a [f32],
    cols: usize,
    start: usize,
    end: usize,
    grid: &'a Grid,
    groups: Groups<'a>,
}

/// The rows of one tile.
struct Tile<'a> {
    weight: &'a mut [f32],
    codes: &'a mut [u8],
    scale: &'a [f32],
    zero: &'a [u8],
    sums: &'a mut [f64],
    /// Column-major, `padded` rows a column.
    errors: &'a mut [f32],
    padded: usize,
}

mod portable {
    use super::{Columns, Groups, LANES, Lane, Tile};
    use crate::simd::rint;

    /// The column loop of one block for one tile.
    #[inline(always)]
    pub fn round(columns: &Columns<'_>, tile: &mut Tile<'_>) {
        let Columns { factor, cols, start, end, grid, groups } = *columns;
        let (height, count) = (tile.sums.len(), tile.scale.len() / tile.sums.len());
        let top = ((1u32 << grid.bits) - 1) as f32;
        // Lanes without a row hold zeros on a grid of step one: they round to themselves.
        let (mut panel, mut codes) = (vec![[0.0; LANES]; end - start], vec![[0; LANES]; end - start]);
        for (row, weight) in tile.weight.chunks_exact(cols).enumerate() {
            for (lanes, &value) in panel.iter_mut().zip(&weight[start..end]) {
                lanes[row] = value;
            }
        }
        let (mut scale, mut zero, mut current): (Lane, Lane, _) = ([1.0; LANES], [0.0; LANES], None);
        let mut squares = [0.0; LANES];
        for j in start..end {
            let group = match groups {
                Groups::Dynamic { size, .. } => j / size,
                Groups::Static { index, .. } => index[j] as usize,
            };
            if current != Some(group) {
                current = Some(group);
                for row in 0..height {
                    (scale[row], zero[row]) =
                        (tile.scale[row * count + group], f32::from(tile.zero[row * count + group]));
                }
            }
            let (done, later) = panel.split_at_mut(j + 1 - start);
            let now = done[j - start];
            let (mut code, mut error) = ([0.0; LANES], [0.0; LANES]);
            let pivot = factor[j * cols + j];
            for i in 0..LANES {
                // Integers as bounds may come before the rounding, and keep it in reach of `rint`.
                code[i] = rint((now[i] / scale[i]).max(-zero[i]).min(top - zero[i])) + zero[i];
                error[i] = (now[i] - scale[i] * (code[i] - zero[i])) / pivot;
                squares[i] += error[i] * error[i];
            }
            for (lanes, &u) in later.iter_mut().zip(&factor[j * cols + j + 1..j * cols + end]) {
                for i in 0..LANES {
                    lanes[i] -= error[i] * u;
                }
            }
            tile.errors[(j - start) * tile.padded..][..LANES].copy_from_slice(&error);
            codes[j - start] = code.map(|code| code as u8);
        }
        for (row, weight) in tile.weight.chunks_exact_mut(cols).enumerate() {
            weight[start..end].iter_mut().zip(&panel).for_each(|(value, lanes)| *value = lanes[row]);
        }
        for (row, to) in tile.codes.chunks_exact_mut(cols).enumerate() {
            to[start..end].iter_mut().zip(&codes).for_each(|(code, lanes)| *code = lanes[row]);
        }
        for (sum, &square) in tile.sums.iter_mut().zip(&squares) {
            *sum += f64::from(square);
        }
    }
}

mod avx2 {
    //! The portable body, compiled to vectors of eight.

    use super::{Columns, Tile, portable};

    #[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2"))]
    pub unsafe fn round(columns: &Columns<'_>, tile: &mut Tile<'_>) {
        portable::round(columns, tile);
    }
}
