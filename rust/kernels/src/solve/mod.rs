//! Rounding that looks further than the nearest code: half-quadratic zero points; and by second-order statistics, the Gram
//! matrix of the inputs, its inverse factor, and the column loops of GPTQ (to codes, and to codewords), LDLQ and SpQR; the search
//! for the smallest largest error.

mod accumulate_gram;
mod bilevel;
mod codebook_descent;
mod coordinate_descent;
mod gptq;
mod gptq_codebook;
mod half_quadratic;
mod inverse_factor;
mod ldlq;
mod min_max;
#[cfg(test)]
mod tests;

pub use accumulate_gram::accumulate_gram;
pub use bilevel::{Bilevel, Found, bilevel};
pub use codebook_descent::codebook_descent;
pub use coordinate_descent::{Descent, coordinate_descent};
pub use gptq::{Groups, gptq};
pub use gptq_codebook::gptq_codebook;
pub use half_quadratic::{Proximal, half_quadratic};
pub use inverse_factor::inverse_factor;
pub use ldlq::{Codewords, Feedback, ldlq};
pub use min_max::{Moves, Search, Summed, min_max};

use crate::{Error, Result};

/// Refuses NaN and infinity in a matrix of `cols` columns.
fn finite(what: &'static str, values: &[f32], cols: usize) -> Result<()> {
    match values.iter().position(|value| !value.is_finite()) {
        None => Ok(()),
        Some(at) => Err(Error::not_finite(what, format!("{} in row {}, column {}", values[at], at / cols, at % cols))),
    }
}

/// Refuses a factor that is not finite or has no positive diagonal.
fn expect_factor(factor: &[f32], cols: usize) -> Result<()> {
    finite("factor", factor, cols)?;
    match (0..cols).find(|&j| factor[j * cols + j] <= 0.0) {
        None => Ok(()),
        Some(j) => {
            Err(Error::range("factor", format!("{} in column {j}", factor[j * cols + j]), "a positive diagonal"))
        }
    }
}
