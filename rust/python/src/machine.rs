//! The machine that kernels run on: read once from the environment, or forced for one call.

use std::sync::OnceLock;
use std::{env, process};

use pyo3::prelude::*;
use subbyte_kernels as kernels;
use subbyte_kernels::{Path, Result};

use crate::errors::{error, raise};

/// A path and a number of threads, checked against this processor.
#[pyclass(frozen, eq, module = "subbyte._rust")]
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Machine(kernels::Machine);

#[pymethods]
impl Machine {
    #[new]
    fn new(py: Python<'_>, path: &str, threads: i64) -> PyResult<Self> {
        checked(py, ["path", "threads"], path, threads)
    }

    /// The level of instructions.
    #[getter]
    fn path(&self) -> &'static str {
        self.0.path().name()
    }

    /// The number of threads.
    #[getter]
    fn threads(&self) -> usize {
        self.0.threads()
    }

    fn __repr__(&self) -> String {
        format!("Machine(path={:?}, threads={})", self.path(), self.threads())
    }
}

/// The machine of that path and so many threads; errors call the two `names`.
fn checked(py: Python<'_>, names: [&str; 2], path: &str, threads: i64) -> PyResult<Machine> {
    let available = paths().join(", ");
    let Some(level) = Path::from_name(path) else {
        let expected = format!("one of {}", Path::ALL.map(Path::name).join(", "));
        return Err(error(py, "UnknownNameError", names[0], format!("{path:?}"), &expected, ""));
    };
    let Some(count) = usize::try_from(threads).ok().filter(|&count| count > 0) else {
        return Err(error(py, "RangeError", names[1], threads, "at least 1", ""));
    };
    kernels::Machine::forced(level, count).map(Machine).ok_or_else(|| {
        let hint = "this processor lacks its instructions";
        error(py, "DeviceError", names[0], format!("{path:?}"), &format!("one of {available}"), hint)
    })
}

/// The machine of `SUBBYTE_SIMD` and `SUBBYTE_THREADS`; both are read at the first call, and an error is not kept.
fn default(py: Python<'_>) -> PyResult<Machine> {
    static DEFAULT: OnceLock<Machine> = OnceLock::new();
    if let Some(machine) = DEFAULT.get() {
        return Ok(*machine);
    }
    let names = ["SUBBYTE_SIMD", "SUBBYTE_THREADS"];
    let [path, threads] = names.map(|name| env::var(name).ok().filter(|text| !text.is_empty()));
    let detected = kernels::Machine::detect();
    let threads = match threads {
        None => i64::try_from(detected.threads()).unwrap_or(i64::MAX),
        Some(text) => text
            .trim()
            .parse()
            .map_err(|_| error(py, "RangeError", names[1], format!("{text:?}"), "a whole number, at least 1", ""))?,
    };
    let machine = checked(py, names, path.as_deref().unwrap_or(detected.path().name()), threads)?;
    Ok(*DEFAULT.get_or_init(|| machine))
}

/// The machine that kernels use when none is forced.
#[pyfunction]
pub fn machine(py: Python<'_>) -> PyResult<Machine> {
    default(py)
}

/// The paths of this processor, lowest first.
#[pyfunction]
pub fn paths() -> Vec<&'static str> {
    Path::ALL.into_iter().filter(|path| path.available()).map(Path::name).collect()
}

/// Runs a kernel with the interpreter released; nothing of Python may go into `kernel`, only plain slices.
pub fn run<T: Send>(
    py: Python<'_>,
    on: Option<&Bound<'_, Machine>>,
    kernel: impl FnOnce(&kernels::Machine) -> Result<T> + Send,
) -> PyResult<T> {
    // Worker threads do not survive a fork, and waiting for them would hang: a child of the process that started them
    // computes on its calling thread alone.
    static HOME: OnceLock<u32> = OnceLock::new();
    let machine = on.map_or_else(|| default(py), |forced| Ok(*forced.get()))?.0;
    let threads = if *HOME.get_or_init(process::id) == process::id() { machine.threads() } else { 1 };
    let machine = kernels::Machine::forced(machine.path(), threads).unwrap_or(machine);
    py.detach(|| kernel(&machine)).map_err(|failure| raise(py, &failure))
}
