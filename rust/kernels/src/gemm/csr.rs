//! csr: `out += x S^T` with a sparse `S` in compressed rows: the outliers behind a dense product of codes.
//!
//! One row of `x`: each entry reads its one value; limit: those reads, which the first cache serves. More rows: `x` is
//! laid out anew so that one entry multiplies a tile of rows at once; limit: the second cache, which holds a tile.

use super::{Columns, columns, expect_rising};
use crate::error::{expect_len, expect_shape};
use crate::minifloat::Narrow;
use crate::simd::Lanes;
use crate::{Error, Machine, Path, Result};

/// Rows of `S` of one task.
const PANEL: usize = 256;

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
    entries: Narrow<'_>,
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
    expect_rising("pointers", pointers, places.len())?;
    let outside = |column: &C| column.place() >= depth;
    // all at once, as vectors, before the search for the one to name
    if places.iter().fold(false, |any, column| any | outside(column))
        && let Some(at) = places.iter().position(outside)
    {
        let given = format!("a column at {at} that is none of x");
        return Err(Error::range("columns", given, format!("numbers from 0 and below {depth}")));
    }
    if out.is_empty() || places.is_empty() {
        return Ok(());
    }
    let mut room = vec![0.0; if matches!(entries, Narrow::F32(_)) { 0 } else { entries.len() }];
    let sparse = Sparse { values: entries.widen(m, &mut room)?, places, pointers };
    match rows {
        1 => m.each(out.chunks_mut(PANEL).enumerate().collect(), |(panel, out)| single(&sparse, panel * PANEL, x, out)),
        2..=8 => tiled::<C, 1>(m, &sparse, x, depth, out),
        _ => tiled::<C, 2>(m, &sparse, x, depth, out),
    }
    Ok(())
}

/// A checked matrix.
struct Sparse<'a, C> {
    values: &'a [f32],
    places: &'a [C],
    pointers: &'a [i32],
}

impl<C: Column> Sparse<'_, C> {
    /// The entries of a row.
    #[inline(always)]
    fn row(&self, n: usize) -> (&[f32], &[C]) {
        let range = self.pointers[n].place()..self.pointers[n + 1].place();
        (&self.values[range.clone()], &self.places[range])
    }
}

/// One row of `x`, the outputs from `first` on; four running sums hide the latency of the additions.
fn single<C: Column>(sparse: &Sparse<'_, C>, first: usize, x: &[f32], out: &mut [f32]) {
    for (n, out) in (first..).zip(out) {
        let (values, places) = sparse.row(n);
        let ((values, last), (places, last_places)) = (values.as_chunks::<4>(), places.as_chunks::<4>());
        let mut sums = [0.0f32; 4];
        for (values, places) in values.iter().zip(places) {
            for i in 0..4 {
                sums[i] += values[i] * x[places[i].place()];
            }
        }
        for ((sum, value), place) in sums.iter_mut().zip(last).zip(last_places) {
            *sum += value * x[place.place()];
        }
        *out += (sums[0] + sums[1]) + (sums[2] + sums[3]);
    }
}

/// All rows of `x`, in tiles of `8 N`; the tasks of one tile follow each other, as a cache holds one.
fn tiled<C: Column, const N: usize>(m: &Machine, sparse: &Sparse<'_, C>, x: &[f32], depth: usize, out: &mut [f32]) {
    let cols = sparse.pointers.len() - 1;
    let tiles: Vec<_> = x.chunks(8 * N * depth).map(|rows| tile::<N>(rows, depth)).collect();
    let rows = out.chunks_mut(8 * N * cols).zip(&tiles);
    let tasks = rows.flat_map(|(out, tile)| columns(out, cols, PANEL).into_iter().map(move |panel| (panel, tile)));
    m.each(tasks.collect(), |(panel, tile)| match m.path() {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a machine with this path has AVX2.
        Path::Amx | Path::Avx512 | Path::Avx2 => unsafe { avx2::multiply(sparse, tile, panel) },
        #[cfg(not(target_arch = "x86_64"))]
        Path::Amx | Path::Avx512 | Path::Avx2 => multiply::<C, [f32; 8], N>(sparse, tile, panel),
        Path::Scalar => multiply::<C, [f32; 8], N>(sparse, tile, panel),
    });
}

/// Up to `8 N` rows, each column's values side by side; rows that are not there are zeros.
fn tile<const N: usize>(rows: &[f32], depth: usize) -> Vec<[[f32; 8]; N]> {
    let mut tile = vec![[[0.0; 8]; N]; depth];
    for (lane, row) in rows.chunks_exact(depth).enumerate() {
        tile.iter_mut().zip(row).for_each(|(lanes, &value)| lanes[lane / 8][lane % 8] = value);
    }
    tile
}

/// One tile and some rows of `S`. Two sets of sums, as an entry is there before the addition of the one before it.
#[inline(always)]
fn multiply<C: Column, V: Lanes, const N: usize>(sparse: &Sparse<'_, C>, tile: &[[[f32; 8]; N]], out: Columns<'_>) {
    let Columns { range, rows: mut out } = out;
    for (at, n) in range.enumerate() {
        let (values, places) = sparse.row(n);
        let ((values, last), (places, last_place)) = (values.as_chunks::<2>(), places.as_chunks::<2>());
        let mut sums = [[V::splat(0.0); N]; 2];
        for (values, places) in values.iter().zip(places) {
            for set in 0..2 {
                let (value, x) = (V::splat(values[set]), &tile[places[set].place()]);
                for i in 0..N {
                    sums[set][i] = sums[set][i].add(value.mul(V::load(&x[i])));
                }
            }
        }
        if let ([value], [place]) = (last, last_place) {
            let (value, x) = (V::splat(*value), &tile[place.place()]);
            for i in 0..N {
                sums[0][i] = sums[0][i].add(value.mul(V::load(&x[i])));
            }
        }
        for (i, out) in out.chunks_mut(8).enumerate() {
            for (out, sum) in out.iter_mut().zip(sums[0][i].add(sums[1][i]).array()) {
                out[at] += sum;
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use super::{Column, Columns, Sparse};
    use crate::simd::avx2::F32x8;

    #[target_feature(enable = "avx2")]
    pub fn multiply<C: Column, const N: usize>(sparse: &Sparse<'_, C>, tile: &[[[f32; 8]; N]], out: Columns<'_>) {
        super::multiply::<C, F32x8, N>(sparse, tile, out);
    }
}
