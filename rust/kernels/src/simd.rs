//! What every vector body shares: views of memory, and arithmetic written so that the compiler turns it into vectors.
//!
//! Most bodies are one `#[inline(always)]` function over fixed-size arrays, compiled once as it is and once inside a
//! `#[target_feature]` function: the same operations in the same order, hence the same bits on every path.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

#[cfg(target_endian = "big")]
compile_error!("packed words are little-endian in memory");

/// The bytes of packed words, in memory order.
pub(crate) fn bytes(words: &[i32]) -> &[u8] {
    // SAFETY: every byte of an i32 is initialised, u8 has no alignment, and the length covers the same memory.
    unsafe { std::slice::from_raw_parts(words.as_ptr().cast(), size_of_val(words)) }
}

/// The bytes of packed words, in memory order, to be written.
pub(crate) fn bytes_mut(words: &mut [i32]) -> &mut [u8] {
    // SAFETY: as for `bytes`; any byte pattern is a valid i32, and the borrow stays exclusive.
    unsafe { std::slice::from_raw_parts_mut(words.as_mut_ptr().cast(), size_of_val(words)) }
}

/// The bits of floats.
pub(crate) fn bits(floats: &[f32]) -> &[i32] {
    // SAFETY: every bit of an f32 is initialised, and an i32 has its size and alignment.
    unsafe { std::slice::from_raw_parts(floats.as_ptr().cast(), floats.len()) }
}

/// [`Lanes`] in AVX2 registers.
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2 {
    use std::arch::x86_64::*;

    /// Eight f32 in a register. Only functions compiled with AVX2 name this type, so that all its methods, which are
    /// always inlined, end in such functions.
    #[derive(Clone, Copy)]
    pub struct F32x8(__m256);

    // SAFETY of all methods: the processor has AVX2, as they are part of functions that only run there (see above); the
    // load and the store are over 32 bytes and need no alignment.
    impl super::Lanes for F32x8 {
        #[inline(always)]
        fn splat(x: f32) -> Self {
            // SAFETY: above.
            Self(unsafe { _mm256_set1_ps(x) })
        }
        #[inline(always)]
        fn load(x: &[f32; 8]) -> Self {
            // SAFETY: above.
            Self(unsafe { _mm256_loadu_ps(x.as_ptr()) })
        }
        #[inline(always)]
        fn array(self) -> [f32; 8] {
            let mut x = [0.0; 8];
            // SAFETY: above.
            unsafe { _mm256_storeu_ps(x.as_mut_ptr(), self.0) };
            x
        }
        #[inline(always)]
        fn add(self, other: Self) -> Self {
            // SAFETY: above.
            Self(unsafe { _mm256_add_ps(self.0, other.0) })
        }
        #[inline(always)]
        fn sub(self, other: Self) -> Self {
            // SAFETY: above.
            Self(unsafe { _mm256_sub_ps(self.0, other.0) })
        }
        #[inline(always)]
        fn mul(self, other: Self) -> Self {
            // SAFETY: above.
            Self(unsafe { _mm256_mul_ps(self.0, other.0) })
        }
        #[inline(always)]
        fn div(self, other: Self) -> Self {
            // SAFETY: above.
            Self(unsafe { _mm256_div_ps(self.0, other.0) })
        }
        #[inline(always)]
        fn min(self, other: Self) -> Self {
            // SAFETY: above.
            Self(unsafe { _mm256_min_ps(self.0, other.0) })
        }
        #[inline(always)]
        fn max(self, other: Self) -> Self {
            // SAFETY: above.
            Self(unsafe { _mm256_max_ps(self.0, other.0) })
        }
        #[inline(always)]
        fn below(self, other: Self) -> u32 {
            // SAFETY: above.
            unsafe { _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_LT_OQ>(self.0, other.0)) as u32 }
        }
        #[inline(always)]
        fn abs(self) -> Self {
            // SAFETY: above.
            Self(unsafe { _mm256_andnot_ps(_mm256_set1_ps(-0.0), self.0) })
        }
        #[inline(always)]
        fn split(self) -> (Self, Self) {
            // SAFETY: above.
            unsafe {
                let bits = _mm256_castps_si256(self.0);
                let e = _mm256_srai_epi32::<23>(_mm256_sub_epi32(bits, _mm256_set1_epi32(super::SPLIT)));
                let m = _mm256_sub_epi32(bits, _mm256_slli_epi32::<23>(e));
                (Self(_mm256_cvtepi32_ps(e)), Self(_mm256_castsi256_ps(m)))
            }
        }
        #[inline(always)]
        fn scale(self, n: Self) -> Self {
            // SAFETY: above.
            unsafe {
                let n = _mm256_slli_epi32::<23>(_mm256_cvttps_epi32(n.0));
                Self(_mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(self.0), n)))
            }
        }
    }

    // SAFETY of all methods: as above, and the functions have FMA.
    impl super::Fused<8> for F32x8 {
        #[inline(always)]
        fn splat(x: f32) -> Self {
            super::Lanes::splat(x)
        }
        #[inline(always)]
        fn load(x: &[f32; 8]) -> Self {
            super::Lanes::load(x)
        }
        #[inline(always)]
        fn copies(x: &[f32; 8]) -> Self {
            super::Lanes::load(x)
        }
        #[inline(always)]
        fn array(self) -> [f32; 8] {
            super::Lanes::array(self)
        }
        #[inline(always)]
        fn multiply_add(self, other: Self, sum: Self) -> Self {
            // SAFETY: above.
            Self(unsafe { _mm256_fmadd_ps(self.0, other.0, sum.0) })
        }
        #[inline(always)]
        fn max(self, other: Self) -> Self {
            super::Lanes::max(self, other)
        }
        #[inline(always)]
        fn below(self, other: Self) -> u32 {
            super::Lanes::below(self, other)
        }
    }
}

/// [`Fused`] in AVX-512 registers.
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512 {
    use std::arch::x86_64::*;

    /// Twice eight f32 in a register. Only functions compiled with AVX-512 F name this type, so that all its methods, which are
    /// always inlined, end in such functions.
    #[derive(Clone, Copy)]
    pub struct F32x16(__m512);

    // SAFETY of all methods: the processor has AVX-512 F, as they are part of functions that only run there (see above); loads and the
    // store are over 32 or 64 bytes and need no alignment.
    impl super::Fused<16> for F32x16 {
        #[inline(always)]
        fn splat(x: f32) -> Self {
            // SAFETY: above.
            Self(unsafe { _mm512_set1_ps(x) })
        }
        #[inline(always)]
        fn load(x: &[f32; 16]) -> Self {
            // SAFETY: above.
            Self(unsafe { _mm512_loadu_ps(x.as_ptr()) })
        }
        #[inline(always)]
        fn copies(x: &[f32; 8]) -> Self {
            // SAFETY: above.
            Self(unsafe { _mm512_castpd_ps(_mm512_broadcast_f64x4(_mm256_loadu_pd(x.as_ptr().cast()))) })
        }
        #[inline(always)]
        fn array(self) -> [f32; 16] {
            let mut x = [0.0; 16];
            // SAFETY: above.
            unsafe { _mm512_storeu_ps(x.as_mut_ptr(), self.0) };
            x
        }
        #[inline(always)]
        fn multiply_add(self, other: Self, sum: Self) -> Self {
            // SAFETY: above.
            Self(unsafe { _mm512_fmadd_ps(self.0, other.0, sum.0) })
        }
        #[inline(always)]
        fn max(self, other: Self) -> Self {
            // SAFETY: above.
            Self(unsafe { _mm512_max_ps(self.0, other.0) })
        }
        #[inline(always)]
        fn below(self, other: Self) -> u32 {
            // SAFETY: above.
            unsafe { _mm512_cmp_ps_mask::<_CMP_LT_OQ>(self.0, other.0) }.into()
        }
    }

    /// Registers of the largest table.
    const REGISTERS: usize = 16;

    /// Up to 256 floats, in registers as far as they are used.
    #[derive(Clone, Copy)]
    pub struct Table([__m512; REGISTERS]);

    impl Table {
        /// The values of codes of so many bits; those of fewer than 16 again and again, so that bits above a code count for nothing.
        #[target_feature(enable = "avx512f")]
        #[inline]
        pub fn of(bits: usize, table: &[f32]) -> Self {
            let mut values = [[0.0; 16]; REGISTERS];
            let count = table.len().min(1 << bits);
            values.as_flattened_mut()[..count].copy_from_slice(&table[..count]);
            for i in 1 << bits..16 {
                values[0][i] = values[0][i - (1 << bits)];
            }
            let mut registers = [_mm512_setzero_ps(); REGISTERS];
            registers.iter_mut().zip(&values).for_each(|(register, values)| *register = super::load_f32x16(values));
            Self(registers)
        }

        /// Of codes of up to four bits.
        #[target_feature(enable = "avx512f")]
        #[inline]
        pub fn sixteen(values: __m512) -> Self {
            let mut registers = [_mm512_setzero_ps(); REGISTERS];
            registers[0] = values;
            Self(registers)
        }

        /// What codes of up to four bits stand for, in their order.
        pub fn lowest(self) -> __m512 {
            self.0[0]
        }

        /// What sixteen codes of so many bits stand for; the bits above them may be any.
        #[target_feature(enable = "avx512f")]
        #[inline]
        pub fn values<const BITS: usize>(&self, codes: __m512i) -> __m512 {
            if BITS <= 4 {
                return _mm512_permutexvar_ps(codes, self.0[0]);
            }
            // of 32 values by five bits, then one of two by each of the others
            let mut values = [_mm512_setzero_ps(); REGISTERS / 2];
            let mut count = (1 << BITS) / 32;
            for (i, value) in values.iter_mut().take(count).enumerate() {
                *value = _mm512_permutex2var_ps(self.0[2 * i], codes, self.0[2 * i + 1]);
            }
            let mut bit = 5;
            while count > 1 {
                count /= 2;
                let upper = _mm512_test_epi32_mask(codes, _mm512_set1_epi32(1 << bit));
                for i in 0..count {
                    values[i] = _mm512_mask_blend_ps(upper, values[2 * i], values[2 * i + 1]);
                }
                bit += 1;
            }
            values[0]
        }
    }
}

/// 1.5 * 2^23: adding it to |x| < 2^22 leaves `x` rounded to the nearest integer, half to even, in the low bits.
pub(crate) const ROUND: f32 = 12_582_912.0;

/// `x` rounded to the nearest integer, half to even, for |x| < 2^22; two vector additions on every machine.
#[inline(always)]
pub(crate) fn rint(x: f32) -> f32 {
    (x + ROUND) - ROUND
}

/// Eight f32, for bodies that are written once and compiled for each path; every operation gives the same bits on all.
///
/// No closure may see one: the compiler gives closures no instructions beyond the portable ones, unless it inlines them.
pub(crate) trait Lanes: Copy {
    fn splat(x: f32) -> Self;
    fn load(x: &[f32; 8]) -> Self;
    fn array(self) -> [f32; 8];
    fn add(self, other: Self) -> Self;
    fn sub(self, other: Self) -> Self;
    fn mul(self, other: Self) -> Self;
    fn div(self, other: Self) -> Self;
    /// `other` where either is NaN.
    fn min(self, other: Self) -> Self;
    /// `other` where either is NaN.
    fn max(self, other: Self) -> Self;
    /// Bit `i` says whether number `i` is less than that of `other`; not where either is NaN.
    fn below(self, other: Self) -> u32;
    fn abs(self) -> Self;
    /// `e` and `m` with `self = 2^e m`, `m` between the square roots of 1/2 and 2, for normal numbers above zero.
    fn split(self) -> (Self, Self);
    /// `2^n self`, as long as that is a normal number.
    fn scale(self, n: Self) -> Self;

    /// See [`rint`].
    #[inline(always)]
    fn rint(self) -> Self {
        self.add(Self::splat(ROUND)).sub(Self::splat(ROUND))
    }
    /// The sum of all, in an order that is part of what a kernel computes.
    #[inline(always)]
    fn sum(self) -> f32 {
        let x = self.array();
        ((x[0] + x[4]) + (x[2] + x[6])) + ((x[1] + x[5]) + (x[3] + x[7]))
    }
}

/// One or more times eight f32 in a register, for sums of products; the same bits for each eight, however many there are. As for
/// [`Lanes`], no closure may see one.
pub(crate) trait Fused<const N: usize>: Copy {
    fn splat(x: f32) -> Self;
    fn load(x: &[f32; N]) -> Self;
    /// The same eight every time.
    fn copies(x: &[f32; 8]) -> Self;
    fn array(self) -> [f32; N];
    /// `self * other + sum`, rounded once.
    fn multiply_add(self, other: Self, sum: Self) -> Self;
    /// `other` where either is NaN.
    fn max(self, other: Self) -> Self;
    /// Bit `i` says whether number `i` is less than that of `other`; not where either is NaN.
    fn below(self, other: Self) -> u32;
}

impl<const N: usize> Fused<N> for [f32; N] {
    #[inline(always)]
    fn splat(x: f32) -> Self {
        [x; N]
    }
    #[inline(always)]
    fn load(x: &[f32; N]) -> Self {
        *x
    }
    #[inline(always)]
    fn copies(x: &[f32; 8]) -> Self {
        std::array::from_fn(|i| x[i % 8])
    }
    #[inline(always)]
    fn array(self) -> [f32; N] {
        self
    }
    #[inline(always)]
    fn multiply_add(self, other: Self, sum: Self) -> Self {
        std::array::from_fn(|i| self[i].mul_add(other[i], sum[i]))
    }
    #[inline(always)]
    fn max(self, other: Self) -> Self {
        std::array::from_fn(|i| if self[i] > other[i] { self[i] } else { other[i] })
    }
    #[inline(always)]
    fn below(self, other: Self) -> u32 {
        (0..N).map(|i| u32::from(self[i] < other[i]) << i).sum()
    }
}

/// A slice as vectors of eight, with `fill` to make the last one whole.
pub(crate) struct Eights<'a> {
    whole: &'a [[f32; 8]],
    last: [f32; 8],
    len: usize,
}

impl<'a> Eights<'a> {
    #[inline(always)]
    pub fn of(x: &'a [f32], fill: f32) -> Self {
        let (whole, tail) = x.as_chunks();
        let mut last = [fill; 8];
        last[..tail.len()].copy_from_slice(tail);
        Self { whole, last, len: x.len().div_ceil(8) }
    }
    #[inline(always)]
    pub fn len(&self) -> usize {
        self.len
    }
    #[inline(always)]
    pub fn get(&self, i: usize) -> &[f32; 8] {
        match self.whole.get(i) {
            Some(x) => x,
            None => &self.last,
        }
    }
}

/// What [`Lanes::split`] subtracts: the bits of the square root of 1/2.
const SPLIT: i32 = 0x3f35_04f3;

impl Lanes for [f32; 8] {
    #[inline(always)]
    fn splat(x: f32) -> Self {
        [x; 8]
    }
    #[inline(always)]
    fn load(x: &[f32; 8]) -> Self {
        *x
    }
    #[inline(always)]
    fn array(self) -> [f32; 8] {
        self
    }
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        std::array::from_fn(|i| self[i] + other[i])
    }
    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        std::array::from_fn(|i| self[i] - other[i])
    }
    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        std::array::from_fn(|i| self[i] * other[i])
    }
    #[inline(always)]
    fn div(self, other: Self) -> Self {
        std::array::from_fn(|i| self[i] / other[i])
    }
    #[inline(always)]
    fn min(self, other: Self) -> Self {
        std::array::from_fn(|i| if self[i] < other[i] { self[i] } else { other[i] })
    }
    #[inline(always)]
    fn max(self, other: Self) -> Self {
        std::array::from_fn(|i| if self[i] > other[i] { self[i] } else { other[i] })
    }
    #[inline(always)]
    fn below(self, other: Self) -> u32 {
        (0..8).map(|i| u32::from(self[i] < other[i]) << i).sum()
    }
    #[inline(always)]
    fn abs(self) -> Self {
        self.map(f32::abs)
    }
    #[inline(always)]
    fn split(self) -> (Self, Self) {
        let e = self.map(|x| (x.to_bits() as i32 - SPLIT) >> 23);
        (e.map(|e| e as f32), std::array::from_fn(|i| f32::from_bits((self[i].to_bits() as i32 - (e[i] << 23)) as u32)))
    }
    #[inline(always)]
    fn scale(self, n: Self) -> Self {
        std::array::from_fn(|i| f32::from_bits((self[i].to_bits() as i32 + ((n[i] as i32) << 23)) as u32))
    }
}

/// `x^p` for `x >= 0`, within about 2e-6 of it, held to 2^-126..2^127 (0 stays 0 whatever `p`, subnormals count as the
/// smallest normal number); by polynomials, as the C libraries' functions differ and make no vectors.
#[inline(always)]
pub(crate) fn pow<V: Lanes>(x: V, p: V) -> V {
    // the least-maximum fit of log2(1 + f) / f for 1 + f between the square roots of 1/2 and 2
    const LOG2: [f32; 9] = [
        std::f32::consts::LOG2_E,
        -0.721_347_2,
        0.480_910_27,
        -0.360_716_25,
        0.287_939_07,
        -0.238_675_82,
        0.215_212_54,
        -0.208_933,
        0.129_262_5,
    ];
    let (e, m) = x.max(V::splat(f32::MIN_POSITIVE)).split();
    let log = e.add(polynomial(LOG2, m.sub(V::splat(1.0))).mul(m.sub(V::splat(1.0))));
    // 0 for 0, 1 for all else
    let some = x.mul(V::splat(f32::MAX)).mul(V::splat(f32::MAX)).min(V::splat(1.0));
    exp2(log.mul(p)).mul(some)
}

/// `2^x`, within about 2e-7 of it, `x` held to -126..126.
#[inline(always)]
pub(crate) fn exp2<V: Lanes>(x: V) -> V {
    // the least-maximum fit for |f| <= 1/2
    const EXP2: [f32; 6] = [1.000_000_1, 0.693_147_24, 0.240_221_07, 0.055_502_973, 0.009_676_036, 0.001_341];
    let power = x.max(V::splat(-126.0)).min(V::splat(126.0));
    let whole = power.rint();
    polynomial(EXP2, power.sub(whole)).scale(whole)
}

/// `c[0] + c[1] x + c[2] x^2 + ...`.
#[inline(always)]
fn polynomial<V: Lanes, const N: usize>(c: [f32; N], x: V) -> V {
    let mut sum = V::splat(c[N - 1]);
    for i in (0..N - 1).rev() {
        sum = sum.mul(x).add(V::splat(c[i]));
    }
    sum
}

/// Asks for the line of the cache so many bytes behind the start of `what`, which is needed soon.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(crate) fn prefetch<T>(what: &T, ahead: usize) {
    // SAFETY: a hint: nothing is read, and no address is wrong.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(what).cast::<i8>().wrapping_add(ahead)) }
}

/// Thirty-two bytes.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
#[inline]
pub(crate) fn load_u8x32(from: &[u8; 32]) -> __m256i {
    // SAFETY: an unaligned read of the whole array.
    unsafe { _mm256_loadu_si256(from.as_ptr().cast()) }
}

/// Thirty-two bytes.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
#[inline]
pub(crate) fn store_u8x32(to: &mut [u8; 32], value: __m256i) {
    // SAFETY: an unaligned write of the whole array.
    unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast(), value) }
}

/// Sixteen bytes.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
#[inline]
pub(crate) fn load_u8x16(from: &[u8; 16]) -> __m128i {
    // SAFETY: an unaligned read of the whole array.
    unsafe { _mm_loadu_si128(from.as_ptr().cast()) }
}

/// Sixteen bytes.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
#[inline]
pub(crate) fn store_u8x16(to: &mut [u8; 16], value: __m128i) {
    // SAFETY: an unaligned write of the whole array.
    unsafe { _mm_storeu_si128(to.as_mut_ptr().cast(), value) }
}

/// Eight 16-bit numbers.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
#[inline]
pub(crate) fn load_u16x8(from: &[u16; 8]) -> __m128i {
    // SAFETY: an unaligned read of the whole array.
    unsafe { _mm_loadu_si128(from.as_ptr().cast()) }
}

/// Eight 16-bit numbers.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
#[inline]
pub(crate) fn store_u16x8(to: &mut [u16; 8], value: __m128i) {
    // SAFETY: an unaligned write of the whole array.
    unsafe { _mm_storeu_si128(to.as_mut_ptr().cast(), value) }
}

/// Four floats.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
#[inline]
pub(crate) fn load_f32x4(from: &[f32; 4]) -> __m128 {
    // SAFETY: an unaligned read of the whole array.
    unsafe { _mm_loadu_ps(from.as_ptr()) }
}

/// Eight floats.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
#[inline]
pub(crate) fn load_f32x8(from: &[f32; 8]) -> __m256 {
    // SAFETY: an unaligned read of the whole array.
    unsafe { _mm256_loadu_ps(from.as_ptr()) }
}

/// Eight floats.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
#[inline]
pub(crate) fn store_f32x8(to: &mut [f32; 8], value: __m256) {
    // SAFETY: an unaligned write of the whole array.
    unsafe { _mm256_storeu_ps(to.as_mut_ptr(), value) }
}

/// Eight 32-bit integers.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
#[inline]
pub(crate) fn load_i32x8(from: &[i32; 8]) -> __m256i {
    // SAFETY: an unaligned read of the whole array.
    unsafe { _mm256_loadu_si256(from.as_ptr().cast()) }
}

/// Eight 32-bit integers.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
#[inline]
pub(crate) fn store_i32x8(to: &mut [i32; 8], value: __m256i) {
    // SAFETY: an unaligned write of the whole array.
    unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast(), value) }
}

/// Sixteen integers.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
#[inline]
pub(crate) fn load_i16x16(from: &[i16; 16]) -> __m256i {
    // SAFETY: an unaligned read of the whole array.
    unsafe { _mm256_loadu_si256(from.as_ptr().cast()) }
}

/// Sixteen bytes with their signs, each widened to two.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
#[inline]
pub(crate) fn load_i8x16_wide(from: &[i8; 16]) -> __m256i {
    // SAFETY: an unaligned read of the whole array.
    _mm256_cvtepi8_epi16(unsafe { _mm_loadu_si128(from.as_ptr().cast()) })
}

/// Thirty-two signed bytes.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
#[inline]
pub(crate) fn load_i8x32(from: &[i8; 32]) -> __m256i {
    // SAFETY: an unaligned read of the whole array.
    unsafe { _mm256_loadu_si256(from.as_ptr().cast()) }
}

/// Sixty-four bytes.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
#[inline]
pub(crate) fn load_u8x64(from: &[u8; 64]) -> __m512i {
    // SAFETY: an unaligned read of the whole array.
    unsafe { _mm512_loadu_si512(from.as_ptr().cast()) }
}

/// Sixty-four signed bytes.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
#[inline]
pub(crate) fn load_i8x64(from: &[i8; 64]) -> __m512i {
    // SAFETY: an unaligned read of the whole array.
    unsafe { _mm512_loadu_si512(from.as_ptr().cast()) }
}

/// Sixty-four signed bytes.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
#[inline]
pub(crate) fn store_i8x64(to: &mut [i8; 64], value: __m512i) {
    // SAFETY: an unaligned write of the whole array.
    unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), value) }
}

/// The first of sixty-four signed bytes, as many as there is room for.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
pub(crate) fn store_first_i8x64(to: &mut [i8], value: __m512i) {
    // SAFETY: only what the slice has is written.
    unsafe { _mm512_mask_storeu_epi8(to.as_mut_ptr(), first_of_64(to.len()), value) }
}

/// Sixteen 32-bit integers.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
#[inline]
pub(crate) fn load_i32x16(from: &[i32; 16]) -> __m512i {
    // SAFETY: an unaligned read of the whole array.
    unsafe { _mm512_loadu_si512(from.as_ptr().cast()) }
}

/// Sixteen 32-bit integers.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
#[inline]
pub(crate) fn store_i32x16(to: &mut [i32; 16], value: __m512i) {
    // SAFETY: an unaligned write of the whole array.
    unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), value) }
}

/// Sixteen floats.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
#[inline]
pub(crate) fn store_f32x16(to: &mut [f32; 16], value: __m512) {
    // SAFETY: an unaligned write of the whole array.
    unsafe { _mm512_storeu_ps(to.as_mut_ptr(), value) }
}

/// Sixteen floats.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
#[inline]
pub(crate) fn load_f32x16(from: &[f32; 16]) -> __m512 {
    // SAFETY: an unaligned read of the whole array.
    unsafe { _mm512_loadu_ps(from.as_ptr()) }
}

/// At most sixty-four signed bytes and zeros behind them.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
pub(crate) fn first_i8x64(from: &[i8]) -> __m512i {
    // SAFETY: only what the slice has is read.
    unsafe { _mm512_maskz_loadu_epi8(first_of_64(from.len()), from.as_ptr()) }
}

/// A bit for each of at most sixty-four numbers.
#[cfg(target_arch = "x86_64")]
#[inline]
fn first_of_64(count: usize) -> u64 {
    u64::MAX.checked_shr(64 - count.min(64) as u32).unwrap_or(0)
}

/// At most sixteen floats and zeros behind them.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
#[inline]
pub(crate) fn first_f32x16(from: &[f32]) -> __m512 {
    // SAFETY: only what the slice has is read.
    unsafe { _mm512_maskz_loadu_ps(first_of_16(from.len()), from.as_ptr()) }
}

/// A bit for each of at most sixteen numbers.
#[cfg(target_arch = "x86_64")]
#[inline]
fn first_of_16(count: usize) -> u16 {
    (0xffff_u32 >> (16 - count.min(16))) as u16
}

/// Adds a vector to the floats of `to`, at most sixteen.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
#[inline]
pub(crate) fn add_f32x16(to: &mut [f32], value: __m512) {
    let mask = first_of_16(to.len());
    // SAFETY: only what the slice has is read and written.
    unsafe {
        let before = _mm512_maskz_loadu_ps(mask, to.as_ptr());
        _mm512_mask_storeu_ps(to.as_mut_ptr(), mask, _mm512_add_ps(before, value));
    }
}

/// The sum of eight floats: of the halves, then of the quarters, then of the last two.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
#[inline]
pub(crate) fn sum_f32x8(value: __m256) -> f32 {
    let four = _mm_add_ps(_mm256_castps256_ps128(value), _mm256_extractf128_ps::<1>(value));
    let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
}

/// The sum of eight integers, modulo 2^32.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
#[inline]
pub(crate) fn sum_i32x8(value: __m256i) -> i32 {
    let four = _mm_add_epi32(_mm256_castsi256_si128(value), _mm256_extracti128_si256::<1>(value));
    let two = _mm_add_epi32(four, _mm_shuffle_epi32::<0b1110>(four));
    _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32::<0b01>(two)))
}

/// AMX: eight tiles of sixteen rows of 64 bytes, and their products of bytes and of bf16. The compiler knows nothing of tiles, so
/// nothing else touches them.
#[cfg(target_arch = "x86_64")]
pub(crate) mod amx {
    use half::bf16;
    use std::arch::asm;
    use std::arch::x86_64::{__cpuid_count, _xgetbv};
    use std::marker::PhantomData;
    use std::sync::OnceLock;

    /// Rows of a tile, and 32-bit numbers of a row.
    pub const SIDE: usize = 16;
    /// Bytes of a row.
    const WIDTH: usize = 64;

    /// What tiles multiply.
    ///
    /// # Safety
    /// [`Self::Sum`] is four bytes that may have any value.
    pub unsafe trait Number: Copy + Default + Send + Sync {
        /// What products are summed in.
        type Sum: Copy + Default;
        /// Whether they are floats.
        const FLOATS: bool;
        /// Numbers of a row.
        const STEP: usize = WIDTH / size_of::<Self>();
    }

    // SAFETY: an i32 is four bytes of any value.
    unsafe impl Number for i8 {
        type Sum = i32;
        const FLOATS: bool = false;
    }

    // SAFETY: so is an f32.
    unsafe impl Number for bf16 {
        type Sum = f32;
        const FLOATS: bool = true;
    }

    /// Whether the processor has tiles, with products of bytes and of bf16, and the system lends them: it is asked once, and answers
    /// for all threads.
    pub fn lent() -> bool {
        static LENT: OnceLock<bool> = OnceLock::new();
        *LENT.get_or_init(|| {
            // CPUID leaf 7: AMX-BF16, AMX-TILE, AMX-INT8
            let present = 1 << 22 | 1 << 24 | 1 << 25;
            let known = std::arch::x86_64::__cpuid(0).eax >= 7 && __cpuid_count(7, 0).edx & present == present;
            // SAFETY: the first says that the processor and the system have what the second needs.
            known && is_x86_feature_detected!("xsave") && unsafe { saved() } && asked()
        })
    }

    /// Whether the system saves tiles and their configuration with a thread.
    #[target_feature(enable = "xsave")]
    fn saved() -> bool {
        let tiles = 0b11 << 17;
        // SAFETY: register 0 exists wherever XGETBV does.
        unsafe { _xgetbv(0) & tiles == tiles }
    }

    /// Asks Linux to let this process use tiles, `arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA)`.
    #[cfg(target_os = "linux")]
    fn asked() -> bool {
        let mut result: i64 = 158;
        // SAFETY: the call reads no memory of ours; it clobbers rcx and r11.
        unsafe {
            asm!(
                "syscall",
                inout("rax") result, in("rdi") 0x1023, in("rsi") 18, lateout("rcx") _, lateout("r11") _,
                options(nostack),
            );
        }
        result == 0
    }

    #[cfg(not(target_os = "linux"))]
    fn asked() -> bool {
        false
    }

    /// The tiles of this thread, all of full size; released when this goes.
    pub struct Tiles(PhantomData<*mut ()>);

    /// Calls `work` with the tiles of this thread.
    ///
    /// # Safety
    /// The machine's path is AMX, and `work` does not call this again.
    pub unsafe fn with_tiles(work: impl FnOnce(&mut Tiles)) {
        let mut configuration = [0u8; WIDTH];
        configuration[0] = 1;
        for tile in 0..8 {
            (configuration[16 + 2 * tile], configuration[48 + tile]) = (WIDTH as u8, SIDE as u8);
        }
        // SAFETY: the processor has AMX; the configuration is 64 bytes, of palette 1.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &configuration, options(nostack, readonly, preserves_flags)) };
        work(&mut Tiles(PhantomData));
    }

    impl Drop for Tiles {
        fn drop(&mut self) {
            // SAFETY: a thread that has tiles may give them back.
            unsafe { asm!("tilerelease", options(nostack, nomem, preserves_flags)) };
        }
    }

    // SAFETY of all methods: `Tiles` exists only while the tiles are configured; the compiler has nothing in them, and keeps
    // the order of what it cannot see.
    impl Tiles {
        /// All numbers of a tile become zero.
        #[inline(always)]
        pub fn zero<const TILE: usize>(&mut self) {
            const { assert!(TILE < 8) };
            // SAFETY: above.
            unsafe { asm!("tilezero tmm{}", const TILE, options(nostack, nomem, preserves_flags)) };
        }

        /// Sixteen rows of 64 bytes, `stride` numbers apart.
        #[inline(always)]
        pub fn load<const TILE: usize, T: Number>(&mut self, from: &[T], stride: usize) {
            const { assert!(TILE < 8) };
            assert!(from.len() >= (SIDE - 1) * stride + T::STEP, "a tile reaches beyond its numbers");
            // SAFETY: above; all rows are inside.
            unsafe {
                asm!(
                    "tileloadd tmm{}, [{} + {}]", const TILE, in(reg) from.as_ptr(), in(reg) stride * size_of::<T>(),
                    options(nostack, readonly, preserves_flags),
                );
            }
        }

        /// All numbers of a tile.
        #[inline(always)]
        pub fn sums<const TILE: usize, T: Number>(&self) -> [[T::Sum; SIDE]; SIDE] {
            const { assert!(TILE < 8 && SIDE * size_of::<T::Sum>() == WIDTH) };
            let mut sums = [[T::Sum::default(); SIDE]; SIDE];
            // SAFETY: above; the array is as large as a tile, and its numbers may have any value.
            unsafe {
                asm!(
                    "tilestored [{} + {}], tmm{}", in(reg) &mut sums, in(reg) WIDTH, const TILE,
                    options(nostack, preserves_flags),
                );
            }
            sums
        }

        /// Adds to number `n` of row `m` of `TO` the products of row `m` of `A` with the numbers of `B` at places `4 n` to `4 n + 3` of
        /// all rows, or `2 n` and `2 n + 1` where they are bf16.
        ///
        /// The sums of integers are exact modulo 2^32. For bf16: products with the first of two numbers are added up, row after
        /// row, and those with the second; then both, then they go on top of `TO`. Each product is exact, each of these sums is
        /// rounded to the nearest f32, half to even; what is below the normal numbers counts as zero, before and after.
        #[inline(always)]
        pub fn multiply<T: Number, const TO: usize, const A: usize, const B: usize>(&mut self) {
            const { assert!(TO < 8 && A < 8 && B < 8 && TO != A && TO != B && A != B) };
            // SAFETY: above; the three tiles differ.
            unsafe {
                if T::FLOATS {
                    asm!(
                        "tdpbf16ps tmm{}, tmm{}, tmm{}", const TO, const A, const B,
                        options(nostack, nomem, preserves_flags),
                    );
                } else {
                    asm!(
                        "tdpbssd tmm{}, tmm{}, tmm{}", const TO, const A, const B,
                        options(nostack, nomem, preserves_flags),
                    );
                }
            }
        }
    }
}
