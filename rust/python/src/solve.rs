//! Half-quadratic zero points; Gram matrices, their inverse factor, rounding with error feedback; least largest errors.

use pyo3::prelude::*;
use subbyte_kernels::codebook::Table;
use subbyte_kernels::solve::{
    self as kernels, Bilevel, Codewords, Descent, Feedback, Found, Groups, Moves, Proximal, Search, Summed,
};

use crate::array::{Buffer, InOut, Input, Output};
use crate::codebook::lattice;
use crate::errors::error;
use crate::machine::{Machine, run};
use crate::numbers::{GridOptions, bits, groups, named, natural, scale_type};

#[pyfunction]
#[pyo3(signature = (gram, x, *, on = None))]
pub fn accumulate_gram(
    py: Python<'_>,
    gram: &Bound<'_, PyAny>,
    x: &Bound<'_, PyAny>,
    on: Option<&Bound<'_, Machine>>,
) -> PyResult<()> {
    let (mut gram, x) = (InOut::take("gram", gram)?, Input::<f32>::take("x", x)?);
    let [tokens, channels] = x.axes(py)?;
    gram.input().expect(py, &[channels, channels])?;
    gram.apart(py, &x)?;
    let (from, to) = (x.slice(), gram.slice_mut());
    run(py, on, |m| kernels::accumulate_gram(m, from, tokens, channels, to))
}

#[pyfunction]
#[pyo3(signature = (hessian, damp, *, on = None))]
pub fn inverse_factor(
    py: Python<'_>,
    hessian: &Bound<'_, PyAny>,
    damp: f32,
    on: Option<&Bound<'_, Machine>>,
) -> PyResult<Buffer> {
    let hessian = Input::take("hessian", hessian)?;
    let [n, _] = hessian.axes(py)?;
    hessian.expect(py, &[n, n])?;
    let mut factor = Output::zeroed(&[n, n])?;
    let (from, to) = (hessian.slice(), factor.slice_mut());
    run(py, on, |m| kernels::inverse_factor(m, from, n, damp, to))?;
    Ok(factor.finish())
}

/// Grids that are given: scale, zero point, and the group of each column.
struct Given {
    scale: Input<f32>,
    zero: Input<u8>,
    index: Vec<u32>,
    count: usize,
}

impl Given {
    fn take(py: Python<'_>, [rows, cols]: [usize; 2], grids: [Option<&Bound<'_, PyAny>>; 3]) -> PyResult<Option<Self>> {
        let (scale, zero, index) = match grids {
            [None, None, None] => return Ok(None),
            [Some(scale), Some(zero), Some(index)] => (scale, zero, index),
            _ => {
                let given = grids.iter().filter(|grid| grid.is_some()).count();
                let hint = "pass none of them to fit the grids on the way";
                return Err(error(
                    py,
                    "ShapeError",
                    "scale, zero, index",
                    format!("{given} of them"),
                    "all three",
                    hint,
                ));
            }
        };
        let (scale, zero) = (Input::take("scale", scale)?, Input::take("zero", zero)?);
        let [_, count] = scale.axes(py)?;
        scale.expect(py, &[rows, count])?;
        zero.expect(py, &[rows, count])?;
        let index = Input::<i32>::take("index", index)?;
        index.expect(py, &[cols])?;
        let index = index.slice().iter().map(|&group| natural(py, "index", group.into())).collect::<PyResult<_>>()?;
        Ok(Some(Self { scale, zero, index, count }))
    }
}

#[pyfunction]
#[pyo3(signature = (
    weight, factor, bits, group = -1, symmetric = true, narrow = false, forced_zero = true, eps = 0.0, scale_dtype = "f32",
    norm = 2.4, shrink_grid = 100, shrink_steps = 0, fresh_groups = false, block = 128, scale = None, zero = None,
    index = None, *, on = None
))]
#[expect(clippy::too_many_arguments, reason = "the options of a grid, flat as Python spells them")]
pub fn gptq(
    py: Python<'_>,
    weight: &Bound<'_, PyAny>,
    factor: &Bound<'_, PyAny>,
    bits: i64,
    group: i64,
    symmetric: bool,
    narrow: bool,
    forced_zero: bool,
    eps: f32,
    scale_dtype: &str,
    norm: f32,
    shrink_grid: i64,
    shrink_steps: i64,
    fresh_groups: bool,
    block: i64,
    scale: Option<&Bound<'_, PyAny>>,
    zero: Option<&Bound<'_, PyAny>>,
    index: Option<&Bound<'_, PyAny>>,
    on: Option<&Bound<'_, Machine>>,
) -> PyResult<(Buffer, Buffer, Buffer, Buffer, Buffer)> {
    let options = GridOptions { bits, symmetric, narrow, forced_zero, eps, scale_dtype };
    let grid = options.grid(py, norm, shrink_grid, shrink_steps)?;
    let block = natural(py, "block", block)?;
    let (weight, factor) = (Input::<f32>::take("weight", weight)?, Input::take("factor", factor)?);
    let [rows, cols] = weight.axes(py)?;
    factor.expect(py, &[cols, cols])?;
    let given = Given::take(py, [rows, cols], [scale, zero, index])?;
    let (groups, count) = match &given {
        Some(given) => (Groups::Static { count: given.count, index: &given.index }, given.count),
        None => {
            let (size, count) = groups(py, cols, group)?;
            (Groups::Dynamic { size, fresh: fresh_groups }, count)
        }
    };
    let (mut codes, mut compensated) = (Output::zeroed(&[rows, cols])?, Output::zeroed(&[rows, cols])?);
    let (mut scale, mut zero) = (Output::zeroed(&[rows, count])?, Output::zeroed(&[rows, count])?);
    let mut loss = Output::zeroed(&[rows])?;
    if let Some(given) = &given {
        scale.slice_mut().copy_from_slice(given.scale.slice());
        zero.slice_mut().copy_from_slice(given.zero.slice());
    }
    let (from, factor, to) = (weight.slice(), factor.slice(), compensated.slice_mut());
    let (code, scales, zeros, losses) = (codes.slice_mut(), scale.slice_mut(), zero.slice_mut(), loss.slice_mut());
    run(py, on, |m| {
        to.copy_from_slice(from);
        kernels::gptq(m, to, factor, rows, cols, groups, &grid, block, code, scales, zeros, losses)
    })?;
    Ok((codes.finish(), scale.finish(), zero.finish(), compensated.finish(), loss.finish()))
}

/// Codewords of one stage or two.
struct Codebooks {
    shape: [usize; 3],
    first: Input<f32>,
    second: Option<Input<f32>>,
}

impl Codebooks {
    fn take(py: Python<'_>, codebook: &Bound<'_, PyAny>, residual: Option<&Bound<'_, PyAny>>) -> PyResult<Self> {
        let first = Input::take("codebook", codebook)?;
        let shape @ [groups, _, dim] = first.axes(py)?;
        let second = residual.map(|residual| Input::take("residual", residual)).transpose()?;
        if let Some(second) = &second {
            let [_, count, _] = second.axes(py)?;
            second.expect(py, &[groups, count, dim])?;
        }
        Ok(Self { shape, first, second })
    }

    fn table(&self) -> Table<'_> {
        let [groups, _, dim] = self.shape;
        Table { dim, groups, first: self.first.slice(), second: self.second.as_ref().map_or(&[], Input::slice) }
    }
}

#[pyfunction]
#[pyo3(signature = (weight, factor, codebook, residual = None, block = 128, *, on = None))]
pub fn gptq_codebook(
    py: Python<'_>,
    weight: &Bound<'_, PyAny>,
    factor: &Bound<'_, PyAny>,
    codebook: &Bound<'_, PyAny>,
    residual: Option<&Bound<'_, PyAny>>,
    block: i64,
    on: Option<&Bound<'_, Machine>>,
) -> PyResult<(Buffer, Buffer, Buffer)> {
    let block = natural(py, "block", block)?;
    let (weight, factor) = (Input::<f32>::take("weight", weight)?, Input::take("factor", factor)?);
    let [rows, cols] = weight.axes(py)?;
    factor.expect(py, &[cols, cols])?;
    let books = Codebooks::take(py, codebook, residual)?;
    let table = books.table();
    let mut codes = Output::zeroed(&[rows.div_ceil(table.dim.max(1)), cols])?;
    let (mut compensated, mut loss) = (Output::stale(&[rows, cols])?, Output::zeroed(&[rows])?);
    let (from, factor, to) = (weight.slice(), factor.slice(), compensated.slice_mut());
    let (code, losses) = (codes.slice_mut(), loss.slice_mut());
    run(py, on, |m| {
        to.copy_from_slice(from);
        kernels::gptq_codebook(m, to, factor, rows, cols, table, block, code, losses)
    })?;
    Ok((codes.finish(), compensated.finish(), loss.finish()))
}

#[pyfunction]
#[pyo3(signature = (weight, hessian, codes, codebook, residual = None, beside = None, sweeps = 3, block = 128, *, on = None))]
#[expect(clippy::too_many_arguments, reason = "a weight, its codes and the options of the solver")]
pub fn codebook_descent(
    py: Python<'_>,
    weight: &Bound<'_, PyAny>,
    hessian: &Bound<'_, PyAny>,
    codes: &Bound<'_, PyAny>,
    codebook: &Bound<'_, PyAny>,
    residual: Option<&Bound<'_, PyAny>>,
    beside: Option<&Bound<'_, PyAny>>,
    sweeps: i64,
    block: i64,
    on: Option<&Bound<'_, Machine>>,
) -> PyResult<Buffer> {
    let (sweeps, block) = (natural(py, "sweeps", sweeps)?, natural(py, "block", block)?);
    let (weight, hessian) = (Input::<f32>::take("weight", weight)?, Input::take("hessian", hessian)?);
    let [rows, cols] = weight.axes(py)?;
    hessian.expect(py, &[cols, cols])?;
    let books = Codebooks::take(py, codebook, residual)?;
    let table = books.table();
    let beside = beside.map(|beside| Input::<f32>::take("beside", beside)).transpose()?;
    if let Some(beside) = &beside {
        beside.expect(py, &[rows, cols])?;
    }
    let start = Input::<i32>::take("codes", codes)?;
    let shape = [rows.div_ceil(table.dim.max(1)), cols];
    start.expect(py, &shape)?;
    let mut found = Output::stale(&shape)?;
    let (from, hessian, beside) = (weight.slice(), hessian.slice(), beside.as_ref().map(Input::slice));
    let (start, to) = (start.slice(), found.slice_mut());
    run(py, on, |m| {
        to.copy_from_slice(start);
        kernels::codebook_descent(m, from, hessian, beside, rows, cols, table, sweeps, block, to)
    })?;
    Ok(found.finish())
}

#[pyfunction]
#[pyo3(signature = (
    weight, bits, group = -1, p = 0.7, beta = 10.0, kappa = 1.01, steps = 20, stop = true, best = false, round_zero = false,
    scale_dtype = "f32", *, on = None
))]
#[expect(clippy::too_many_arguments, reason = "the options of the solver, flat as Python spells them")]
pub fn half_quadratic(
    py: Python<'_>,
    weight: &Bound<'_, PyAny>,
    bits: i64,
    group: i64,
    p: f64,
    beta: f64,
    kappa: f64,
    steps: i64,
    stop: bool,
    best: bool,
    round_zero: bool,
    scale_dtype: &str,
    on: Option<&Bound<'_, Machine>>,
) -> PyResult<(Buffer, Buffer, Buffer, Buffer)> {
    let (bits, steps) = (self::bits(py, bits)?, natural(py, "steps", steps)?);
    let options = Proximal { p, beta, kappa, steps, stop, best, round_zero };
    let dtype = scale_type(py, scale_dtype)?;
    let weight = Input::take("weight", weight)?;
    let [rows, cols] = weight.axes(py)?;
    let (group, count) = groups(py, cols, group)?;
    let (mut codes, mut errors) = (Output::zeroed(&[rows, cols])?, Output::zeroed(&[steps.min(1000)])?);
    let (mut scale, mut zero) = (Output::zeroed(&[rows, count])?, Output::zeroed(&[rows, count])?);
    let (from, code, error) = (weight.slice(), codes.slice_mut(), errors.slice_mut());
    let (scales, zeros) = (scale.slice_mut(), zero.slice_mut());
    run(py, on, |m| {
        kernels::half_quadratic(m, from, rows, cols, group, bits, &options, dtype, code, scales, zeros, error)
    })?;
    Ok((codes.finish(), scale.finish(), zero.finish(), errors.finish()))
}

#[pyfunction]
#[pyo3(signature = (
    weight, hessian, scale, zero, index, bits, sweeps = 30, relax = 3, block = 128, start = None, only = None, *,
    on = None
))]
#[expect(clippy::too_many_arguments, reason = "a weight, its grid and the options of the solver")]
pub fn coordinate_descent(
    py: Python<'_>,
    weight: &Bound<'_, PyAny>,
    hessian: &Bound<'_, PyAny>,
    scale: &Bound<'_, PyAny>,
    zero: &Bound<'_, PyAny>,
    index: &Bound<'_, PyAny>,
    bits: i64,
    sweeps: i64,
    relax: i64,
    block: i64,
    start: Option<&Bound<'_, PyAny>>,
    only: Option<i64>,
    on: Option<&Bound<'_, Machine>>,
) -> PyResult<(Buffer, Buffer, Buffer)> {
    let (bits, sweeps) = (self::bits(py, bits)?, natural(py, "sweeps", sweeps)?);
    let (relax, block) = (natural(py, "relax", relax)?, natural(py, "block", block)?);
    let (weight, hessian) = (Input::<f32>::take("weight", weight)?, Input::<f32>::take("hessian", hessian)?);
    let [rows, cols] = weight.axes(py)?;
    hessian.expect(py, &[cols, cols])?;
    let given = Given::take(py, [rows, cols], [Some(scale), Some(zero), Some(index)])?;
    let start = start.map(|start| Input::<f32>::take("start", start)).transpose()?;
    if let Some(start) = &start {
        start.expect(py, &[rows, cols])?;
    }
    let only = only.map(|only| natural(py, "only", only)).transpose()?;
    let (mut codes, mut loss) = (Output::zeroed(&[rows, cols])?, Output::zeroed(&[rows])?);
    let mut values = Output::zeroed(&[rows, cols])?;
    values.slice_mut().copy_from_slice(start.as_ref().unwrap_or(&weight).slice());
    if let Some(Given { scale, zero, index, .. }) = &given {
        let (scale, zero) = (scale.slice(), zero.slice());
        let descent = Descent { bits, scale, zero, index, sweeps, relax, block, only };
        let (weight, hessian, losses) = (weight.slice(), hessian.slice(), loss.slice_mut());
        let (at, to) = (values.slice_mut(), codes.slice_mut());
        run(py, on, |m| kernels::coordinate_descent(m, weight, hessian, rows, cols, &descent, at, to, losses))?;
    }
    Ok((codes.finish(), loss.finish(), values.finish()))
}

/// What `bilevel` returns: ten arrays.
type Levels = (Buffer, Buffer, Buffer, Buffer, Buffer, Buffer, Buffer, Buffer, Buffer, Buffer);

#[pyfunction]
#[pyo3(signature = (
    weight, factor, bits, group, threshold = None, simplified = false, scale_bits = 3, zero_bits = 3, run = 16,
    round_zero = false, scale_dtype = "f16", block = 128, mask = None, *, on = None
))]
#[expect(clippy::too_many_arguments, reason = "the options of the solver, flat as Python spells them")]
pub fn bilevel(
    py: Python<'_>,
    weight: &Bound<'_, PyAny>,
    factor: Option<&Bound<'_, PyAny>>,
    bits: i64,
    group: i64,
    threshold: Option<f32>,
    simplified: bool,
    scale_bits: i64,
    zero_bits: i64,
    run: i64,
    round_zero: bool,
    scale_dtype: &str,
    block: i64,
    mask: Option<&Bound<'_, PyAny>>,
    on: Option<&Bound<'_, Machine>>,
) -> PyResult<Levels> {
    let (bits, run) = (self::bits(py, bits)?, natural::<usize>(py, "run", run)?);
    let (scale_bits, zero_bits) = (natural(py, "scale_bits", scale_bits)?, natural(py, "zero_bits", zero_bits)?);
    let (dtype, block) = (scale_type(py, scale_dtype)?, natural(py, "block", block)?);
    let weight = Input::<f32>::take("weight", weight)?;
    let [rows, cols] = weight.axes(py)?;
    let factor = factor.map(|factor| Input::<f32>::take("factor", factor)).transpose()?;
    if let Some(factor) = &factor {
        factor.expect(py, &[cols, cols])?;
    }
    let given = mask.map(|mask| Input::<u8>::take("mask", mask)).transpose()?;
    let (group, count) = groups(py, cols, group)?;
    let runs = rows.checked_div(run).unwrap_or(0);
    let (mut codes, mut mask) = (Output::zeroed(&[rows, cols])?, Output::zeroed(&[rows, cols])?);
    let (mut scale, mut zero) = (Output::zeroed(&[rows, count])?, Output::zeroed(&[rows, count])?);
    let (mut scale_codes, mut zero_codes) = (Output::zeroed(&[rows, count])?, Output::zeroed(&[rows, count])?);
    let (mut scale_grid, mut zero_grid) = (Output::zeroed(&[runs, count, 2])?, Output::zeroed(&[runs, count, 2])?);
    let (mut compensated, mut loss) = (Output::zeroed(&[rows, cols])?, Output::zeroed(&[rows])?);
    if let Some(given) = &given {
        given.expect(py, &[rows, cols])?;
        mask.slice_mut().copy_from_slice(given.slice());
    }
    compensated.slice_mut().copy_from_slice(weight.slice());
    let threshold = threshold.unwrap_or(f32::INFINITY);
    let options = Bilevel { bits, group, scale_bits, zero_bits, run, round_zero, threshold, simplified, dtype, block };
    let found = Found {
        weight: compensated.slice_mut(),
        codes: codes.slice_mut(),
        mask: mask.slice_mut(),
        scale: scale.slice_mut(),
        zero: zero.slice_mut(),
        scale_codes: scale_codes.slice_mut(),
        zero_codes: zero_codes.slice_mut(),
        scale_grid: scale_grid.slice_mut(),
        zero_grid: zero_grid.slice_mut(),
        loss: loss.slice_mut(),
    };
    let (factor, masked) = (factor.as_ref().map(Input::slice), given.is_some());
    crate::machine::run(py, on, |m| kernels::bilevel(m, factor, rows, cols, &options, masked, found))?;
    Ok((
        codes.finish(),
        scale.finish(),
        zero.finish(),
        scale_codes.finish(),
        zero_codes.finish(),
        scale_grid.finish(),
        zero_grid.finish(),
        mask.finish(),
        compensated.finish(),
        loss.finish(),
    ))
}

#[pyfunction]
#[pyo3(signature = (weight, hessian, bits, codewords = "integers", sweeps = 0, start = None, block = 128, *, on = None))]
#[expect(clippy::too_many_arguments, reason = "a weight and the options of the solver")]
pub fn ldlq(
    py: Python<'_>,
    weight: &Bound<'_, PyAny>,
    hessian: Option<&Bound<'_, PyAny>>,
    bits: i64,
    codewords: &str,
    sweeps: i64,
    start: Option<&Bound<'_, PyAny>>,
    block: i64,
    on: Option<&Bound<'_, Machine>>,
) -> PyResult<(Buffer, Buffer, Buffer)> {
    let codewords = match named(py, "codewords", codewords, &[("integers", false), ("e8p", true)])? {
        false => Codewords::Integers(self::bits(py, bits)?),
        true => Codewords::Lattice(lattice(py, bits)?),
    };
    let (sweeps, block) = (natural(py, "sweeps", sweeps)?, natural(py, "block", block)?);
    let weight = Input::<f32>::take("weight", weight)?;
    let [rows, cols] = weight.axes(py)?;
    let hessian = hessian.map(|hessian| Input::<f32>::take("hessian", hessian)).transpose()?;
    if let Some(hessian) = &hessian {
        hessian.expect(py, &[cols, cols])?;
    }
    let start = start.map(|start| Input::<f32>::take("start", start)).transpose()?;
    let (mut codes, mut loss) = (Output::zeroed(&[rows, cols / codewords.dim()])?, Output::zeroed(&[rows])?);
    let mut values = Output::zeroed(&[rows, cols])?;
    if let Some(start) = &start {
        start.expect(py, &[rows, cols])?;
        values.slice_mut().copy_from_slice(start.slice());
    }
    let feedback = Feedback { codewords, sweeps, started: start.is_some(), block };
    let (weight, hessian) = (weight.slice(), hessian.as_ref().map(Input::slice));
    let (code, value, losses) = (codes.slice_mut(), values.slice_mut(), loss.slice_mut());
    run(py, on, |m| kernels::ldlq(m, weight, hessian, rows, cols, &feedback, code, value, losses))?;
    Ok((codes.finish(), values.finish(), loss.finish()))
}

#[pyfunction]
#[pyo3(signature = (
    a, b, levels, codes, frozen = None, gram = None, pull = None, iterations = 30, active = 100, guard = true, moves = "swap", share = 0.005,
    seed = 9101, *, on = None
))]
#[expect(clippy::too_many_arguments, reason = "a problem and the options of the search, flat as Python spells them")]
pub fn min_max(
    py: Python<'_>,
    a: &Bound<'_, PyAny>,
    b: &Bound<'_, PyAny>,
    levels: &Bound<'_, PyAny>,
    codes: &Bound<'_, PyAny>,
    frozen: Option<&Bound<'_, PyAny>>,
    gram: Option<&Bound<'_, PyAny>>,
    pull: Option<&Bound<'_, PyAny>>,
    iterations: i64,
    active: i64,
    guard: bool,
    moves: &str,
    share: f64,
    seed: i64,
    on: Option<&Bound<'_, Machine>>,
) -> PyResult<(Buffer, Buffer, Buffer)> {
    let moves = named(py, "moves", moves, &[("swap", Moves::Swap), ("single", Moves::Single), ("both", Moves::Both)])?;
    let (iterations, active) = (natural(py, "iterations", iterations)?, natural(py, "active", active)?);
    let seed = natural(py, "seed", seed)?;
    let (a, b) = (Input::<f32>::take("a", a)?, Input::<f32>::take("b", b)?);
    let (levels, start) = (Input::<f32>::take("levels", levels)?, Input::<u8>::take("codes", codes)?);
    let [constraints, cols] = a.axes(py)?;
    let [rows, _] = start.axes(py)?;
    start.expect(py, &[rows, cols])?;
    b.expect(py, &[rows, constraints])?;
    let [_, count] = levels.axes(py)?;
    levels.expect(py, &[rows, count])?;
    let frozen = frozen.map(|frozen| Input::<u8>::take("frozen", frozen)).transpose()?;
    if let Some(frozen) = &frozen {
        frozen.expect(py, &[rows, cols])?;
    }
    let gram = gram.map(|gram| Input::<f32>::take("gram", gram)).transpose()?;
    let pull = pull.map(|pull| Input::<f32>::take("pull", pull)).transpose()?;
    if let Some(gram) = &gram {
        gram.expect(py, &[cols, cols])?;
    }
    if let Some(pull) = &pull {
        pull.expect(py, &[rows, cols])?;
    }
    let all = match (&gram, &pull) {
        (Some(gram), Some(pull)) => Some(Summed { gram: gram.slice(), pull: pull.slice() }),
        (None, None) => None,
        _ => return Err(error(py, "ShapeError", "gram and pull", "one of them", "both or neither", "")),
    };
    let mut codes = Output::zeroed(&[rows, cols])?;
    codes.slice_mut().copy_from_slice(start.slice());
    let (mut largest, mut squares) = (Output::zeroed(&[rows, 2])?, Output::zeroed(&[rows, 2])?);
    let (a, b, levels) = (a.slice(), b.slice(), levels.slice());
    let frozen = frozen.as_ref().map(Input::slice);
    let search = Search { levels, frozen, iterations, active, guard, all, moves, share, seed };
    let (to, most, sums) = (codes.slice_mut(), largest.slice_mut(), squares.slice_mut());
    run(py, on, |m| kernels::min_max(m, a, b, rows, constraints, cols, &search, to, most, sums))?;
    Ok((codes.finish(), largest.finish(), squares.finish()))
}
