//! subbyte._rust: the kernels for anything that speaks DLPack.
//!
//! A binding takes its arrays, allocates its results, releases the interpreter and calls the kernel of the same name;
//! what the arguments mean is documented in `subbyte.kernels`.

mod array;
mod codebook;
mod errors;
mod gemm;
mod hadamard;
mod machine;
mod memory;
mod minifloat;
mod numbers;
mod pack;
mod quantize;
mod rounded;
mod solve;

use pyo3::prelude::*;

#[pymodule]
mod _rust {
    #[pymodule_export]
    use crate::array::Buffer;
    #[pymodule_export]
    use crate::codebook::{
        e8p_decode, e8p_encode, kmeans, nearest_codeword, product_decode, product_encode, product_scan,
    };
    #[pymodule_export]
    use crate::gemm::{
        block_scaled, block_scaled_pair, codebook_gemm, csr, fp8, fp8_grouped, int4_fp8, lookup, w4a4, w4a8, w8a8,
        wna16, wna16_by_input, wna16_grouped,
    };
    #[pymodule_export]
    use crate::hadamard::{hadamard, hadamard_matrix, hadamard_quantize};
    #[pymodule_export]
    use crate::machine::{Machine, machine, paths};
    #[pymodule_export]
    use crate::minifloat::{decode_minifloat, dequantize_block, encode_minifloat, quantize_block};
    #[pymodule_export]
    use crate::pack::{pack, unpack};
    #[pymodule_export]
    use crate::quantize::{
        dequantize_affine, dequantize_table, fit_affine, norm_quantize, quantize_affine, quantize_symmetric,
        quantize_table, quantize_tokens, search_clip,
    };
    #[pymodule_export]
    use crate::solve::{
        accumulate_gram, bilevel, codebook_descent, coordinate_descent, gptq, gptq_codebook, half_quadratic,
        inverse_factor, ldlq, min_max,
    };
}
