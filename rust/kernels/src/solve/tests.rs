use super::*;
use crate::codebook::Table;
use crate::quantize::{Grid, ScaleType, fit_affine, quantize_affine};
use crate::{Error, Machine, Path};

fn machines() -> Vec<Machine> {
    // An emulated path is slow: once is enough.
    let threads = |path: Path| if path > Path::Avx2 { &[3][..] } else { &[1, 2, 3] };
    let each = |path| threads(path).iter().filter_map(move |&threads| Machine::forced(path, threads));
    Path::ALL.into_iter().flat_map(each).collect()
}

/// Reproducible numbers in -1..1.
fn noise(count: usize, mut state: u64) -> Vec<f32> {
    (0..count)
        .map(|_| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 40) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect()
}

/// `x^T x` of correlated inputs.
fn hessian(n: usize, seed: u64) -> Vec<f32> {
    let m = Machine::detect();
    let (tokens, z, mix) = (2 * n + 3, noise((2 * n + 3) * n, seed), noise(n * n, seed + 1));
    let mut x = vec![0.0; tokens * n];
    for t in 0..tokens {
        for i in 0..n {
            x[t * n + i] =
                z[t * n + i] + (0..n).map(|j| z[t * n + j] * mix[j * n + i]).sum::<f32>() / (n as f32).sqrt();
        }
    }
    let mut gram = vec![0.0; n * n];
    accumulate_gram(&m, &x, tokens, n, &mut gram).unwrap();
    gram
}

const GRID: Grid = Grid {
    bits: 4,
    symmetric: true,
    narrow: false,
    forced_zero: true,
    eps: 0.0,
    scale_dtype: ScaleType::F32,
    shrink: None,
};

#[derive(Debug, Clone, PartialEq)]
struct Solved {
    weight: Vec<f32>,
    codes: Vec<u8>,
    scale: Vec<f32>,
    zero: Vec<u8>,
    loss: Vec<f32>,
}

impl Solved {
    fn value(&self, row: usize, column: usize, cols: usize, group: usize) -> f64 {
        let at = row * (cols / group) + column / group;
        f64::from(self.scale[at]) * (f64::from(self.codes[row * cols + column]) - f64::from(self.zero[at]))
    }
}

fn solve(
    m: &Machine,
    weight: &[f32],
    factor: &[f32],
    rows: usize,
    groups: Groups<'_>,
    block: usize,
) -> crate::Result<Solved> {
    let cols = weight.len() / rows;
    let Groups::Dynamic { size, .. } = groups else { unreachable!("only dynamic groups here") };
    let mut solved = Solved {
        weight: weight.to_vec(),
        codes: vec![0; rows * cols],
        scale: vec![0.0; rows * cols / size],
        zero: vec![0; rows * cols / size],
        loss: vec![0.0; rows],
    };
    let Solved { weight, codes, scale, zero, loss } = &mut solved;
    gptq(m, weight, factor, rows, cols, groups, &GRID, block, codes, scale, zero, loss)?;
    Ok(solved)
}

#[test]
fn gram_is_symmetric_exact_on_integers_and_adds_up() {
    for (tokens, channels) in [(0, 3), (1, 1), (5, 7), (33, 255), (9, 256), (17, 300), (3, 513), (1025, 40)] {
        let x: Vec<f32> = noise(tokens * channels, 1).iter().map(|x| (x * 9.0).round()).collect();
        for m in machines() {
            let mut gram = vec![1.0; channels * channels];
            accumulate_gram(&m, &x, tokens, channels, &mut gram).unwrap();
            accumulate_gram(&m, &x, tokens, channels, &mut gram).unwrap();
            for i in 0..channels {
                for j in 0..channels {
                    let sum: f32 = (0..tokens).map(|t| x[t * channels + i] * x[t * channels + j]).sum();
                    assert_eq!(gram[i * channels + j], 1.0 + 2.0 * sum, "{tokens} {channels} {i} {j}");
                }
            }
        }
    }
}

#[test]
fn gram_has_the_same_bits_for_any_threads() {
    let (tokens, channels) = (601, 777);
    let x = noise(tokens * channels, 3);
    let grams = [1, 2, 3, 7].map(|threads| {
        let mut gram = vec![0.0; channels * channels];
        accumulate_gram(&Machine::forced(Path::Scalar, threads).unwrap(), &x, tokens, channels, &mut gram).unwrap();
        gram
    });
    assert!(grams.iter().all(|gram| *gram == grams[0]));
}

#[test]
fn factor_is_upper_and_inverts() {
    for n in [1, 2, 3, 17, 64, 130, 257] {
        let hessian = hessian(n, 5);
        for m in machines() {
            let mut factor = vec![f32::NAN; n * n];
            inverse_factor(&m, &hessian, n, 0.5, &mut factor).unwrap();
            let at = |i: usize, j: usize| f64::from(factor[i * n + j]);
            for i in 0..n {
                assert!((0..i).all(|j| at(i, j) == 0.0));
                assert!(at(i, i) > 0.0);
            }
            // U H U^T = I
            let mut product = vec![0.0f64; n * n];
            for i in 0..n {
                for k in i..n {
                    for j in 0..n {
                        let damp = if k == j { 0.5 } else { 0.0 };
                        product[i * n + j] += at(i, k) * (f64::from(hessian[k * n + j]) + damp);
                    }
                }
            }
            for i in 0..n {
                for j in 0..n {
                    let sum: f64 = (j..n).map(|k| product[i * n + k] * at(j, k)).sum();
                    let expected = if i == j { 1.0 } else { 0.0 };
                    assert!((sum - expected).abs() < 1e-3, "{n} {i} {j} {sum}");
                }
            }
        }
    }
}

#[test]
fn factor_has_the_same_bits_for_any_threads() {
    let n = 700;
    let hessian = hessian(n, 7);
    let factors = [1, 2, 3, 7].map(|threads| {
        let mut factor = vec![0.0; n * n];
        inverse_factor(&Machine::forced(Path::Scalar, threads).unwrap(), &hessian, n, 0.1, &mut factor).unwrap();
        factor
    });
    assert!(factors.iter().all(|factor| *factor == factors[0]));
}

#[test]
fn factor_of_what_cannot_be_factored() {
    let m = Machine::detect();
    let mut factor = vec![0.0; 9];
    let ones = [1.0; 9];
    assert!(matches!(inverse_factor(&m, &ones, 3, 0.0, &mut factor), Err(Error::Singular(_))));
    assert!(inverse_factor(&m, &ones, 3, 0.1, &mut factor).is_ok());
    let negative = [1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0];
    let Err(Error::Singular(detail)) = inverse_factor(&m, &negative, 3, 0.0, &mut factor) else { panic!("singular") };
    assert!(detail.given.contains("column 1"), "{}", detail.given);
    let mut nan = ones;
    nan[5] = f32::NAN;
    assert!(matches!(inverse_factor(&m, &nan, 3, 1.0, &mut factor), Err(Error::NotFinite(_))));
    assert!(matches!(inverse_factor(&m, &ones, 3, f32::NAN, &mut factor), Err(Error::Range(_))));
    assert!(matches!(inverse_factor(&m, &ones, 2, 0.0, &mut factor), Err(Error::Shape(_))));
    assert!(matches!(inverse_factor(&m, &[f32::MAX; 1], 1, f32::MAX, &mut factor[..1]), Err(Error::Singular(_))));
    assert!(inverse_factor(&m, &[], 0, 0.0, &mut []).is_ok());
}

#[test]
fn gptq_on_a_diagonal_is_rounding_to_nearest() {
    for (rows, cols, group) in [(1, 1, 1), (3, 5, 5), (33, 64, 16), (40, 300, 100)] {
        let weight = noise(rows * cols, 11);
        let mut factor = vec![0.0; cols * cols];
        for j in 0..cols {
            factor[j * cols + j] = 0.5 + j as f32;
        }
        for m in machines() {
            let (mut scale, mut zero) = (vec![0.0; rows * cols / group], vec![0; rows * cols / group]);
            fit_affine(&m, &GRID, &weight, rows, cols, group, &mut scale, &mut zero).unwrap();
            let mut codes = vec![0; rows * cols];
            quantize_affine(&m, &weight, rows, cols, group, 4, &scale, &zero, &mut codes).unwrap();
            for block in [1, 7, 128] {
                for fresh in [false, true] {
                    let solved =
                        solve(&m, &weight, &factor, rows, Groups::Dynamic { size: group, fresh }, block).unwrap();
                    assert_eq!((&solved.codes, &solved.scale, &solved.zero), (&codes, &scale, &zero));
                    assert_eq!(solved.weight, weight);
                }
            }
        }
    }
}

#[test]
fn gptq_keeps_its_identity_and_its_bits() {
    for (rows, cols, group) in [(5, 12, 12), (37, 96, 32), (130, 200, 40)] {
        let (weight, hessian) = (noise(rows * cols, 13), hessian(cols, 17));
        let mut factor = vec![0.0; cols * cols];
        inverse_factor(&Machine::detect(), &hessian, cols, 0.0, &mut factor).unwrap();
        for fresh in [false, true] {
            let all: Vec<_> = machines()
                .iter()
                .map(|m| solve(m, &weight, &factor, rows, Groups::Dynamic { size: group, fresh }, 64).unwrap())
                .collect();
            assert!(all.iter().all(|solved| *solved == all[0]));
            let solved = &all[0];
            // the error in the original weight, measured by H, is what the loop summed
            let (mut direct, mut summed) = (0.0, 0.0);
            for row in 0..rows {
                let error: Vec<f64> =
                    (0..cols).map(|j| f64::from(weight[row * cols + j]) - solved.value(row, j, cols, group)).collect();
                for i in 0..cols {
                    for j in 0..cols {
                        direct += error[i] * f64::from(hessian[i * cols + j]) * error[j];
                    }
                }
                summed += 2.0 * f64::from(solved.loss[row]);
            }
            assert!((direct / summed - 1.0).abs() < 1e-5, "{rows} {cols} {group} {direct} {summed}");
        }
    }
}

#[test]
fn gptq_does_not_depend_on_the_block_with_one_group() {
    let (rows, cols) = (33, 160);
    let (weight, hessian) = (noise(rows * cols, 19), hessian(cols, 23));
    let mut factor = vec![0.0; cols * cols];
    let m = Machine::detect();
    inverse_factor(&m, &hessian, cols, 1.0, &mut factor).unwrap();
    let [one, two, three] = [32, 128, 1000]
        .map(|block| solve(&m, &weight, &factor, rows, Groups::Dynamic { size: cols, fresh: false }, block).unwrap());
    for other in [two, three] {
        // f32 sums in another order: a value within rounding of a tie may fall to the other side
        let different = one.codes.iter().zip(&other.codes).filter(|(a, b)| a != b).count();
        assert!(different <= 2, "{different}");
    }
}

#[test]
fn gptq_refuses() {
    let m = Machine::detect();
    let groups = Groups::Dynamic { size: 2, fresh: false };
    let (good, identity) = ([0.5f32; 4], [1.0f32, 0.0, 0.0, 1.0]);
    assert!(matches!(solve(&m, &[0.5, f32::NAN, 0.0, 0.0], &identity, 2, groups, 8), Err(Error::NotFinite(_))));
    assert!(matches!(solve(&m, &good, &[1.0, f32::INFINITY, 0.0, 1.0], 2, groups, 8), Err(Error::NotFinite(_))));
    assert!(matches!(solve(&m, &good, &[1.0, 0.0, 0.0, 0.0], 2, groups, 8), Err(Error::Range(_))));
    assert!(matches!(solve(&m, &good, &identity, 2, groups, 0), Err(Error::Range(_))));
    assert!(matches!(solve(&m, &good, &identity[..3], 2, groups, 8), Err(Error::Shape(_))));
    let odd = Groups::Dynamic { size: 3, fresh: false };
    assert!(matches!(solve(&m, &good, &identity, 2, odd, 8), Err(Error::Shape(_))));
    let overflowing = [1.0, 3e38, 0.0, 1.0];
    assert!(matches!(solve(&m, &[3e38, -3e38, 0.0, 0.0], &overflowing, 2, groups, 1), Err(Error::NotFinite(_))));
    let mut outputs = (vec![0; 4], vec![0.0; 4], vec![0; 4], vec![0.0; 2]);
    let mut fixed = |index: &[u32], scale: f32, zero: u8| {
        outputs.1.fill(scale);
        outputs.2.fill(zero);
        let groups = Groups::Static { count: 2, index };
        let (codes, scale, zero, loss) = (&mut outputs.0, &mut outputs.1, &mut outputs.2, &mut outputs.3);
        gptq(&m, &mut good.clone(), &identity, 2, 2, groups, &GRID, 8, codes, scale, zero, loss)
    };
    assert!(fixed(&[1, 0], 0.25, 8).is_ok());
    assert!(matches!(fixed(&[2, 0], 0.25, 8), Err(Error::Range(_))));
    assert!(matches!(fixed(&[1], 0.25, 8), Err(Error::Shape(_))));
    assert!(matches!(fixed(&[1, 0], 0.0, 8), Err(Error::Range(_))));
    assert!(matches!(fixed(&[1, 0], f32::NAN, 8), Err(Error::Range(_))));
    assert!(matches!(fixed(&[1, 0], 0.25, 16), Err(Error::Range(_))));
}

#[test]
fn half_quadratic_is_the_same_on_every_machine_and_lowers_its_error() {
    let options = Proximal { p: 0.7, beta: 10.0, kappa: 1.01, steps: 20, stop: true, best: false, round_zero: false };
    for (rows, cols, group) in [(1, 1, 1), (3, 35, 7), (2, 4096, 64), (5, 300, 300)] {
        let weight: Vec<f32> = (0..rows * cols).map(|i| ((i * i + 7 * i) % 101) as f32 / 500.0 - 0.07).collect();
        let mut first = None;
        for m in Path::ALL.iter().flat_map(|&path| [1, 3].map(|threads| Machine::forced(path, threads))).flatten() {
            let (mut codes, mut scale) = (vec![0; rows * cols], vec![0.0; rows * cols / group]);
            let (mut zero, mut errors) = (scale.clone(), [0.0; 20]);
            let dtype = ScaleType::F32;
            half_quadratic(
                &m,
                &weight,
                rows,
                cols,
                group,
                3,
                &options,
                dtype,
                &mut codes,
                &mut scale,
                &mut zero,
                &mut errors,
            )
            .unwrap();
            let run: Vec<f32> = errors.into_iter().filter(|error| !error.is_nan()).collect();
            assert!(run.iter().rev().skip(1).rev().is_sorted_by(|a, b| a > b), "{run:?}");
            let bits = zero.iter().map(|zero: &f32| zero.to_bits()).collect::<Vec<_>>();
            let found = (codes, bits);
            assert_eq!(*first.get_or_insert(found.clone()), found, "{rows} {cols} {group} {:?}", m.path());
        }
    }
}

#[test]
fn half_quadratic_refuses() {
    let good = Proximal { p: 0.7, beta: 10.0, kappa: 1.01, steps: 1, stop: true, best: false, round_zero: false };
    let m = Machine::forced(Path::Scalar, 1).unwrap();
    let run = |options: Proximal, weight: [f32; 2], group| {
        let (mut codes, mut scale, mut zero, mut errors) = ([0; 2], [0.0], [0.0], vec![0.0; options.steps]);
        half_quadratic(
            &m,
            &weight,
            1,
            2,
            group,
            4,
            &options,
            ScaleType::F32,
            &mut codes,
            &mut scale,
            &mut zero,
            &mut errors,
        )
    };
    assert!(run(good, [0.0, 1.0], 2).is_ok());
    for bad in [
        Proximal { p: 0.0, ..good },
        Proximal { beta: f64::NAN, ..good },
        Proximal { kappa: 0.5, ..good },
        Proximal { steps: 1001, ..good },
    ] {
        assert!(matches!(run(bad, [0.0, 1.0], 2), Err(Error::Range(_))));
    }
    assert!(matches!(run(good, [0.0, f32::NAN], 2), Err(Error::NotFinite(_))));
    assert!(matches!(run(good, [f32::MIN, f32::MAX], 2), Err(Error::NotFinite(_))));
    assert!(matches!(run(good, [0.0, 1.0], 3), Err(Error::Shape(_))));
}

#[test]
fn coordinate_descent_is_the_same_on_every_machine_and_lowers_its_loss() {
    for (rows, cols, block) in [(1, 1, 1), (3, 20, 8), (140, 33, 16)] {
        let (weight, hessian) = (noise(rows * cols, 3), hessian(cols, 4));
        let (scale, zero, index) = (vec![0.3; rows], vec![4; rows], vec![0; cols]);
        let descent =
            Descent { bits: 3, scale: &scale, zero: &zero, index: &index, sweeps: 1, relax: 0, block, only: None };
        let mut first = None;
        for m in machines() {
            let (mut codes, mut loss, mut values) = (vec![0; rows * cols], vec![0.0; rows], weight.clone());
            coordinate_descent(&m, &weight, &hessian, rows, cols, &descent, &mut values, &mut codes, &mut loss)
                .unwrap();
            let (mut more, mut less) = (codes.clone(), loss.clone());
            let again = Descent { sweeps: 3, ..descent };
            coordinate_descent(&m, &weight, &hessian, rows, cols, &again, &mut values, &mut more, &mut less).unwrap();
            assert!(less.iter().zip(&loss).all(|(less, loss)| *less <= loss * 1.001 + 1e-6));
            let found = (codes, more);
            assert_eq!(*first.get_or_insert(found.clone()), found, "{rows} {cols} {:?}", m.path());
        }
    }
}

#[test]
fn coordinate_descent_refuses() {
    let m = Machine::forced(Path::Scalar, 1).unwrap();
    let good =
        Descent { bits: 3, scale: &[1.0], zero: &[4], index: &[0, 0], sweeps: 1, relax: 0, block: 8, only: None };
    let run = |descent: Descent<'_>, weight: [f32; 2], hessian: [f32; 4]| {
        coordinate_descent(&m, &weight, &hessian, 1, 2, &descent, &mut weight.clone(), &mut [9, 0], &mut [0.0])
    };
    let eye = [1.0, 0.0, 0.0, 1.0];
    assert!(run(good, [0.0, 1.0], eye).is_ok());
    for bad in [
        Descent { bits: 0, ..good },
        Descent { scale: &[0.0], ..good },
        Descent { zero: &[8], ..good },
        Descent { index: &[0, 1], ..good },
        Descent { sweeps: 0, ..good },
        Descent { block: 0, ..good },
        Descent { only: Some(1), ..good },
    ] {
        assert!(matches!(run(bad, [0.0, 1.0], eye), Err(Error::Range(_))), "{bad:?}");
    }
    assert!(matches!(run(good, [0.0, 1.0], [-1.0, 0.0, 0.0, 1.0]), Err(Error::Range(_))));
    assert!(matches!(run(good, [0.0, f32::NAN], eye), Err(Error::NotFinite(_))));
    assert!(matches!(run(Descent { index: &[0], ..good }, [0.0, 1.0], eye), Err(Error::Shape(_))));
}

#[test]
fn bilevel_is_the_same_on_every_machine() {
    for (rows, cols, group, masked) in [(4, 12, 4, false), (136, 30, 10, false), (8, 30, 15, true)] {
        let weight = noise(rows * cols, 5);
        let mut factor = vec![0.0; cols * cols];
        inverse_factor(&machines()[0], &hessian(cols, 4), cols, 0.5, &mut factor).unwrap();
        for block in [1, 12, 128] {
            let mut first = None;
            for m in machines() {
                let count = cols / group;
                let options = Bilevel {
                    bits: 3,
                    group,
                    scale_bits: 3,
                    zero_bits: 3,
                    run: 4,
                    round_zero: false,
                    threshold: 0.02,
                    simplified: false,
                    dtype: ScaleType::F16,
                    block,
                };
                let mut values = weight.clone();
                let (mut codes, mut mask) = (vec![0; rows * cols], vec![0; rows * cols]);
                mask[5] = 1;
                let (mut scale, mut zero) = (vec![0.0; rows * count], vec![0.0; rows * count]);
                let (mut scale_codes, mut zero_codes) = (vec![0; rows * count], vec![0; rows * count]);
                let (mut scale_grid, mut zero_grid) = (vec![0.0; rows / 2 * count], vec![0.0; rows / 2 * count]);
                let mut loss = vec![0.0; rows];
                let found = Found {
                    weight: &mut values,
                    codes: &mut codes,
                    mask: &mut mask,
                    scale: &mut scale,
                    zero: &mut zero,
                    scale_codes: &mut scale_codes,
                    zero_codes: &mut zero_codes,
                    scale_grid: &mut scale_grid,
                    zero_grid: &mut zero_grid,
                    loss: &mut loss,
                };
                bilevel(&m, Some(&factor), rows, cols, &options, masked, found).unwrap();
                if masked {
                    assert_eq!(mask.iter().map(|&mask| usize::from(mask)).sum::<usize>(), 1);
                }
                let found = (codes, mask, scale_codes, zero_codes);
                assert_eq!(*first.get_or_insert(found.clone()), found, "{rows} {cols} {block} {:?}", m.path());
            }
        }
    }
}

#[test]
fn bilevel_refuses() {
    let m = Machine::forced(Path::Scalar, 1).unwrap();
    let good = Bilevel {
        bits: 3,
        group: 2,
        scale_bits: 3,
        zero_bits: 0,
        run: 2,
        round_zero: false,
        threshold: 0.1,
        simplified: true,
        dtype: ScaleType::F32,
        block: 8,
    };
    let run = |options: Bilevel, weight: [f32; 4], factor: [f32; 4]| {
        let mut weight = weight;
        let found = Found {
            weight: &mut weight,
            codes: &mut [0; 4],
            mask: &mut [0; 4],
            scale: &mut [0.0; 2],
            zero: &mut [0.0; 2],
            scale_codes: &mut [0; 2],
            zero_codes: &mut [0; 2],
            scale_grid: &mut [0.0; 2],
            zero_grid: &mut [0.0; 2],
            loss: &mut [0.0; 2],
        };
        bilevel(&m, Some(&factor), 2, 2, &options, false, found)
    };
    let (weight, eye) = ([0.0, 1.0, 2.0, -1.0], [1.0, 0.0, 0.0, 1.0]);
    assert!(run(good, weight, eye).is_ok());
    for bad in [
        Bilevel { bits: 9, ..good },
        Bilevel { scale_bits: 9, ..good },
        Bilevel { block: 0, ..good },
        Bilevel { threshold: -1.0, ..good },
        Bilevel { threshold: f32::NAN, ..good },
    ] {
        assert!(matches!(run(bad, weight, eye), Err(Error::Range(_))), "{bad:?}");
    }
    for bad in [Bilevel { group: 3, ..good }, Bilevel { run: 3, ..good }, Bilevel { run: 0, ..good }] {
        assert!(matches!(run(bad, weight, eye), Err(Error::Shape(_))), "{bad:?}");
    }
    assert!(matches!(run(good, weight, [1.0, 0.0, 0.0, 0.0]), Err(Error::Range(_))));
    assert!(matches!(run(good, [0.0, f32::NAN, 0.0, 0.0], eye), Err(Error::NotFinite(_))));
    assert!(matches!(run(good, weight, [1.0, f32::INFINITY, 0.0, 1.0]), Err(Error::NotFinite(_))));
}

#[test]
fn min_max_is_the_same_on_every_machine_and_never_worse() {
    for (rows, constraints, cols, moves) in
        [(1, 1, 1, Moves::Single), (3, 21, 13, Moves::Swap), (4, 70, 33, Moves::Both)]
    {
        let (a, b) = (noise(constraints * cols, 3), noise(rows * constraints, 4));
        let levels: Vec<f32> = (0..rows).flat_map(|_| [-1.0, -0.4, 0.1, 0.9]).collect();
        let begun: Vec<u8> = (0..rows * cols).map(|i| (i * 7 % 4) as u8).collect();
        let frozen: Vec<u8> = (0..rows * cols).map(|i| u8::from(i % 5 == 0)).collect();
        let search = Search {
            levels: &levels,
            frozen: Some(&frozen),
            iterations: 9,
            active: 10,
            guard: true,
            all: None,
            moves,
            share: 0.1,
            seed: 1,
        };
        let mut first = None;
        for m in machines() {
            let (mut codes, mut largest, mut squares) = (begun.clone(), vec![0.0; 2 * rows], vec![0.0; 2 * rows]);
            min_max(&m, &a, &b, rows, constraints, cols, &search, &mut codes, &mut largest, &mut squares).unwrap();
            assert!(largest.chunks(2).all(|most| most[1] <= most[0]));
            assert!(squares.chunks(2).all(|sums| sums[1] <= sums[0] * (1.0 + 1e-6)));
            assert!((0..codes.len()).all(|i| frozen[i] == 0 || codes[i] == begun[i]));
            let found = (codes, largest, squares);
            assert_eq!(*first.get_or_insert(found.clone()), found, "{rows} {:?}", m.path());
        }
    }
}

#[test]
fn min_max_refuses() {
    let m = Machine::forced(Path::Scalar, 1).unwrap();
    let good = Search {
        levels: &[0.0, 1.0],
        frozen: None,
        iterations: 2,
        active: 4,
        guard: true,
        all: None,
        moves: Moves::Swap,
        share: 0.5,
        seed: 0,
    };
    let run = |search: Search<'_>, b: f32, code: u8| {
        min_max(&m, &[1.0, 2.0], &[b], 1, 1, 2, &search, &mut [0, code], &mut [0.0; 2], &mut [0.0; 2])
    };
    assert!(run(good, 1.0, 1).is_ok());
    for bad in [
        Search { levels: &[1.0, 1.0], ..good },
        Search { levels: &[], ..good },
        Search { share: 1.5, ..good },
        Search { share: f64::NAN, ..good },
    ] {
        assert!(matches!(run(bad, 1.0, 1), Err(Error::Range(_))), "{bad:?}");
    }
    assert!(matches!(run(good, 1.0, 2), Err(Error::Range(_))));
    assert!(matches!(run(good, f32::NAN, 1), Err(Error::NotFinite(_))));
    assert!(matches!(run(Search { frozen: Some(&[0]), ..good }, 1.0, 1), Err(Error::Shape(_))));
}

#[test]
fn gptq_codebook_keeps_its_identity_and_its_bits() {
    // whole and broken strips, more than one task, one stage and two, groups, blocks that end anywhere
    for (rows, cols, dim, [first, second], groups, block) in
        [(1, 4, 1, [3, 0], 1, 128), (9, 12, 4, [16, 0], 2, 5), (300, 24, 8, [40, 9], 1, 24), (7, 6, 6, [5, 2], 3, 1)]
    {
        let (weight, mut factor) = (noise(rows * cols, 3), vec![0.0; cols * cols]);
        inverse_factor(&Machine::detect(), &hessian(cols, 4), cols, 0.1, &mut factor).unwrap();
        let (one, two) = (noise(groups * first * dim, 5), noise(groups * second * dim, 6));
        let table = Table { dim, groups, first: &one, second: &two };
        let low = table.bits()[0];
        let value = |code: i32, row: usize, j: usize| {
            let (group, k) = (j / (cols / groups), code as usize);
            let stage = |stage: &[f32], count, k: usize| stage[(group * count + k) * dim + row % dim];
            let rest = if second > 0 { stage(&two, second, k >> low) } else { 0.0 };
            (stage(&one, first, k & ((1 << low) - 1)), rest)
        };
        let mut all = None;
        for m in machines() {
            let (mut now, mut loss) = (weight.clone(), vec![f32::NAN; rows]);
            let mut codes = vec![-1; rows.div_ceil(dim) * cols];
            gptq_codebook(&m, &mut now, &factor, rows, cols, table, block, &mut codes, &mut loss).unwrap();
            for row in 0..rows {
                let error = |j: usize| {
                    let (near, rest) = value(codes[row / dim * cols + j], row, j);
                    (f64::from(now[row * cols + j]) - f64::from(near) - f64::from(rest))
                        / f64::from(factor[j * cols + j])
                };
                for j in 0..cols {
                    let moved: f64 = (0..j).map(|i| error(i) * f64::from(factor[i * cols + j])).sum();
                    let expected = f64::from(weight[row * cols + j]) - moved;
                    let got = f64::from(now[row * cols + j]);
                    assert!((got - expected).abs() <= 1e-4 * (1.0 + expected.abs()), "{row} {j}: {got} {expected}");
                }
                let sum: f64 = (0..cols).map(|j| 0.5 * error(j) * error(j)).sum();
                assert!((f64::from(loss[row]) - sum).abs() <= 1e-3 * (1.0 + sum), "{} {sum}", loss[row]);
            }
            let got = (codes, now, loss);
            assert_eq!(*all.get_or_insert(got.clone()), got, "{m:?}");
        }
    }
}

#[test]
fn gptq_codebook_takes_the_nearest_where_columns_are_alone() {
    let (rows, cols, dim, count) = (10, 7, 4, 6);
    let (weight, words) = (noise(rows * cols, 8), noise(count * dim, 9));
    let factor: Vec<f32> = (0..cols * cols).map(|at| if at % (cols + 1) == 0 { 2.0 } else { 0.0 }).collect();
    let table = Table { dim, groups: 1, first: &words, second: &[] };
    for m in machines() {
        let (mut now, mut loss, mut codes) = (weight.clone(), vec![0.0; rows], vec![0; rows.div_ceil(dim) * cols]);
        gptq_codebook(&m, &mut now, &factor, rows, cols, table, 3, &mut codes, &mut loss).unwrap();
        assert_eq!(now, weight);
        for (at, &code) in codes.iter().enumerate() {
            let (strip, j) = (at / cols, at % cols);
            let away = |k: usize| -> f32 {
                (0..dim)
                    .map(|i| {
                        let x = weight.get((strip * dim + i) * cols + j).copied().unwrap_or(0.0);
                        (x - words[k * dim + i]).powi(2)
                    })
                    .sum()
            };
            assert!((0..count).all(|k| away(code as usize) <= away(k) + 1e-5), "{at}");
        }
    }
}

#[test]
fn gptq_codebook_refuses() {
    let m = Machine::detect();
    let run = |weight: f32, diagonal: f32, first: &[f32], groups, block| {
        let table = Table { dim: 2, groups, first, second: &[] };
        let (mut codes, mut loss) = ([7; 2], [7.0; 2]);
        let factor = [1.0, 0.5, 0.0, diagonal];
        gptq_codebook(&m, &mut [weight; 4], &factor, 2, 2, table, block, &mut codes, &mut loss)
    };
    assert!(run(1.0, 1.0, &[1.0; 4], 1, 2).is_ok());
    assert!(matches!(run(f32::NAN, 1.0, &[1.0; 4], 1, 2), Err(Error::NotFinite(_))));
    assert!(matches!(run(1.0, 0.0, &[1.0; 4], 1, 2), Err(Error::Range(_))));
    assert!(matches!(run(1.0, 1.0, &[1.0, f32::INFINITY], 1, 2), Err(Error::NotFinite(_))));
    assert!(matches!(run(1.0, 1.0, &[], 1, 2), Err(Error::Range(_))));
    assert!(matches!(run(1.0, 1.0, &[1.0; 3], 1, 2), Err(Error::Shape(_))));
    assert!(matches!(run(1.0, 1.0, &[1.0; 12], 3, 2), Err(Error::Shape(_))));
    assert!(matches!(run(1.0, 1.0, &[1.0; 4], 1, 0), Err(Error::Range(_))));
}
