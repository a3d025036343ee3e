//! Products of floats, `left right^T`, from copies of both sides: rows of the left one lie one behind the other, those of the right
//! one side by side, as many as a few registers hold. The sums of a tile stay in registers over a part of the columns.
//!
//! Limit: multiplications: two loads and a broadcast for each row of a tile serve twice as many of them.

use crate::Path;
#[cfg(target_arch = "x86_64")]
use crate::simd::Fused;
use std::ops::Range;

/// Columns of a part: as many of those side by side as fill a tile stay in the first cache, and all rows of a task in the second.
pub(super) const PART: usize = 256;
/// Numbers from one row of a part to the next: a power of two apart, rows would share few sets of the cache.
const STRIDE: usize = PART + 16;
/// Rows side by side that fill a register of AVX-512, or two of AVX2.
const LANES: usize = 16;

/// A line of the cache, which a register that is loaded from does not straddle.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Line([f32; LANES]);

/// The most rows of a tile, and rows side by side: there are registers for their sums and for what these are added from.
const fn shape(path: Path) -> [usize; 2] {
    match path {
        Path::Amx | Path::Avx512 => [14, 2 * LANES],
        Path::Avx2 => [6, LANES],
        Path::Scalar => [4, LANES],
    }
}

/// Rows one behind the other: for each tile, and each part of the columns, those of all its rows.
pub(super) struct Left {
    numbers: Vec<f32>,
    rows: usize,
    parts: usize,
    tall: usize,
}

impl Left {
    /// Rows that fill whole tiles, of about so many numbers, and not more than `most` where a tile is not.
    pub fn rows_of(path: Path, numbers: usize, depth: usize, most: usize) -> usize {
        let [tall, _] = shape(path);
        (numbers / (depth.max(1) * tall)).clamp(1, (most / tall).max(1)) * tall
    }

    /// For up to `rows` of them.
    pub fn new(path: Path, rows: usize, depth: usize) -> Self {
        let ([tall, _], parts) = (shape(path), depth.div_ceil(PART));
        Self { numbers: vec![0.0; rows.next_multiple_of(tall) * parts * STRIDE], rows, parts, tall }
    }

    /// Row `n`.
    pub fn set(&mut self, n: usize, row: &[f32]) {
        let (tile, at) = (n / self.tall, n % self.tall);
        let parts = self.numbers[(tile * self.parts * self.tall + at) * STRIDE..].chunks_mut(self.tall * STRIDE);
        parts.zip(row.chunks(PART)).for_each(|(to, part)| to[..part.len()].copy_from_slice(part));
    }

    /// How many there are.
    pub fn resize(&mut self, rows: usize) {
        self.rows = rows.min(self.numbers.len() / (self.parts.max(1) * STRIDE));
    }

    /// Where tiles begin.
    fn tiles(&self) -> impl Iterator<Item = usize> {
        (0..self.rows).step_by(self.tall)
    }

    /// A part of the columns of a tile, and how many of its rows there are.
    fn part(&self, first: usize, part: usize) -> (&[[f32; STRIDE]], usize) {
        let tile = &self.numbers.as_chunks().0[first * self.parts + part * self.tall..][..self.tall];
        (tile, self.tall.min(self.rows - first))
    }
}

/// Rows side by side: panel by panel, as many as a tile has, their columns one after the other; missing rows are zero.
pub(super) struct Right {
    lines: Vec<Line>,
    rows: usize,
    depth: usize,
    wide: usize,
}

impl Right {
    /// For up to `rows` of them.
    pub fn new(path: Path, rows: usize, depth: usize) -> Self {
        let [_, wide] = shape(path);
        Self { lines: vec![Line([0.0; LANES]); rows.div_ceil(LANES) * depth], rows, depth, wide }
    }

    /// `rows` `[.., depth]`.
    pub fn of(path: Path, rows: &[f32], depth: usize) -> Self {
        let mut new = Self::new(path, rows.len() / depth.max(1), depth);
        let wide = new.wide;
        for (first, rows) in (0..new.rows).step_by(wide).zip(rows.chunks((wide * depth).max(1))) {
            let (panel, width) = new.panel_mut(first);
            // some columns of all rows at a time: they stay in the first cache
            for start in (0..depth).step_by(LANES) {
                let columns = start..depth.min(start + LANES);
                for (t, row) in rows.chunks_exact(depth).enumerate() {
                    let lines = panel[start * width + t / LANES..].iter_mut().step_by(width);
                    lines.zip(&row[columns.clone()]).for_each(|(line, x)| line.0[t % LANES] = *x);
                }
            }
        }
        new
    }

    /// Column `k` of all rows, of which there are as many.
    pub fn set(&mut self, k: usize, column: &[f32]) {
        self.rows = column.len();
        for (first, column) in (0..self.rows).step_by(self.wide).zip(column.chunks(self.wide)) {
            let (panel, width) = self.panel_mut(first);
            let (whole, last) = column.as_chunks();
            let mut lines = panel[k * width..].iter_mut();
            whole.iter().zip(lines.by_ref()).for_each(|(column, line)| line.0 = *column);
            if !last.is_empty() {
                lines.next().into_iter().for_each(|line| line.0[..last.len()].copy_from_slice(last));
            }
        }
    }

    /// Lines of a column in the panel that begins with row `first`.
    fn width(&self, first: usize) -> usize {
        self.wide.min(self.rows - first).div_ceil(LANES)
    }

    /// The columns of that panel, one behind the other, and lines of each.
    fn panel_mut(&mut self, first: usize) -> (&mut [Line], usize) {
        let width = self.width(first);
        (&mut self.lines[first / LANES * self.depth..][..width * self.depth], width)
    }

    /// Some of its columns.
    fn columns(&self, first: usize, columns: &Range<usize>) -> &[Line] {
        let width = self.width(first);
        &self.lines[first / LANES * self.depth + columns.start * width..][..columns.len() * width]
    }
}

/// Sums of products, tile by tile and panel by panel.
#[derive(Default)]
pub(super) struct Products(Vec<f32>);

impl Products {
    /// None so far.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Adds the products of part `part` of the left rows with some columns of the right ones, as many.
    pub fn add(&mut self, path: Path, left: &Left, part: usize, right: &Right, columns: Range<usize>) {
        let stride = right.rows.next_multiple_of(LANES);
        self.0.resize(left.rows.next_multiple_of(left.tall) * stride, 0.0);
        for panel in (0..right.rows).step_by(right.wide) {
            let (lines, width) = (right.columns(panel, &columns), LANES * right.width(panel));
            for tile in left.tiles() {
                let sums = &mut self.0[tile * stride + panel * left.tall..][..left.tall * width];
                add(path, left.part(tile, part), lines, sums);
            }
        }
    }

    /// Calls `put(tile, panel, sums, width)` for each tile of left rows and each panel of right ones, which begin with these:
    /// `width` sums for each left row, of which those of missing right rows mean nothing.
    pub fn each(&self, left: &Left, right: &Right, mut put: impl FnMut(Range<usize>, Range<usize>, &[f32], usize)) {
        let stride = right.rows.next_multiple_of(LANES);
        for tile in left.tiles() {
            for panel in (0..right.rows).step_by(right.wide) {
                let width = LANES * right.width(panel);
                let sums = &self.0[tile * stride + panel * left.tall..][..left.tall * width];
                let across = panel..right.rows.min(panel + width);
                put(tile..left.rows.min(tile + left.tall), across, sums, width);
            }
        }
    }
}

/// Adds the products of the first `count` rows of a tile with the right rows of a panel.
fn add(path: Path, (left, count): (&[[f32; STRIDE]], usize), right: &[Line], sums: &mut [f32]) {
    match path {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a machine with this path has AVX-512 F.
        Path::Amx | Path::Avx512 => unsafe { avx512::add(left, count, right, sums) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a machine with this path has AVX2 and FMA.
        Path::Avx2 => unsafe { avx2::add(left, count, right, sums) },
        _ => portable::add(left, right, sums),
    }
}

mod portable {
    use super::{LANES, Line, PART, STRIDE};

    /// Rows of a tile, and lanes of one whose sums stay in registers.
    const TALL: usize = 4;
    const FEW: usize = LANES / 2;

    pub fn add(left: &[[f32; STRIDE]], right: &[Line], sums: &mut [f32]) {
        let Some(left) = left.first_chunk::<TALL>() else { return };
        let right = &right[..right.len().min(PART)];
        for half in 0..LANES / FEW {
            let mut all = [[0.0; FEW]; TALL];
            for k in 0..right.len() {
                let right = &right[k].0.as_chunks::<FEW>().0[half];
                for (all, left) in all.iter_mut().zip(left) {
                    all.iter_mut().zip(right).for_each(|(sum, right)| *sum += left[k] * right);
                }
            }
            for (sums, all) in sums.as_chunks_mut::<LANES>().0.iter_mut().zip(all) {
                sums[half * FEW..].iter_mut().zip(all).for_each(|(sum, one)| *sum += one);
            }
        }
    }
}

/// The first `TALL` rows of a tile, with `WIDE` lines a column of the right ones, in registers of `N` numbers each.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn add_in<V: Fused<N>, const N: usize, const REGISTERS: usize, const WIDE: usize, const TALL: usize>(
    left: &[[f32; STRIDE]],
    right: &[Line],
    sums: &mut [f32],
) {
    let Some(left) = left.first_chunk::<TALL>() else { return };
    let right = right.as_chunks::<WIDE>().0;
    let right = &right[..right.len().min(PART)];
    let mut all = [[[V::splat(0.0); REGISTERS]; WIDE]; TALL];
    for k in 0..right.len() {
        let mut now = [[V::splat(0.0); REGISTERS]; WIDE];
        for (now, right) in now.iter_mut().zip(&right[k]) {
            for (now, right) in now.iter_mut().zip(right.0.as_chunks::<N>().0) {
                *now = V::load(right);
            }
        }
        for (all, left) in all.iter_mut().zip(left) {
            let one = V::splat(left[k]);
            for (all, now) in all.as_flattened_mut().iter_mut().zip(now.as_flattened()) {
                *all = one.multiply_add(*now, *all);
            }
        }
    }
    let all = all.as_flattened().as_flattened();
    for (sums, all) in sums.as_chunks_mut::<N>().0.iter_mut().zip(all) {
        sums.iter_mut().zip(all.array()).for_each(|(sum, one)| *sum += one);
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use super::{Line, STRIDE, add_in};
    use crate::simd::avx2::F32x8;

    #[target_feature(enable = "avx2,fma")]
    pub fn add(left: &[[f32; STRIDE]], count: usize, right: &[Line], sums: &mut [f32]) {
        match count {
            ..=2 => add_in::<F32x8, 8, 2, 1, 2>(left, right, sums),
            3..=4 => add_in::<F32x8, 8, 2, 1, 4>(left, right, sums),
            _ => add_in::<F32x8, 8, 2, 1, 6>(left, right, sums),
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use super::{LANES, Line, STRIDE, add_in};
    use crate::simd::avx512::F32x16;

    #[target_feature(enable = "avx512f")]
    pub fn add(left: &[[f32; STRIDE]], count: usize, right: &[Line], sums: &mut [f32]) {
        if sums.len() == left.len() * LANES {
            return match count {
                ..=6 => add_in::<F32x16, LANES, 1, 1, 6>(left, right, sums),
                _ => add_in::<F32x16, LANES, 1, 1, 14>(left, right, sums),
            };
        }
        match count {
            ..=2 => add_in::<F32x16, LANES, 1, 2, 2>(left, right, sums),
            3..=6 => add_in::<F32x16, LANES, 1, 2, 6>(left, right, sums),
            7..=10 => add_in::<F32x16, LANES, 1, 2, 10>(left, right, sums),
            _ => add_in::<F32x16, LANES, 1, 2, 14>(left, right, sums),
        }
    }
}
