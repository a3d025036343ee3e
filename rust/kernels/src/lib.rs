//! Low-bit quantization kernels: slices in, slices out; no Python, no files, no environment.
//!
//! Every kernel takes a [`Machine`] that says which instructions to use and how many threads; its portable body stands
//! first in its file and is the specification of the others.

pub mod codebook;
mod error;
pub mod gemm;
pub mod hadamard;
mod machine;
pub mod minifloat;
pub mod pack;
mod parts;
pub mod quantize;
mod random;
mod simd;
pub mod solve;
mod tasks;

pub use error::{Error, Result};
pub use machine::{Machine, Path};
