// 8-bit floats as f16, for tensor cores that have none of their own. Codes at the high ends of two pairs of bytes become a pair of f16,
// which is theirs divided by SCALE.
#pragma once
#include "common/convert.cuh"
#include "common/memory.cuh"

struct E4m3 {
    static constexpr float SCALE = 256.f;  // the exponents' biases are 7 and 15
    __device__ static unsigned widen_pair(unsigned high) {
        const unsigned magnitude = (high & 0x7f007f00) >> 1;
        // The one NaN, all ones, is the only code that a carry reaches bit 14 from; the exponent is then all ones in f16, too.
        return (high & 0x80008000) | magnitude | ((magnitude + 0x00800080) & 0x40004000);
    }
};
struct E5m2 {
    static constexpr float SCALE = 1.f;
    __device__ static unsigned widen_pair(unsigned high) { return high & 0xff00ff00; }
};
// A scale of its own.
struct E4m3Scale {
    unsigned char code;
};
__device__ inline float widen(E4m3Scale scale) {
    return widen(F16{static_cast<unsigned short>(E4m3::widen_pair(unsigned(scale.code) << 8))}) * E4m3::SCALE;
}
// Sixteen codes as pairs [step of mma][register]: of four neighbours 0 and 2, 1 and 3; which k meet in a pair is free, as it is the same
// for both operands.
template <class Format> __device__ inline void widen_codes(const Words<4>& codes, unsigned (&pairs)[4][2]) {
#pragma unroll
    for (unsigned step = 0; step < 4; step++) {
        pairs[step][0] = Format::widen_pair(codes.word[step] << 8), pairs[step][1] = Format::widen_pair(codes.word[step]);
    }
}
