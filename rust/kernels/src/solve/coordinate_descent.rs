//! coordinate_descent: rounds a weight one column at a time to the best code with all others as they are, sweep after sweep
//! (QuantEase, Behdin et al., 2023; QuIP's greedy passes are the same step). Limit: the multiplications behind each block.
//!
//! Kept for every row: its values `b` and the gradient `g = (w - b) H`. As in gptq, a chunk of rows is one task and a tile of
//! rows lies transposed; inside a block the gradient of its later columns is followed in a scratch, and the whole of `g`
//! is brought up to date behind the block by one product.

use crate::error::{expect_len, expect_shape};
use crate::quantize::highest;
use crate::{Error, Machine, Path, Result};
use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};

/// Rows of one task; fixed, so that every thread count cuts, and rounds, alike.
const CHUNK: usize = 128;
/// Rows of one tile: four AVX2 vectors.
const LANES: usize = 32;
/// One number for each row of a tile.
type Lane = [f32; LANES];
/// Sweeps at the end that are never relaxed.
const SETTLED: usize = 4;

/// The grid that every column is rounded to, and how often.
#[derive(Debug, Clone, Copy)]
pub struct Descent<'a> {
    /// Bits of a code: 1 to 8.
    pub bits: u32,
    /// `[rows, groups]`, finite and above 0.
    pub scale: &'a [f32],
    /// `[rows, groups]`, below `2^bits`.
    pub zero: &'a [u8],
    /// `[cols]`: the group of each column.
    pub index: &'a [u32],
    /// Passes over all columns; at least 1.
    pub sweeps: usize,
    /// Sweeps `k` with `k % relax == 1`, but for the last four, move columns without rounding them; 0: none does.
    pub relax: usize,
    /// Columns between two updates of the gradient: speed, and the order of sums.
    pub block: usize,
    /// One sweep of these alone, numbered from 0: callers that change the weight between sweeps.
    pub only: Option<usize>,
}

/// What one task owns: some rows of everything.
struct Chunk<'a> {
    weight: &'a [f32],
    values: &'a mut [f32],
    scale: &'a [f32],
    zero: &'a [u8],
    codes: &'a mut [u8],
    loss: &'a mut [f32],
}

/// Rounds `weight` `[rows, cols]` towards the least `(w - b) H (w - b)^T` of each row, `H` the symmetric `hessian` `[cols, cols]`.
///
/// `values` `[rows, cols]` is where the descent begins, on the grid or off it, and where it ends. `codes` `[rows, cols]` receive the
/// codes nearest to what each column was to become last, `loss` `[rows]` half the error of the values. A column whose
/// diagonal is 0 is rounded to nearest. [`Error::NotFinite`] for NaN or infinity in `weight` or `hessian`, [`Error::Range`] for a
/// negative diagonal, bits, scales, zero points or groups out of range, [`Error::Shape`] for lengths. Where values overflow,
/// [`Error::NotFinite`] comes after writing.
#[allow(clippy::too_many_arguments)]
pub fn coordinate_descent(
    m: &Machine,
    weight: &[f32],
    hessian: &[f32],
    rows: usize,
    cols: usize,
    descent: &Descent<'_>,
    values: &mut [f32],
    codes: &mut [u8],
    loss: &mut [f32],
) -> Result<()> {
    let top = highest(descent.bits)?;
    let Descent { scale, zero, index, .. } = *descent;
    for (what, given) in [("sweeps", descent.sweeps), ("block", descent.block)] {
        if given == 0 {
            return Err(Error::range(what, given, "at least 1"));
        }
    }
    let count = scale.len().checked_div(rows).unwrap_or(0);
    expect_shape("weight", weight.len(), &[rows, cols])?;
    expect_shape("hessian", hessian.len(), &[cols, cols])?;
    expect_shape("scale", scale.len(), &[rows, count])?;
    expect_shape("zero", zero.len(), &[rows, count])?;
    expect_shape("start", values.len(), &[rows, cols])?;
    expect_shape("codes", codes.len(), &[rows, cols])?;
    expect_len("index", index.len(), cols)?;
    expect_len("loss", loss.len(), rows)?;
    if let Some(group) = index.iter().find(|&&group| rows > 0 && group as usize >= count) {
        return Err(Error::range("index", group, format!("less than {count}")));
    }
    if let Some(scale) = scale.iter().find(|scale| !(scale.is_finite() && **scale > 0.0)) {
        return Err(Error::range("scale", scale, "finite numbers over 0"));
    }
    if let Some(zero) = zero.iter().find(|&&zero| zero > top) {
        return Err(Error::range("zero", zero, format!("at most {top}")));
    }
    if let Some(only) = descent.only.filter(|&only| only >= descent.sweeps) {
        return Err(Error::range("only", only, format!("a sweep from 0 to {}", descent.sweeps - 1)));
    }
    for (what, values) in [("weight", weight), ("hessian", hessian), ("start", &*values)] {
        if let Some(at) = values.iter().position(|value| !value.is_finite()) {
            let place = format!("{} in row {}, column {}", values[at], at / cols, at % cols);
            return Err(Error::not_finite(what, place));
        }
    }
    if let Some(column) = (0..cols).find(|&j| hessian[j * cols + j] < 0.0) {
        let given = format!("{} in column {column}", hessian[column * cols + column]);
        return Err(Error::range("hessian", given, "a diagonal of 0 or more"));
    }
    if weight.is_empty() {
        loss.fill(0.0);
        return Ok(());
    }
    let chunks: Vec<_> = weight
        .chunks(CHUNK * cols)
        .zip(values.chunks_mut(CHUNK * cols))
        .zip(codes.chunks_mut(CHUNK * cols))
        .zip(scale.chunks(CHUNK * count).zip(zero.chunks(CHUNK * count)))
        .zip(loss.chunks_mut(CHUNK))
        .map(|((((weight, values), codes), (scale, zero)), loss)| Chunk { weight, values, scale, zero, codes, loss })
        .collect();
    m.each(chunks, |chunk| solve(m, hessian, cols, descent, chunk));
    match loss.iter().position(|loss| !loss.is_finite()) {
        None => Ok(()),
        Some(row) => Err(Error::not_finite("weight", format!("values that overflow in row {row}"))),
    }
}

/// All sweeps over some rows.
fn solve(m: &Machine, hessian: &[f32], cols: usize, descent: &Descent<'_>, chunk: Chunk<'_>) {
    let Chunk { weight, values, scale, zero, codes, loss } = chunk;
    let (rows, count) = (loss.len(), scale.len() / loss.len());
    let padded = rows.next_multiple_of(LANES);
    let whole = MatRef::from_row_major_slice(hessian, cols, cols);
    let mut gradient = vec![0.0; rows * cols];
    if weight != values {
        let missed: Vec<f32> = weight.iter().zip(&*values).map(|(w, b)| w - b).collect();
        let missed = MatRef::from_row_major_slice(&missed, rows, cols);
        let to = MatMut::from_row_major_slice_mut(&mut gradient, rows, cols);
        matmul(to, Accum::Replace, missed, whole, 1.0, Par::Seq);
    }
    let block = descent.block.min(cols);
    let mut moves = vec![0.0; block * padded];
    for sweep in descent.only.map_or(0..descent.sweeps, |only| only..only + 1) {
        let relaxed = descent.relax > 0 && sweep % descent.relax == 1 && sweep + SETTLED < descent.sweeps;
        for start in (0..cols).step_by(block) {
            let end = cols.min(start + block);
            let columns = Columns { hessian, cols, start, end, relaxed, descent };
            for first in (0..rows).step_by(LANES) {
                let height = LANES.min(rows - first);
                let part = first * cols..(first + height) * cols;
                let mut tile = Tile {
                    height,
                    values: &mut values[part.clone()],
                    gradient: &gradient[part.clone()],
                    codes: &mut codes[part],
                    scale: &scale[first * count..][..height * count],
                    zero: &zero[first * count..][..height * count],
                    moves: &mut moves[first..],
                    padded,
                };
                match m.path() {
                    // SAFETY: a machine with this path has AVX2.
                    Path::Amx | Path::Avx512 | Path::Avx2 => unsafe { avx2::round(&columns, &mut tile) },
                    Path::Scalar => portable::round(&columns, &mut tile),
                }
            }
            let to = MatMut::from_row_major_slice_mut(&mut gradient, rows, cols);
            let moves = MatRef::from_column_major_slice(&moves[..(end - start) * padded], padded, end - start);
            matmul(to, Accum::Add, moves.subrows(0, rows), whole.subrows(start, end - start), 1.0, Par::Seq);
        }
    }
    for (row, loss) in loss.iter_mut().enumerate() {
        let row = row * cols..(row + 1) * cols;
        let terms = weight[row.clone()].iter().zip(&values[row.clone()]).zip(&gradient[row]);
        *loss = (0.5 * terms.map(|((w, b), g)| f64::from(w - b) * f64::from(*g)).sum::<f64>()) as f32;
    }
}

/// The columns of one block, and what rounds them.
struct Columns<'a> {
    hessian: &'a [f32],
    cols: usize,
    start: usize,
    end: usize,
    relaxed: bool,
    descent: &'a Descent<'a>,
}

/// The rows of one tile.
struct Tile<'a> {
    height: usize,
    values: &'a mut [f32],
    gradient: &'a [f32],
    codes: &'a mut [u8],
    scale: &'a [f32],
    zero: &'a [u8],
    /// By how much each value fell; column-major, `padded` rows a column.
    moves: &'a mut [f32],
    padded: usize,
}

mod portable {
    use super::{Columns, LANES, Lane, Tile};
    use crate::simd::rint;

    /// The columns of one block for one tile.
    #[inline(always)]
    pub fn round(columns: &Columns<'_>, tile: &mut Tile<'_>) {
        let Columns { hessian, cols, start, end, relaxed, descent } = *columns;
        let count = tile.scale.len() / tile.height;
        let top = ((1u32 << descent.bits) - 1) as f32;
        // Lanes without a row hold zeros on a grid of step one: they stay zeros.
        let (mut panel, mut slopes) = (vec![[0.0; LANES]; end - start], vec![[0.0; LANES]; end - start]);
        for (row, (values, gradient)) in
            tile.values.chunks_exact(cols).zip(tile.gradient.chunks_exact(cols)).enumerate()
        {
            panel.iter_mut().zip(&values[start..end]).for_each(|(lanes, &value)| lanes[row] = value);
            slopes.iter_mut().zip(&gradient[start..end]).for_each(|(lanes, &slope)| lanes[row] = slope);
        }
        let (mut scale, mut zero, mut current): (Lane, Lane, _) = ([1.0; LANES], [0.0; LANES], None);
        for j in start..end {
            let group = descent.index[j] as usize;
            if current != Some(group) {
                current = Some(group);
                for row in 0..tile.height {
                    let at = row * count + group;
                    (scale[row], zero[row]) = (tile.scale[at], f32::from(tile.zero[at]));
                }
            }
            let (done, later) = slopes.split_at_mut(j + 1 - start);
            let (slope, value) = (&done[j - start], &mut panel[j - start]);
            let pivot = hessian[j * cols + j];
            let inverse = if pivot > 0.0 { 1.0 / pivot } else { 0.0 };
            let (mut code, mut moved) = ([0.0; LANES], [0.0; LANES]);
            for i in 0..LANES {
                let best = value[i] + slope[i] * inverse;
                // Integers as bounds may come before the rounding, and keep it in reach of `rint`.
                let step = rint((best / scale[i]).max(-zero[i]).min(top - zero[i]));
                code[i] = step + zero[i];
                let next = if relaxed && pivot > 0.0 { best } else { scale[i] * step };
                moved[i] = value[i] - next;
                value[i] = next;
            }
            for (slopes, &h) in later.iter_mut().zip(&hessian[j * cols + j + 1..j * cols + end]) {
                for i in 0..LANES {
                    slopes[i] += moved[i] * h;
                }
            }
            tile.moves[(j - start) * tile.padded..][..LANES].copy_from_slice(&moved);
            for (row, &code) in code[..tile.height].iter().enumerate() {
                tile.codes[row * cols + j] = code as u8;
            }
        }
        for (row, values) in tile.values.chunks_exact_mut(cols).enumerate() {
            values[start..end].iter_mut().zip(&panel).for_each(|(value, lanes)| *value = lanes[row]);
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
