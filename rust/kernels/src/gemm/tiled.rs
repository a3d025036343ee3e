//! Products on AMX: sums of 16 rows of weights by 16 rows of `x`, 64 columns of bytes or 32 of bf16 at a time.
//!
//! Weights are the left factor and read as they lie in memory; `x` is the right one and packed once, for all panels of weights. Two by
//! two blocks of sums use all eight tiles: each tile that is loaded takes part in two products, and a product takes as long
//! as two loads. Not timed on such a processor so far.
//!
//! Sums of bytes are exact. A matrix of floats may be the sum of up to [`PARTS`] of bf16: `halves`.

use crate::Machine;
use crate::simd::amx::{Number, SIDE, Tiles};
use std::ops::Range;

/// Rows of `x` from which on tiles are used: a whole one.
pub(super) const MANY: usize = SIDE;
/// Parts that a number may have: the first and the third, or the second and the second, are the least that are multiplied.
pub(super) const PARTS: usize = 3;

/// Numbers of a tile.
const fn tile<T: Number>() -> usize {
    SIDE * T::STEP
}

/// `x` in tiles, those of sixteen rows one behind the other, and in each step of columns those of all parts: in each tile the first
/// columns of all rows that a product sums up in one number, then the next. Missing rows and columns are zero.
pub(super) struct Packed<T> {
    numbers: Vec<T>,
    /// Where the first tile begins: no row of one lies in two lines of the cache.
    start: usize,
    parts: usize,
    /// Numbers in the tiles of sixteen rows.
    stride: usize,
}

impl<T: Number> Packed<T> {
    /// `x` `[rows, depth]`; `part(x, i)` is part `i` of a number.
    pub fn new<X: Sync>(
        m: &Machine,
        x: &[X],
        depth: usize,
        parts: usize,
        part: impl Fn(&X, usize) -> T + Sync,
    ) -> Self {
        let (rows, stride) = (x.len().checked_div(depth).unwrap_or(0), depth.div_ceil(T::STEP) * parts * tile::<T>());
        let mut numbers = vec![T::default(); rows.div_ceil(SIDE) * stride + T::STEP];
        let start = numbers.as_ptr().align_offset(T::STEP * size_of::<T>()).min(T::STEP);
        if stride > 0 {
            let blocks = numbers[start..].chunks_mut(stride).zip(x.chunks(SIDE * depth)).collect();
            m.each(blocks, |(to, from): (&mut [T], &[X])| {
                // a step of all rows at a time: its tiles stay in the first cache
                for (step, to) in to.chunks_mut(parts * tile::<T>()).enumerate() {
                    for (row, from) in from.chunks(depth).enumerate() {
                        let from = &from[step * T::STEP..depth.min((step + 1) * T::STEP)];
                        for (i, to) in to.chunks_mut(tile::<T>()).enumerate() {
                            let together = T::STEP / SIDE;
                            let places = to.chunks_mut(together).skip(row).step_by(SIDE);
                            for (to, from) in places.zip(from.chunks(together)) {
                                to.iter_mut().zip(from).for_each(|(to, from)| *to = part(from, i));
                            }
                        }
                    }
                }
            });
        }
        Self { numbers, start, parts, stride }
    }

    /// The tiles of some steps of one block of rows.
    fn tiles(&self, block: usize, steps: &Range<usize>) -> &[T] {
        self.numbers(block, self.parts * steps.start * T::STEP..self.parts * steps.end * T::STEP)
    }

    /// Some columns of one block of rows, as many as a product sums up in one number; in the order of parts if there are more than one.
    pub fn numbers(&self, block: usize, columns: Range<usize>) -> &[T] {
        &self.numbers[self.start + block * self.stride..][SIDE * columns.start..SIDE * columns.end]
    }
}

/// Rows of weights: whole blocks of sixteen, of whole steps; those of the second part behind all of the first.
#[derive(Clone, Copy)]
pub(super) struct Panel<'a, T> {
    pub numbers: &'a [T],
    pub parts: usize,
    /// Columns of a row.
    pub stride: usize,
}

impl<T: Number> Panel<'_, T> {
    /// Rows, those added for whole blocks included.
    pub fn rows(&self) -> usize {
        (self.numbers.len() / self.parts).checked_div(self.stride).unwrap_or(0)
    }

    /// One row of the first part.
    pub fn row(&self, n: usize) -> &[T] {
        &self.numbers[n * self.stride..][..self.stride]
    }

    /// Sixteen rows of one part.
    fn block(&self, part: usize, n: usize) -> &[T] {
        &self.numbers[(part * self.rows() + n) * self.stride..][..SIDE * self.stride]
    }
}

/// Calls `put(n, block, sums)` for each sixteen rows of weights, from `n` on, and each block of `x`: the sums of their products
/// over `steps`, one row for each row of weights.
pub(super) fn multiply<T: Number>(
    tiles: &mut Tiles,
    weight: Panel<'_, T>,
    x: &Packed<T>,
    blocks: Range<usize>,
    steps: Range<usize>,
    mut put: impl FnMut(usize, usize, &[[T::Sum; SIDE]; SIDE]),
) {
    let rows = weight.rows();
    for block in blocks.clone().step_by(2) {
        for n in (0..rows).step_by(2 * SIDE) {
            let square = Square { weight, x, block, n, steps: steps.clone() };
            match (rows - n > SIDE, blocks.end - block > 1) {
                (false, false) => square.run::<false, false>(tiles, &mut put),
                (false, true) => square.run::<false, true>(tiles, &mut put),
                (true, false) => square.run::<true, false>(tiles, &mut put),
                (true, true) => square.run::<true, true>(tiles, &mut put),
            }
        }
    }
}

/// Two blocks of weights by two of `x`, or only one of either.
struct Square<'a, T> {
    weight: Panel<'a, T>,
    x: &'a Packed<T>,
    block: usize,
    n: usize,
    steps: Range<usize>,
}

impl<T: Number> Square<'_, T> {
    /// Sums in tiles 0 to 3, weights in 4 and 5, `x` in 6 and 7.
    fn run<const DOWN: bool, const ACROSS: bool>(
        &self,
        tiles: &mut Tiles,
        put: &mut impl FnMut(usize, usize, &[[T::Sum; SIDE]; SIDE]),
    ) {
        let left = self.x.tiles(self.block, &self.steps);
        let right = if ACROSS { self.x.tiles(self.block + 1, &self.steps) } else { left };
        tiles.zero::<0>();
        tiles.zero::<1>();
        tiles.zero::<2>();
        tiles.zero::<3>();
        let x = left.chunks_exact(self.x.parts * tile::<T>()).zip(right.chunks_exact(self.x.parts * tile::<T>()));
        for (step, (left, right)) in self.steps.clone().zip(x) {
            for part in 0..self.weight.parts {
                tiles.load::<4, T>(&self.weight.block(part, self.n)[step * T::STEP..], self.weight.stride);
                if DOWN {
                    tiles.load::<5, T>(&self.weight.block(part, self.n + SIDE)[step * T::STEP..], self.weight.stride);
                }
                let x = left.chunks_exact(tile::<T>()).zip(right.chunks_exact(tile::<T>()));
                for (left, right) in x.take(PARTS - part) {
                    tiles.load::<6, T>(left, T::STEP);
                    tiles.multiply::<T, 0, 4, 6>();
                    if DOWN {
                        tiles.multiply::<T, 2, 5, 6>();
                    }
                    if ACROSS {
                        tiles.load::<7, T>(right, T::STEP);
                        tiles.multiply::<T, 1, 4, 7>();
                    }
                    if DOWN && ACROSS {
                        tiles.multiply::<T, 3, 5, 7>();
                    }
                }
            }
        }
        put(self.n, self.block, &tiles.sums::<0, T>());
        if ACROSS {
            put(self.n, self.block + 1, &tiles.sums::<1, T>());
        }
        if DOWN {
            put(self.n + SIDE, self.block, &tiles.sums::<2, T>());
        }
        if DOWN && ACROSS {
            put(self.n + SIDE, self.block + 1, &tiles.sums::<3, T>());
        }
    }
}
