//! Codes to packed words, and back.

use pyo3::prelude::*;
use subbyte_kernels::pack as kernels;
use subbyte_kernels::pack::Order;

use crate::array::{Buffer, Input, Output};
use crate::machine::{Machine, run};
use crate::numbers::{bits, named, natural};

const ORDERS: [(&str, Order); 3] = [("dense", Order::Dense), ("awq", Order::Awq), ("planar", Order::Planar)];

#[pyfunction]
#[pyo3(signature = (codes, bits, order = "dense", *, on = None))]
pub fn pack(
    py: Python<'_>,
    codes: &Bound<'_, PyAny>,
    bits: i64,
    order: &str,
    on: Option<&Bound<'_, Machine>>,
) -> PyResult<Buffer> {
    let codes = Input::<u8>::take("codes", codes)?;
    let [rows, cols] = codes.axes(py)?;
    let (bits, order) = (self::bits(py, bits)?, named(py, "order", order, &ORDERS)?);
    let mut words = Output::stale(&[rows, kernels::words_per_row(cols, bits)])?;
    let (from, to) = (codes.slice(), words.slice_mut());
    run(py, on, |m| kernels::pack(m, from, rows, cols, bits, order, to))?;
    Ok(words.finish())
}

#[pyfunction]
#[pyo3(signature = (words, bits, cols, order = "dense", *, on = None))]
pub fn unpack(
    py: Python<'_>,
    words: &Bound<'_, PyAny>,
    bits: i64,
    cols: i64,
    order: &str,
    on: Option<&Bound<'_, Machine>>,
) -> PyResult<Buffer> {
    let words = Input::<i32>::take("words", words)?;
    let [rows, _] = words.axes(py)?;
    let (bits, order) = (self::bits(py, bits)?, named(py, "order", order, &ORDERS)?);
    let cols = natural(py, "cols", cols)?;
    // Before the codes are allocated: `cols` is only a number and may be anything.
    words.expect(py, &[rows, kernels::words_per_row(cols, bits)])?;
    let mut codes = Output::stale(&[rows, cols])?;
    let (from, to) = (words.slice(), codes.slice_mut());
    run(py, on, |m| kernels::unpack(m, from, rows, cols, bits, order, to))?;
    Ok(codes.finish())
}
