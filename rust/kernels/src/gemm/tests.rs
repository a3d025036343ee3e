use super::*;
use crate::minifloat::{E4m3fn, E5m2, Narrow};
use crate::pack::{Order, pack};
use crate::quantize::Zeros;
use crate::{Error, Machine, Path};

fn machines() -> Vec<Machine> {
    // An emulated path is slow: once is enough.
    let threads = |path: Path| if path > Path::Avx2 { &[3][..] } else { &[1, 3] };
    let each = |path| threads(path).iter().filter_map(move |&threads| Machine::forced(path, threads));
    Path::ALL.into_iter().flat_map(each).collect()
}

fn bytes(count: usize, mut state: u64) -> Vec<u8> {
    (0..count)
        .map(|_| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 56) as u8
        })
        .collect()
}

#[test]
fn w8a8_is_exact() {
    let shapes =
        [(0, 3, 5), (3, 0, 5), (3, 5, 0), (1, 1, 1), (1, 3, 15), (2, 2, 16), (7, 5, 17), (13, 67, 63), (97, 65, 130)];
    for (rows, cols, depth) in shapes.into_iter().chain([(8, 9, 2047), (8, 9, 2049), (1, 4, 4111)]) {
        let x: Vec<i8> = bytes(rows * depth, 1).into_iter().map(|b| b as i8).collect();
        let w: Vec<i8> = bytes(cols * depth, 2).into_iter().map(|b| b as i8).collect();
        for m in machines() {
            let mut out = vec![f32::NAN; rows * cols];
            w8a8(&m, &x, &w, &[1.0], &[1.0], None, rows, cols, depth, &mut out).unwrap();
            for t in 0..rows {
                for n in 0..cols {
                    let sum: i64 = (0..depth).map(|k| i64::from(x[t * depth + k]) * i64::from(w[n * depth + k])).sum();
                    assert_eq!(out[t * cols + n], sum as f32, "{rows} {cols} {depth} {t} {n} {:?}", m.path());
                }
            }
        }
    }
}

#[test]
fn w8a8_at_the_ends_of_its_range() {
    for (x, w) in [(-128, -128), (-128, 127), (127, -128), (127, 127), (0, -128)] {
        for depth in [1, 64, 131_071] {
            for m in machines() {
                let mut out = [f32::NAN; 6];
                let (rows, weight) = (vec![x; 2 * depth], vec![w; 3 * depth]);
                w8a8(&m, &rows, &weight, &[1.0], &[1.0], None, 2, 3, depth, &mut out).unwrap();
                let sum = i64::from(x) * i64::from(w) * depth as i64;
                assert_eq!(out, [sum as f32; 6], "{x} {w} {depth} {:?}", m.path());
            }
        }
    }
}

#[test]
fn w8a8_scales_and_adds() {
    for m in machines() {
        let (x, w) = ([1, 2, -3, 4], [5, -6, 7, 8, 9, 10]);
        let mut out = [0.0; 6];
        w8a8(&m, &x, &w, &[0.5, 2.0], &[1.0, 0.1, 3.0], Some(&[1.0, 2.0, 3.0]), 2, 3, 2, &mut out).unwrap();
        assert_eq!(out, [-2.5, 23.0 * 0.5 * 0.1 + 2.0, 46.5, -77.0, 11.0 * 2.0 * 0.1 + 2.0, 81.0]);
    }
}

#[test]
fn w8a8_refuses() {
    let m = Machine::detect();
    let mut out = [7.0; 1];
    let long = vec![0; 131_072];
    assert!(matches!(w8a8(&m, &long, &long, &[1.0], &[1.0], None, 1, 1, 131_072, &mut out), Err(Error::Range(_))));
    assert!(matches!(w8a8(&m, &[1], &[1, 2], &[1.0], &[1.0], None, 1, 1, 1, &mut out), Err(Error::Shape(_))));
    assert!(matches!(w8a8(&m, &[1], &[1], &[1.0, 2.0], &[1.0], None, 1, 1, 1, &mut out), Err(Error::Shape(_))));
    assert!(matches!(w8a8(&m, &[1], &[1], &[1.0], &[1.0], Some(&[]), 1, 1, 1, &mut out), Err(Error::Shape(_))));
    assert!(matches!(w8a8(&m, &[], &[], &[1.0], &[1.0], None, usize::MAX, 2, 2, &mut out), Err(Error::Shape(_))));
    assert_eq!(out, [7.0]);
}

#[test]
fn w4a8_is_exact() {
    for (rows, cols, depth, group) in [
        (0, 3, 8, 8),
        (1, 1, 1, 1),
        (7, 65, 64, 32),
        (13, 3, 640, 320),
        (6, 2, 333, 333),
        (17, 18, 75, 75),
        (49, 67, 160, 10),
    ] {
        let x: Vec<i8> = bytes(rows * depth, 1).into_iter().map(|b| b as i8).collect();
        let codes: Vec<u8> = bytes(cols * depth, 2).into_iter().map(|b| b & 15).collect();
        let mut words = vec![0; cols * depth.div_ceil(8)];
        pack(&machines()[0], &codes, cols, depth, 4, Order::Dense, &mut words).unwrap();
        let [level, zero] =
            [3, 4].map(|seed| bytes(cols * depth / group, seed).into_iter().map(|b| b % 9).collect::<Vec<_>>());
        let codes_of = Codes { words: &words, factor: Factor::Level(&level), zero: Some(&zero), group };
        for m in machines() {
            let mut out = vec![f32::NAN; rows * cols];
            w4a8(&m, &x, codes_of, &[1.0], &[1.0], None, rows, cols, depth, &mut out).unwrap();
            for (at, out) in out.iter().enumerate() {
                let (t, n) = (at / cols, at % cols);
                let weight = |k: usize| {
                    let g = n * (depth / group) + k / group;
                    i64::from(level[g]) * (i64::from(codes[n * depth + k]) - i64::from(zero[g]))
                };
                let sum: i64 = (0..depth).map(|k| i64::from(x[t * depth + k]) * weight(k)).sum();
                assert_eq!(*out, sum as f32, "{rows} {cols} {depth} {group} {t} {n} {:?}", m.path());
            }
        }
    }
}

#[test]
fn w4a8_multiplies_groups_by_floats() {
    // more than one panel and, on AMX, blocks of all four shapes
    for (rows, cols, depth, group) in [(5, 3, 96, 32), (16, 5, 70, 70), (113, 70, 128, 64)] {
        let x: Vec<i8> = bytes(rows * depth, 1).into_iter().map(|b| b as i8).collect();
        let Weights { codes, words, scale, .. } = weights(cols, depth, 4, group);
        let zero: Vec<u8> = bytes(scale.len(), 5).into_iter().map(|zero| zero % 20).collect();
        for zero in [None, Some(&zero[..])] {
            let weight = Codes { words: &words, factor: Factor::Scale(&scale), zero, group };
            for m in machines() {
                let mut out = vec![f32::NAN; rows * cols];
                w4a8(&m, &x, weight, &[1.0], &[1.0], None, rows, cols, depth, &mut out).unwrap();
                for (at, out) in out.iter().enumerate() {
                    let (t, n) = (at / cols, at % cols);
                    let products = (0..depth).map(|k| {
                        let g = n * (depth / group) + k / group;
                        let code = i32::from(codes[n * depth + k]) - zero.map_or(8, |zero| i32::from(zero[g]));
                        f64::from(scale[g]) * f64::from(code) * f64::from(x[t * depth + k])
                    });
                    let (sum, size) = products.fold((0.0, 0.0), |(sum, size), p| (sum + p, size + p.abs()));
                    let bound = depth as f64 * f64::from(f32::EPSILON) * size;
                    assert!((f64::from(*out) - sum).abs() <= bound, "{rows} {cols} {depth} {group} {t} {n} {m:?}");
                }
            }
        }
    }
}

struct Weights {
    codes: Vec<u8>,
    words: Vec<i32>,
    scale: Vec<f32>,
    zero: Vec<u8>,
}

fn weights(cols: usize, depth: usize, bits: u32, group: usize) -> Weights {
    let codes: Vec<u8> = bytes(cols * depth, 3).into_iter().map(|code| code >> (8 - bits)).collect();
    let mut words = vec![0; cols * (depth * bits as usize).div_ceil(32)];
    pack(&Machine::detect(), &codes, cols, depth, bits, Order::Dense, &mut words).unwrap();
    let count = cols * depth / group;
    let scale = bytes(count, 4).into_iter().map(|b| (f32::from(b) + 1.0) / 1024.0).collect();
    Weights { codes, words, scale, zero: bytes(count, 5).into_iter().map(|zero| zero >> (8 - bits)).collect() }
}

#[test]
fn wna16_agrees_with_the_decoded_product() {
    let shapes = [
        (1, 1, 1, 1),
        (2, 3, 7, 7),
        (1, 5, 40, 8),
        (3, 70, 96, 32),
        (9, 13, 60, 12),
        (5, 2, 200, 40),
        (11, 300, 64, 64),
        (1, 5, 192, 32),
        (1, 3, 256, 128),
        (7, 6, 1044, 12),
        (49, 5, 64, 64),
    ];
    for bits in 1..=8 {
        for (rows, cols, depth, group) in shapes {
            let Weights { codes, words, scale, zero } = weights(cols, depth, bits, group);
            let x: Vec<f32> = bytes(rows * depth, 6).into_iter().map(|b| f32::from(b) / 128.0 - 1.0).collect();
            let floats: Vec<f32> = zero.iter().map(|&zero| f32::from(zero) / 2.0 - 0.25).collect();
            for zero in [None, Some(Zeros::Codes(&zero)), Some(Zeros::Floats(&floats))] {
                for m in machines() {
                    let mut out = vec![f32::NAN; rows * cols];
                    wna16(&m, &x, &words, &scale, zero, rows, cols, depth, bits, group, &mut out).unwrap();
                    for t in 0..rows {
                        for n in 0..cols {
                            let (mut sum, mut size) = (0.0, 0.0);
                            for k in 0..depth {
                                let at = n * (depth / group) + k / group;
                                let zero = zero.map_or(f64::from(1 << (bits - 1)), |zero| f64::from(zero.get(at)));
                                let w = f64::from(scale[at]) * (f64::from(codes[n * depth + k]) - zero);
                                sum += f64::from(x[t * depth + k]) * w;
                                size += (f64::from(x[t * depth + k]) * w).abs();
                            }
                            let bound = (depth + 1) as f64 * f64::from(f32::EPSILON) * size;
                            let got = f64::from(out[t * cols + n]);
                            assert!((got - sum).abs() <= bound, "{bits} {rows} {cols} {depth} {group} {got} {sum}");
                        }
                    }
                }
            }
        }
    }
}

/// Floats without a pattern of so many bits, of magnitudes from 2^-8 to 2^8.
fn floats(count: usize, kept: u32, seed: u64) -> Vec<f32> {
    let number = |four: &[u8; 4]| {
        let random = u32::from_le_bytes(*four);
        let exponent = 119 + (random >> 24 & 15);
        f32::from_bits((random & 0x807f_ffff | exponent << 23) >> (24 - kept) << (24 - kept))
    };
    bytes(4 * count, seed).as_chunks().0.iter().map(number).collect()
}

/// Holds the product of many rows against sums in f64, on every machine: within `depth + 3` roundings of the sum of magnitudes.
fn expect_wna16(
    x: &[f32],
    weight: &Weights,
    zero: Option<Zeros<'_>>,
    [rows, cols, depth]: [usize; 3],
    bits: u32,
    group: usize,
) {
    let decoded: Vec<f64> = (0..cols * depth)
        .map(|i| {
            let at = i / depth * (depth / group) + i % depth / group;
            let zero = zero.map_or(f64::from(1 << (bits - 1)), |zero| f64::from(zero.get(at)));
            f64::from(weight.scale[at]) * (f64::from(weight.codes[i]) - zero)
        })
        .collect();
    for m in machines() {
        let mut out = vec![f32::NAN; rows * cols];
        wna16(&m, x, &weight.words, &weight.scale, zero, rows, cols, depth, bits, group, &mut out).unwrap();
        for (at, got) in out.iter().enumerate() {
            let (x, w) = (&x[at / cols * depth..][..depth], &decoded[at % cols * depth..][..depth]);
            let products = x.iter().zip(w).map(|(x, w)| f64::from(*x) * w);
            let (sum, size) = products.fold((0.0, 0.0), |(sum, size), p| (sum + p, size + p.abs()));
            let off = (f64::from(*got) - sum).abs() / size.max(f64::MIN_POSITIVE) / f64::from(f32::EPSILON / 2.0);
            assert!(off <= depth as f64 + 3.0, "{rows} {cols} {depth} {bits} {group} {at} {got} {sum} {off} {m:?}");
        }
    }
}

#[test]
fn wna16_of_many_rows() {
    // around the tiles and the panels of AMX, where the last ones have no groups of whole steps, and those of the dense product
    let shapes = [
        (16, 1, 32, 32),
        (17, 16, 64, 32),
        (16, 17, 96, 96),
        (33, 33, 320, 160),
        (31, 130, 64, 64),
        (513, 3, 32, 32),
        (18, 20, 75, 75),
        (17, 15, 96, 48),
        (15, 9, 64, 32),
        (20, 7, 31, 31),
        (49, 29, 600, 150),
        (65, 6, 257, 257),
        (80, 13, 512, 64),
    ];
    for (seed, (rows, cols, depth, group)) in shapes.into_iter().enumerate() {
        for (bits, kept) in [(4, 8), (8, 11), (3, 16), (2, 24)] {
            let weight = weights(cols, depth, bits, group);
            let halves: Vec<f32> = weight.zero.iter().map(|&zero| f32::from(zero) / 3.0 - 0.25).collect();
            let x = floats(rows * depth, kept, seed as u64);
            for zero in [None, Some(Zeros::Codes(&weight.zero)), Some(Zeros::Floats(&halves))] {
                expect_wna16(&x, &weight, zero, [rows, cols, depth], bits, group);
            }
        }
    }
}

#[test]
fn wna16_of_many_rows_with_numbers_of_any_size() {
    let (rows, cols, depth, group) = (17, 5, 64, 32);
    // the fourth: parts of x and of the weight are normal, their products are not
    for (e, kept) in [(-140, 24), (-112, 24), (-100, 24), (-108, 8), (-60, 24), (60, 24), (100, 16), (119, 24)] {
        let power = |x: f32| x * 2f32.powi(e / 2) * 2f32.powi(e - e / 2);
        // x is at the edge, the result is not
        let (mut weight, by) = (weights(cols, depth, 4, group), 2f32.powi(-e / 2));
        let halves: Vec<f32> = weight.zero.iter().map(|&zero| f32::from(zero) / 3.0 - 0.25).collect();
        weight.scale.iter_mut().for_each(|scale| *scale *= by);
        let x: Vec<f32> = floats(rows * depth, kept, 7).into_iter().map(power).collect();
        expect_wna16(&x, &weight, Some(Zeros::Codes(&weight.zero)), [rows, cols, depth], 4, group);
        expect_wna16(&x, &weight, Some(Zeros::Floats(&halves)), [rows, cols, depth], 4, group);
        // one number alone
        let mut x = floats(rows * depth, kept, 8);
        x[70] = power(x[70]);
        weight.scale.iter_mut().for_each(|scale| *scale /= by);
        expect_wna16(&x, &weight, None, [rows, cols, depth], 4, group);
    }
}

#[test]
fn a_row_does_not_depend_on_the_others() {
    let (rows, cols, depth) = (40, 150, 96);
    let weight = weights(cols, depth, 4, 32);
    let x = floats(rows * depth, 8, 5);
    let mut other = x.clone();
    // more parts, numbers that no part can be, and some that are none
    other[4 * depth..8 * depth].copy_from_slice(&floats(4 * depth, 24, 6));
    (other[4 * depth], other[9 * depth], other[20 * depth + 1]) = (1e-36, f32::NAN, f32::INFINITY);
    for m in machines() {
        let outs = [&x, &other].map(|x| {
            let mut out = vec![0.0; rows * cols];
            wna16(&m, x, &weight.words, &weight.scale, None, rows, cols, depth, 4, 32, &mut out).unwrap();
            out
        });
        for t in (0..rows).filter(|t| x[t * depth..][..depth] == other[t * depth..][..depth]) {
            let row = t * cols..(t + 1) * cols;
            assert_eq!(outs[0][row.clone()], outs[1][row], "{t} {m:?}");
        }
    }
}

#[test]
fn what_is_not_finite_spreads_in_products_of_many_rows() {
    let (rows, cols, depth) = (18, 3, 64);
    for m in machines() {
        for bad in [f32::NAN, f32::INFINITY] {
            let (weight, mut out) = (weights(cols, depth, 4, 32), vec![0.0; rows * cols]);
            let mut x = floats(rows * depth, 8, 1);
            x[5 * depth + 3] = bad;
            wna16(&m, &x, &weight.words, &weight.scale, None, rows, cols, depth, 4, 32, &mut out).unwrap();
            for (at, y) in out.iter().enumerate() {
                assert_eq!(y.is_finite(), at / cols != 5, "{at} {y} {m:?}");
            }
        }
        // codes of E5M2: 1, infinity and NaN; x is zero at the last two in every other row
        let mut codes = [0x3c; 3 * 64];
        (codes[64 + 7], codes[128 + 9]) = (0x7c, 0x7d);
        let x: Vec<u8> = (0..rows * depth).map(|at| if matches!(at % 128, 7 | 9) { 0 } else { 0x3c }).collect();
        let (one, mut out) = (Scales { values: &[1.0], rows: 1, blocks: 1 }, vec![0.0; rows * cols]);
        fp8::<E5m2>(&m, &x, &codes, one, one, None, rows, cols, depth, &mut out).unwrap();
        for (t, out) in out.chunks(cols).enumerate() {
            assert_eq!(out[0], if t % 2 == 0 { 62.0 } else { 64.0 });
            assert!(if t % 2 == 0 { out[1].is_nan() } else { out[1] == f32::INFINITY }, "{out:?} {m:?}");
            assert!(out[2].is_nan());
        }
    }
}

#[test]
fn wna16_has_the_same_bits_for_any_threads() {
    let (cols, depth) = (700, 256);
    let Weights { words, scale, zero, .. } = weights(cols, depth, 4, 64);
    for rows in [1, 40, 60] {
        let x: Vec<f32> = bytes(rows * depth, 6).into_iter().map(|b| f32::from(b) / 127.0 - 1.0).collect();
        let outs = [1, 2, 5].map(|threads| {
            let m = Machine::forced(Path::Scalar, threads).unwrap();
            let mut out = vec![0.0; rows * cols];
            wna16(&m, &x, &words, &scale, Some(Zeros::Codes(&zero)), rows, cols, depth, 4, 64, &mut out).unwrap();
            out
        });
        assert!(outs.iter().all(|out| *out == outs[0]));
    }
}

#[test]
fn wna16_has_the_same_bits_in_wider_registers() {
    // up to and beyond what is multiplied at a time, odd and even; few rows for both paths, and many for both
    for (rows, depth) in [(2, 200), (3, 200), (6, 1040), (7, 60), (13, 2080), (24, 40), (49, 600), (70, 40)] {
        let cols = 5;
        let Weights { words, scale, zero, .. } = weights(cols, depth, 4, 20);
        let x: Vec<f32> = bytes(rows * depth, 6).into_iter().map(|b| f32::from(b) / 127.0 - 1.0).collect();
        let outs = [Path::Avx2, Path::Avx512].into_iter().filter_map(|path| {
            let (m, mut out) = (Machine::forced(path, 1)?, vec![0.0; rows * cols]);
            wna16(&m, &x, &words, &scale, Some(Zeros::Codes(&zero)), rows, cols, depth, 4, 20, &mut out).unwrap();
            Some(out)
        });
        let outs: Vec<_> = outs.collect();
        assert!(outs.iter().all(|out| *out == outs[0]), "{rows} {depth}");
    }
}

#[test]
fn wna16_refuses() {
    let m = Machine::detect();
    let mut out = [7.0; 1];
    let x = [1.0; 8];
    assert!(matches!(wna16(&m, &x, &[0], &[1.0], None, 1, 1, 8, 0, 8, &mut out), Err(Error::Range(_))));
    assert!(matches!(wna16(&m, &x, &[0], &[1.0], None, 1, 1, 8, 9, 8, &mut out), Err(Error::Range(_))));
    assert!(matches!(wna16(&m, &x, &[0], &[1.0], None, 1, 1, 8, 4, 3, &mut out), Err(Error::Shape(_))));
    assert!(matches!(wna16(&m, &x, &[0], &[1.0], None, 1, 1, 8, 4, 0, &mut out), Err(Error::Shape(_))));
    assert!(matches!(wna16(&m, &x, &[0, 0], &[1.0], None, 1, 1, 8, 4, 8, &mut out), Err(Error::Shape(_))));
    assert!(matches!(
        wna16(&m, &x, &[0], &[1.0], Some(Zeros::Codes(&[])), 1, 1, 8, 4, 8, &mut out),
        Err(Error::Shape(_))
    ));
    assert_eq!(out, [7.0]);
    assert!(wna16(&m, &[], &[], &[], None, 0, 0, 8, 4, 8, &mut []).is_ok());
    let mut zeros = [7.0; 2];
    assert!(wna16(&m, &[], &[], &[], None, 1, 2, 0, 4, 8, &mut zeros).is_ok());
    assert_eq!(zeros, [0.0; 2]);
}

#[test]
fn lookup_reads_every_value_of_a_table_on_every_machine() {
    for (bits, (depth, group)) in (1..=8).flat_map(|bits| [(300, 100), (320, 64), (320, 32)].map(|shape| (bits, shape)))
    {
        let (levels, cols) = (1usize << bits, 5);
        let codes: Vec<u8> = (0..cols * depth).map(|i| (i * 7 % levels) as u8).collect();
        let mut words = vec![0; cols * (depth * bits as usize).div_ceil(32)];
        pack(&Machine::detect(), &codes, cols, depth, bits, Order::Dense, &mut words).unwrap();
        let tables: Vec<f32> = (0..cols * levels).map(|i| (i % 1000) as f32 - 300.0).collect();
        for m in machines() {
            for (by_row, rows) in [(false, 1), (true, 1), (false, 3), (true, 12), (true, 18)] {
                let table = if by_row { &tables } else { &tables[..levels] };
                // one-hot inputs: sums are single values, and exact
                let x: Vec<f32> =
                    (0..rows * depth).map(|i| f32::from(i % depth == (23 * (i / depth) + 1) % depth)).collect();
                let (mut out, scale) = (vec![f32::NAN; rows * cols], vec![0.5; cols * depth / group]);
                lookup(&m, &x, &words, &scale, table, by_row, rows, cols, depth, bits, group, &mut out).unwrap();
                for (at, out) in out.iter().enumerate() {
                    let (t, n) = (at / cols, at % cols);
                    let code = usize::from(codes[n * depth + (23 * t + 1) % depth]);
                    assert_eq!(
                        *out,
                        0.5 * table[if by_row { n * levels } else { 0 } + code],
                        "{bits} {by_row} {t} {n}"
                    );
                }
            }
        }
    }
}

#[test]
fn lookup_refuses() {
    let (m, mut out) = (Machine::detect(), [7.0]);
    let mut run = |words: &[i32], table: &[f32], by_row, bits, group| {
        lookup(&m, &[1.0; 8], words, &[1.0], table, by_row, 1, 1, 8, bits, group, &mut out)
    };
    assert!(matches!(run(&[0], &[0.0; 1], false, 0, 8), Err(Error::Range(_))));
    assert!(matches!(run(&[0], &[0.0; 512], false, 9, 8), Err(Error::Range(_))));
    for (words, values, group) in [(2, 16, 8), (1, 8, 8), (1, 32, 8), (1, 16, 3), (1, 16, 0)] {
        assert!(matches!(run(&vec![0; words], &vec![0.0; values], true, 4, group), Err(Error::Shape(_))));
    }
    assert!(run(&[0], &[0.0; 16], true, 4, 8).is_ok());
    assert!(lookup(&m, &[], &[], &[], &[], true, 0, 0, 8, 4, 8, &mut []).is_ok());
}

#[test]
fn fp8_scales_each_block_of_columns() {
    let m = Machine::detect();
    let (one, two) = (0x38, 0x40); // of E4M3
    let (x, weight) = ([one; 130], [[one; 130], [two; 130]].concat());
    let each = Scales { values: &[1.0, 100.0], rows: 1, blocks: 2 };
    let all = Scales { values: &[1.0], rows: 1, blocks: 1 };
    let mut out = [0.0; 2];
    fp8::<E4m3fn>(&m, &x, &weight, each, all, Some(&[0.5, 0.0]), 1, 2, 130, &mut out).unwrap();
    assert_eq!(out, [128.0 + 200.0 + 0.5, 256.0 + 400.0]);
    let wrong = Scales { values: &[1.0; 3], rows: 1, blocks: 3 };
    let refused = fp8::<E4m3fn>(&m, &x, &weight, wrong, all, None, 1, 2, 130, &mut out);
    assert!(matches!(refused, Err(Error::Shape(_))));
}

#[test]
fn w4a4_scales_groups_and_adds_outliers() {
    // 1, 2, 0, -8 and 7, 0, 0, 1, twice each: -1 a half
    let [x_words, w_words] = [[0x08a9_08a9_u32.cast_signed()], [0x988f_988f_u32.cast_signed()]];
    let beside = Outliers { x: &[3, -128], w: &[2, 1], x_scale: &[0.5], w_scale: &[1.0], count: 2 };
    for m in machines() {
        let product = |x_scale, w_scale, outliers, group| {
            let mut out = [f32::NAN];
            let (x, w) = (Operand { words: &x_words, scale: x_scale }, Operand { words: &w_words, scale: w_scale });
            w4a4(&m, x, w, outliers, Some(&[0.25]), 1, 1, 8, group, &mut out).map(|()| out[0])
        };
        assert_eq!(product(&[0.5], &[2.0], None, 8).unwrap(), -2.0 + 0.25);
        assert_eq!(product(&[0.5, 2.0], &[1.0, 3.0], None, 4).unwrap(), -0.5 - 6.0 + 0.25);
        assert_eq!(product(&[0.5], &[2.0], Some(beside), 8).unwrap(), -2.0 - 61.0 + 0.25);
        assert!(matches!(product(&[0.5], &[2.0], None, 4), Err(Error::Shape(_))));
    }
    assert!(matches!(
        w4a4(
            &machines()[0],
            Operand { words: &[], scale: &[] },
            Operand { words: &[], scale: &[] },
            None,
            None,
            0,
            0,
            12,
            12,
            &mut []
        ),
        Err(Error::Shape(_))
    ));
}

#[test]
fn int4_fp8_scales_groups_rows_and_all() {
    let m = Machine::detect();
    // 1, -2, 0.5, 1; codes 9, 8, 7, 0 are 1, 0, -1, -8
    let (x, words) = ([0x38, 0xc0, 0x30, 0x38], [0x0789]);
    let mut out = [0.0; 1];
    let mut product = |scale, tensor_scale| {
        int4_fp8(&m, &x, &words, &[2.0], scale, tensor_scale, Some(&[0.25]), 1, 1, 4, 2, &mut out).map(|()| out[0])
    };
    // (1 * 1) * 2 + (-0.5 - 8) * 0.5
    assert_eq!(product(GroupScales::Floats(&[2.0, 0.5]), 1.0).unwrap(), (2.0 - 4.25) * 2.0 + 0.25);
    assert_eq!(product(GroupScales::E4m3fn(&[0x40, 0x30]), 0.5).unwrap(), (2.0 - 4.25) + 0.25);
    assert!(matches!(product(GroupScales::Floats(&[2.0]), 1.0), Err(Error::Shape(_))));
    assert!(matches!(product(GroupScales::Floats(&[2.0, 0.5]), 0.0), Err(Error::Range(_))));
}

#[test]
fn fp8_grouped_gives_each_row_to_its_expert() {
    let m = Machine::detect();
    let (one, two) = (0x38, 0x40); // of E4M3
    let (x, weight) = ([[one; 2], [two; 2]].concat(), [[one; 2], [two; 2]].concat());
    let of_x = Scales { values: &[1.0, 10.0], rows: 2, blocks: 1 };
    let of_w = Scales { values: &[1.0, 100.0], rows: 1, blocks: 1 };
    let run = |offsets: &[i32], order: Option<&[i32]>, of_w, out: &mut [f32]| {
        fp8_grouped::<E4m3fn>(&m, &x, &weight, of_x, of_w, offsets, Some(&[0.5, 0.0]), order, 2, 1, 2, out)
    };
    let mut out = [0.0; 3];
    run(&[0, 1, 3], Some(&[1, 1, 0]), of_w, &mut out).unwrap();
    assert_eq!(out, [40.5, 8000.0, 400.0]);
    run(&[0, 0, 2], None, of_w, &mut out[..2]).unwrap();
    assert_eq!(out[..2], [400.0, 8000.0]);
    let few = Scales { values: &[1.0], ..of_w };
    assert!(matches!(run(&[0, 1, 2], None, few, &mut out[..2]), Err(Error::Shape(_))));
    for (offsets, order) in [([0, 2, 1], [0, 1]), ([0, 1, 3], [0, 1]), ([0, 1, 2], [0, 2]), ([0, 1, 2], [-1, 0])] {
        assert!(
            matches!(run(&offsets, Some(&order), of_w, &mut out[..2]), Err(Error::Range(_))),
            "{offsets:?} {order:?}"
        );
    }
}

#[test]
fn csr_adds_its_entries_on_every_machine() {
    let (values, places, pointers) = ([2.0, -1.0, 0.5, 4.0], [0u16, 2, 1, 2], [0, 2, 2, 3, 4]);
    let halves = [0x4000, 0xbc00, 0x3800, 0x4400];
    for m in machines() {
        for rows in [0usize, 1, 5, 17] {
            let x: Vec<f32> = (0..3 * rows).map(|i| i as f32 - 4.0).collect();
            for entries in [Narrow::F32(&values), Narrow::F16(&halves)] {
                let mut out = vec![1.0; 4 * rows];
                csr(&m, &x, entries, &places, &pointers, rows, 4, 3, &mut out).unwrap();
                for (x, out) in x.chunks(3).zip(out.chunks(4)) {
                    assert_eq!(out, [1.0 + 2.0 * x[0] - x[2], 1.0, 1.0 + 0.5 * x[1], 1.0 + 4.0 * x[2]]);
                }
            }
        }
    }
}

#[test]
fn csr_refuses() {
    let m = Machine::forced(Path::Scalar, 1).unwrap();
    let run = |places: &[i32], pointers: &[i32]| {
        csr(&m, &[1.0; 3], Narrow::F32(&[1.0; 2]), places, pointers, 1, 2, 3, &mut [0.0; 2])
    };
    assert!(run(&[0, 2], &[0, 1, 2]).is_ok());
    for pointers in [[0, 3, 2], [1, 1, 2], [0, 1, 1], [0, -1, 2], [0, 2, 3]] {
        assert!(matches!(run(&[0, 2], &pointers), Err(Error::Range(_))), "{pointers:?}");
    }
    for places in [[0, 3], [-1, 0]] {
        assert!(matches!(run(&places, &[0, 1, 2]), Err(Error::Range(_))), "{places:?}");
    }
    assert!(matches!(run(&[0], &[0, 1, 2]), Err(Error::Shape(_))));
    assert!(matches!(run(&[0, 2], &[0, 2]), Err(Error::Shape(_))));
}

#[test]
fn block_scaled_multiplies_what_its_blocks_stand_for() {
    use crate::minifloat::{E2m1, E3m2, Element, Int, dequantize_block};
    fn agrees<E: Element>(block: usize, power: bool) {
        // more than one part of a row, several rows of each panel
        for (rows, cols, depth) in [(0, 3, 64), (3, 0, 64), (1, 5, 0), (1, 67, 544), (5, 9, 1056)] {
            let known = |code: u8| if E::decode(code).is_nan() { 0 } else { code };
            let codes: Vec<u8> = bytes(cols * depth, 3).into_iter().map(|b| known(b >> (8 - E::BITS))).collect();
            let mut words = vec![0; cols * crate::pack::words_per_row(depth, E::BITS)];
            // around 1 for either kind of scale
            let one = if power { 120 } else { 50 };
            let scale: Vec<u8> = bytes(cols * depth / block, 4).into_iter().map(|b| one + b % 13).collect();
            let x: Vec<f32> = bytes(rows * depth, 5).into_iter().map(|b| f32::from(b) / 64.0 - 2.0).collect();
            let mut values = vec![0.0; cols * depth];
            for m in machines() {
                pack(&m, &codes, cols, depth, E::BITS, Order::Dense, &mut words).unwrap();
                dequantize_block::<E>(&m, &codes, &scale, block, power, 0.5, &mut values).unwrap();
                let weight = Blocks { words: &words, scale: &scale, block, power, tensor_scale: 0.5 };
                let mut out = vec![f32::NAN; rows * cols];
                block_scaled::<E>(&m, &x, weight, rows, cols, depth, &mut out).unwrap();
                for (at, &got) in out.iter().enumerate() {
                    let (x, w) = (&x[at / cols * depth..][..depth], &values[at % cols * depth..][..depth]);
                    let products = x.iter().zip(w).map(|(x, w)| f64::from(*x) * f64::from(*w));
                    let (sum, size) = products.fold((0.0, 0.0), |(sum, size), p| (sum + p, size + p.abs()));
                    assert!(
                        (f64::from(got) - sum).abs() <= depth as f64 * 2f64.powi(-24) * size,
                        "{m:?} {at}: {got} {sum}"
                    );
                }
            }
        }
    }
    agrees::<E2m1>(32, true);
    agrees::<E2m1>(16, false);
    agrees::<E3m2>(32, true);
    agrees::<E4m3fn>(32, true);
    agrees::<Int<4>>(16, false);
    agrees::<Int<8>>(32, true);
}

#[test]
fn block_scaled_pair_multiplies_what_both_stand_for() {
    use crate::minifloat::{E2m1, E4m3fn, Element, Int, dequantize_block};
    fn agrees<E: Element>(block: usize, power: bool) {
        for (rows, cols, depth) in [(0, 3, 64), (3, 0, 64), (1, 5, 0), (1, 7, 544), (5, 9, 96)] {
            let one = if power { 120 } else { 50 }; // around 1 for either kind of scale
            let m = Machine::detect();
            let operand = |rows: usize, seed| {
                let known = |code: u8| if E::decode(code).is_nan() { 0 } else { code };
                let codes: Vec<u8> = bytes(rows * depth, seed).into_iter().map(|b| known(b >> (8 - E::BITS))).collect();
                let scale: Vec<u8> = bytes(rows * depth / block, seed + 1).into_iter().map(|b| one + b % 13).collect();
                let mut words = vec![0; rows * crate::pack::words_per_row(depth, E::BITS)];
                pack(&m, &codes, rows, depth, E::BITS, Order::Dense, &mut words).unwrap();
                let mut values = vec![0.0; rows * depth];
                dequantize_block::<E>(&m, &codes, &scale, block, power, 1.0, &mut values).unwrap();
                (words, scale, values)
            };
            let (x, w) = (operand(rows, 3), operand(cols, 5));
            for m in machines() {
                let left = Blocks { words: &x.0, scale: &x.1, block, power, tensor_scale: 2.0 };
                let right = Blocks { words: &w.0, scale: &w.1, block, power, tensor_scale: 0.25 };
                let mut out = vec![f32::NAN; rows * cols];
                block_scaled_pair::<E>(&m, left, right, rows, cols, depth, &mut out).unwrap();
                for (at, &got) in out.iter().enumerate() {
                    let (x, w) = (&x.2[at / cols * depth..][..depth], &w.2[at % cols * depth..][..depth]);
                    let products = x.iter().zip(w).map(|(x, w)| 0.5 * f64::from(*x) * f64::from(*w));
                    let (sum, size) = products.fold((0.0, 0.0), |(sum, size), p| (sum + p, size + p.abs()));
                    let bound = (depth + 2) as f64 * 2f64.powi(-24) * size;
                    assert!((f64::from(got) - sum).abs() <= bound, "{m:?} {at}: {got} {sum}");
                }
            }
        }
    }
    agrees::<E2m1>(32, true);
    agrees::<E2m1>(16, false);
    agrees::<E4m3fn>(32, true);
    agrees::<Int<8>>(32, true);
}

#[test]
fn block_scaled_refuses() {
    use crate::minifloat::E2m1;
    let m = Machine::detect();
    let run = |words: usize, scale: usize, block, tensor_scale| {
        let weight = Blocks { words: &vec![0; words], scale: &vec![127; scale], block, power: true, tensor_scale };
        block_scaled::<E2m1>(&m, &[1.0; 32], weight, 1, 1, 32, &mut [7.0])
    };
    assert!(run(4, 1, 32, 1.0).is_ok());
    assert!(matches!(run(4, 1, 24, 1.0), Err(Error::Range(_))));
    assert!(matches!(run(4, 1, 32, -1.0), Err(Error::Range(_))));
    assert!(matches!(run(5, 1, 32, 1.0), Err(Error::Shape(_))));
    assert!(matches!(run(4, 2, 32, 1.0), Err(Error::Shape(_))));
}
