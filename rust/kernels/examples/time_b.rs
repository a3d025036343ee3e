//! t
#![allow(missing_docs)]
use std::time::Instant;
use subbyte_kernels::quantize::*;
use subbyte_kernels::*;
fn cpu() -> f64 {
    std::fs::read_to_string("/proc/thread-self/schedstat").unwrap().split(' ').next().unwrap().parse::<f64>().unwrap()
        / 1e9
}
fn best(_: usize, mut f: impl FnMut()) -> f64 {
    let (start, c) = (Instant::now(), cpu());
    let (mut b, mut n) = (f64::MAX, 0);
    while start.elapsed().as_secs_f64() < 1.0 || n < 3 {
        let t = Instant::now();
        f();
        b = b.min(t.elapsed().as_secs_f64());
        n += 1;
    }
    b.min((cpu() - c) / n as f64) * 1e3
}
fn noise(count: usize, mut state: u64) -> Vec<f32> {
    (0..count)
        .map(|_| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 40) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect()
}
fn main() {
    let what: Vec<String> = std::env::args().skip(1).collect();
    let has = |w: &str| what.is_empty() || what.iter().any(|x| x == w);
    for threads in [1] {
        let m = Machine::forced(Path::Avx2, threads).unwrap();
        let (n, k) = (4096, 4096);
        if has("w8a8") {
            let x: Vec<i8> = noise(256 * k, 1).iter().map(|v| (v * 127.0) as i8).collect();
            let w: Vec<i8> = noise(n * k, 2).iter().map(|v| (v * 127.0) as i8).collect();
            for rows in [1, 16, 256] {
                let mut out = vec![0.0; rows * n];
                let t =
                    best(7, || gemm::w8a8(&m, &x[..rows * k], &w, &[1.0], &[1.0], None, rows, n, k, &mut out).unwrap());
                println!("w8a8 t{threads} M{rows}: {t:.2} ms, {:.1} GMAC/s", (rows * n * k) as f64 / t / 1e6);
            }
        }
        if has("wna16") {
            let x = noise(256 * k, 1);
            let scale = noise(n * k / 128, 3);
            for bits in [2u32, 3, 4, 8] {
                let words: Vec<i32> = noise(n * k * bits as usize / 32, 2).iter().map(|v| (v * 2e9) as i32).collect();
                for rows in [1, 4, 8, 16, 256] {
                    let mut out = vec![0.0; rows * n];
                    let t = best(5, || {
                        gemm::wna16(&m, &x[..rows * k], &words, &scale, None, rows, n, k, bits, 128, &mut out).unwrap()
                    });
                    println!(
                        "wna16 t{threads} b{bits} M{rows}: {t:.2} ms, {:.1} GMAC/s",
                        (rows * n * k) as f64 / t / 1e6
                    );
                }
            }
        }
        if has("gram") {
            for (t, n) in [(256, 4096), (256, 4000), (2048, 4096), (2048, 4000)] {
                let x = noise(t * n, 1);
                let mut g = vec![0.0; n * n];
                let ms = best(3, || solve::accumulate_gram(&m, &x, t, n, &mut g).unwrap());
                println!("gram t{threads} {t} {n}: {ms:.1} ms, {:.1} GMAC/s", (t * n * n) as f64 / 2. / ms / 1e6);
            }
        }
        if has("gptq") {
            let (c, rows) = (4096, 4096);
            let x = noise(2 * c * c, 1);
            let mut g = vec![0.0; c * c];
            solve::accumulate_gram(&m, &x, 2 * c, c, &mut g).unwrap();
            let mut u = vec![0.0; c * c];
            let ms = best(2, || solve::inverse_factor(&m, &g, c, 1.0, &mut u).unwrap());
            println!("inverse t{threads}: {ms:.1} ms, {:.1} GMAC/s", (c * c * c) as f64 / 3. / ms / 1e6);
            let w = noise(rows * c, 5);
            let (mut codes, mut scale, mut zero, mut loss) =
                (vec![0; rows * c], vec![0.0; rows * c / 128], vec![0; rows * c / 128], vec![0.0; rows]);
            let grid = Grid {
                bits: 4,
                symmetric: true,
                narrow: false,
                forced_zero: true,
                eps: 0.0,
                scale_dtype: ScaleType::F32,
                shrink: None,
            };
            for (name, fresh) in [("stale", false), ("fresh", true)] {
                let mut ww = w.clone();
                let ms = best(2, || {
                    ww.copy_from_slice(&w);
                    solve::gptq(
                        &m,
                        &mut ww,
                        &u,
                        rows,
                        c,
                        solve::Groups::Dynamic { size: 128, fresh },
                        &grid,
                        128,
                        &mut codes,
                        &mut scale,
                        &mut zero,
                        &mut loss,
                    )
                    .unwrap()
                });
                println!(
                    "gptq {name} t{threads}: {ms:.1} ms, {:.1} GMAC/s loss {}",
                    (rows * c * c) as f64 / 2. / ms / 1e6,
                    loss.iter().sum::<f32>()
                );
            }
        }
    }
}
