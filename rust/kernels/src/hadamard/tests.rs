use super::hadamard;
use crate::{Error, Machine, Path};

#[test]
fn every_path_gives_the_same_bits() {
    let scalar = Machine::forced(Path::Scalar, 1).unwrap();
    for log in 0..15 {
        let n = 1 << log;
        for rows in [0, 1, 2, 7, 200_000_usize.div_ceil(n).min(100)] {
            let x: Vec<f32> = (0..rows * n).map(|i| ((i * i) as f32 * 0.37).sin()).collect();
            let mut expected = x.clone();
            hadamard(&scalar, &mut expected, rows, n, 0.3).unwrap();
            for m in Path::ALL.into_iter().filter_map(|path| Machine::forced(path, 3)) {
                let mut got = x.clone();
                hadamard(&m, &mut got, rows, n, 0.3).unwrap();
                assert!(got == expected, "{m:?} {rows} x {n}");
            }
        }
    }
}

#[test]
fn wrong_calls_are_refused() {
    let m = Machine::detect();
    for n in [0, 3, 48] {
        assert!(matches!(hadamard(&m, &mut [0.0; 48], 1, n, 1.0), Err(Error::Range(_))));
    }
    assert!(matches!(hadamard(&m, &mut [0.0; 48], 1, 32, 1.0), Err(Error::Shape(_))));
}
