// The elements of block formats as pairs of 16-bit floats, and the formats that both operands of a product may have.
#pragma once
#include "common/pairs.cuh"

// What a 16-bit float has: bits of mantissa, bias, and itself for a power of two.
__device__ constexpr unsigned mantissa_of(F16) { return 10; }
__device__ constexpr unsigned mantissa_of(BF16) { return 7; }
__device__ constexpr unsigned bias_of(F16) { return 15; }
__device__ constexpr unsigned bias_of(BF16) { return 127; }

namespace elements {

// `pair`: codes i and i + 4 of eight, exactly.
template <unsigned BITS_, unsigned MIDDLE> struct Integer {  // two's complement: the highest bit turned, a code is the number plus MIDDLE
    static constexpr unsigned BITS = BITS_;
    template <class T> __device__ static unsigned pair(unsigned low, unsigned high, unsigned i, T type) {
        return biased(code_pair<BITS>(low, high, i) ^ MIDDLE * 0x10001, MIDDLE, type);
    }
};

// Floats of a sign, EXPONENT and MANTISSA bits: they keep them behind the sign, and one product moves the bias.
//   NAN  the least magnitude that is infinity or NaN, 0 for none: to it, the addition of `carry` sets the bit above the exponent, by which
//        the exponent becomes that of infinity
template <unsigned EXPONENT_, unsigned MANTISSA_, unsigned NAN_> struct Float {
    static constexpr unsigned EXPONENT = EXPONENT_, MANTISSA = MANTISSA_;
    static constexpr unsigned BITS = 1 + EXPONENT + MANTISSA, BIAS = (1 << (EXPONENT - 1)) - 1;
    template <class T> __device__ static unsigned pair(unsigned low, unsigned high, unsigned i, T type) {
        constexpr unsigned SHIFT = mantissa_of(T{}) - MANTISSA, ABOVE = EXPONENT + mantissa_of(T{});
        constexpr unsigned MAGNITUDE = ((1u << (BITS - 1)) - 1) * 0x10001, MOVED = bias_of(T{}) - BIAS;
        const unsigned code = code_pair<BITS>(low, high, i), sign = code << (16 - BITS) & 0x80008000;
        unsigned magnitude = (code & MAGNITUDE) << SHIFT;
        if constexpr (NAN_ != 0 && ABOVE < 15) {
            constexpr unsigned CARRY = ((1u << (BITS - 1)) - NAN_) << SHIFT;
            magnitude |= ((magnitude + CARRY * 0x10001) & (0x10001u << ABOVE)) * ((1u << (15 - ABOVE)) - 1);
        }
        if constexpr (MOVED == 0) return sign | magnitude;
        return multiply_pair(sign | magnitude, ((bias_of(T{}) + MOVED) << mantissa_of(T{})) * 0x10001u, type);
    }
};
using E2m1 = Float<2, 1, 0>;
using E2m3 = Float<2, 3, 0>;
using E3m2 = Float<3, 2, 0>;
using E4m3fn = Float<4, 3, 0x7f>;
using E5m2 = Float<5, 2, 0x7c>;
using Int8 = Integer<8, 128>;
using Int6 = Integer<6, 32>;
using Int4 = Integer<4, 8>;

}  // namespace elements

// BLOCK neighbouring codes with one scale: a power of two (E8M0), or E4M3.
template <class Element_, unsigned BLOCK_, bool POWER_> struct Format {
    using Element = Element_;
    static constexpr unsigned BITS = Element::BITS, BLOCK = BLOCK_;
    static constexpr bool POWER = POWER_;
};
using Nvfp4 = Format<elements::E2m1, 16, false>;
using Mxfp4 = Format<elements::E2m1, 32, true>;
template <class Element> using Mx8 = Format<Element, 32, true>;
