use super::*;
use crate::{Error, Machine, Path};

fn machines() -> impl Iterator<Item = Machine> {
    Path::ALL.into_iter().flat_map(|path| [1, 3].into_iter().filter_map(move |threads| Machine::forced(path, threads)))
}

/// Numbers of many magnitudes and both signs, with zeros, ties and subnormals among them.
fn numbers(n: usize) -> Vec<f32> {
    (0..n as u32)
        .map(|i| {
            let hash = i.wrapping_mul(2_654_435_761) ^ i.wrapping_mul(40_503) << 11;
            let unit = (hash >> 8) as f32 / 8_388_608.0 - 1.0;
            match hash & 15 {
                0 => 0.0,
                1 => -0.0,
                2 => 1e-41 * unit,
                3 => (unit * 8.0).round() / 2.0,
                4 => 30.0 * unit,
                _ => unit,
            }
        })
        .collect()
}

const PLAIN: Grid = Grid {
    bits: 4,
    symmetric: true,
    narrow: false,
    forced_zero: true,
    eps: 0.0,
    scale_dtype: ScaleType::F32,
    shrink: None,
};

fn grids() -> Vec<Grid> {
    let mut grids = Vec::new();
    for bits in 1..=8 {
        for (symmetric, narrow, forced_zero) in
            [(true, false, true), (true, true, true), (false, false, true), (false, false, false)]
        {
            for (eps, scale_dtype) in [(0.0, ScaleType::F32), (1e-5, ScaleType::F16), (0.0, ScaleType::Bf16)] {
                for shrink in [None, Some(2.0), Some(2.4)] {
                    let shrink = shrink.map(|norm| Shrink { norm, grid: 10, steps: 8 });
                    if !(narrow && bits == 1) {
                        grids.push(Grid { bits, symmetric, narrow, forced_zero, eps, scale_dtype, shrink });
                    }
                }
            }
        }
    }
    grids
}

/// `(rows, group, groups)`: around the widths of vectors, and large enough for threads.
const SHAPES: [(usize, usize, usize); 14] = [
    (0, 5, 1),
    (3, 1, 5),
    (1, 7, 3),
    (5, 8, 2),
    (3, 9, 3),
    (2, 15, 2),
    (7, 16, 1),
    (3, 17, 2),
    (5, 31, 1),
    (2, 32, 3),
    (3, 33, 1),
    (2, 257, 2),
    (1, 600, 1),
    (40, 128, 9),
];

#[test]
fn every_path_gives_the_same_bits() {
    let scalar = Machine::forced(Path::Scalar, 1).unwrap();
    for (rows, group, count) in SHAPES {
        let cols = group * count;
        let x = numbers(rows * cols);
        for grid in grids() {
            if x.len() > 10_000 && grid.bits != 3 {
                continue;
            }
            let run = |m: &Machine| {
                let (mut scale, mut zero) = (vec![9.0; rows * count], vec![9; rows * count]);
                fit_affine(m, &grid, &x, rows, cols, group, &mut scale, &mut zero).unwrap();
                let (mut codes, mut signed, mut out) = (vec![9; x.len()], vec![9; x.len()], vec![9.0; x.len()]);
                quantize_affine(m, &x, rows, cols, group, grid.bits, &scale, &zero, &mut codes).unwrap();
                quantize_symmetric(m, &x, rows, cols, group, grid.bits, grid.narrow, &scale, &mut signed).unwrap();
                dequantize_affine(m, &codes, rows, cols, group, &scale, Zeros::Codes(&zero), &mut out).unwrap();
                (scale, zero, codes, signed, out)
            };
            let expected = run(&scalar);
            for (x, &code) in x.iter().zip(&expected.2) {
                assert!(u32::from(code) >> grid.bits == 0, "{grid:?}: {x} has code {code}");
            }
            for m in machines() {
                assert!(run(&m) == expected, "{m:?} {grid:?} {rows} x {count} x {group}");
            }
        }
    }
}

#[test]
fn long_rows_are_cut_among_threads_anywhere() {
    let (rows, cols) = (3, 100_003);
    let x = numbers(rows * cols);
    let run = |m: &Machine| {
        let (mut scale, mut zero) = (vec![0.0; rows], vec![0; rows]);
        fit_affine(m, &PLAIN, &x, rows, cols, cols, &mut scale, &mut zero).unwrap();
        let (mut codes, mut out) = (vec![9; x.len()], vec![9.0; x.len()]);
        quantize_affine(m, &x, rows, cols, cols, 4, &scale, &zero, &mut codes).unwrap();
        dequantize_affine(m, &codes, rows, cols, cols, &scale, Zeros::Codes(&zero), &mut out).unwrap();
        let (mut tokens, mut scales) = (vec![9; x.len()], vec![9.0; rows]);
        quantize_tokens::<Int8>(m, &x, rows, cols, 1e-5, &mut tokens, &mut scales).unwrap();
        (scale, zero, codes, out, tokens, scales)
    };
    let expected = run(&Machine::forced(Path::Scalar, 1).unwrap());
    for m in machines() {
        assert!(run(&m) == expected, "{m:?}");
    }
}

#[test]
fn tokens_and_clips_are_the_same_on_every_path() {
    let scalar = Machine::forced(Path::Scalar, 1).unwrap();
    for (rows, group, count) in SHAPES {
        let cols = group * count;
        let x = numbers(rows * cols);
        let inputs = numbers(count * group * 4);
        let gram: Vec<f32> = (0..count * group * group)
            .map(|i| {
                let (g, r, c) = (i / (group * group), i / group % group, i % group);
                (0..4).map(|t| inputs[(g * group + r) * 4 + t] * inputs[(g * group + c) * 4 + t]).sum()
            })
            .collect();
        let run = |m: &Machine, grid: &Grid, steps: u32| {
            let (mut codes, mut scale) = (vec![9; x.len()], vec![9.0; rows]);
            quantize_tokens::<Int8>(m, &x, rows, cols, 1e-5, &mut codes, &mut scale).unwrap();
            let mut clip = vec![9.0; rows * count];
            search_clip(m, grid, &x, rows, cols, group, &gram, 20, steps, &mut clip).unwrap();
            (codes, scale, clip)
        };
        for grid in [PLAIN, Grid { symmetric: false, forced_zero: false, eps: 1e-5, bits: 3, ..PLAIN }] {
            for steps in [1, 4, 5, 6, 20] {
                let expected = run(&scalar, &grid, steps);
                for m in machines() {
                    assert!(run(&m, &grid, steps) == expected, "{m:?} {grid:?} {rows} x {count} x {group}");
                }
            }
        }
    }
}

#[test]
fn a_power_is_close_and_the_same_on_every_path() {
    for p in [0.5, 1.0, 2.4, 3.5] {
        for i in 0..40_000_u32 {
            let x = f32::from_bits(0x2000_0000 + i * 26_843);
            let exact = f64::from(x).powf(p.into());
            let got = crate::simd::pow([x; 8], [p; 8])[0];
            if exact > 1e-37 && exact < 8e37 {
                let bound = 2e-7 * (4.0 + exact.log2().abs());
                assert!((f64::from(got) / exact - 1.0).abs() < bound, "{x:e}^{p}: {got:e}, not {exact:e}");
            }
        }
        assert_eq!(crate::simd::pow([0.0; 8], [p; 8])[0], 0.0);
    }
}

#[test]
fn a_row_that_is_not_finite_poisons_itself_alone() {
    for m in machines() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut x = numbers(3 * 70);
            x[70 + 65] = bad;
            let (mut codes, mut scale) = (vec![9; x.len()], vec![9.0; 3]);
            quantize_tokens::<Int8>(&m, &x, 3, 70, 1e-5, &mut codes, &mut scale).unwrap();
            assert!(scale[1].is_nan() && scale[0] > 0.0 && scale[2] > 0.0);
            assert!(codes[70..140].iter().all(|&code| code == 0));
        }
    }
}

#[test]
fn what_is_not_finite_is_named() {
    for m in machines() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for at in [0, 63, 69] {
                let mut x = numbers(3 * 70);
                x[70 + at] = bad;
                let place = format!("{bad} in row 1, column {at}");
                let named = |result: Result<()>| matches!(result, Err(Error::NotFinite(d)) if d.given == place);
                let (mut scale, mut zero) = (vec![1.0; 6], vec![0; 6]);
                assert!(named(fit_affine(&m, &PLAIN, &x, 3, 70, 35, &mut scale, &mut zero)));
                scale.fill(1.0);
                assert!(named(quantize_affine(&m, &x, 3, 70, 35, 4, &scale, &zero, &mut [0; 210])));
                assert!(named(quantize_symmetric(&m, &x, 3, 70, 35, 4, true, &scale, &mut [0; 210])));
                assert!(named(search_clip(&m, &PLAIN, &x, 3, 70, 1, &[1.0; 70], 20, 10, &mut [0.0; 210])));
            }
        }
    }
}

#[test]
fn scales_are_never_lost() {
    for (scale, f16, bf16) in [(1e-30, 1.0 / 16384.0, 1e-30), (1e30, 65504.0, 1e30), (f32::INFINITY, 65504.0, 3.39e38)]
    {
        assert_eq!(ScaleType::F16.round(scale), f16);
        assert!((ScaleType::Bf16.round(scale) / bf16 - 1.0).abs() < 0.01);
        assert!(ScaleType::F32.round(scale).is_finite());
    }
    assert_eq!(ScaleType::F32.round(0.0), f32::MIN_POSITIVE);
    assert_eq!(ScaleType::F16.round(3e-5), half::f16::from_f32(3e-5).to_f32());
}

#[test]
fn wrong_calls_are_refused() {
    let m = Machine::detect();
    let range = |result: Result<()>| matches!(result, Err(Error::Range(_)));
    let shape = |result: Result<()>| matches!(result, Err(Error::Shape(_)));
    let x = [1.0; 12];
    let fit = |grid: &Grid, group| {
        let n = 12 / group;
        fit_affine(&m, grid, &x, 2, 6, group, &mut vec![0.0; n], &mut vec![0; n])
    };
    assert!(fit(&PLAIN, 3).is_ok());
    assert!(shape(fit(&PLAIN, 4)));
    for grid in [
        Grid { bits: 0, ..PLAIN },
        Grid { bits: 9, ..PLAIN },
        Grid { narrow: true, symmetric: false, ..PLAIN },
        Grid { narrow: true, bits: 1, ..PLAIN },
        Grid { eps: -1.0, ..PLAIN },
        Grid { eps: f32::NAN, ..PLAIN },
        Grid { shrink: Some(Shrink { norm: 0.0, grid: 10, steps: 5 }), ..PLAIN },
        Grid { shrink: Some(Shrink { norm: 2.0, grid: 10, steps: 0 }), ..PLAIN },
        Grid { shrink: Some(Shrink { norm: 2.0, grid: 10, steps: 11 }), ..PLAIN },
    ] {
        assert!(range(fit(&grid, 3)), "{grid:?}");
    }
    assert!(shape(fit_affine(&m, &PLAIN, &x, 2, 6, 0, &mut [], &mut [])));
    assert!(shape(fit_affine(&m, &PLAIN, &x, 2, 6, 3, &mut [0.0; 3], &mut [0; 4])));
    for bad in [0.0, -1.0, f32::NAN, f32::INFINITY] {
        assert!(range(quantize_affine(&m, &x, 2, 6, 6, 4, &[1.0, bad], &[0; 2], &mut [0; 12])));
        assert!(range(quantize_symmetric(&m, &x, 2, 6, 6, 4, true, &[1.0, bad], &mut [0; 12])));
    }
    assert!(range(quantize_affine(&m, &x, 2, 6, 6, 4, &[1.0; 2], &[0, 16], &mut [0; 12])));
    assert!(range(quantize_symmetric(&m, &x, 2, 6, 6, 1, true, &[1.0; 2], &mut [0; 12])));
    assert!(shape(quantize_affine(&m, &x, 2, 6, 6, 4, &[1.0; 2], &[0; 2], &mut [0; 11])));
    assert!(shape(dequantize_affine(&m, &[0; 12], 2, 6, 6, &[1.0; 3], Zeros::Codes(&[0; 2]), &mut [0.0; 12])));
    for eps in [0.0, -1.0, f32::NAN, 1e-40] {
        assert!(range(quantize_tokens::<Int8>(&m, &x, 2, 6, eps, &mut [0; 12], &mut [0.0; 2])));
    }
    assert!(shape(quantize_tokens::<Int8>(&m, &x, 2, 6, 1e-5, &mut [0; 12], &mut [0.0; 3])));
    assert!(shape(search_clip(&m, &PLAIN, &x, 2, 6, 3, &[1.0; 17], 20, 10, &mut [0.0; 4])));
    assert!(range(search_clip(&m, &PLAIN, &x, 2, 6, 3, &[1.0; 18], 20, 21, &mut [0.0; 4])));
    let searching = Grid { shrink: Some(Shrink { norm: 2.0, grid: 10, steps: 5 }), ..PLAIN };
    assert!(range(search_clip(&m, &searching, &x, 2, 6, 3, &[1.0; 18], 20, 10, &mut [0.0; 4])));
}

#[test]
fn a_table_is_rounded_to_by_its_boundaries_on_every_machine() {
    let x = numbers(3 * 140);
    for count in [1usize, 3, 5, 15, 16, 100, 255] {
        let bounds: Vec<f32> = (0..3 * count).map(|i| (i % count) as f32 / 8.0 - 1.0).collect();
        for by_row in [false, true] {
            let bounds = if by_row { &bounds[..] } else { &bounds[..count] };
            let scale = [1.0, 0.5, 2.0, 0.25, 1.0, 3.0];
            for m in machines() {
                let mut codes = vec![0; x.len()];
                quantize_table(&m, &x, 3, 140, 70, &scale, bounds, by_row, &mut codes).unwrap();
                for (at, (&x, &code)) in x.iter().zip(&codes).enumerate() {
                    let steps = x / scale[at / 70];
                    let expected = (0..count).filter(|&i| {
                        let bound = bounds[i];
                        steps > bound || (steps == bound && i % 2 == 1)
                    });
                    assert_eq!(usize::from(code), expected.count(), "{count} {by_row} {at} {steps}");
                }
                let table: Vec<f32> = (0..3 * (count + 1)).map(|i| i as f32).collect();
                let table = if by_row { &table[..] } else { &table[..=count] };
                let mut out = vec![f32::NAN; x.len()];
                dequantize_table(&m, &codes, 3, 140, 70, &scale, table, by_row, &mut out).unwrap();
                for (at, (&out, &code)) in out.iter().zip(&codes).enumerate() {
                    let first = if by_row { at / 140 * (count + 1) } else { 0 };
                    assert_eq!(out, scale[at / 70] * (first + usize::from(code)) as f32);
                }
            }
        }
    }
}

#[test]
fn tables_refuse() {
    let m = Machine::detect();
    let mut codes = [0; 4];
    let mut run =
        |x: &[f32], bounds: &[f32], by_row| quantize_table(&m, x, 2, 2, 2, &[1.0; 2], bounds, by_row, &mut codes);
    let x = [0.0; 4];
    assert!(run(&x, &[0.0, 0.0, 1.0], false).is_ok());
    assert!(matches!(run(&x, &[0.0, -1.0], false), Err(Error::Range(_))));
    assert!(matches!(run(&x, &[0.0, f32::NAN], false), Err(Error::Range(_))));
    assert!(matches!(run(&x, &[0.0; 3], true), Err(Error::Shape(_))));
    assert!(matches!(run(&x, &[], false), Err(Error::Shape(_))));
    assert!(matches!(run(&x, &[0.0; 256], false), Err(Error::Shape(_))));
    assert!(matches!(run(&[f32::NAN; 4], &[0.0], false), Err(Error::NotFinite(_))));
    let mut out = [0.0; 4];
    let beyond = dequantize_table(&m, &[0, 1, 2, 0], 2, 2, 2, &[1.0; 2], &[0.0; 2], false, &mut out);
    assert!(matches!(beyond, Err(Error::Range(_))));
}

#[test]
fn normalized_rows_are_those_of_the_definition_on_every_machine() {
    let (bias_of, weight_of) = (|j: usize| j as f32 / 50.0 - 0.5, |j: usize| 1.0 + j as f32 / 100.0);
    for (rows, cols) in [(0, 3), (2, 0), (1, 1), (3, 7), (5, 8), (4, 33), (700, 129)] {
        let x: Vec<f32> = numbers(rows * cols).into_iter().map(|x| x + 0.25).collect();
        let (weight, bias): (Vec<_>, Vec<_>) = (0..cols).map(|j| (weight_of(j), bias_of(j))).unzip();
        for (centred, bias) in [(false, None), (true, Some(&bias[..]))] {
            let norm = Norm { centred, weight: &weight, bias, eps: 1e-5 };
            let mut first = None;
            for m in machines() {
                let (mut codes, mut scale) = (vec![9; x.len()], vec![9.0; rows]);
                norm_quantize::<Int8>(&m, &x, rows, cols, norm, 1e-5, &mut codes, &mut scale).unwrap();
                let lines = x.chunks(cols.max(1)).zip(codes.chunks(cols.max(1))).zip(&scale);
                for ((row, codes), scale) in lines {
                    let count = row.len() as f64;
                    let mean = if centred { row.iter().map(|&x| f64::from(x)).sum::<f64>() / count } else { 0.0 };
                    let square = row.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / count;
                    for (j, (&x, &code)) in row.iter().zip(codes).enumerate() {
                        let y = (f64::from(x) - mean) / (square + 1e-5).sqrt() * f64::from(weight[j]);
                        let y = y + bias.map_or(0.0, |bias| f64::from(bias[j]));
                        // half a step, and what rounding to f32 moves
                        let off = (f64::from(code) * f64::from(*scale) - y).abs();
                        assert!(off <= 0.5001 * f64::from(*scale) + 1e-6, "{m:?} {j}: {code} times {scale} for {y}");
                    }
                }
                let got = (codes, scale);
                assert_eq!(*first.get_or_insert(got.clone()), got);
            }
        }
    }
}

#[test]
fn norms_refuse() {
    let (m, x) = (Machine::detect(), [1.0; 6]);
    let run = |weight: &[f32], bias: Option<&[f32]>, eps, scales: usize| {
        let norm = Norm { centred: true, weight, bias, eps };
        norm_quantize::<Int8>(&m, &x, 2, 3, norm, 1e-5, &mut [0; 6], &mut vec![0.0; scales])
    };
    assert!(run(&[1.0; 3], Some(&[0.0; 3]), 0.0, 2).is_ok());
    assert!(matches!(run(&[1.0; 3], None, -1.0, 2), Err(Error::Range(_))));
    assert!(matches!(run(&[1.0; 3], None, f32::NAN, 2), Err(Error::Range(_))));
    assert!(matches!(run(&[1.0; 2], None, 0.0, 2), Err(Error::Shape(_))));
    assert!(matches!(run(&[1.0; 3], Some(&[0.0; 4]), 0.0, 2), Err(Error::Shape(_))));
    assert!(matches!(run(&[1.0; 3], None, 0.0, 3), Err(Error::Shape(_))));
}
