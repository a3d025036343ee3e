//! The codes of one row and what follows from them: residuals, their largest, their squares, and what a move does to these.

use super::{LEAST, Problem};
use crate::Path;

/// One assignment, and what follows from it.
#[derive(Clone)]
pub struct Row<'a> {
    pub problem: &'a Problem<'a>,
    /// `[count]`
    pub levels: &'a [f32],
    /// `[cols]`, or empty where all may move.
    frozen: &'a [u8],
    /// By how much the largest residual has to fall.
    pub eps: f32,
    /// `[cols]`
    pub codes: Vec<u8>,
    /// `[height]`: `a x - b`.
    pub gap: Vec<f32>,
    /// The largest magnitude of them, and the sum of their squares.
    pub size: Size,
    /// `[cols]`: half the slope of the guarded squares, `a^T gap` where they are those of `a`; empty where none are.
    slope: Vec<f64>,
    /// By how much the guarded squares have risen since the row was new.
    pub risen: f64,
    /// The constraints with the largest residuals, largest first.
    pub active: Vec<u32>,
}

/// How far a row is from what it should be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Size {
    pub largest: f32,
    pub squares: f64,
}

/// Residuals of a row in f64, each sum from its beginning, and their size.
pub fn residuals(problem: &Problem<'_>, levels: &[f32], b: &[f32], codes: &[u8]) -> (Vec<f64>, Size) {
    let mut gap = vec![0.0; problem.height];
    gap.iter_mut().zip(b).for_each(|(gap, &b)| *gap = -f64::from(b));
    for (column, &code) in problem.columns.chunks_exact(problem.height).zip(codes) {
        let x = f64::from(levels[usize::from(code)]);
        gap.iter_mut().zip(column).for_each(|(gap, &a)| *gap += x * f64::from(a));
    }
    let largest = gap.iter().fold(0.0, |most: f64, gap| most.max(gap.abs())) as f32;
    let squares = gap.iter().map(|gap| gap * gap).sum();
    (gap, Size { largest, squares })
}

impl<'a> Row<'a> {
    pub fn new(problem: &'a Problem<'a>, number: usize, b: &[f32], codes: &[u8]) -> Self {
        let (cols, levels) = (problem.cols, problem.levels(number));
        let (gap, size) = residuals(problem, levels, b, codes);
        let slope = match (&problem.gram, problem.search.all) {
            (None, _) => vec![],
            (Some(gram), Some(all)) => {
                let mut slope: Vec<f64> =
                    all.pull[number * cols..][..cols].iter().map(|&pull| -f64::from(pull)).collect();
                for (line, &code) in gram.chunks_exact(cols).zip(codes) {
                    let x = f64::from(levels[usize::from(code)]);
                    slope.iter_mut().zip(line).for_each(|(slope, &gram)| *slope += x * f64::from(gram));
                }
                slope
            }
            (Some(_), None) => problem.columns.chunks_exact(problem.height).map(|column| dot(column, &gap)).collect(),
        };
        let mut row = Self {
            problem,
            levels,
            frozen: problem.search.frozen.map_or(&[], |frozen| &frozen[number * cols..][..cols]),
            eps: LEAST * size.largest,
            codes: codes.to_vec(),
            gap: gap.into_iter().map(|gap| gap as f32).collect(),
            size,
            slope,
            risen: 0.0,
            active: vec![],
        };
        row.rank();
        row
    }

    /// The variables that may move.
    pub fn free(&self) -> impl Iterator<Item = u32> + '_ {
        (0..self.codes.len() as u32).filter(|&j| self.frozen.get(j as usize).is_none_or(|&frozen| frozen == 0))
    }

    /// The code that is `by` levels away, if there is one.
    pub fn neighbour(&self, j: u32, by: i32) -> Option<u8> {
        let code = i32::from(self.codes[j as usize]) + by;
        (0..self.levels.len() as i32).contains(&code).then_some(code as u8)
    }

    /// By how much a variable changes with its code.
    pub fn step(&self, j: u32, code: u8) -> f32 {
        self.levels[usize::from(code)] - self.levels[usize::from(self.codes[j as usize])]
    }

    pub fn column(&self, j: u32) -> &'a [f32] {
        &self.problem.columns[j as usize * self.problem.height..][..self.problem.height]
    }

    /// Whether the squares may not become what they are after variable `up` rose by `step` and `down` fell by it.
    pub fn refuses(&self, step: f32, up: u32, down: Option<u32>) -> bool {
        self.rise(step, up, down) > 0.0
    }

    /// By how much the guarded squares rise with such a move; 0 where none are.
    fn rise(&self, step: f32, up: u32, down: Option<u32>) -> f64 {
        let Some(gram) = &self.problem.gram else { return 0.0 };
        let entry = |i: u32, j: u32| f64::from(gram[i as usize * self.problem.cols + j as usize]);
        let (mut linear, mut square) = (self.slope[up as usize], entry(up, up));
        if let Some(down) = down {
            linear -= self.slope[down as usize];
            square += entry(down, down) - 2.0 * entry(up, down);
        }
        let step = f64::from(step);
        step * (2.0 * linear + step * square)
    }

    /// The largest residual after such a move, where it is below `bound`.
    pub fn after(&self, step: f32, up: u32, down: Option<u32>, bound: f32) -> Option<f32> {
        let (up, down) = (self.column(up), down.map(|down| self.column(down)));
        match self.problem.path {
            // SAFETY: a machine with this path has AVX2.
            Path::Amx | Path::Avx512 | Path::Avx2 => unsafe { avx2::after(&self.gap, step, up, down, bound) },
            Path::Scalar => portable::after::<[f32; 8]>(&self.gap, step, up, down, bound),
        }
    }

    /// Moves one variable to another code.
    pub fn set(&mut self, j: u32, code: u8) {
        let step = self.step(j, code);
        self.shift(step, j, None);
        self.codes[j as usize] = code;
        self.rank();
    }

    /// Raises `up` by one level and lowers `down`, which is on that level, to the code of `up`.
    pub fn swap(&mut self, up: u32, down: u32) {
        let step = self.step(up, self.codes[down as usize]);
        self.shift(step, up, Some(down));
        self.codes.swap(up as usize, down as usize);
        self.rank();
    }

    fn shift(&mut self, step: f32, up: u32, down: Option<u32>) {
        let (first, second) = (self.column(up), down.map(|down| self.column(down)));
        self.size = match self.problem.path {
            // SAFETY: a machine with this path has AVX2.
            Path::Amx | Path::Avx512 | Path::Avx2 => unsafe { avx2::shift(&mut self.gap, step, first, second) },
            Path::Scalar => portable::shift::<[f32; 8]>(&mut self.gap, step, first, second),
        };
        self.risen += self.rise(step, up, down);
        if let Some(gram) = &self.problem.gram {
            let cols = self.problem.cols;
            for (j, step) in std::iter::once((up, step)).chain(down.map(|down| (down, -step))) {
                let line = &gram[j as usize * cols..][..cols];
                let step = f64::from(step);
                self.slope.iter_mut().zip(line).for_each(|(slope, &gram)| *slope += step * f64::from(gram));
            }
        }
    }

    /// Finds the active constraints anew; of equal ones the first.
    fn rank(&mut self) {
        let gap = &self.gap[..self.problem.constraints()];
        let count = self.problem.search.active.min(gap.len());
        // Positive floats are in the order of their bits.
        let key = |(k, gap): (usize, &f32)| u64::from(!gap.abs().to_bits()) << 32 | k as u64;
        let mut keys: Vec<_> = gap.iter().enumerate().map(key).collect();
        if (1..keys.len()).contains(&count) {
            keys.select_nth_unstable(count - 1);
        }
        keys.truncate(count);
        keys.sort_unstable();
        self.active.clear();
        self.active.extend(keys.into_iter().map(|key| key as u32));
    }
}

/// In eight sums.
fn dot(x: &[f32], y: &[f64]) -> f64 {
    let mut sums = [0.0; 8];
    for (x, y) in x.as_chunks::<8>().0.iter().zip(y.as_chunks::<8>().0) {
        for i in 0..8 {
            sums[i] += f64::from(x[i]) * y[i];
        }
    }
    sums.iter().sum()
}

mod portable {
    use super::Size;
    use crate::simd::Lanes;

    /// Eight residuals after a move; always by these operations, so that what a search expects comes true to the bit.
    #[inline(always)]
    fn moved<V: Lanes>(gap: &[f32; 8], step: V, up: &[f32; 8], down: Option<&[f32; 8]>) -> V {
        let gap = V::load(gap).add(step.mul(V::load(up)));
        match down {
            None => gap,
            Some(down) => gap.sub(step.mul(V::load(down))),
        }
    }

    #[inline(always)]
    fn most<V: Lanes>(largest: V) -> f32 {
        largest.array().into_iter().fold(0.0, |most, value| if value <= most { most } else { value })
    }

    /// See `Row::after`.
    #[inline(always)]
    pub fn after<V: Lanes>(gap: &[f32], step: f32, up: &[f32], down: Option<&[f32]>, bound: f32) -> Option<f32> {
        let (gap, up, down) = (gap.as_chunks().0, up.as_chunks().0, down.map(|down| down.as_chunks().0));
        let (step, bounds, mut largest) = (V::splat(step), V::splat(bound), V::splat(0.0));
        // Whether to go on is asked once in a while: the question takes as long as the residuals do.
        for part in (0..gap.len()).step_by(4) {
            for k in part..gap.len().min(part + 4) {
                largest = largest.max(moved(&gap[k], step, &up[k], down.map(|down| &down[k])).abs());
            }
            if largest.below(bounds) != 0xff {
                return None;
            }
        }
        Some(most(largest))
    }

    /// Moves the residuals; their size then.
    #[inline(always)]
    pub fn shift<V: Lanes>(gap: &mut [f32], step: f32, up: &[f32], down: Option<&[f32]>) -> Size {
        let (up, down) = (up.as_chunks().0, down.map(|down| down.as_chunks().0));
        let (step, mut largest, mut squares) = (V::splat(step), V::splat(0.0), [0.0; 8]);
        for (k, gap) in gap.as_chunks_mut().0.iter_mut().enumerate() {
            let after = moved(gap, step, &up[k], down.map(|down| &down[k]));
            largest = largest.max(after.abs());
            *gap = after.array();
            for i in 0..8 {
                squares[i] += f64::from(gap[i]) * f64::from(gap[i]);
            }
        }
        Size { largest: most(largest), squares: squares.iter().sum() }
    }
}

mod avx2 {
    //! The portable bodies on registers of eight.

    use super::{Size, portable};
    use crate::simd::avx2::F32x8;

    #[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2"))]
    pub unsafe fn after(gap: &[f32], step: f32, up: &[f32], down: Option<&[f32]>, bound: f32) -> Option<f32> {
        portable::after::<F32x8>(gap, step, up, down, bound)
    }

    #[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2"))]
    pub unsafe fn shift(gap: &mut [f32], step: f32, up: &[f32], down: Option<&[f32]>) -> Size {
        portable::shift::<F32x8>(gap, step, up, down)
    }
}
