//! Vector quantization: the nearest codeword of each point, and what is built on that search.

mod bounds;
mod e8p;
mod kmeans;
pub(crate) mod lattice;
mod nearest_codeword;
mod product;
mod product_scan;
pub(crate) mod search;
mod table;
#[cfg(test)]
mod tests;

pub use e8p::{LatticeCode, e8p_decode, e8p_encode};
pub use kmeans::{Options, Start, kmeans};
pub use lattice::Lattice;
pub use nearest_codeword::{Metric, nearest_codeword};
pub use product::{Code, Product, product_decode, product_encode};
pub use product_scan::product_scan;
pub use table::Table;
