//! Second-order rounding: the Gram matrix of the inputs, its inverse factor, and GPTQ's column loop.

mod accumulate_gram;
mod gptq;
mod inverse_factor;
#[cfg(test)]
mod tests;

pub use accumulate_gram::accumulate_gram;
pub use gptq::{Groups, gptq};
pub use inverse_factor::inverse_factor;
