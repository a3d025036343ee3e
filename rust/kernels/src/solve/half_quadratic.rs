//! half_quadratic: codes with a float zero point for each group, found from the weight alone by splitting an l_p (p < 1)
//! error (Badri and Shaji, 2023). Limit: about twelve vector operations a weight and pass, in the first cache.
//!
//! All passes over a group run while it is in the cache; the one thing that groups share is the pass at which they stop,
//! so each keeps the zero points of all passes, and that of the last is taken when it is known. Passes are run a few at a
//! time, not to compute many that the stop makes useless.

use crate::error::expect_shape;
use crate::quantize::{self, ScaleType, groups, highest};
use crate::{Error, Machine, Path, Result};
use std::ops::Range;

/// Passes between two looks at whether to stop.
const ROUND: usize = 4;
/// Weights of one task: more than a hundred tasks for a large matrix.
const TASK: usize = 1 << 17;
/// The least range of a group: below it the step is one, and the zero point carries the value.
const FLAT: f32 = 1e-4;
/// The least step, as released.
const LEAST: f32 = 1.0 / 2e4;

/// The solver's options.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Proximal {
    /// The exponent of the error: above 0, at most 1.
    pub p: f64,
    /// The weight of the quadratic term in the first pass; above 0.
    pub beta: f64,
    /// By what it grows with every pass; at least 1.
    pub kappa: f64,
    /// Passes at most; up to 1000.
    pub steps: usize,
    /// Stop at the first pass whose error is not below that of all before.
    pub stop: bool,
    /// Keep the zero points of the pass with the least error; else the last, as released.
    pub best: bool,
    /// Start from zero points that are whole numbers.
    pub round_zero: bool,
}

impl Proximal {
    fn check(&self) -> Result<()> {
        if !(self.p > 0.0 && self.p <= 1.0) {
            return Err(Error::range("p", self.p, "above 0, at most 1"));
        }
        if !(self.beta > 0.0 && self.beta.is_finite()) {
            return Err(Error::range("beta", self.beta, "a finite number above 0"));
        }
        if !(self.kappa >= 1.0 && self.kappa.is_finite()) {
            return Err(Error::range("kappa", self.kappa, "a finite number, 1 or above"));
        }
        if self.steps > 1000 {
            return Err(Error::range("steps", self.steps, "at most 1000"));
        }
        Ok(())
    }

    /// The weight of the quadratic term in a pass, and the error up to which the shrinkage leaves nothing.
    fn shrinkage(&self, pass: usize) -> Shrinkage {
        let beta = self.beta * self.kappa.powf(pass as f64);
        let nothing = beta.powf(-1.0 / (2.0 - self.p));
        Shrinkage { power: (self.p - 1.0) as f32, inverse: (1.0 / beta) as f32, nothing: nothing as f32 }
    }
}

/// `shrink(x) = sign(x) max(|x| - |x|^(p-1) / beta, 0)`, which is 0 for `|x| <= nothing`.
#[derive(Debug, Clone, Copy)]
struct Shrinkage {
    /// p - 1
    power: f32,
    /// 1 / beta
    inverse: f32,
    nothing: f32,
}

/// Some groups, and what has become of them.
struct Task<'a> {
    weight: &'a [f32],
    codes: &'a mut [u8],
    scale: &'a mut [f32],
    zero: &'a mut [f32],
    /// The zero point of each group before each pass, and after the last.
    history: Vec<f32>,
    /// The sum of the errors of each pass.
    errors: Vec<f64>,
    finite: bool,
}

/// Rounds `weight` `[rows, cols]` to codes of `bits` bits, `w ~ scale * (code - zero)`, with float zero points.
///
/// `scale` and `zero` are `[rows, cols / group]`; `errors` `[steps]` receives the mean `|w - scale * (code - zero)|` at the
/// start of each pass, NaN for passes that were not run. Scales, and the zero points that are kept, are rounded to `dtype`
/// before the codes are chosen. [`Error::NotFinite`] for NaN or infinity in `weight`, and for a range that overflows;
/// [`Error::Range`] for options out of range; [`Error::Shape`] for lengths that do not fit.
#[allow(clippy::too_many_arguments)]
pub fn half_quadratic(
    m: &Machine,
    weight: &[f32],
    rows: usize,
    cols: usize,
    group: usize,
    bits: u32,
    options: &Proximal,
    dtype: ScaleType,
    codes: &mut [u8],
    scale: &mut [f32],
    zero: &mut [f32],
    errors: &mut [f32],
) -> Result<()> {
    let top = f32::from(highest(bits)?);
    options.check()?;
    let (count, steps) = (groups(cols, group)?, options.steps);
    expect_shape("weight", weight.len(), &[rows, cols])?;
    expect_shape("codes", codes.len(), &[rows, cols])?;
    expect_shape("scale", scale.len(), &[rows, count])?;
    expect_shape("zero", zero.len(), &[rows, count])?;
    expect_shape("errors", errors.len(), &[steps])?;
    errors.fill(f32::NAN);
    if weight.is_empty() {
        return Ok(());
    }
    let some = (TASK / group).max(1);
    let mut tasks: Vec<_> = weight
        .chunks(some * group)
        .zip(codes.chunks_mut(some * group))
        .zip(scale.chunks_mut(some).zip(zero.chunks_mut(some)))
        .map(|((weight, codes), (scale, zero))| {
            let history = vec![0.0; scale.len() * (steps + 1)];
            Task { weight, codes, scale, zero, history, errors: vec![0.0; steps], finite: true }
        })
        .collect();
    m.each(tasks.iter_mut().collect(), |task| task.start(m, group, top, options, dtype));
    if tasks.iter().any(|task| !task.finite) {
        return Err(not_finite(weight, cols));
    }
    let (mut done, mut last, mut best, mut least) = (0, steps, 0, f64::INFINITY);
    while done < last {
        let passes = done..last.min(done + ROUND);
        m.each(tasks.iter_mut().collect(), |task| task.run(m, group, top, options, passes.clone()));
        for pass in passes {
            let error: f64 = tasks.iter().map(|task| task.errors[pass]).sum();
            errors[pass] = (error / weight.len() as f64) as f32;
            done = pass + 1;
            if error < least {
                (least, best) = (error, pass);
            } else if options.stop {
                last = done;
                break;
            }
        }
    }
    let kept = if options.best { best } else { last };
    m.each(tasks.iter_mut().collect(), |task| task.finish(m, group, top, dtype, kept));
    Ok(())
}

fn not_finite(weight: &[f32], cols: usize) -> Error {
    match weight.iter().position(|w| !w.is_finite()) {
        Some(at) => Error::not_finite("weight", format!("{} in row {}, column {}", weight[at], at / cols, at % cols)),
        None => Error::not_finite("weight", "a group whose range overflows"),
    }
}

impl Task<'_> {
    /// Steps and first zero points from the ranges.
    fn start(&mut self, m: &Machine, group: usize, top: f32, options: &Proximal, dtype: ScaleType) {
        let steps = self.errors.len();
        for (i, weight) in self.weight.chunks_exact(group).enumerate() {
            let (lo, hi) = range(m, weight).unwrap_or((f32::NAN, f32::NAN));
            let wide = hi - lo;
            self.finite &= wide.is_finite();
            // A step below |lo| / 2^15 would put the zero point where f16 has none and f32 few places left.
            let step = if wide <= FLAT { 1.0 } else { (wide / top).max(LEAST) };
            let scale = dtype.round(step.max(lo.abs() / 32768.0));
            let zero = 0.0 - lo / scale;
            self.scale[i] = scale;
            self.history[i * (steps + 1)] = if options.round_zero { zero.round_ties_even() } else { zero };
        }
    }

    /// Some passes over every group.
    fn run(&mut self, m: &Machine, group: usize, top: f32, options: &Proximal, passes: Range<usize>) {
        let steps = self.errors.len();
        let shrinkage: Vec<_> = passes.clone().map(|pass| options.shrinkage(pass)).collect();
        for (i, weight) in self.weight.chunks_exact(group).enumerate() {
            let history = &mut self.history[i * (steps + 1)..][..=steps];
            for (pass, &shrinkage) in passes.clone().zip(&shrinkage) {
                let (error, zero) = sweep(m, weight, self.scale[i], history[pass], top, shrinkage);
                self.errors[pass] += error;
                history[pass + 1] = zero;
            }
        }
    }

    /// Codes for the zero points of one pass.
    fn finish(&mut self, m: &Machine, group: usize, top: f32, dtype: ScaleType, pass: usize) {
        let steps = self.errors.len();
        for (i, (weight, codes)) in self.weight.chunks_exact(group).zip(self.codes.chunks_exact_mut(group)).enumerate()
        {
            self.zero[i] = dtype.nearest(self.history[i * (steps + 1) + pass]);
            match m.path() {
                // SAFETY: a machine with this path has AVX2.
                Path::Amx | Path::Avx512 | Path::Avx2 => unsafe {
                    avx2::round(weight, self.scale[i], self.zero[i], top, codes)
                },
                Path::Scalar => portable::round(weight, self.scale[i], self.zero[i], top, codes),
            }
        }
    }
}

fn range(m: &Machine, weight: &[f32]) -> Option<(f32, f32)> {
    match m.path() {
        // SAFETY: a machine with this path has AVX2.
        Path::Amx | Path::Avx512 | Path::Avx2 => unsafe { avx2::range(weight) },
        Path::Scalar => quantize::range::<[f32; 8]>(weight),
    }
}

/// The error of one group's zero point, `sum |w - r|` with `r` what its codes stand for, and the next zero point.
fn sweep(m: &Machine, weight: &[f32], scale: f32, zero: f32, top: f32, shrinkage: Shrinkage) -> (f64, f32) {
    match m.path() {
        // SAFETY: a machine with this path has AVX2.
        Path::Amx | Path::Avx512 | Path::Avx2 => unsafe { avx2::sweep(weight, scale, zero, top, shrinkage) },
        Path::Scalar => portable::sweep::<[f32; 8]>(weight, scale, zero, top, shrinkage),
    }
}

mod portable {
    use super::Shrinkage;
    use crate::simd::{Lanes, ROUND, pow};

    /// The grid of a group: the step and its inverse, the zero point, the highest code.
    #[derive(Clone, Copy)]
    struct Steps<V> {
        scale: V,
        inverse: V,
        zero: V,
        top: V,
    }

    impl<V: Lanes> Steps<V> {
        /// The weights in steps, their codes, and what the codes miss.
        #[inline(always)]
        fn round(self, weight: V) -> (V, V, V) {
            let steps = weight.mul(self.inverse);
            let code = steps.add(self.zero).max(V::splat(0.0)).min(self.top).rint();
            (steps, code, weight.sub(code.sub(self.zero).mul(self.scale)))
        }
    }

    /// See the dispatching function of the same name.
    #[inline(always)]
    pub fn sweep<V: Lanes>(weight: &[f32], scale: f32, zero: f32, top: f32, by: Shrinkage) -> (f64, f32) {
        let (mut error, mut zeros) = (0.0, 0.0);
        let grid =
            Steps { scale: V::splat(scale), inverse: V::splat(1.0 / scale), zero: V::splat(zero), top: V::splat(top) };
        // f32 sums stay short: a row or a tensor may be one group
        for part in weight.chunks(256) {
            let (missed, largest, moved) = total(part, grid);
            error += f64::from(missed);
            zeros += f64::from(if largest > by.nothing { shrunk(part, grid, by) } else { moved });
        }
        (error, (zeros / weight.len() as f64) as f32)
    }

    /// `sum |e|`, `max |e|` and `sum (code - w / scale)`, `e` what the codes miss.
    #[inline(always)]
    fn total<V: Lanes>(weight: &[f32], grid: Steps<V>) -> (f32, f32, f32) {
        let (mut missed, mut largest, mut moved) = (V::splat(0.0), V::splat(0.0), V::splat(0.0));
        let (whole, rest) = weight.as_chunks::<8>();
        for weight in whole {
            let (steps, code, error) = grid.round(V::load(weight));
            missed = missed.add(error.abs());
            largest = error.abs().max(largest);
            moved = moved.add(code.sub(steps));
        }
        if !rest.is_empty() {
            let (weight, on) = padded::<V>(rest);
            let (steps, code, error) = grid.round(weight);
            missed = missed.add(error.abs().mul(on));
            largest = error.abs().mul(on).max(largest);
            moved = moved.add(code.sub(steps).mul(on));
        }
        (missed.sum(), largest.array().into_iter().fold(0.0, |a, b| if b > a { b } else { a }), moved.sum())
    }

    /// `sum (code - (w - shrink(e)) / scale)`.
    #[inline(always)]
    fn shrunk<V: Lanes>(weight: &[f32], grid: Steps<V>, by: Shrinkage) -> f32 {
        let mut moved = V::splat(0.0);
        let (whole, rest) = weight.as_chunks::<8>();
        for weight in whole {
            let (steps, code, error) = grid.round(V::load(weight));
            moved = moved.add(code.sub(steps.sub(shrink(error, by).mul(grid.inverse))));
        }
        if !rest.is_empty() {
            let (weight, on) = padded::<V>(rest);
            let (steps, code, error) = grid.round(weight);
            moved = moved.add(code.sub(steps.sub(shrink(error, by).mul(grid.inverse))).mul(on));
        }
        moved.sum()
    }

    #[inline(always)]
    fn shrink<V: Lanes>(error: V, by: Shrinkage) -> V {
        let size = error.abs();
        let less = size.sub(pow(size, V::splat(by.power)).mul(V::splat(by.inverse)));
        error.mul(less.max(V::splat(0.0)).div(size.max(V::splat(f32::MIN_POSITIVE))))
    }

    /// Up to seven values, and 1 where they are.
    #[inline(always)]
    fn padded<V: Lanes>(rest: &[f32]) -> (V, V) {
        let (mut weight, mut on) = ([0.0; 8], [0.0; 8]);
        weight[..rest.len()].copy_from_slice(rest);
        on[..rest.len()].fill(1.0);
        (V::load(&weight), V::load(&on))
    }

    /// The codes of a group.
    #[inline(always)]
    pub fn round(weight: &[f32], scale: f32, zero: f32, top: f32, codes: &mut [u8]) {
        let inverse = 1.0 / scale;
        for (code, &weight) in codes.iter_mut().zip(weight) {
            let at = weight * inverse + zero;
            let at = if at > 0.0 { at } else { 0.0 };
            let at = if at < top { at } else { top };
            *code = (at + ROUND).to_bits() as u8;
        }
    }
}

mod avx2 {
    //! The portable bodies on registers of eight.

    use super::{Shrinkage, portable};
    use crate::quantize;
    use crate::simd::avx2::F32x8;

    #[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2"))]
    pub unsafe fn range(weight: &[f32]) -> Option<(f32, f32)> {
        quantize::range::<F32x8>(weight)
    }

    #[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2"))]
    pub unsafe fn sweep(weight: &[f32], scale: f32, zero: f32, top: f32, by: Shrinkage) -> (f64, f32) {
        portable::sweep::<F32x8>(weight, scale, zero, top, by)
    }

    #[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2"))]
    pub unsafe fn round(weight: &[f32], scale: f32, zero: f32, top: f32, codes: &mut [u8]) {
        portable::round(weight, scale, zero, top, codes);
    }
}
