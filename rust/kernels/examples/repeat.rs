//! `repeat KERNEL PATH TIMES`: runs one kernel on a fixed input, on one thread. `benches/instructions.py` counts what it executes.

use std::process::exit;
use subbyte_kernels::codebook::{Metric, nearest_codeword};
use subbyte_kernels::gemm::wna16;
use subbyte_kernels::hadamard::hadamard;
use subbyte_kernels::minifloat::{E4m3fn, Rounding, encode};
use subbyte_kernels::pack::{Order, pack};
use subbyte_kernels::quantize::quantize_affine;
use subbyte_kernels::solve::accumulate_gram;
use subbyte_kernels::{Machine, Path, Result};

/// Numbers between -1 and 1 from a linear congruence.
fn numbers(count: usize) -> Vec<f32> {
    let step = |x: &mut u32| {
        *x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        Some((*x >> 8) as f32 / (1 << 23) as f32 - 1.0)
    };
    std::iter::repeat(()).scan(1, |x, ()| step(x)).take(count).collect()
}

fn run(kernel: &str, m: &Machine, times: usize) -> Result<()> {
    match kernel {
        "pack" => {
            let (codes, mut words) = (vec![5; 64 * 4096], vec![0; 64 * 512]);
            (0..times).try_for_each(|_| pack(m, &codes, 64, 4096, 4, Order::Dense, &mut words))
        }
        "encode_minifloat" => {
            let (x, mut codes) = (numbers(64 * 4096), vec![0; 64 * 4096]);
            (0..times).try_for_each(|_| encode::<E4m3fn>(m, x[..].into(), Rounding::Even, true, &mut codes))
        }
        "quantize_affine" => {
            let (x, scale, zero) = (numbers(64 * 4096), vec![0.1; 64 * 32], vec![8; 64 * 32]);
            let mut codes = vec![0; 64 * 4096];
            (0..times).try_for_each(|_| quantize_affine(m, &x, 64, 4096, 128, 4, &scale, &zero, &mut codes))
        }
        "hadamard" => {
            let mut x = numbers(64 * 4096);
            (0..times).try_for_each(|_| hadamard(m, None, &mut x, 64, 4096, 1.0 / 64.0, false))
        }
        "accumulate_gram" => {
            let (x, mut gram) = (numbers(192 * 256), vec![0.0; 256 * 256]);
            (0..times).try_for_each(|_| accumulate_gram(m, &x, 192, 256, &mut gram))
        }
        "nearest_codeword" => {
            let (x, codebook) = (numbers(256 * 8), numbers(256 * 8));
            let (mut index, mut near) = (vec![0; 256], vec![0.0; 256]);
            (0..times).try_for_each(|_| {
                nearest_codeword(m, &x, &codebook, None, Metric::L2, 256, 256, 8, &mut index, &mut near)
            })
        }
        "wna16" => {
            let (x, words, scale) = (numbers(1024), vec![0x1234_5678; 256 * 128], vec![0.1; 256 * 8]);
            let mut out = vec![0.0; 256];
            (0..times).try_for_each(|_| wna16(m, &x, &words, &scale, None, 1, 256, 1024, 4, 128, &mut out))
        }
        _ => {
            eprintln!("no kernel {kernel}");
            exit(2);
        }
    }
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let parsed = match args.as_slice() {
        [_, kernel, path, times] => Path::from_name(path)
            .and_then(|path| Machine::forced(path, 1))
            .and_then(|m| Some((kernel, m, times.parse().ok()?))),
        _ => None,
    };
    let Some((kernel, m, times)) = parsed else {
        eprintln!("usage: repeat KERNEL PATH TIMES");
        exit(2);
    };
    if let Err(error) = run(kernel, &m, times) {
        eprintln!("{error:?}");
        exit(1);
    }
}
