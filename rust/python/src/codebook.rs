//! Vector quantization.

use dlpark::DlpackElement;
use pyo3::prelude::*;
use subbyte_kernels::codebook::{self as kernels, Code, Lattice, LatticeCode, Metric, Options, Product, Start};

use crate::array::{Buffer, Input, Output};
use crate::errors::{error, raise};
use crate::machine::{Machine, run};
use crate::numbers::{named, natural};

#[pyfunction]
#[pyo3(signature = (x, codebook, weights = None, metric = "l2", *, on = None))]
pub fn nearest_codeword(
    py: Python<'_>,
    x: &Bound<'_, PyAny>,
    codebook: &Bound<'_, PyAny>,
    weights: Option<&Bound<'_, PyAny>>,
    metric: &str,
    on: Option<&Bound<'_, Machine>>,
) -> PyResult<(Buffer, Buffer)> {
    let metric = named(py, "metric", metric, &[("l2", Metric::L2), ("inner", Metric::Inner)])?;
    let (x, codebook) = (Input::<f32>::take("x", x)?, Input::take("codebook", codebook)?);
    let weights = weights.map(|weights| Input::take("weights", weights)).transpose()?;
    let ([points, dim], [count, _]) = (x.axes(py)?, codebook.axes(py)?);
    codebook.expect(py, &[count, dim])?;
    if let Some(weights) = &weights {
        weights.expect(py, &[points, dim])?;
    }
    let (mut index, mut near) = (Output::zeroed(&[points])?, Output::zeroed(&[points])?);
    let (x, codebook, weights) = (x.slice(), codebook.slice(), weights.as_ref().map(Input::slice));
    let (to, sizes) = (index.slice_mut(), near.slice_mut());
    run(py, on, |m| kernels::nearest_codeword(m, x, codebook, weights, metric, points, count, dim, to, sizes))?;
    Ok((index.finish(), near.finish()))
}

#[pyfunction]
#[pyo3(signature = (
    x, k, weights = None, start = None, init = "plusplus", seed = 0, iterations = 25, tolerance = 0.0, *, on = None
))]
#[expect(clippy::too_many_arguments, reason = "the options of k-means, flat as Python spells them")]
pub fn kmeans(
    py: Python<'_>,
    x: &Bound<'_, PyAny>,
    k: i64,
    weights: Option<&Bound<'_, PyAny>>,
    start: Option<&Bound<'_, PyAny>>,
    init: &str,
    seed: i64,
    iterations: i64,
    tolerance: f64,
    on: Option<&Bound<'_, Machine>>,
) -> PyResult<(Buffer, Buffer, Buffer)> {
    let drawn = named(py, "init", init, &[("plusplus", Start::PlusPlus), ("random", Start::Random)])?;
    let (seed, iterations) = (natural(py, "seed", seed)?, natural::<usize>(py, "iterations", iterations)?);
    let x = Input::<f32>::take("x", x)?;
    let [points, dim] = x.axes(py)?;
    let k = match usize::try_from(k) {
        Ok(k) if k > 0 && k <= points => k,
        _ => return Err(error(py, "RangeError", "k", k, &format!("1 to {points} points"), "")),
    };
    let weights = weights.map(|weights| Input::take("weights", weights)).transpose()?;
    if let Some(weights) = &weights {
        let shape = if weights.shape().len() == 1 { &[points][..] } else { &[points, dim] };
        weights.expect(py, shape)?;
    }
    let start = start.map(|start| Input::take("start", start)).transpose()?;
    if let Some(start) = &start {
        start.expect(py, &[k, dim])?;
    }
    let history = iterations.checked_add(1).unwrap_or(iterations);
    let (mut centroids, mut index) = (Output::zeroed(&[k, dim])?, Output::zeroed(&[points])?);
    let mut inertia = Output::zeroed(&[history])?;
    let start = start.as_ref().map_or(drawn, |start| Start::Given(start.slice()));
    let (x, weights, options) = (x.slice(), weights.as_ref().map(Input::slice), Options { start, seed, tolerance });
    let (to, indices, sums) = (centroids.slice_mut(), index.slice_mut(), inertia.slice_mut());
    run(py, on, |m| kernels::kmeans(m, x, weights, points, dim, k, options, to, indices, sums))?;
    Ok((centroids.finish(), index.finish(), inertia.finish()))
}

#[pyfunction]
#[pyo3(signature = (x, bits = 2, *, on = None))]
pub fn e8p_encode(
    py: Python<'_>,
    x: &Bound<'_, PyAny>,
    bits: i64,
    on: Option<&Bound<'_, Machine>>,
) -> PyResult<Buffer> {
    let (x, lattice) = (Input::take("x", x)?, lattice(py, bits)?);
    if lattice == Lattice::Two { encoded::<u16>(py, &x, lattice, on) } else { encoded::<i32>(py, &x, lattice, on) }
}

fn encoded<C: LatticeCode + DlpackElement>(
    py: Python<'_>,
    x: &Input<f32>,
    lattice: Lattice,
    on: Option<&Bound<'_, Machine>>,
) -> PyResult<Buffer> {
    let [rows, cols] = x.axes(py)?;
    if !cols.is_multiple_of(8) {
        return Err(error(py, "ShapeError", "x", format!("{cols} columns"), "a multiple of 8", "pad it with zeros"));
    }
    let mut codes = Output::<C>::stale(&[rows, cols / 8])?;
    let (from, to) = (x.slice(), codes.slice_mut());
    run(py, on, |m| kernels::e8p_encode(m, lattice, from, to))?;
    Ok(codes.finish())
}

#[pyfunction]
#[pyo3(signature = (codes, bits = 2, *, on = None))]
pub fn e8p_decode(
    py: Python<'_>,
    codes: &Bound<'_, PyAny>,
    bits: i64,
    on: Option<&Bound<'_, Machine>>,
) -> PyResult<Buffer> {
    let lattice = lattice(py, bits)?;
    if lattice == Lattice::Two { points::<u16>(py, codes, lattice, on) } else { points::<i32>(py, codes, lattice, on) }
}

fn points<C: LatticeCode + DlpackElement>(
    py: Python<'_>,
    codes: &Bound<'_, PyAny>,
    lattice: Lattice,
    on: Option<&Bound<'_, Machine>>,
) -> PyResult<Buffer> {
    let codes = Input::<C>::take("codes", codes)?;
    let [rows, cols] = codes.axes(py)?;
    let mut x = Output::stale(&[rows, cols.saturating_mul(8)])?;
    let (from, to) = (codes.slice(), x.slice_mut());
    run(py, on, |m| kernels::e8p_decode(m, lattice, from, to))?;
    Ok(x.finish())
}

/// The lattice codebook of so many bits.
pub fn lattice(py: Python<'_>, bits: i64) -> PyResult<Lattice> {
    Lattice::of(u32::try_from(bits).unwrap_or(0)).map_err(|failure| raise(py, &failure))
}

#[pyfunction]
#[pyo3(signature = (x, codebooks, *, on = None))]
pub fn product_encode(
    py: Python<'_>,
    x: &Bound<'_, PyAny>,
    codebooks: &Bound<'_, PyAny>,
    on: Option<&Bound<'_, Machine>>,
) -> PyResult<Buffer> {
    let (x, codebooks) = (Input::take("x", x)?, Input::take("codebooks", codebooks)?);
    let ([rows, _], [parts, count, dim]) = (x.axes(py)?, codebooks.axes(py)?);
    x.expect(py, &[rows, parts.saturating_mul(dim)])?;
    let (product, from, books) = (Product { parts, count, dim }, x.slice(), codebooks.slice());
    if count <= 256 {
        let mut codes = Output::<u8>::stale(&[rows, parts])?;
        let to = codes.slice_mut();
        run(py, on, |m| kernels::product_encode(m, from, books, rows, product, to))?;
        return Ok(codes.finish());
    }
    let mut codes = Output::<u16>::stale(&[rows, parts])?;
    let to = codes.slice_mut();
    run(py, on, |m| kernels::product_encode(m, from, books, rows, product, to))?;
    Ok(codes.finish())
}

#[pyfunction]
#[pyo3(signature = (codes, codebooks, *, on = None))]
pub fn product_decode(
    py: Python<'_>,
    codes: &Bound<'_, PyAny>,
    codebooks: &Bound<'_, PyAny>,
    on: Option<&Bound<'_, Machine>>,
) -> PyResult<Buffer> {
    let codebooks = Input::take("codebooks", codebooks)?;
    let [parts, count, dim] = codebooks.axes(py)?;
    if count <= 256 {
        decoded::<u8>(py, codes, codebooks.slice(), Product { parts, count, dim }, on)
    } else {
        decoded::<u16>(py, codes, codebooks.slice(), Product { parts, count, dim }, on)
    }
}

fn decoded<C: Code + DlpackElement>(
    py: Python<'_>,
    codes: &Bound<'_, PyAny>,
    codebooks: &[f32],
    product: Product,
    on: Option<&Bound<'_, Machine>>,
) -> PyResult<Buffer> {
    let codes = Input::<C>::take("codes", codes)?;
    let [rows, parts] = codes.axes(py)?;
    codes.expect(py, &[rows, product.parts])?;
    let mut x = Output::stale(&[rows, parts.saturating_mul(product.dim)])?;
    let (from, to) = (codes.slice(), x.slice_mut());
    run(py, on, |m| kernels::product_decode(m, from, codebooks, rows, product, to))?;
    Ok(x.finish())
}

#[pyfunction]
#[pyo3(signature = (tables, blocks, rows, *, on = None))]
pub fn product_scan(
    py: Python<'_>,
    tables: &Bound<'_, PyAny>,
    blocks: &Bound<'_, PyAny>,
    rows: i64,
    on: Option<&Bound<'_, Machine>>,
) -> PyResult<(Buffer, Buffer)> {
    let (tables, blocks) = (Input::take("tables", tables)?, Input::take("blocks", blocks)?);
    let ([queries, parts, _], rows) = (tables.axes(py)?, natural::<usize>(py, "rows", rows)?);
    tables.expect(py, &[queries, parts, 16])?;
    // Before the sums are allocated: `rows` is only a number and may be anything.
    blocks.expect(py, &[rows.div_ceil(32), parts, 16])?;
    let (mut sums, mut bound) = (Output::stale(&[queries, rows])?, Output::stale(&[queries])?);
    let (from, codes, to, bounds) = (tables.slice(), blocks.slice(), sums.slice_mut(), bound.slice_mut());
    run(py, on, |m| kernels::product_scan(m, from, codes, queries, rows, parts, to, bounds))?;
    Ok((sums.finish(), bound.finish()))
}
