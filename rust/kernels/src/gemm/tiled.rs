//! Products of bytes on AMX: exact sums of 16 rows of weights by 16 rows of `x`, 64 columns at a time.
//!
//! Weights are the left factor and read as they lie in memory; `x` is the right one and packed once, for all panels of weights. Two by
//! two blocks of sums use all eight tiles: each tile that is loaded takes part in two products, and a product takes as long
//! as two loads. Not timed on such a processor so far.

use crate::Machine;
use crate::simd::amx::{SIDE, Tiles};
use std::ops::Range;

/// Rows of `x` from which on tiles are used: a whole one.
pub(super) const MANY: usize = SIDE;
/// Columns of a tile.
pub(super) const STEP: usize = 64;
/// Neighbouring columns that a product sums up in one number.
const FOUR: usize = 4;
/// Bytes of a tile.
const TILE: usize = SIDE * STEP;

/// `x` in tiles, those of sixteen rows one behind the other: in each the first four columns of all rows, then the next four. Missing
/// rows and columns are zero.
pub(super) struct Packed {
    codes: Vec<i8>,
    /// Bytes of the tiles of sixteen rows.
    stride: usize,
}

impl Packed {
    /// `x` `[rows, depth]`.
    pub fn new(m: &Machine, x: &[i8], depth: usize) -> Self {
        let (rows, stride) = (x.len().checked_div(depth).unwrap_or(0), depth.div_ceil(STEP) * TILE);
        let mut codes = vec![0; rows.div_ceil(SIDE) * stride];
        if !codes.is_empty() {
            let blocks = codes.chunks_mut(stride).zip(x.chunks(SIDE * depth)).collect();
            m.each(blocks, |(to, from): (&mut [i8], &[i8])| {
                for (row, from) in from.chunks(depth).enumerate() {
                    for (to, from) in to.chunks_mut(FOUR).skip(row).step_by(SIDE).zip(from.chunks(FOUR)) {
                        to[..from.len()].copy_from_slice(from);
                    }
                }
            });
        }
        Self { codes, stride }
    }

    /// The tiles of some steps of one block of rows.
    fn tiles(&self, block: usize, steps: &Range<usize>) -> &[i8] {
        &self.codes[block * self.stride..][steps.start * TILE..steps.end * TILE]
    }
}

/// Rows of weights: whole blocks of sixteen, of whole steps.
#[derive(Clone, Copy)]
pub(super) struct Panel<'a> {
    pub codes: &'a [i8],
    /// Columns of a row.
    pub stride: usize,
}

impl<'a> Panel<'a> {
    /// Rows of `depth` columns: as they are, or in `room` with zeros behind them and rows of zeros.
    pub fn of(rows: &'a [i8], depth: usize, room: &'a mut Vec<i8>) -> Self {
        if rows.is_empty() || (rows.len().is_multiple_of(SIDE * depth) && depth.is_multiple_of(STEP)) {
            return Self { codes: rows, stride: depth };
        }
        let stride = depth.next_multiple_of(STEP);
        room.resize((rows.len() / depth).next_multiple_of(SIDE) * stride, 0);
        for (to, from) in room.chunks_mut(stride).zip(rows.chunks(depth)) {
            to[..depth].copy_from_slice(from);
        }
        Self { codes: room, stride }
    }
}

/// Calls `put(n, block, sums)` for each sixteen rows of weights, from `n` on, and each block of `x`: the sums of their products
/// over `steps`, one row for each row of weights.
pub(super) fn multiply(
    tiles: &mut Tiles,
    weight: Panel<'_>,
    x: &Packed,
    blocks: Range<usize>,
    steps: Range<usize>,
    mut put: impl FnMut(usize, usize, &[[i32; SIDE]; SIDE]),
) {
    let rows = weight.codes.len().checked_div(weight.stride).unwrap_or(0);
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
struct Square<'a> {
    weight: Panel<'a>,
    x: &'a Packed,
    block: usize,
    n: usize,
    steps: Range<usize>,
}

impl Square<'_> {
    /// Sums in tiles 0 to 3, weights in 4 and 5, `x` in 6 and 7.
    fn run<const DOWN: bool, const ACROSS: bool>(
        &self,
        tiles: &mut Tiles,
        put: &mut impl FnMut(usize, usize, &[[i32; SIDE]; SIDE]),
    ) {
        let stride = self.weight.stride;
        let weights = |n: usize| &self.weight.codes[(self.n + n) * stride..][..SIDE * stride];
        let above = weights(0);
        let below = if DOWN { weights(SIDE) } else { above };
        let left = self.x.tiles(self.block, &self.steps);
        let right = if ACROSS { self.x.tiles(self.block + 1, &self.steps) } else { left };
        tiles.zero::<0>();
        tiles.zero::<1>();
        tiles.zero::<2>();
        tiles.zero::<3>();
        let x = left.chunks_exact(TILE).zip(right.chunks_exact(TILE));
        for (step, (left, right)) in self.steps.clone().zip(x) {
            tiles.load::<4>(&above[step * STEP..], stride);
            tiles.load::<6>(left, STEP);
            tiles.multiply::<0, 4, 6>();
            if ACROSS {
                tiles.load::<7>(right, STEP);
                tiles.multiply::<1, 4, 7>();
            }
            if DOWN {
                tiles.load::<5>(&below[step * STEP..], stride);
                tiles.multiply::<2, 5, 6>();
            }
            if DOWN && ACROSS {
                tiles.multiply::<3, 5, 7>();
            }
        }
        put(self.n, self.block, &tiles.sums::<0>());
        if ACROSS {
            put(self.n, self.block + 1, &tiles.sums::<1>());
        }
        if DOWN {
            put(self.n + SIDE, self.block, &tiles.sums::<2>());
        }
        if DOWN && ACROSS {
            put(self.n + SIDE, self.block + 1, &tiles.sums::<3>());
        }
    }
}
