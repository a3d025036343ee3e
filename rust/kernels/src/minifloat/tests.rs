use super::{AbE2m1, AbE2m5, AbE4m3, Bf16, E2m1, E2m3, E3m2, E4m3fn, E5m2, E8m0, F16, Format};
use super::{BlockScale, Int, Narrow, Rounding, Rule, decode, dequantize_block, encode, quantize_block};
use crate::{Error, Machine, Path};
use std::fmt::Debug;

const ROUNDINGS: [Rounding; 5] =
    [Rounding::Even, Rounding::Away, Rounding::Up, Rounding::Zero, Rounding::Stochastic(7)];

fn machines() -> impl Iterator<Item = Machine> {
    Path::ALL.into_iter().flat_map(|path| [1, 3].map(|threads| Machine::forced(path, threads))).flatten()
}

/// Every code, and every f32 whose lower 12 bits are near a tie or an end, on every path.
fn agrees<F: Format<Code: PartialEq + Debug + Default + TryFrom<u32, Error: Debug>>>() {
    let scalar = Machine::forced(Path::Scalar, 1).unwrap();
    let x: Vec<f32> = (0..1u32 << 20)
        .flat_map(|high| [0, 1, 0x7ff, 0x800, 0xfff].map(|low| f32::from_bits(high << 12 | low)))
        .chain([0.0, -0.0])
        .collect();
    let codes: Vec<F::Code> =
        (0..(2u32 << F::SIGN).min(1 << (8 * size_of::<F::Code>()))).map(|code| code.try_into().unwrap()).collect();
    for m in Path::ALL.into_iter().filter_map(|path| Machine::forced(path, 3)) {
        for (rounding, saturate) in ROUNDINGS.into_iter().flat_map(|by| [(by, false), (by, true)]) {
            let (mut expected, mut got) = (vec![F::Code::default(); x.len()], vec![F::Code::default(); x.len()]);
            encode::<F>(&scalar, x[..].into(), rounding, saturate, &mut expected).unwrap();
            encode::<F>(&m, x[..].into(), rounding, saturate, &mut got).unwrap();
            assert!(expected == got, "{m:?} {rounding:?}");
        }
        let (mut expected, mut got) = (vec![0.0; codes.len()], vec![0.0; codes.len()]);
        decode::<F>(&scalar, &codes, &mut expected).unwrap();
        decode::<F>(&m, &codes, &mut got).unwrap();
        assert!(expected.iter().zip(&got).all(|(a, b)| a.to_bits() == b.to_bits()), "{m:?}");
        let mut back = vec![F::Code::default(); codes.len()];
        for rounding in ROUNDINGS {
            encode::<F>(&m, got[..].into(), rounding, false, &mut back).unwrap();
            for (x, (&code, &back)) in got.iter().zip(codes.iter().zip(&back)) {
                let none = x.is_nan() || F::widen(code) & ((1 << F::SIGN) - 1) < F::LEAST;
                assert!(none || code == back, "{m:?} {rounding:?}: {code:?} is {x} is {back:?}");
            }
            for n in 0..got.len().min(40) {
                let mut few = vec![F::Code::default(); n];
                encode::<F>(&m, got[..n].into(), rounding, false, &mut few).unwrap();
                assert_eq!(few, back[..n]);
            }
        }
        assert!(encode::<F>(&m, x[..].into(), Rounding::Even, true, &mut back[..3]).is_err());
        assert!(decode::<F>(&m, &codes, &mut got[..3]).is_err());
    }
}

#[test]
fn e4m3fn_agrees() {
    agrees::<E4m3fn>();
}
#[test]
fn e5m2_agrees() {
    agrees::<E5m2>();
}
#[test]
fn e3m2_agrees() {
    agrees::<E3m2>();
}
#[test]
fn e2m3_agrees() {
    agrees::<E2m3>();
}
#[test]
fn e2m1_agrees() {
    agrees::<E2m1>();
}
#[test]
fn e8m0_agrees() {
    agrees::<E8m0>();
}
#[test]
fn bf16_agrees() {
    agrees::<Bf16>();
}
#[test]
fn f16_agrees() {
    agrees::<F16>();
}

#[test]
fn abfloats_agree() {
    agrees::<AbE2m1>();
    agrees::<AbE2m5>();
    agrees::<AbE4m3>();
}

/// The two values around a number, and the one that each rounding takes of them.
#[test]
fn roundings_take_the_neighbour_that_they_say() {
    let m = Machine::detect();
    // between 1 (code 0x38) and 1.125 (0x39)
    for (fraction, expected) in [(0.25, [0, 0, 0, 0]), (0.5, [0, 1, 1, 0]), (0.75, [1, 1, 1, 0])] {
        for (rounding, up) in ROUNDINGS.into_iter().zip(expected) {
            let mut codes = [0; 2];
            let x = 1.0 + 0.125 * fraction;
            encode::<E4m3fn>(&m, [x, -x][..].into(), rounding, true, &mut codes).unwrap();
            // a tie of negative numbers is taken up to the smaller magnitude
            let down = if rounding == Rounding::Up && fraction == 0.5 { 0 } else { up };
            assert_eq!(codes, [0x38 + up, 0xb8 + down], "{rounding:?} {fraction}");
        }
    }
}

#[test]
fn random_rounding_is_right_on_average_and_tells_places_and_seeds_apart() {
    let (m, n) = (Machine::detect(), 1 << 16);
    // normal numbers, subnormals, and one that is all but never rounded up
    for (x, upper, chance) in [(1.0 + 0.125 / 8.0, 0x39, 0.125), (0.3 / 512.0, 1, 0.3), (1e-9, 1, 1e-9 * 512.0)] {
        let run = |seed| {
            let mut codes = vec![0; n];
            encode::<E4m3fn>(&m, vec![x; n][..].into(), Rounding::Stochastic(seed), true, &mut codes).unwrap();
            codes
        };
        let (one, other) = (run(0), run(1));
        for codes in [&one, &other] {
            let rate = codes.iter().filter(|&&code| code == upper).count() as f32 / n as f32;
            assert!(
                (rate - chance).abs() < 4.0 * (chance * (1.0 - chance) / n as f32).sqrt() + 1e-4,
                "{rate} {chance}"
            );
        }
        let both = one.iter().zip(&other).filter(|(a, b)| **a == upper && **b == upper).count() as f32 / n as f32;
        assert!((both - chance * chance).abs() < 0.02, "{both}");
    }
}

#[test]
fn sixteen_bits_are_cast_as_the_f32_that_they_are() {
    for m in machines() {
        // several pieces, and a last one that is no whole vector
        let bits: Vec<u16> = (0..150_001u32).map(|i| (i * 40_503) as u16).collect();
        let mut wide = vec![0.0; bits.len()];
        for (narrow, rounding) in
            [Narrow::F16(&bits), Narrow::Bf16(&bits)].into_iter().flat_map(|narrow| ROUNDINGS.map(|by| (narrow, by)))
        {
            let (mut expected, mut got) = (vec![0; bits.len()], vec![1; bits.len()]);
            narrow.write(&m, &mut wide).unwrap();
            encode::<E3m2>(&m, wide[..].into(), rounding, true, &mut expected).unwrap();
            encode::<E3m2>(&m, narrow, rounding, true, &mut got).unwrap();
            assert!(got == expected, "{m:?} {rounding:?}");
            let by = BlockScale::E8m0(Rule::Floor);
            let n = bits.len() / 32 * 32;
            let narrow = match narrow {
                Narrow::Bf16(bits) => Narrow::Bf16(&bits[..n]),
                Narrow::F16(bits) => Narrow::F16(&bits[..n]),
                Narrow::F32(values) => Narrow::F32(values),
            };
            let (mut scales, mut others) = (vec![0; n / 32], vec![1; n / 32]);
            quantize_block::<E2m1>(&m, wide[..n].into(), 32, by, Rounding::Even, &mut expected[..n], &mut scales)
                .unwrap();
            quantize_block::<E2m1>(&m, narrow, 32, by, Rounding::Even, &mut got[..n], &mut others).unwrap();
            assert!(got == expected && scales == others, "{m:?}");
        }
    }
}

/// Numbers of many magnitudes, a block of zeros, and one that is not finite.
fn spread() -> Vec<f32> {
    let mut x: Vec<f32> = (0..3 * 4096).map(|i| (i as f32 * 0.7).sin() * 2f32.powi(i / 64 % 40 - 20)).collect();
    x[64..128].fill(0.0);
    x[200] = f32::NAN;
    x
}

fn blocks_agree<E: super::Element>() {
    let x = spread();
    let scalar = Machine::forced(Path::Scalar, 1).unwrap();
    let e8m0 = [Rule::Floor, Rule::Ceil, Rule::Even, Rule::Round, Rule::Rceil].map(BlockScale::E8m0);
    for (block, by) in [16, 32]
        .into_iter()
        .flat_map(|block| e8m0.map(|by| (block, by)).into_iter().chain([(block, BlockScale::E4m3fn(0.01))]))
    {
        let n = x.len();
        let run = |m: &Machine| {
            let (mut codes, mut scale, mut back) = (vec![9; n], vec![9; n / block], vec![0.0; n]);
            quantize_block::<E>(m, x[..].into(), block, by, Rounding::Even, &mut codes, &mut scale).unwrap();
            let (power, tensor) = match by {
                BlockScale::E8m0(_) => (true, 1.0),
                BlockScale::E4m3fn(tensor) => (false, tensor),
            };
            dequantize_block::<E>(m, &codes, &scale, block, power, tensor, &mut back).unwrap();
            (codes, scale, back.iter().map(|x| x.to_bits()).collect::<Vec<_>>())
        };
        let expected = run(&scalar);
        for (at, &bits) in expected.2.iter().enumerate() {
            let (back, own) = (f32::from_bits(bits), &x[at / block * block..][..block]);
            let largest = own.iter().fold(0.0, |largest: f32, x| largest.max(x.abs()));
            if own.iter().any(|x| x.is_nan()) {
                assert!(back.is_nan());
            } else if let BlockScale::E8m0(_) = by {
                // half a step of the coarsest rule at the largest magnitude, or what saturates there
                assert!((back - x[at]).abs() <= 0.51 * largest, "{by:?} {at}: {} is {back}", x[at]);
            }
        }
        for m in machines() {
            assert!(run(&m) == expected, "{m:?} {by:?} {block}");
        }
    }
}

#[test]
fn blocks_of_floats_agree() {
    blocks_agree::<E2m1>();
    blocks_agree::<E2m3>();
    blocks_agree::<E3m2>();
    blocks_agree::<E4m3fn>();
    blocks_agree::<E5m2>();
}

#[test]
fn blocks_of_integers_agree() {
    blocks_agree::<Int<4>>();
    blocks_agree::<Int<6>>();
    blocks_agree::<Int<8>>();
}

#[test]
fn blocks_refuse() {
    let (m, mut codes, mut scale) = (Machine::detect(), [7; 32], [7]);
    let mut call =
        |x: &[f32], block, by| quantize_block::<E2m1>(&m, x.into(), block, by, Rounding::Even, &mut codes, &mut scale);
    let floor = BlockScale::E8m0(Rule::Floor);
    assert!(matches!(call(&[1.0; 32], 8, floor), Err(Error::Range(_))));
    assert!(matches!(call(&[1.0; 32], 32, BlockScale::E4m3fn(0.0)), Err(Error::Range(_))));
    assert!(matches!(call(&[1.0; 31], 32, floor), Err(Error::Shape(_))));
    assert!(matches!(call(&[1.0; 64], 32, floor), Err(Error::Shape(_))));
    for rounding in [Rounding::Up, Rounding::Stochastic(1)] {
        let refused = quantize_block::<E2m1>(&m, [1.0; 32][..].into(), 32, floor, rounding, &mut codes, &mut scale);
        assert!(matches!(refused, Err(Error::Range(_))));
    }
    assert_eq!((codes, scale), ([7; 32], [7]));
    let refused = dequantize_block::<E2m1>(&m, &codes, &scale, 16, true, 1.0, &mut [0.0; 32]);
    assert!(matches!(refused, Err(Error::Shape(_))));
}

#[test]
fn the_16_bit_floats_are_those_of_half() {
    let m = Machine::detect();
    let x: Vec<f32> = (0..1u32 << 20).map(|high| f32::from_bits(high << 12 | 0x800)).filter(|x| !x.is_nan()).collect();
    let (mut f16, mut bf16) = (vec![0; x.len()], vec![0; x.len()]);
    encode::<F16>(&m, x[..].into(), Rounding::Even, false, &mut f16).unwrap();
    encode::<Bf16>(&m, x[..].into(), Rounding::Even, false, &mut bf16).unwrap();
    for (i, &x) in x.iter().enumerate() {
        assert_eq!(f16[i], half::f16::from_f32(x).to_bits(), "{x:e}");
        assert_eq!(bf16[i], half::bf16::from_f32(x).to_bits(), "{x:e}");
    }
}
