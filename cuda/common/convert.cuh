// 16-bit floats as raw bits, widened to f32 and rounded back. No toolkit header is needed: the device side is inline PTX, and beside
// it stands a twin in portable C++ that the emulator (tests/emulator) runs; a test compares the twins with NumPy over all codes.
//   widen     exact, subnormals, infinities and NaN included.
//   narrow    round to nearest, ties to even; overflow becomes infinity (no saturation: an activation that overflows must be seen);
//             subnormals and the sign of zero are kept; NaN becomes 0x7fff, the canonical NaN of PTX, whatever its sign.
#pragma once

struct F16 {
    unsigned short bits;
};
struct BF16 {
    unsigned short bits;
};

template <class To, class From> __device__ inline To bit_cast(From from) {
    static_assert(sizeof(To) == sizeof(From), "a bit cast keeps the size");
    To to;
    memcpy(&to, &from, sizeof(to));
    return to;
}

// For kernels that take f32, too.
__device__ inline float widen(float x) { return x; }
__device__ inline void narrow(float wide, float& x) { x = wide; }

__device__ inline float widen(BF16 x) { return bit_cast<float>(unsigned(x.bits) << 16); }

#if defined(__CUDA_ARCH__)

__device__ inline float widen(F16 x) {
    float wide;
    asm("cvt.f32.f16 %0, %1;" : "=f"(wide) : "h"(x.bits));
    return wide;
}
__device__ inline void narrow(float wide, F16& x) { asm("cvt.rn.f16.f32 %0, %1;" : "=h"(x.bits) : "f"(wide)); }
__device__ inline void narrow(float wide, BF16& x) { asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(x.bits) : "f"(wide)); }

#else

inline float widen(F16 x) {
    const unsigned sign = unsigned(x.bits & 0x8000) << 16, magnitude = x.bits & 0x7fff;
    if (magnitude >= 0x7c00) return bit_cast<float>(sign | 0x7f800000 | (magnitude & 0x3ff) << 13);  // infinity and NaN
    // A subnormal counts 2^-24 steps, and so few of them are exact in f32; a normal number only moves its exponent's bias.
    const float size = magnitude < 0x400 ? float(magnitude) * 0x1p-24f : bit_cast<float>((magnitude << 13) + (112u << 23));
    return bit_cast<float>(sign | bit_cast<unsigned>(size));
}
inline void narrow(float wide, F16& x) {
    const unsigned bits = bit_cast<unsigned>(wide), sign = bits >> 16 & 0x8000, magnitude = bits & 0x7fffffff;
    unsigned code;
    if (magnitude > 0x7f800000) {
        x.bits = 0x7fff;
        return;
    } else if (magnitude < 113u << 23) {  // below 2^-14: adding 0.5 leaves 2^-24 as the last place, so the addition itself rounds
        code = bit_cast<unsigned>(bit_cast<float>(magnitude) + 0.5f) - bit_cast<unsigned>(0.5f);
    } else if (magnitude >= 0x477ff000) {  // 65520, the midpoint between the largest finite number and 2^16, and above
        code = 0x7c00;
    } else {
        code = (magnitude - (112u << 23) + 0xfff + (magnitude >> 13 & 1)) >> 13;  // a carry out of the mantissa is the next exponent
    }
    x.bits = static_cast<unsigned short>(sign | code);
}
inline void narrow(float wide, BF16& x) {
    const unsigned bits = bit_cast<unsigned>(wide);
    const bool nan = (bits & 0x7fffffff) > 0x7f800000;
    x.bits = static_cast<unsigned short>(nan ? 0x7fff : (bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

#endif
