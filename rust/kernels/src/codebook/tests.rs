use super::*;
use crate::{Error, Machine, Path};

fn machines() -> Vec<Machine> {
    Path::ALL.iter().flat_map(|&path| [1, 3].map(|threads| Machine::forced(path, threads))).flatten().collect()
}

fn floats(count: usize, mut state: u64) -> Vec<f32> {
    (0..count)
        .map(|_| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 40) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect()
}

#[test]
fn the_nearest_is_within_its_bound_and_the_same_on_every_path() {
    for (points, count, dim) in
        [(1, 1, 1), (7, 5, 3), (13, 17, 8), (200, 300, 2), (65, 1000, 5), (9, 40, 33), (3, 2, 0)]
    {
        let (x, c) = (floats(points * dim, 1), floats(count * dim, 2));
        let w: Vec<f32> = floats(points * dim, 3).into_iter().map(f32::abs).collect();
        for weights in [None, Some(&w[..])] {
            for metric in [Metric::L2, Metric::Inner] {
                let mut first = None;
                for m in machines() {
                    let (mut index, mut near) = (vec![-1; points], vec![f32::NAN; points]);
                    nearest_codeword(&m, &x, &c, weights, metric, points, count, dim, &mut index, &mut near).unwrap();
                    let exact = |p: usize, k: usize| -> f64 {
                        (0..dim)
                            .map(|j| {
                                let (x, c) = (f64::from(x[p * dim + j]), f64::from(c[k * dim + j]));
                                let w = weights.map_or(1.0, |w| f64::from(w[p * dim + j]));
                                w * if metric == Metric::L2 { (x - c) * (x - c) } else { -x * c }
                            })
                            .sum()
                    };
                    for (p, &k) in index.iter().enumerate() {
                        let best = (0..count).map(|k| exact(p, k)).fold(f64::INFINITY, f64::min);
                        let bound = (2 * dim + 2) as f64 * 4.0 * dim as f64 * 4.0 * 2f64.powi(-24);
                        assert!(exact(p, k as usize) <= best + bound);
                    }
                    let got = (index, near);
                    assert_eq!(*first.get_or_insert(got.clone()), got);
                }
            }
        }
    }
}

#[test]
fn the_first_of_equal_codewords_is_taken() {
    for count in [1, 9, 16, 17, 100, 3000] {
        for m in machines() {
            let x = floats(20 * 4, 5);
            let c: Vec<f32> = floats(4, 6).repeat(count);
            let (mut index, mut near) = (vec![-1; 20], vec![0.0; 20]);
            nearest_codeword(&m, &x, &c, None, Metric::L2, 20, count, 4, &mut index, &mut near).unwrap();
            assert_eq!(index, [0; 20]);
        }
    }
}

#[test]
fn nearest_codeword_refuses() {
    let (m, mut index, mut near) = (Machine::detect(), [7], [7.0]);
    let mut call = |x: &[f32], c: &[f32], w: Option<&[f32]>| {
        nearest_codeword(&m, x, c, w, Metric::L2, 1, c.len(), 1, &mut index, &mut near)
    };
    assert!(matches!(call(&[1.0], &[], None), Err(Error::Range(_))));
    assert!(matches!(call(&[1.0, 2.0], &[1.0], None), Err(Error::Shape(_))));
    assert!(matches!(call(&[f32::NAN], &[1.0], None), Err(Error::NotFinite(_))));
    assert!(matches!(call(&[1.0], &[f32::INFINITY], None), Err(Error::NotFinite(_))));
    assert!(matches!(call(&[1.0], &[1.0], Some(&[-1.0])), Err(Error::Range(_))));
    assert!(matches!(call(&[1e30], &[1.0], None), Err(Error::Range(_))));
    assert_eq!((index, near), ([7], [7.0]));
}

fn clustered(
    m: &Machine,
    x: &[f32],
    weights: Option<&[f32]>,
    dim: usize,
    k: usize,
    start: Start<'_>,
) -> (Vec<f32>, Vec<i32>, Vec<f32>) {
    let points = x.len() / dim;
    let (mut centroids, mut index, mut inertia) = (vec![f32::NAN; k * dim], vec![-1; points], vec![f32::NAN; 31]);
    let options = Options { start, seed: 7, tolerance: 0.0 };
    kmeans(m, x, weights, points, dim, k, options, &mut centroids, &mut index, &mut inertia).unwrap();
    (centroids, index, inertia)
}

#[test]
fn kmeans_is_the_same_for_any_threads_and_never_gets_worse() {
    let x = floats(240 * 3, 8);
    let w: Vec<f32> = floats(240 * 3, 9).into_iter().map(f32::abs).collect();
    for weights in [None, Some(&w[..240]), Some(&w)] {
        for start in [Start::Random, Start::PlusPlus, Start::Given(&x[..3 * 40])] {
            let mut first = None;
            for m in machines() {
                let got = clustered(&m, &x, weights, 3, 40, start);
                assert!(got.2.windows(2).all(|pair| pair[1] <= pair[0] * (1.0 + 1e-6)), "{:?}", got.2);
                assert_eq!(*first.get_or_insert(got.clone()), got);
            }
        }
    }
}

#[test]
fn kmeans_fills_what_is_empty() {
    let x: Vec<f32> = (0..40).map(|i| i as f32).collect();
    for m in machines() {
        let (_, index, inertia) = clustered(&m, &x, None, 1, 40, Start::Given(&[3.0; 40]));
        assert_eq!(inertia[30], 0.0);
        let mut seen: Vec<_> = index;
        seen.sort_unstable();
        assert_eq!(seen, (0..40).collect::<Vec<_>>());
        // fewer different points than centroids: the rest stay where they are
        let (_, _, inertia) = clustered(&m, &[1.0, 1.0, 2.0, 2.0], None, 1, 4, Start::PlusPlus);
        assert_eq!(inertia, [0.0; 31]);
    }
}

#[test]
fn e8p_codes_are_what_they_decode_to() {
    for m in machines() {
        // the portable search is slow
        let step = if m.path() == Path::Scalar { 97 } else { 1 };
        let every: Vec<u16> = (0..=u16::MAX).step_by(step).collect();
        let (mut values, mut codes) = (vec![0.0; every.len() * 8], vec![0; every.len()]);
        e8p_decode(&m, Lattice::Two, &every, &mut values).unwrap();
        e8p_encode(&m, Lattice::Two, &values, &mut codes).unwrap();
        assert_eq!(codes, every);
    }
}

#[test]
fn product_codes_are_the_nearest_of_each_part() {
    let (rows, parts, count, dim) = (401, 3, 20, 5);
    let (x, books) = (floats(rows * parts * dim, 1), floats(parts * count * dim, 2));
    let product = Product { parts, count, dim };
    for m in machines() {
        let (mut codes, mut back) = (vec![0u8; rows * parts], vec![0.0; x.len()]);
        product_encode(&m, &x, &books, rows, product, &mut codes).unwrap();
        product_decode(&m, &codes, &books, rows, product, &mut back).unwrap();
        for part in 0..parts {
            let mine: Vec<f32> = x.chunks(parts * dim).flat_map(|row| &row[part * dim..][..dim]).copied().collect();
            let book = &books[part * count * dim..][..count * dim];
            let (mut index, mut near) = (vec![0; rows], vec![0.0; rows]);
            nearest_codeword(&m, &mine, book, None, Metric::L2, rows, count, dim, &mut index, &mut near).unwrap();
            assert!(codes.chunks(parts).zip(&index).all(|(codes, &k)| i32::from(codes[part]) == k));
            let decoded = back.chunks(parts * dim).flat_map(|row| row[part * dim..][..dim].chunks(dim));
            assert!(decoded.zip(&index).all(|(got, &k)| *got == book[k as usize * dim..][..dim]));
        }
        let wrong = product_decode(&m, &[0u8, 20, 0], &books, 1, product, &mut back[..15]);
        assert!(matches!(wrong, Err(Error::Range(_))));
    }
}

#[test]
fn product_scans_are_within_their_bound_and_the_same_on_every_path() {
    // rows around a block, an odd part, more than one piece, an odd query; tables that would overflow 16 bits of 255 each
    for (queries, rows, parts) in [
        (0, 5, 3),
        (2, 0, 3),
        (1, 1, 1),
        (3, 31, 2),
        (1, 33, 5),
        (2, 64, 16),
        (5, 70, 9),
        (3, 40_000, 32),
        (1, 33, 999),
    ] {
        let mut tables = floats(queries * parts * 16, 11);
        // of one value: nothing is left to be told apart
        tables.iter_mut().take(16).for_each(|value| *value = 0.25);
        let codes: Vec<u8> = floats(rows * parts, 12).into_iter().map(|x| (8.0 * x + 8.0) as u8).collect();
        let mut blocks = vec![0; rows.div_ceil(32) * parts * 16];
        for (at, &code) in codes.iter().enumerate() {
            let (row, part) = (at / parts, at % parts);
            blocks[(row / 32 * parts + part) * 16 + row % 16] |= code << (row / 16 % 2 * 4);
        }
        let mut first = None;
        for m in machines() {
            let (mut sums, mut bound) = (vec![f32::NAN; queries * rows], vec![f32::NAN; queries]);
            product_scan(&m, &tables, &blocks, queries, rows, parts, &mut sums, &mut bound).unwrap();
            for (at, &sum) in sums.iter().enumerate() {
                let (query, row) = (at / rows, at % rows);
                let value = |part: usize| {
                    f64::from(tables[(query * parts + part) * 16 + usize::from(codes[row * parts + part])])
                };
                let exact: f64 = (0..parts).map(value).sum();
                let rounding = 2f64.powi(-22) * parts as f64;
                assert!((f64::from(sum) - exact).abs() <= f64::from(bound[query]) * (1.0 + 1e-6) + rounding, "{at}");
            }
            let got = (sums, bound);
            assert_eq!(*first.get_or_insert(got.clone()), got);
        }
    }
}

#[test]
fn product_scan_refuses() {
    let m = Machine::detect();
    let run = |tables: &[f32], blocks: usize, rows: usize| {
        let parts = tables.len() / 16;
        product_scan(&m, tables, &vec![0; blocks * 16], 1, rows, parts, &mut vec![0.0; rows], &mut [0.0])
    };
    assert!(run(&[1.0; 32], 4, 33).is_ok());
    assert!(matches!(run(&[1.0; 32], 3, 33), Err(Error::Shape(_))));
    assert!(matches!(run(&[1.0; 33], 4, 33), Err(Error::Shape(_))));
    assert!(matches!(run(&[f32::NAN; 16], 1, 2), Err(Error::NotFinite(_))));
    assert!(matches!(run(&vec![0.0; 16 * 65_536], 65_536, 2), Err(Error::Range(_))));
}

#[test]
fn what_bounds_leave_out_is_never_the_nearest() {
    for (points, count, dim, scale) in
        [(2000, 300, 2, 1.0), (1500, 700, 3, 40.0), (3000, 1000, 4, 1e-3), (900, 260, 1, 1.0)]
    {
        // off the origin, where roundings of scores are large, and with every codeword twice
        let shifted = |values: Vec<f32>| -> Vec<f32> { values.iter().map(|v| scale * (v + 3.0)).collect() };
        let (x, half) = (shifted(floats(points * dim, 21)), shifted(floats(count / 2 * dim, 22)));
        let c = [half.clone(), half].concat();
        let mut first = None;
        for m in machines() {
            let mut index: Vec<i32> = (0..points).map(|p| (p * 37 % count) as i32).collect();
            // far codewords leave nothing out; from near ones on it is worth it
            let (mut all, mut near) = (vec![-1; points], vec![0.0; points]);
            nearest_codeword(&m, &x, &c, None, Metric::L2, points, count, dim, &mut all, &mut near).unwrap();
            assert!(!bounds::improve(&m, &x, &c, dim, &mut index));
            index
                .iter_mut()
                .zip(&all)
                .enumerate()
                .filter(|(p, _)| p % 50 > 0)
                .for_each(|(_, (k, nearest))| *k = *nearest);
            assert!(bounds::improve(&m, &x, &c, dim, &mut index));
            for (p, (k, exact)) in index.iter().zip(&all).enumerate() {
                let apart = |k: i32| -> f64 {
                    let word = &c[k as usize * dim..][..dim];
                    x[p * dim..][..dim].iter().zip(word).map(|(x, c)| (f64::from(*x) - f64::from(*c)).powi(2)).sum()
                };
                let sizes = f64::from(8.0 * scale) * (dim as f64).sqrt();
                assert!(apart(*k) <= apart(*exact) + 4.0 * (dim + 2) as f64 * 2f64.powi(-24) * sizes * sizes);
                assert!((*k as usize) < count / 2, "the first of equals");
            }
            assert_eq!(*first.get_or_insert(index.clone()), index);
        }
    }
}
