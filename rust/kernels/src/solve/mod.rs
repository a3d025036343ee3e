//! Rounding that looks further than the nearest code: half-quadratic zero points; and by second-order statistics, the Gram
//! matrix of the inputs, its inverse factor, and the column loops of GPTQ and SpQR.

mod accumulate_gram;
mod bilevel;
mod coordinate_descent;
mod gptq;
mod half_quadratic;
mod inverse_factor;
#[cfg(test)]
mod tests;

pub use accumulate_gram::accumulate_gram;
pub use bilevel::{Bilevel, Found, bilevel};
pub use coordinate_descent::{Descent, coordinate_descent};
pub use gptq::{Groups, gptq};
pub use half_quadratic::{Proximal, half_quadratic};
pub use inverse_factor::inverse_factor;
