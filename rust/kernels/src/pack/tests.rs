use super::{Order, pack, unpack, words_per_row};
use crate::{Error, Machine, Path};

fn machines() -> impl Iterator<Item = Machine> {
    Path::ALL.into_iter().flat_map(|path| [1, 3].into_iter().filter_map(move |threads| Machine::forced(path, threads)))
}

/// Each bit put where its order says, by the definition.
fn place(order: Order, bits: usize, col: usize, bit: usize) -> usize {
    match order {
        Order::Dense => col * bits + bit,
        Order::Awq => col / 8 * 32 + [0, 2, 4, 6, 1, 3, 5, 7].iter().position(|&c| c == col % 8).unwrap() * 4 + bit,
        Order::Planar => {
            let (mut low, mut start) = (0, col / 32 * 32 * bits);
            for width in [8, 4, 2, 1].into_iter().filter(|width| bits & width != 0) {
                if bit < low + width {
                    return start + col % 32 * width + bit - low;
                }
                (low, start) = (low + width, start + 32 * width);
            }
            unreachable!()
        }
    }
}

#[test]
fn every_bit_lies_in_its_place_and_comes_back() {
    for order in [Order::Dense, Order::Awq, Order::Planar] {
        for bits in 1..=8 {
            for cols in [0, 1, 7, 8, 9, 31, 32, 33, 63, 64, 65, 96, 127, 129, 256, 16384, 16385, 16416, 33000] {
                let whole = match order {
                    Order::Dense => true,
                    Order::Awq => bits == 4 && cols % 8 == 0,
                    Order::Planar => cols % 32 == 0,
                };
                if !whole {
                    continue;
                }
                // 70 rows of that many are enough for two threads
                let many = if cols < 100 { 3000 } else { 16 };
                for rows in [0, 1, 3, if cols == 16416 { 70 } else { many }] {
                    let codes: Vec<u8> = (0..rows * cols)
                        .map(|i| ((i as u32).wrapping_mul(2_654_435_761) >> 24) as u8 & (0xff >> (8 - bits)))
                        .collect();
                    let width = words_per_row(cols, bits);
                    let mut expected = vec![0u32; rows * width];
                    for (i, code) in codes.iter().enumerate() {
                        for bit in 0..bits as usize {
                            let at = place(order, bits as usize, i % cols, bit);
                            expected[i / cols * width + at / 32] |= u32::from(code >> bit & 1) << (at % 32);
                        }
                    }
                    let expected: Vec<i32> = expected.into_iter().map(u32::cast_signed).collect();
                    for m in machines() {
                        let mut words = vec![-1; expected.len()];
                        pack(&m, &codes, rows, cols, bits, order, &mut words).unwrap();
                        assert!(words == expected, "{m:?} {order:?} {bits} bits {rows} x {cols}");
                        let mut back = vec![0xff; codes.len()];
                        unpack(&m, &words, rows, cols, bits, order, &mut back).unwrap();
                        assert!(back == codes, "{m:?} {order:?} {bits} bits {rows} x {cols}");
                    }
                }
            }
        }
    }
}

#[test]
fn a_code_of_too_many_bits_is_named() {
    for m in machines() {
        for bits in 1..8 {
            for at in [0, 17, 63, 64, 130] {
                let mut codes = vec![0; 131];
                codes[at] = 1 << bits;
                let mut words = vec![0; words_per_row(131, bits)];
                let error = pack(&m, &codes, 1, 131, bits, Order::Dense, &mut words).unwrap_err();
                assert!(matches!(&error, Error::Range(d) if d.given == format!("{} in row 0, column {at}", 1 << bits)));
            }
        }
    }
}

#[test]
fn wrong_calls_are_refused() {
    let m = Machine::detect();
    let mut words = [0; 4];
    assert!(matches!(pack(&m, &[0; 8], 1, 8, 0, Order::Dense, &mut words), Err(Error::Range(_))));
    assert!(matches!(pack(&m, &[0; 8], 1, 8, 9, Order::Dense, &mut words), Err(Error::Range(_))));
    assert!(matches!(pack(&m, &[0; 8], 1, 8, 3, Order::Awq, &mut words), Err(Error::Range(_))));
    assert!(matches!(pack(&m, &[0; 7], 1, 7, 4, Order::Awq, &mut words), Err(Error::Shape(_))));
    assert!(matches!(pack(&m, &[0; 8], 1, 8, 4, Order::Planar, &mut words), Err(Error::Shape(_))));
    assert!(matches!(pack(&m, &[0; 8], 1, 8, 4, Order::Dense, &mut words), Err(Error::Shape(_))));
    assert!(matches!(pack(&m, &[0; 8], usize::MAX, 8, 4, Order::Dense, &mut words), Err(Error::Shape(_))));
    assert!(matches!(unpack(&m, &words, 1, 8, 4, Order::Dense, &mut [0; 8]), Err(Error::Shape(_))));
    assert!(matches!(unpack(&m, &words, 1, 32, 4, Order::Dense, &mut [0; 31]), Err(Error::Shape(_))));
}
