//! One exception for each kind of failure: the classes of `subbyte.errors`.

use pyo3::prelude::*;
use pyo3::types::PyModule;
use subbyte_kernels::Error;

/// An exception of `subbyte.errors`, by its class name.
pub fn error(py: Python<'_>, class: &str, what: &str, given: impl ToString, expected: &str, hint: &str) -> PyErr {
    let build =
        || PyModule::import(py, "subbyte.errors")?.getattr(class)?.call1((what, given.to_string(), expected, hint));
    build().map_or_else(|failure| failure, PyErr::from_value)
}

/// The exception for an error of a kernel.
pub fn raise(py: Python<'_>, failure: &Error) -> PyErr {
    let class = match failure {
        Error::Shape(_) => "ShapeError",
        Error::Range(_) => "RangeError",
        Error::NotFinite(_) => "NotFiniteError",
        Error::Singular(_) => "SingularError",
    };
    let detail = failure.detail();
    error(py, class, detail.what, &detail.given, &detail.expected, detail.hint)
}
