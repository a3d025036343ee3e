use super::{hadamard, matrix};
use crate::{Error, Machine, Path};

#[test]
fn every_path_gives_the_same_bits() {
    let scalar = Machine::forced(Path::Scalar, 1).unwrap();
    for n in (0..15).map(|log| 1 << log).chain([12, 20, 24, 56, 368, 688, 11008]) {
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
fn wrong_calls_are_refused() {
    let m = Machine::detect();
    for n in [0, 3, 6, 4004] {
        assert!(matches!(hadamard(&m, None, &mut [0.0; 48], 1, n, 1.0, false), Err(Error::Range(_))));
    }
    assert!(matches!(hadamard(&m, None, &mut [0.0; 48], 1, 32, 1.0, false), Err(Error::Shape(_))));
}

#[test]
fn every_matrix_is_a_hadamard_matrix() {
    let orders = [12, 20, 28, 36, 44, 52, 60, 76, 84, 108, 116, 124, 140, 148, 156, 172, 200, 368];
    for order in orders {
        assert_eq!(matrix::order(order * 64), Some(order));
        let h = matrix::matrix(order);
        assert_eq!(h.len(), order * order);
        assert!(h.iter().all(|&x| x == 1.0 || x == -1.0));
        for (i, a) in h.chunks(order).enumerate() {
            for (j, b) in h.chunks(order).enumerate() {
                let product: f32 = a.iter().zip(b).map(|(a, b)| a * b).sum();
                assert_eq!(product, if i == j { order as f32 } else { 0.0 }, "{order}: rows {i} and {j}");
            }
        }
    }
}
