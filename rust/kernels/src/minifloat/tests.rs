use super::{Bf16, E2m1, E2m3, E3m2, E4m3fn, E5m2, E8m0, F16, Format, decode, encode};
use crate::{Machine, Path};
use std::fmt::Debug;

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
        for saturate in [false, true] {
            let (mut expected, mut got) = (vec![F::Code::default(); x.len()], vec![F::Code::default(); x.len()]);
            encode::<F>(&scalar, &x, saturate, &mut expected).unwrap();
            encode::<F>(&m, &x, saturate, &mut got).unwrap();
            assert!(expected == got, "{m:?}");
        }
        let (mut expected, mut got) = (vec![0.0; codes.len()], vec![0.0; codes.len()]);
        decode::<F>(&scalar, &codes, &mut expected).unwrap();
        decode::<F>(&m, &codes, &mut got).unwrap();
        assert!(expected.iter().zip(&got).all(|(a, b)| a.to_bits() == b.to_bits()), "{m:?}");
        let mut back = vec![F::Code::default(); codes.len()];
        encode::<F>(&m, &got, false, &mut back).unwrap();
        for (x, (&code, &back)) in got.iter().zip(codes.iter().zip(&back)) {
            assert!(x.is_nan() || code == back, "{m:?}: {code:?} is {x} is {back:?}");
        }
        for n in 0..got.len().min(40) {
            let mut few = vec![F::Code::default(); n];
            encode::<F>(&m, &got[..n], false, &mut few).unwrap();
            assert_eq!(few, back[..n]);
        }
        assert!(encode::<F>(&m, &x, true, &mut back[..3]).is_err());
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
fn the_16_bit_floats_are_those_of_half() {
    let m = Machine::detect();
    let x: Vec<f32> = (0..1u32 << 20).map(|high| f32::from_bits(high << 12 | 0x800)).filter(|x| !x.is_nan()).collect();
    let (mut f16, mut bf16) = (vec![0; x.len()], vec![0; x.len()]);
    encode::<F16>(&m, &x, false, &mut f16).unwrap();
    encode::<Bf16>(&m, &x, false, &mut bf16).unwrap();
    for (i, &x) in x.iter().enumerate() {
        assert_eq!(f16[i], half::f16::from_f32(x).to_bits(), "{x:e}");
        assert_eq!(bf16[i], half::bf16::from_f32(x).to_bits(), "{x:e}");
    }
}
