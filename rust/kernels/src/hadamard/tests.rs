use super::matrix::{Construction, Field};
use super::{hadamard, hadamard_quantize, matrix};
use crate::minifloat::E4m3fn;
use crate::quantize::{Int8, quantize_tokens};
use crate::{Error, Machine, Path};

#[test]
fn every_path_gives_the_same_bits() {
    let scalar = Machine::forced(Path::Scalar, 1).unwrap();
    for n in (0..15).map(|log| 1 << log).chain([3, 12, 20, 24, 56, 92, 368, 688, 11008]) {
        for rows in [0, 1, 2, 7, 200_000_usize.div_ceil(n).min(100)] {
            let x: Vec<f32> = (0..rows * n).map(|i| ((i * i) as f32 * 0.37).sin()).collect();
            let mut expected = x.clone();
            hadamard(&scalar, None, &mut expected, rows, n, 0.3, n % 8 == 4).unwrap();
            for m in Path::ALL.into_iter().filter_map(|path| Machine::forced(path, 3)) {
                let mut got = x.clone();
                hadamard(&m, None, &mut got, rows, n, 0.3, n % 8 == 4).unwrap();
                assert!(got == expected, "{m:?} {rows} x {n}");
                got.fill(f32::NAN);
                hadamard(&m, Some(x[..].into()), &mut got, rows, n, 0.3, n % 8 == 4).unwrap();
                assert!(got == expected, "{m:?} {rows} x {n}, out of place");
            }
        }
    }
}

#[test]
fn quantized_rows_are_those_of_the_transform() {
    for (rows, n) in [(0, 8), (1, 1), (3, 4), (2, 64), (5, 12), (40, 256), (9, 1024)] {
        let x: Vec<f32> = (0..rows * n).map(|i| ((i * i) as f32 * 0.37).sin()).collect();
        let signs: Vec<f32> = (0..n).map(|j| if j % 3 == 0 { -1.0 } else { 1.0 }).collect();
        for (m, signs) in Path::ALL
            .into_iter()
            .flat_map(|path| [1, 3].map(|threads| Machine::forced(path, threads)))
            .flatten()
            .flat_map(|m| [(m, None), (m, Some(&signs[..]))])
        {
            let mut y: Vec<f32> =
                x.iter().enumerate().map(|(i, x)| x * signs.map_or(1.0, |signs| signs[i % n])).collect();
            hadamard(&m, None, &mut y, rows, n, 0.3, true).unwrap();
            let (mut codes, mut scale) = (vec![9i8; x.len()], vec![9.0; rows]);
            let (mut expected, mut scales) = (codes.clone(), scale.clone());
            hadamard_quantize::<Int8>(&m, &x, signs, rows, n, 0.3, true, 1e-5, &mut codes, &mut scale).unwrap();
            quantize_tokens::<Int8>(&m, &y, rows, n, 1e-5, &mut expected, &mut scales).unwrap();
            assert!(codes == expected && scale == scales, "{m:?} {rows} x {n}");
            let (mut codes, mut expected) = (vec![9u8; x.len()], vec![9u8; x.len()]);
            hadamard_quantize::<E4m3fn>(&m, &x, signs, rows, n, 0.3, true, 1e-5, &mut codes, &mut scale).unwrap();
            quantize_tokens::<E4m3fn>(&m, &y, rows, n, 1e-5, &mut expected, &mut scales).unwrap();
            assert!(codes == expected && scale == scales, "{m:?} {rows} x {n}");
        }
    }
}

#[test]
fn wrong_calls_are_refused() {
    let m = Machine::detect();
    for n in [0, 4099, 8 * 4099] {
        assert!(matches!(hadamard(&m, None, &mut [0.0; 48], 1, n, 1.0, false), Err(Error::Range(_))));
    }
    assert!(matches!(hadamard(&m, None, &mut [0.0; 48], 1, 32, 1.0, false), Err(Error::Shape(_))));
    assert!(matches!(
        hadamard(&m, Some([0.0; 31][..].into()), &mut [0.0; 32], 1, 32, 1.0, false),
        Err(Error::Shape(_))
    ));
    let quantize =
        |n, signs| hadamard_quantize::<Int8>(&m, &[0.0; 32], signs, 1, n, 1.0, false, 1e-5, &mut [0; 32], &mut [0.0]);
    assert!(matches!(quantize(4099, None), Err(Error::Range(_))));
    assert!(matches!(quantize(64, None), Err(Error::Shape(_))));
    assert!(matches!(quantize(32, Some(&[1.0; 31][..])), Err(Error::Shape(_))));
}

#[test]
fn every_matrix_is_a_hadamard_matrix() {
    let orders =
        [12, 20, 28, 36, 44, 52, 60, 76, 84, 100, 108, 116, 124, 140, 148, 156, 172, 200, 244, 340, 368, 580, 724];
    for order in orders {
        // one over a prime goes before one over a power of a prime, though that is smaller
        let first = match order {
            100 | 244 => 2 * order,
            _ => order,
        };
        assert_eq!(matrix::order(order * 64), Some(first));
        assert_eq!(matrix::order(order), Some(order));
        expect_hadamard(order, &matrix::matrix(order));
    }
}

#[test]
fn powers_of_primes_give_hadamard_matrices_too() {
    for (q, order) in [(7, 8), (27, 28), (243, 244), (343, 344)] {
        expect_hadamard(order, &entries(&Construction::PaleyOne(Field::of(q).unwrap()), order));
    }
    for q in [5, 9, 25, 49, 81, 121, 125, 169] {
        let order = 2 * (q + 1);
        expect_hadamard(order, &entries(&Construction::PaleyTwo(Field::of(q).unwrap()), order));
    }
    for other in [0, 1, 2, 4, 15, 16, 45, 63] {
        assert!(Field::of(other).is_none(), "{other}");
    }
}

#[test]
fn odd_orders_are_orthogonal_and_symmetric() {
    for order in [3, 5, 23, 59, 107, 4095] {
        assert_eq!([order, order * 2].map(matrix::order), [Some(order); 2]);
        let h = matrix::matrix(order);
        let largest = h.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
        assert!(largest <= std::f32::consts::SQRT_2, "{order}: {largest}");
        for (i, j) in [(0, 0), (1, 1), (0, 1), (1, 2), (order - 1, 1), (order / 2, order / 2)] {
            let rows = h[i * order..][..order].iter().zip(&h[j * order..][..order]);
            let product: f64 = rows.map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
            let want = if i == j { order as f64 } else { 0.0 };
            assert!((product - want).abs() < 1e-6 * order as f64, "{order}: rows {i} and {j} give {product}");
            assert_eq!(h[i * order + j], h[j * order + i]);
        }
    }
    assert_eq!(matrix::order(107 * 128), Some(107));
    assert_eq!([4097, 0].map(matrix::order), [None; 2]);
}

fn entries(made: &Construction, order: usize) -> Vec<f32> {
    made.entries(order).map(f32::from).collect()
}

fn expect_hadamard(order: usize, h: &[f32]) {
    assert_eq!(h.len(), order * order);
    assert!(h.iter().all(|&x| x == 1.0 || x == -1.0));
    for (i, a) in h.chunks(order).enumerate() {
        for (j, b) in h.chunks(order).enumerate() {
            let product: f32 = a.iter().zip(b).map(|(a, b)| a * b).sum();
            assert_eq!(product, if i == j { order as f32 } else { 0.0 }, "{order}: rows {i} and {j}");
        }
    }
}
