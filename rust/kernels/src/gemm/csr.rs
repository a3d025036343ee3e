//! csr: `out += x S^T` with a sparse `S` in compressed rows: the outliers behind a dense product of codes.
//!
//! Few rows of `x`: each entry reads its one value of each row; limit: those reads, which the first cache serves. Many
//! rows: `x` is laid out anew so that one entry multiplies a tile of rows at once; limit: multiplications.

use super::{Columns, columns};
use crate::error::{expect_len, expect_shape};
use crate::minifloat::{Bf16, F16, decode};
use crate::{Error, Machine, Result};

/// Rows of `x` up to which entries read single values.
const FEW: usize = 4;
/// Rows of one tile: a cache line of values.
const LANES: usize = 16;
/// Rows of `S` of one task.
const PANEL: usize = 64;

/// The entries of a sparse matrix, in the order of its rows.
#[derive(Debug, Clone, Copy)]
pub enum Entries<'a> {
    /// The values.
    F32(&'a [f32]),
    /// Bits of IEEE binary16.
    F16(&'a [u16]),
    /// Bits of bfloat16.
    Bf16(&'a [u16]),
}

impl Entries<'_> {
    fn len(&self) -> usize {
        match self {
            Self::F32(values) => values.len(),
            Self::F16(bits) | Self::Bf16(bits) => bits.len(),
        }
    }

    /// Those from `first` on, as f32.
    fn widen(&self, m: &Machine, first: usize, values: &mut [f32]) -> Result<()> {
        let range = first..first + values.len();
        match self {
            Self::F32(from) => values.copy_from_slice(&from[range]),
            Self::F16(bits) => decode::<F16>(m, &bits[range], values)?,
            Self::Bf16(bits) => decode::<Bf16>(m, &bits[range], values)?,
        }
        Ok(())
    }
}

/// A column's number, in as many bits as it needs.
pub trait Column: Copy + Send + Sync {
    /// Where in a row of `x` it is; beyond every row for what is no column.
    fn place(self) -> usize;
}

impl Column for u16 {
    fn place(self) -> usize {
        usize::from(self)
    }
}

impl Column for i32 {
    fn place(self) -> usize {
        usize::try_from(self).unwrap_or(usize::MAX)
    }
}

/// `out[t, n] += sum_e x[t, places[e]] * entries[e]` over the entries `pointers[n]..pointers[n + 1]` of row `n`.
///
/// `x` `[rows, depth]`, `pointers` `[cols + 1]`, `out` `[rows, cols]`. [`Error::Range`] for pointers that do not rise from 0 to the
/// number of entries and for columns outside `x`, [`Error::Shape`] for lengths; then nothing is written. NaN and infinity
/// pass through, from the columns that have entries. Does not depend on the threads.
#[allow(clippy::too_many_arguments)]
pub fn csr<C: Column>(
    m: &Machine,
    x: &[f32],
    entries: Entries<'_>,
    places: &[C],
    pointers: &[i32],
    rows: usize,
    cols: usize,
    depth: usize,
    out: &mut [f32],
) -> Result<()> {
    expect_shape("x", x.len(), &[rows, depth])?;
    expect_shape("out", out.len(), &[rows, cols])?;
    expect_len("columns", places.len(), entries.len())?;
    expect_len("pointers", pointers.len(), cols + 1)?;
    let rising = pointers.windows(2).position(|pair| pair[0] > pair[1]);
    if let Some(row) = rising {
        return Err(Error::range("pointers", format!("a row {row} that ends before it starts"), "numbers that rise"));
    }
    if let (Some(&first), Some(&last)) = (pointers.first(), pointers.last())
        && (first != 0 || last.place() != places.len())
    {
        let expected = format!("from 0 to {}, the number of values", places.len());
        return Err(Error::range("pointers", format!("from {first} to {last}"), expected));
    }
    if let Some(at) = places.iter().position(|column| column.place() >= depth) {
        let given = format!("a column at {at} that is none of x");
        return Err(Error::range("columns", given, format!("numbers from 0 and below {depth}")));
    }
    if out.is_empty() || places.is_empty() {
        return Ok(());
    }
    let tiles = if rows > FEW { tiles(x, depth) } else { Vec::new() };
    m.each(columns(out, cols, PANEL), |Columns { range, rows: mut out }| {
        let start = pointers[range.start].place();
        let mut values = vec![0.0; pointers[range.end].place() - start];
        // Lengths agree: nothing that could fail is left.
        let _ = entries.widen(m, start, &mut values);
        let panel = Panel { values: &values, places: &places[start..start + values.len()], start };
        let pointers = &pointers[range.start..=range.end];
        if rows <= FEW {
            for (out, x) in out.iter_mut().zip(x.chunks_exact(depth)) {
                single(&panel, pointers, x, out);
            }
            return;
        }
        for (out, tile) in out.chunks_mut(LANES).zip(tiles.chunks_exact(depth)) {
            tiled(&panel, pointers, tile, out);
        }
    });
    Ok(())
}

/// The entries of some rows of `S`, of which the first is entry `start` of all.
struct Panel<'a, C> {
    values: &'a [f32],
    places: &'a [C],
    start: usize,
}

impl<C: Column> Panel<'_, C> {
    /// The entries of the row between two pointers.
    fn row(&self, pair: &[i32]) -> (&[f32], &[C]) {
        let range = pair[0].place() - self.start..pair[1].place() - self.start;
        (&self.values[range.clone()], &self.places[range])
    }
}

/// `x` in tiles of `LANES` rows, each with a column's values side by side; rows that are not there are zeros.
fn tiles(x: &[f32], depth: usize) -> Vec<[f32; LANES]> {
    let mut tiles = vec![[0.0; LANES]; (x.len() / depth).div_ceil(LANES) * depth];
    for (tile, rows) in tiles.chunks_exact_mut(depth).zip(x.chunks(LANES * depth)) {
        for (lane, row) in rows.chunks_exact(depth).enumerate() {
            tile.iter_mut().zip(row).for_each(|(lanes, &value)| lanes[lane] = value);
        }
    }
    tiles
}

/// One row of `x`; four running sums hide the latency of the additions.
fn single<C: Column>(panel: &Panel<'_, C>, pointers: &[i32], x: &[f32], out: &mut [f32]) {
    for (out, pair) in out.iter_mut().zip(pointers.windows(2)) {
        let (values, places) = panel.row(pair);
        let mut sums = [0.0f32; 4];
        for (values, places) in values.chunks(4).zip(places.chunks(4)) {
            for ((sum, value), place) in sums.iter_mut().zip(values).zip(places) {
                *sum += value * x[place.place()];
            }
        }
        *out += (sums[0] + sums[1]) + (sums[2] + sums[3]);
    }
}

/// One tile of rows of `x`. A body for wider vectors measured no faster: each entry waits for its values of `x`.
fn tiled<C: Column>(panel: &Panel<'_, C>, pointers: &[i32], x: &[[f32; LANES]], out: &mut [&mut [f32]]) {
    for (at, pair) in pointers.windows(2).enumerate() {
        let (values, places) = panel.row(pair);
        let mut sums = [0.0; LANES];
        for (value, place) in values.iter().zip(places) {
            let x = &x[place.place()];
            for lane in 0..LANES {
                sums[lane] += value * x[lane];
            }
        }
        for (out, sum) in out.iter_mut().zip(sums) {
            out[at] += sum;
        }
    }
}
