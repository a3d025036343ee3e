//! min_max: `min_x max_k |a_k x - b_k|`, each `x_j` out of a few levels, by local search in growing neighbourhoods (Ahmed et
//! al., 2025). Many problems share the matrix; each is one task, with random numbers of its own, so that threads change nothing.
//!
//! Limit: the updates of the residuals, one column of the matrix or two a move. Pairs of moves are looked at eight at a time
//! and dropped at the first of the largest residuals that does not fall, which few pass; this is why no set of constraints
//! is filtered before. `row` keeps what follows from the codes, `local` finds moves, `neighbourhood` leaves local minima.

mod local;
mod neighbourhood;
mod row;

use std::borrow::Cow;

use super::{accumulate_gram, finite};
use crate::error::expect_shape;
use crate::random::Random;
use crate::{Error, Machine, Path, Result};
use row::{Row, residuals};

/// A change of the largest residual counts from this share of what it was at the start: results do not depend on units.
const LEAST: f32 = 1e-6;

/// What a local search may change at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moves {
    /// One variable up a level and one, from that level, down: of all pairs between two levels the best.
    Swap,
    /// One variable up or down a level: the first in random order that helps.
    Single,
    /// Swaps, then single ones, until neither helps.
    Both,
}

/// The levels, and how long to search.
#[derive(Debug, Clone, Copy)]
pub struct Search<'a> {
    /// `[rows, count]`, at most 256, finite, rising along each row.
    pub levels: &'a [f32],
    /// `[rows, cols]`: what is not 0 there never moves; `None`: all may.
    pub frozen: Option<&'a [u8]>,
    /// Neighbourhoods that are tried after the first local search.
    pub iterations: usize,
    /// How many of the largest residuals are looked at first: speed, and what the choice of variables is drawn by.
    pub active: usize,
    /// No move may raise the sum of squared residuals.
    pub guard: bool,
    /// For the guard, residuals of more constraints than are searched, summed up; `None`: of those of `a`.
    pub all: Option<Summed<'a>>,
    /// What a local search may change at once.
    pub moves: Moves,
    /// Share of the variables that a neighbourhood frees: 0 to 1, at least one is.
    pub share: f64,
    /// Of the draws.
    pub seed: u64,
}

/// Constraints `A x = B` summed up to what their squares depend on.
#[derive(Debug, Clone, Copy)]
pub struct Summed<'a> {
    /// `[cols, cols]`: A^T A.
    pub gram: &'a [f32],
    /// `[rows, cols]`: B A.
    pub pull: &'a [f32],
}

/// What all rows share.
struct Problem<'a> {
    path: Path,
    /// `[constraints, cols]`
    a: &'a [f32],
    /// `[cols, height]`: its columns, with zeros below.
    columns: Vec<f32>,
    /// The constraints, up to a multiple of eight.
    height: usize,
    cols: usize,
    /// Levels of a row.
    count: usize,
    /// `[cols, cols]`, where squares are guarded: their Gram matrix.
    gram: Option<Cow<'a, [f32]>>,
    search: &'a Search<'a>,
}

impl<'a> Problem<'a> {
    fn constraints(&self) -> usize {
        self.a.len() / self.cols
    }

    /// Those of one row.
    fn levels(&self, row: usize) -> &'a [f32] {
        &self.search.levels[row * self.count..][..self.count]
    }
}

/// One row, on its way to its result.
struct Task<'a> {
    number: usize,
    b: &'a [f32],
    codes: &'a mut [u8],
    largest: &'a mut [f32],
    squares: &'a mut [f32],
}

/// For each row of `b` `[rows, constraints]`: lowers `max_k |a_k x - b_k|`, `a` `[constraints, cols]`, `x_j = levels[codes[j]]`.
///
/// `codes` `[rows, cols]` is where the search begins and where it ends. `largest` and `squares`, `[rows, 2]`, receive the
/// largest `|a_k x - b_k|` and the sum of their squares, at the start and at the end; the first never rises, nor, where it is
/// guarded, the second. [`Error::NotFinite`] for NaN or infinity, given or come to; [`Error::Range`] for levels that do not
/// rise, codes beyond them, a share out of range; [`Error::Shape`] for lengths.
#[allow(clippy::too_many_arguments)]
pub fn min_max(
    m: &Machine,
    a: &[f32],
    b: &[f32],
    rows: usize,
    constraints: usize,
    cols: usize,
    search: &Search<'_>,
    codes: &mut [u8],
    largest: &mut [f32],
    squares: &mut [f32],
) -> Result<()> {
    expect_shape("a", a.len(), &[constraints, cols])?;
    expect_shape("b", b.len(), &[rows, constraints])?;
    expect_shape("codes", codes.len(), &[rows, cols])?;
    expect_shape("largest", largest.len(), &[rows, 2])?;
    expect_shape("squares", squares.len(), &[rows, 2])?;
    let count = search.levels.len().checked_div(rows).unwrap_or(1);
    expect_shape("levels", search.levels.len(), &[rows, count])?;
    if let Some(frozen) = search.frozen {
        expect_shape("frozen", frozen.len(), &[rows, cols])?;
    }
    if let Some(all) = search.all {
        expect_shape("gram", all.gram.len(), &[cols, cols])?;
        expect_shape("pull", all.pull.len(), &[rows, cols])?;
        finite("gram", all.gram, cols)?;
        finite("pull", all.pull, cols)?;
    }
    if !(1..=256).contains(&count) {
        return Err(Error::range("levels", count, "1 to 256 a row"));
    }
    if !(0.0..=1.0).contains(&search.share) {
        return Err(Error::range("share", search.share, "0 to 1"));
    }
    finite("a", a, cols)?;
    finite("b", b, constraints)?;
    finite("levels", search.levels, count)?;
    if let Some(row) = search.levels.chunks(count).position(|row| !row.is_sorted_by(|one, next| one < next)) {
        return Err(Error::range("levels", format!("numbers that do not rise in row {row}"), "rising numbers"));
    }
    if let Some(code) = codes.iter().find(|&&code| usize::from(code) >= count) {
        return Err(Error::range("codes", code, format!("less than {count}")));
    }
    largest.fill(0.0);
    squares.fill(0.0);
    if rows == 0 || a.is_empty() {
        return Ok(());
    }
    let height = constraints.next_multiple_of(8);
    let mut columns = vec![0.0; cols * height];
    m.each(columns.chunks_mut(height).enumerate().collect(), |(j, column)| {
        column.iter_mut().zip(a.chunks_exact(cols)).for_each(|(to, row)| *to = row[j]);
    });
    let gram = match (search.guard, search.all) {
        (false, _) => None,
        (true, Some(all)) => Some(Cow::Borrowed(all.gram)),
        (true, None) => {
            let mut gram = vec![0.0; cols * cols];
            accumulate_gram(m, a, constraints, cols, &mut gram)?;
            Some(Cow::Owned(gram))
        }
    };
    let problem = Problem { path: m.path(), a, columns, height, cols, count, gram, search };
    let tasks = b
        .chunks(constraints)
        .zip(codes.chunks_mut(cols))
        .zip(largest.chunks_mut(2).zip(squares.chunks_mut(2)))
        .enumerate()
        .map(|(number, ((b, codes), (largest, squares)))| Task { number, b, codes, largest, squares })
        .collect();
    m.each(tasks, |task| solve(&problem, task));
    match largest.iter().chain(&*squares).position(|value| !value.is_finite()) {
        None => Ok(()),
        Some(at) => Err(Error::not_finite("a", format!("residuals that overflow in row {}", at / 2 % rows))),
    }
}

/// The whole search of one row.
fn solve(problem: &Problem<'_>, task: Task<'_>) {
    let Task { number, b, codes, largest, squares } = task;
    let start = Row::new(problem, number, b, codes);
    largest.fill(start.size.largest);
    squares.fill(start.size.squares as f32);
    if !(start.size.largest.is_finite() && start.size.squares.is_finite()) {
        return;
    }
    let seed = Random(problem.search.seed).bits();
    let found = neighbourhood::search(&start, &mut Random(seed ^ number as u64)).codes;
    // Measured anew, so that the result does not depend on the way to it: what was gained may be less than roundings.
    let (_, end) = residuals(problem, problem.levels(number), b, &found);
    if end.largest <= start.size.largest {
        codes.copy_from_slice(&found);
        (largest[1], squares[1]) = (end.largest, end.squares as f32);
    }
}
