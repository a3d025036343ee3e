//! Each instruction beside a plain computation. A processor that has the instructions runs them itself: so this file is tested too.

use crate::install;
use crate::registers::Vector;
use std::arch::asm;

/// Bytes without a pattern.
fn bytes<const N: usize>(seed: u64) -> [u8; N] {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) + 1;
    [0; N].map(|_: u8| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 56) as u8
    })
}

/// Finite floats without a pattern, subnormals among them.
fn floats(seed: u64) -> Vector {
    let mut vector = bytes(seed);
    // exponents 0 to 127 or 128 to 191
    vector.as_chunks_mut::<4>().0.iter_mut().for_each(|x| x[3] &= if x[3] & 0x40 == 0 { 0xff } else { 0xdf });
    vector
}

/// What is in zmm1 and in k1 after `line`, which finds the operands in zmm1, zmm18 and zmm3, the last also at `[{b}]`, and a mask in k1.
macro_rules! both_after {
    ($line:expr, $operands:expr, $mask:expr) => {{
        let ([d, a, b], mut out, mut mask): ([Vector; 3], Vector, u64) = ($operands, [0; 64], 0);
        // SAFETY: reads three vectors and writes one and a mask; clobbers only what a call may.
        unsafe {
            asm!(
                "kmovq k1, {mask}",
                "vmovdqu64 zmm1, [{d}]",
                "vmovdqu64 zmm18, [{a}]",
                "vmovdqu64 zmm3, [{b}]",
                $line,
                "vmovdqu64 [{out}], zmm1",
                "kmovq [{kept}], k1",
                "vzeroupper",
                mask = in(reg) $mask,
                d = in(reg) &d,
                a = in(reg) &a,
                b = in(reg) &b,
                out = in(reg) &mut out,
                kept = in(reg) &mut mask,
                clobber_abi("C"),
            );
        }
        (out, mask)
    }};
}

/// The first of them.
macro_rules! after {
    ($line:expr, $operands:expr, $mask:expr) => {
        both_after!($line, $operands, $mask).0
    };
}

/// The second.
macro_rules! mask_after {
    ($line:expr, $operands:expr, $mask:expr) => {
        both_after!($line, $operands, $mask).1
    };
}

/// Holds all forms of an instruction on lanes of a type against a function of one lane of each operand.
macro_rules! lanes {
    ($lane:ty, $numbers:ident, $name:literal $immediate:literal, $result:expr) => {{
        const SIZE: usize = size_of::<$lane>();
        let result: fn($lane, $lane, $lane) -> $lane = $result;
        for seed in 0..20 {
            let operands: [Vector; 3] = [0, 1, 2].map(|n| $numbers(3 * seed + n));
            let mask = u64::from_le_bytes(bytes(seed));
            let expected = |count: usize, chosen: u64, zeroing: bool, broadcast: bool| {
                let mut vector = [0; 64];
                for i in 0..count {
                    let lane = |n: usize, i: usize| {
                        let (part, _) = operands[n][SIZE * i..].split_first_chunk().unwrap();
                        <$lane>::from_le_bytes(*part)
                    };
                    let [d, a, b] = [lane(0, i), lane(1, i), lane(2, if broadcast { 0 } else { i })];
                    let value = match chosen >> i & 1 {
                        1 => result(d, a, b),
                        _ if zeroing => <$lane>::from_le_bytes([0; SIZE]),
                        _ => d,
                    };
                    vector[SIZE * i..][..SIZE].copy_from_slice(&value.to_le_bytes());
                }
                vector
            };
            let (zmm, ymm, all) = (64 / SIZE, 32 / SIZE, u64::MAX);
            let same = |form: &str, got: Vector, expected: Vector| assert_eq!(got, expected, "{} {form}", $name);
            let got = after!(concat!($name, " zmm1, zmm18, zmm3", $immediate), operands, mask);
            same("512", got, expected(zmm, all, false, false));
            let got = after!(concat!($name, " ymm1, ymm18, ymm3", $immediate), operands, mask);
            same("256", got, expected(ymm, all, false, false));
            let got = after!(concat!($name, " zmm1 {{k1}}, zmm18, [{b}]", $immediate), operands, mask);
            same("merged", got, expected(zmm, mask, false, false));
            let got = after!(concat!($name, " ymm1 {{k1}}{{z}}, ymm18, ymm3", $immediate), operands, mask);
            same("zeroed", got, expected(ymm, mask, true, false));
            lanes!(@broadcast $lane, $name, $immediate, operands, mask, same, expected(zmm, mask, true, true));
        }
    }};
    (@broadcast f32, $($rest:tt)*) => { lanes!(@one 16, $($rest)*) };
    (@broadcast i32, $($rest:tt)*) => { lanes!(@one 16, $($rest)*) };
    (@broadcast u32, $($rest:tt)*) => { lanes!(@one 16, $($rest)*) };
    (@broadcast u64, $($rest:tt)*) => { lanes!(@one 8, $($rest)*) };
    (@broadcast $lane:ty, $($rest:tt)*) => {};
    (@one $count:literal, $name:literal, $immediate:literal, $operands:expr, $mask:expr, $same:expr, $expected:expr) => {{
        $same("broadcast", after!(concat!($name, " zmm1 {{k1}}{{z}}, zmm18, [{b}]{{1to", $count, "}}", $immediate), $operands, $mask), $expected);
    }};
}

#[test]
fn arithmetic_of_lanes() {
    assert!(install());
    lanes!(f32, floats, "vaddps" "", |_, a, b| a + b);
    lanes!(f32, floats, "vsubps" "", |_, a, b| a - b);
    lanes!(f32, floats, "vmulps" "", |_, a, b| a * b);
    lanes!(f32, floats, "vdivps" "", |_, a, b| a / b);
    lanes!(f32, floats, "vminps" "", |_, a, b| if a < b { a } else { b });
    lanes!(f32, floats, "vmaxps" "", |_, a, b| if a > b { a } else { b });
    lanes!(f32, floats, "vfmadd132ps" "", |d, a, b| d.mul_add(b, a));
    lanes!(f32, floats, "vfmadd213ps" "", |d, a, b| a.mul_add(d, b));
    lanes!(f32, floats, "vfmadd231ps" "", |d, a, b| a.mul_add(b, d));
    lanes!(u8, bytes, "vpaddb" "", |_, a, b| a.wrapping_add(b));
    lanes!(u16, bytes, "vpaddw" "", |_, a, b| a.wrapping_add(b));
    lanes!(u32, bytes, "vpaddd" "", |_, a, b| a.wrapping_add(b));
    lanes!(u64, bytes, "vpaddq" "", |_, a, b| a.wrapping_add(b));
    lanes!(u8, bytes, "vpsubb" "", |_, a, b| a.wrapping_sub(b));
    lanes!(u16, bytes, "vpsubw" "", |_, a, b| a.wrapping_sub(b));
    lanes!(u32, bytes, "vpsubd" "", |_, a, b| a.wrapping_sub(b));
    lanes!(u32, bytes, "vpminud" "", |_, a, b| a.min(b));
    lanes!(u32, bytes, "vpmaxud" "", |_, a, b| a.max(b));
    lanes!(i16, bytes, "vpmullw" "", |_, a, b| a.wrapping_mul(b));
    lanes!(i32, bytes, "vpmulld" "", |_, a, b| a.wrapping_mul(b));
    lanes!(u32, bytes, "vpandd" "", |_, a, b| a & b);
    lanes!(u64, bytes, "vpandq" "", |_, a, b| a & b);
    lanes!(u32, bytes, "vpandnd" "", |_, a, b| !a & b);
    lanes!(u64, bytes, "vpandnq" "", |_, a, b| !a & b);
    lanes!(u32, bytes, "vpord" "", |_, a, b| a | b);
    lanes!(u64, bytes, "vporq" "", |_, a, b| a | b);
    lanes!(u32, bytes, "vpxord" "", |_, a, b| a ^ b);
    lanes!(u64, bytes, "vpxorq" "", |_, a, b| a ^ b);
    lanes!(u32, bytes, "vpternlogd" ", 0xca", |d, a, b| (d & a) | (!d & b));
    lanes!(u64, bytes, "vpternlogq" ", 0x96", |d, a, b| d ^ a ^ b);
    lanes!(u32, bytes, "vpsllvd" "", |_, a, b| a.checked_shl(b).unwrap_or(0));
    lanes!(u32, bytes, "vpsrlvd" "", |_, a, b| a.checked_shr(b).unwrap_or(0));
    lanes!(i32, bytes, "vpmaddwd" "", |_, a, b| (a as i16 as i32 * b as i16 as i32).wrapping_add((a >> 16) * (b >> 16)));
    lanes!(i32, bytes, "vpdpwssd" "", |d, a, b| d
        .wrapping_add(a as i16 as i32 * b as i16 as i32)
        .wrapping_add((a >> 16) * (b >> 16)));
    lanes!(i32, bytes, "vpdpbusd" "", |d, a, b| {
        let products = a.to_le_bytes().into_iter().zip(b.to_le_bytes()).map(|(a, b)| i32::from(a) * i32::from(b as i8));
        d.wrapping_add(products.sum::<i32>())
    });
}

/// A vector as numbers, and back.
macro_rules! view {
    ($vector:expr, $lane:ty) => {
        $vector
            .as_chunks::<{ size_of::<$lane>() }>()
            .0
            .iter()
            .map(|x| <$lane>::from_le_bytes(*x))
            .collect::<Vec<$lane>>()
    };
}

fn vector<T, const N: usize>(numbers: impl IntoIterator<Item = T>, bytes: impl Fn(T) -> [u8; N]) -> Vector {
    let mut vector = [0; 64];
    for (to, number) in vector.as_chunks_mut::<N>().0.iter_mut().zip(numbers) {
        *to = bytes(number);
    }
    vector
}

#[test]
fn lanes_of_another_size() {
    assert!(install());
    for seed in 0..20 {
        let operands: [Vector; 3] = [0, 1, 2].map(|n| bytes(3 * seed + n));
        let (a, b) = (operands[1], operands[2]);
        let of_u8 = |from: &Vector| view!(from, u8);
        let expected = vector(of_u8(&a).into_iter().take(32).map(u16::from), u16::to_le_bytes);
        assert_eq!(after!("vpmovzxbw zmm1, ymm18", operands, 0u64), expected);
        let expected = vector(of_u8(&b).into_iter().take(16).map(u32::from), u32::to_le_bytes);
        assert_eq!(after!("vpmovzxbd zmm1, [{b}]", operands, 0u64), expected);
        let expected = vector(view!(a, u16).into_iter().take(16).map(u32::from), u32::to_le_bytes);
        assert_eq!(after!("vpmovzxwd zmm1, ymm18", operands, 0u64), expected);
        let expected = vector(view!(b, i8).into_iter().take(32).map(i16::from), i16::to_le_bytes);
        assert_eq!(after!("vpmovsxbw zmm1, ymm3", operands, 0u64), expected);
        let expected = vector(view!(a, i8).into_iter().take(16).map(i32::from), i32::to_le_bytes);
        assert_eq!(after!("vpmovsxbd zmm1, xmm18", operands, 0u64), expected);
        let expected = vector(view!(b, i16).into_iter().take(16).map(i32::from), i32::to_le_bytes);
        assert_eq!(after!("vpmovsxwd zmm1, [{b}]", operands, 0u64), expected);
        let expected = vector(view!(a, u16).into_iter().map(|x| x as u8), u8::to_le_bytes);
        assert_eq!(after!("vpmovwb ymm1, zmm18", operands, 0u64), expected);
        let expected = vector(view!(a, u32).into_iter().map(|x| x as u8), u8::to_le_bytes);
        assert_eq!(after!("vpmovdb xmm1, zmm18", operands, 0u64), expected);
        let expected = vector(view!(a, u32).into_iter().map(|x| x as u16), u16::to_le_bytes);
        assert_eq!(after!("vpmovdw ymm1, zmm18", operands, 0u64), expected);
        let expected = vector(view!(a, i32).into_iter().map(|x| x as f32), f32::to_le_bytes);
        assert_eq!(after!("vcvtdq2ps zmm1, zmm18", operands, 0u64), expected);
    }
    let halves = vector([0u16, 0x8000, 1, 0x3c00, 0xc500, 0x7bff, 0x0400, 0x7c00], u16::to_le_bytes);
    let wide = [0.0, -0.0, 2f32.powi(-24), 1.0, -5.0, 65504.0, 2f32.powi(-14), f32::INFINITY];
    let got = after!("vcvtph2ps zmm1, ymm18", [halves; 3], 0u64);
    assert_eq!(got, vector(wide, f32::to_le_bytes));
}

#[test]
fn shifts_and_moves() {
    assert!(install());
    for seed in 0..20 {
        let operands: [Vector; 3] = [0, 1, 2].map(|n| bytes(3 * seed + n));
        let [d, a, b] = operands;
        let mask = u64::from_le_bytes(bytes(seed));
        let each = |result: fn(u32) -> u32| vector(view!(a, u32).into_iter().map(result), u32::to_le_bytes);
        assert_eq!(after!("vpslld zmm1, zmm18, 5", operands, mask), each(|x| x << 5));
        assert_eq!(after!("vpsrld zmm1, zmm18, 7", operands, mask), each(|x| x >> 7));
        assert_eq!(after!("vpsrld zmm1, zmm18, 32", operands, mask), each(|_| 0));
        assert_eq!(after!("vpsrad zmm1, zmm18, 31", operands, mask), each(|x| (x as i32 >> 31) as u32));
        let each = |result: fn(u16) -> u16| vector(view!(a, u16).into_iter().map(result), u16::to_le_bytes);
        assert_eq!(after!("vpsllw zmm1, zmm18, 3", operands, mask), each(|x| x << 3));
        assert_eq!(after!("vpsrlw zmm1, zmm18, 4", operands, mask), each(|x| x >> 4));

        let chosen = |from: &Vector, other: &Vector, size: usize| {
            std::array::from_fn(|i| if mask >> (i / size) & 1 == 1 { from[i] } else { other[i] })
        };
        assert_eq!(after!("vmovdqu8 zmm1 {{k1}}{{z}}, [{b}]", operands, mask), chosen(&b, &[0; 64], 1));
        assert_eq!(after!("vmovdqu16 zmm1 {{k1}}, zmm18", operands, mask), chosen(&a, &d, 2));
        assert_eq!(after!("vmovdqa32 zmm1 {{k1}}, zmm3", operands, mask), chosen(&b, &d, 4));
        assert_eq!(after!("vmovupd zmm1 {{k1}}{{z}}, [{b}]", operands, mask), chosen(&b, &[0; 64], 8));
        // stored to memory first
        let got = after!("vmovups [{out}] {{k1}}, zmm3\nvmovdqu64 zmm1, [{out}]", operands, mask);
        assert_eq!(got, chosen(&b, &[0; 64], 4));

        let copies = |size: usize, from: &Vector| std::array::from_fn(|i| from[i % size]);
        assert_eq!(after!("vbroadcastss zmm1, xmm18", operands, mask), copies(4, &a));
        assert_eq!(after!("vpbroadcastd zmm1, [{b}]", operands, mask), copies(4, &b));
        assert_eq!(after!("vpbroadcastb zmm1, {mask:e}", operands, mask), [mask as u8; 64]);
        assert_eq!(after!("vpbroadcastw zmm1, xmm18", operands, mask), copies(2, &a));
        assert_eq!(after!("vpbroadcastq zmm1, {mask}", operands, mask), vector([mask; 8], u64::to_le_bytes));
        assert_eq!(after!("vbroadcasti32x4 zmm1, [{b}]", operands, mask), copies(16, &b));
        assert_eq!(after!("vbroadcastf64x4 zmm1, [{b}]", operands, mask), copies(32, &b));
        let part = |from: &Vector, at: usize, size: usize| {
            let mut part = [0; 64];
            part[..size].copy_from_slice(&from[at..at + size]);
            part
        };
        assert_eq!(after!("vextracti64x4 ymm1, zmm18, 1", operands, mask), part(&a, 32, 32));
        assert_eq!(after!("vextractf32x4 xmm1, zmm18, 3", operands, mask), part(&a, 48, 16));
        let with = |part: &Vector, size: usize, at: usize| {
            let mut with = a;
            with[at..at + size].copy_from_slice(&part[..size]);
            with
        };
        assert_eq!(after!("vinserti64x4 zmm1, zmm18, ymm3, 1", operands, mask), with(&b, 32, 32));
        assert_eq!(after!("vinsertf32x4 zmm1, zmm18, [{b}], 2", operands, mask), with(&b, 16, 32));

        let parts = |parts: &[(&Vector, usize)]| {
            let mut shuffled = [0; 64];
            shuffled.chunks_mut(16).zip(parts).for_each(|(to, (from, at))| to.copy_from_slice(&from[*at..at + 16]));
            shuffled
        };
        let got = after!("vshuff64x2 zmm1, zmm18, zmm3, 0x78", operands, mask);
        assert_eq!(got, parts(&[(&a, 0), (&a, 32), (&b, 48), (&b, 16)]));
        let got = after!("vshufi64x2 ymm1, ymm18, [{b}], 1", operands, mask);
        assert_eq!(got, parts(&[(&a, 16), (&b, 0)]));

        let (numbers, places) = (view!(b, u32), view!(a, u32));
        let got = after!("vpermd zmm1, zmm18, zmm3", operands, mask);
        assert_eq!(got, vector(places.iter().map(|&i| numbers[i as usize % 16]), u32::to_le_bytes));
        let both = [view!(d, u32), view!(b, u32)].concat();
        let got = after!("vpermt2d zmm1, zmm18, zmm3", operands, mask);
        assert_eq!(got, vector(places.iter().map(|&i| both[i as usize % 32]), u32::to_le_bytes));
        let both = [view!(a, f32), view!(b, f32)].concat();
        let got = after!("vpermi2ps zmm1, zmm18, zmm3", operands, mask);
        assert_eq!(got, vector(view!(d, u32).iter().map(|&i| both[i as usize % 32]), f32::to_le_bytes));
    }
}

#[test]
fn comparisons() {
    assert!(install());
    for seed in 0..20 {
        let mut operands: [Vector; 3] = [0, 1, 2].map(|n| floats(3 * seed + n));
        // some alike
        for n in (0..64).step_by(12) {
            operands[2][n] = operands[1][n];
            let from = operands[1];
            operands[2][n & !7..][..4].copy_from_slice(&from[n & !7..][..4]);
        }
        let (a, b) = (operands[1], operands[2]);
        let mask = u64::from_le_bytes(bytes(seed));
        macro_rules! bits {
            ($lane:ty, $result:expr) => {{
                let result: fn($lane, $lane) -> bool = $result;
                let pairs = view!(a, $lane).into_iter().zip(view!(b, $lane));
                pairs.enumerate().fold(0u64, |mask, (i, (a, b))| mask | u64::from(result(a, b)) << i)
            }};
        }
        assert_eq!(mask_after!("vcmpltps k1, zmm18, zmm3", operands, mask), bits!(f32, |a, b| a < b));
        assert_eq!(mask_after!("vcmplt_oqps k1, zmm18, [{b}]", operands, mask), bits!(f32, |a, b| a < b));
        assert_eq!(mask_after!("vcmpneqps k1, zmm18, zmm3", operands, mask), bits!(f32, |a, b| a != b));
        assert_eq!(mask_after!("vcmpltps k1 {{k1}}, zmm18, zmm3", operands, mask), bits!(f32, |a, b| a < b) & mask);
        assert_eq!(mask_after!("vpcmpeqb k1, zmm18, zmm3", operands, mask), bits!(u8, |a, b| a == b));
        assert_eq!(mask_after!("vpcmpltud k1, zmm18, zmm3", operands, mask), bits!(u32, |a, b| a < b));
        assert_eq!(mask_after!("vpcmpleud k1, zmm18, zmm3", operands, mask), bits!(u32, |a, b| a <= b));
        assert_eq!(mask_after!("vpcmpequd k1, zmm18, zmm3", operands, mask), bits!(u32, |a, b| a == b));
        assert_eq!(mask_after!("vpcmpnleuq k1, zmm18, zmm3", operands, mask), bits!(u64, |a, b| a > b));
        assert_eq!(mask_after!("vpcmpnltuq k1, zmm18, zmm3", operands, mask), bits!(u64, |a, b| a >= b));
        assert_eq!(mask_after!("vptestmd k1, zmm18, zmm3", operands, mask), bits!(u32, |a, b| a & b != 0));
        assert_eq!(mask_after!("vptestnmd k1, zmm18, [{b}]", operands, mask), bits!(u32, |a, b| a & b == 0));
        assert_eq!(mask_after!("vpmovb2m k1, zmm18", operands, mask), bits!(i8, |a, _| a < 0));
    }
}

#[test]
fn bytes_are_shuffled_in_each_sixteen() {
    assert!(install());
    for seed in 0..20 {
        let operands: [Vector; 3] = [0, 1, 2].map(|n| bytes(3 * seed + n));
        let [_, a, b] = operands;
        let found = |i: usize| if b[i] < 128 { a[i & !15 | usize::from(b[i] & 15)] } else { 0 };
        assert_eq!(after!("vpshufb zmm1, zmm18, zmm3", operands, 0u64), std::array::from_fn(found));
    }
}

#[test]
fn scalars_in_the_upper_registers() {
    assert!(install());
    for seed in 0..20 {
        let operands: [Vector; 3] = [0, 1, 2].map(|n| floats(3 * seed + n));
        let (a, b) = (operands[1], operands[2]);
        let first = |x: &Vector| view!(x, f32)[0];
        let with = |four: f32, others: &Vector, count: usize| {
            let mut vector = [0; 64];
            vector[4..count].copy_from_slice(&others[4..count]);
            vector[..4].copy_from_slice(&four.to_le_bytes());
            vector
        };
        assert_eq!(after!("vaddss xmm1, xmm18, xmm3", operands, 0u64), with(first(&a) + first(&b), &a, 16));
        assert_eq!(after!("vsubss xmm1, xmm18, dword ptr [{b}]", operands, 0u64), with(first(&a) - first(&b), &a, 16));
        assert_eq!(after!("vmulss xmm1, xmm18, xmm3", operands, 0u64), with(first(&a) * first(&b), &a, 16));
        let loaded = after!("vmovss xmm18, dword ptr [{b}]\nvmovdqu64 zmm1, zmm18", operands, 0u64);
        assert_eq!(loaded, with(first(&b), &a, 4));
        assert_eq!(after!("vmovss xmm1, xmm18, xmm3", operands, 0u64), with(first(&b), &a, 16));
        let stored = after!("vmovss dword ptr [{out}], xmm18\nvmovdqu64 zmm1, [{out}]", operands, 0u64);
        assert_eq!(stored, with(first(&a), &a, 4));
        let moved = after!("vmovd xmm18, {mask:e}\nvmovdqu64 zmm1, zmm18", operands, 0x3f80_0000_u64);
        assert_eq!(moved, with(1.0, &a, 4));
    }
}

#[test]
fn instructions_of_avx_clear_the_upper_half() {
    assert!(install());
    let operands: [Vector; 3] = [0, 1, 2].map(bytes);
    let mut low = operands[0];
    low[32..].fill(0);
    assert_eq!(after!("vmovdqa ymm1, ymm1", operands, 0u64), low);
    low[16..].fill(0);
    assert_eq!(after!("vmovdqa xmm1, xmm1", operands, 0u64), low);
    assert_eq!(after!("vxorps xmm1, xmm1, xmm1", operands, 0u64), [0; 64]);
    // SSE leaves it; so does what reads alone
    assert_eq!(after!("movaps xmm1, xmm1", operands, 0u64), operands[0]);
    assert_eq!(after!("vptest ymm1, ymm3", operands, 0u64), operands[0]);
    let spilled = after!("vmovdqu64 zmm19, zmm1\nvzeroupper\nvmovdqu64 zmm1, zmm19", operands, 0u64);
    assert_eq!(spilled, operands[0]);
}

/// A value and the flags after a plain instruction on two numbers: run by the processor, and again where an upper half is in use.
macro_rules! twice {
    ($line:literal, $a:expr, $b:expr) => {{
        macro_rules! once {
                        ($before:literal) => {{
                            let (mut value, flags): (u64, u64);
                            let place: [u64; 2] = [$b; 2];
                            // SAFETY: reads two numbers; clobbers only what a call may.
                            unsafe {
                                asm!(
                                    "vzeroupper", $before, "cmp rdx, rsi", $line, "pushfq", "pop rdi", "vzeroupper",
                                    inout("rdx") $a => value, inout("rsi") $b => _, out("rdi") flags, in("rcx") &place,
                                    out("rax") _, out("xmm1") _,
                                );
                            }
                            // neither the adjust flag, which some instructions leave open, nor the trap flag
                            (value, flags & 0x8c5)
                        }};
                    }
        assert_eq!(once!(""), once!("vpternlogd zmm1, zmm1, zmm1, 0xff"), "{} {:x} {:x}", $line, $a, $b);
    }};
}

#[test]
fn plain_instructions_are_those_of_the_processor() {
    assert!(install());
    let numbers = [
        0u64,
        1,
        2,
        0x7fff_ffff,
        0x8000_0000,
        0xffff_ffff,
        i64::MAX as u64,
        i64::MIN as u64,
        u64::MAX,
        0x1234_5678_9abc_def0,
    ];
    for (a, b) in numbers.into_iter().flat_map(|a| numbers.map(|b| (a, b))) {
        twice!("add rdx, rsi", a, b);
        twice!("add edx, esi", a, b);
        twice!("sub rdx, [rcx + 8]", a, b);
        twice!("sub edx, 5", a, b);
        twice!("cmp rdx, rsi", a, b);
        twice!("cmp edx, esi", a, b);
        twice!("and edx, esi", a, b);
        twice!("or rdx, rsi", a, b);
        twice!("xor edx, [rcx]", a, b);
        twice!("test rdx, rsi", a, b);
        twice!("inc edx", a, b);
        twice!("dec rdx", a, b);
        twice!("mov edx, esi", a, b);
        twice!("mov rdx, -7", a, b);
        twice!("mov [rcx], rsi\nmov rdx, [rcx]", a, b);
        twice!("lea rdx, [rdx + 4*rsi + 3]", a, b);
        twice!("movzx edx, word ptr [rcx]", a, b);
        twice!("movsx rdx, byte ptr [rcx + 3]", a, b);
        twice!("movsxd rdx, dword ptr [rcx + 4]", a, b);
        twice!("ja 2f\nmov edx, 1\n2:", a, b);
        twice!("jbe 2f\nmov edx, 1\n2:", a, b);
        twice!("jae 2f\nmov edx, 1\n2:", a, b);
        twice!("jb 2f\nmov edx, 1\n2:", a, b);
        twice!("je 2f\nmov edx, 1\n2:", a, b);
        twice!("jne 2f\nmov edx, 1\n2:", a, b);
        twice!("jl 2f\nmov edx, 1\n2:", a, b);
        twice!("jge 2f\nmov edx, 1\n2:", a, b);
        twice!("jle 2f\nmov edx, 1\n2:", a, b);
        twice!("jg 2f\nmov edx, 1\n2:", a, b);
        twice!("js 2f\nmov edx, 1\n2:", a, b);
        twice!("jns 2f\nmov edx, 1\n2:", a, b);
        twice!("jo 2f\nmov edx, 1\n2:", a, b);
        twice!("jno 2f\nmov edx, 1\n2:", a, b);
        twice!("jp 2f\nmov edx, 1\n2:", a, b);
        twice!("jnp 2f\nmov edx, 1\n2:", a, b);
        twice!("jmp 2f\nmov edx, 1\n2:", a, b);
    }
}

#[test]
fn masks_move_and_combine() {
    assert!(install());
    for seed in 0..20 {
        let [a, b]: [u64; 2] = [0, 1].map(|n| u64::from_le_bytes(bytes(2 * seed + n)));
        macro_rules! combined {
            ($line:literal) => {{
                let mut out = 0u64;
                // SAFETY: writes one number; clobbers only what a call may.
                unsafe {
                    asm!(
                        "kmovq k1, {a}", "kmovq k2, {b}", $line, "kmovq [rcx], k3",
                        a = in(reg) a, b = in(reg) b, in("rcx") &mut out, clobber_abi("C"),
                    );
                }
                out
            }};
        }
        assert_eq!(combined!("kandq k3, k1, k2"), a & b);
        assert_eq!(combined!("kandnd k3, k1, k2"), !a & b & 0xffff_ffff);
        assert_eq!(combined!("korw k3, k1, k2"), (a | b) & 0xffff);
        assert_eq!(combined!("kxorb k3, k1, k2"), (a ^ b) & 0xff);
        assert_eq!(combined!("kxnorw k3, k1, k2"), !(a ^ b) & 0xffff);
        assert_eq!(combined!("knotq k3, k2"), !b);
        assert_eq!(combined!("kshiftlw k3, k2, 3"), b << 3 & 0xffff);
        assert_eq!(combined!("kshiftrq k3, k2, 60"), b >> 60);
        assert_eq!(combined!("kunpckbw k3, k1, k2"), (a << 8 | b & 0xff) & 0xffff);
        assert_eq!(combined!("kmovd eax, k1\nkmovd k3, eax"), a & 0xffff_ffff);
        assert_eq!(combined!("kortestw k1, k1\nsetc al\nmovzx eax, al\nkmovq k3, rax"), u64::from(a as u16 == 0xffff));
        assert_eq!(combined!("kxorq k3, k3, k3\nkortestq k3, k3\nsetz al\nmovzx eax, al\nkmovq k3, rax"), 1);
    }
}

/// What is in a tile after a product, and before it: rows of 64 bytes.
type Tile = [Vector; 16];

fn tile(seed: u64) -> Tile {
    std::array::from_fn(|row| bytes(100 * seed + row as u64))
}

/// Tiles as AMX is told: bytes and rows of the result, of the left factor, of the right one.
fn configuration(shapes: [(u8, u8); 3]) -> [u8; 64] {
    let mut configuration = [0; 64];
    configuration[0] = 1;
    for (tile, (rows, width)) in shapes.into_iter().enumerate() {
        (configuration[16 + 2 * tile], configuration[48 + tile]) = (width, rows);
    }
    configuration
}

macro_rules! product {
    ($line:literal, $shapes:expr, $tiles:expr) => {{
        let (configuration, mut out): (_, Tile) = (configuration($shapes), [[0xaa; 64]; 16]);
        let [to, a, b]: [Tile; 3] = $tiles;
        // SAFETY: reads the three tiles and writes one; nobody else uses tiles.
        unsafe {
            asm!(
                "ldtilecfg [{configuration}]",
                "tileloadd tmm0, [{to} + {stride}]",
                "tileloadd tmm1, [{a} + {stride}]",
                "tileloaddt1 tmm2, [{b} + {stride}]",
                $line,
                "tilestored [{out} + {stride}], tmm0",
                "tilerelease",
                configuration = in(reg) &configuration, stride = in(reg) 64u64,
                to = in(reg) &to, a = in(reg) &a, b = in(reg) &b, out = in(reg) &mut out,
            );
        }
        out
    }};
}

#[test]
fn tiles_multiply_bytes() {
    // On a processor with AMX the system wants to be asked first, which the kernels do and their tests see.
    if !install() || crate::tiles::native() {
        return;
    }
    for (seed, (rows, columns, depth)) in [(16, 16, 16), (3, 5, 7), (1, 16, 2), (16, 1, 1)].into_iter().enumerate() {
        let tiles = [1, 2, 3].map(|n| tile(3 * seed as u64 + n));
        let [to, a, b] = &tiles;
        let shapes = [(rows, 4 * columns), (rows, 4 * depth), (depth, 4 * columns)];
        let expected = |signed: [bool; 2]| {
            let number = |byte: u8, signed: bool| if signed { i64::from(byte as i8) } else { byte.into() };
            let mut out = [[0xaa; 64]; 16];
            for m in 0..usize::from(rows) {
                for n in 0..usize::from(columns) {
                    let mut sum = i64::from(view!(to[m], i32)[n]);
                    for k in 0..4 * usize::from(depth) {
                        sum += number(a[m][k], signed[0]) * number(b[k / 4][4 * n + k % 4], signed[1]);
                    }
                    out[m][4 * n..4 * n + 4].copy_from_slice(&(sum as i32).to_le_bytes());
                }
            }
            out
        };
        assert_eq!(product!("tdpbssd tmm0, tmm1, tmm2", shapes, tiles), expected([true, true]));
        assert_eq!(product!("tdpbsud tmm0, tmm1, tmm2", shapes, tiles), expected([true, false]));
        assert_eq!(product!("tdpbusd tmm0, tmm1, tmm2", shapes, tiles), expected([false, true]));
        assert_eq!(product!("tdpbuud tmm0, tmm1, tmm2", shapes, tiles), expected([false, false]));
        let zeros = product!("tilezero tmm0", shapes, tiles);
        assert!(
            zeros[..usize::from(rows)].iter().all(|row| row[..4 * usize::from(columns)].iter().all(|&byte| byte == 0))
        );
    }
}

#[test]
fn tiles_multiply_halves() {
    if !install() || crate::tiles::native() {
        return;
    }
    // small whole numbers, whose sums are exact in any order
    let whole = |seed: u64| {
        tile(seed).map(|row| {
            vector(view!(row, u16).iter().map(|x| f32::from(x % 32) - 16.0), |x| {
                [x.to_le_bytes()[2], x.to_le_bytes()[3]]
            })
        })
    };
    let tiles = [[[0; 64]; 16], whole(1), whole(2)];
    let out = product!("tdpbf16ps tmm0, tmm1, tmm2", [(16, 64); 3], tiles);
    let number = |row: &Vector, at: usize| f32::from_bits(u32::from(view!(row, u16)[at]) << 16);
    for (m, row) in out.iter().enumerate() {
        for (n, &got) in view!(row, f32).iter().enumerate() {
            let products = (0..32).map(|k| number(&tiles[1][m], k) * number(&tiles[2][k / 2], 2 * n + k % 2));
            assert_eq!(got, products.sum::<f32>());
        }
    }
    // subnormal factors and results count as zero
    let tiny = [[0x40, 0x00]; 32].concat().try_into().unwrap();
    let out = product!("tdpbf16ps tmm0, tmm1, tmm2", [(16, 64); 3], [[[0; 64]; 16], [tiny; 16], whole(1)]);
    assert!(out.iter().flatten().all(|&byte| byte & 0x7f == 0));
}

/// The order of the sums and their roundings (Intel SDM, volume 2, TDPBF16PS): with the first of two numbers, with the second, both,
/// and then what was there; one rounding each, here of an f64, which holds every product and every sum of this test exactly.
#[test]
fn tiles_multiply_halves_and_round() {
    if !install() || crate::tiles::native() {
        return;
    }
    // floats of `N` bytes with exponents 120 to 127
    fn floats<const N: usize>(seed: u64) -> Tile {
        tile(seed).map(|mut row| {
            row.as_chunks_mut::<N>().0.iter_mut().for_each(|x| x[N - 1] = x[N - 1] & 0x83 | 0x3c);
            row
        })
    }
    for (seed, (rows, columns, depth)) in [(16, 16, 16), (5, 3, 9), (1, 16, 1)].into_iter().enumerate() {
        let seed = 3 * seed as u64;
        let tiles = [floats::<4>(seed + 20), floats::<2>(seed + 21), floats::<2>(seed + 22)];
        let shapes = [(rows, 4 * columns), (rows, 4 * depth), (depth, 4 * columns)];
        let out = product!("tdpbf16ps tmm0, tmm1, tmm2", shapes, tiles);
        let number = |row: &Vector, at: usize| f64::from(f32::from_bits(u32::from(view!(row, u16)[at]) << 16));
        for m in 0..usize::from(rows) {
            for n in 0..usize::from(columns) {
                let mut sums = [0.0f32; 2];
                for (k, i) in (0..usize::from(depth)).flat_map(|k| [(k, 0), (k, 1)]) {
                    let product = number(&tiles[1][m], 2 * k + i) * number(&tiles[2][k], 2 * n + i);
                    sums[i] = (f64::from(sums[i]) + product) as f32;
                }
                let before = view!(tiles[0][m], f32)[n];
                assert_eq!(view!(out[m], f32)[n], before + (sums[0] + sums[1]), "{rows} {columns} {depth} {m} {n}");
            }
        }
    }
}

#[test]
fn tiles_multiply_halves_below_the_normal_numbers_and_beyond_the_finite_ones() {
    if !install() || crate::tiles::native() {
        return;
    }
    let row = |numbers: &[f32]| {
        vector(numbers.iter().cycle().take(32), |x: &f32| {
            let [.., low, high] = x.to_le_bytes();
            [low, high]
        })
    };
    let (tiny, least, most) = (f32::from_bits(0x1f_0000), f32::MIN_POSITIVE, f32::from_bits(0x7f7f_0000));
    // what is there, two pairs of numbers, and their factors
    for (to, [a, b, c, d], factors, expected) in [
        // below the normal numbers: what is there, a factor, a sum, both sums
        (tiny, [1.0, 0.0, 0.0, 0.0], [0.0; 4], 0.0),
        (1.0, [tiny, 0.0, 0.0, 0.0], [1e20; 4], 1.0),
        (0.0, [least, least, 0.0, 0.0], [0.5, 0.5, 0.0, 0.0], 0.0),
        (0.0, [least, least, 0.0, 0.0], [1.5, -1.0, 0.0, 0.0], 0.0),
        (-least, [least, 0.0, 0.0, 0.0], [1.5, 0.0, 0.0, 0.0], 0.0),
        // a product alone is not rounded
        (0.0, [least, 0.0, least, 0.0], [1.0, 0.0, 0.5, 0.0], 1.5 * least),
        (f32::INFINITY, [1.0; 4], [1.0; 4], f32::INFINITY),
        (1.0, [f32::NEG_INFINITY, 1.0, 1.0, 1.0], [2.0; 4], f32::NEG_INFINITY),
        (1.0, [most, 0.0, 0.0, 0.0], [2.0; 4], f32::INFINITY),
        (1.0, [most, 0.0, most, 0.0], [2.0, 0.0, -2.0, 0.0], f32::INFINITY),
        (1.0, [f32::INFINITY, 0.0, 0.0, 0.0], [0.0; 4], f32::NAN),
        (1.0, [f32::NAN, 0.0, 0.0, 0.0], [1.0; 4], f32::NAN),
    ] {
        let mut right = [[0; 64]; 16];
        (right[0], right[1]) = (row(&factors[..2]), row(&factors[2..]));
        let tiles = [[vector([to; 16], f32::to_le_bytes); 16], [row(&[a, b, c, d]); 16], right];
        let out = product!("tdpbf16ps tmm0, tmm1, tmm2", [(16, 64), (16, 8), (2, 64)], tiles);
        for got in out.iter().flat_map(|row| view!(row, f32)) {
            assert!(got == expected || got.is_nan() && expected.is_nan(), "{got:e} {expected:e}");
        }
    }
}

#[test]
fn what_is_unknown_ends_the_process_and_is_named() {
    if !install() || crate::traps::native() {
        return;
    }
    let test = ["--ignored", "--exact", "tests::an_unknown_instruction"];
    let run = std::process::Command::new(std::env::current_exe().unwrap()).args(test).output().unwrap();
    let said = String::from_utf8_lossy(&run.stderr);
    assert!(!run.status.success() && said.contains("Vpconflictd"), "{said}");
}

#[test]
#[ignore = "ends the process"]
fn an_unknown_instruction() {
    install();
    after!("vpconflictd zmm1, zmm3", [[0; 64]; 3], 0u64);
}
