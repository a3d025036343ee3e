// The last step of every kernel that quantizes rows: scale = max(max |v|, eps) / LARGEST and codes = v / scale, rounded to nearest even.
// A row with NaN or infinity gets the scale NaN and codes 0. Both quotients are rounded as IEEE 754 has it; eps is LARGEST times the
// smallest normal f32 or more, so that flushing of subnormals, which no one asks for here, would not matter.
#pragma once
#include "common/warp.cuh"

struct Int8 {
    using Code = signed char;
    static constexpr float LARGEST = 127.f;
    // A quotient may be rounded to no more than 127, as the largest magnitude is 127 steps.
    __device__ static Code code(float quotient) { return static_cast<Code>(rintf(quotient)); }
};
struct E4m3fn {
    using Code = unsigned char;
    static constexpr float LARGEST = 448.f;
    __device__ static Code code(float quotient) {
        const unsigned bits = bit_cast<unsigned>(quotient), magnitude = bits & 0x7fffffff;
        unsigned code = (magnitude - (120u << 23) + 0x7ffff + (magnitude >> 20 & 1)) >> 20;
        // Below 2^-6 the last place is 2^-9, as it is that of 2^14: adding that rounds.
        if (magnitude < 121u << 23) code = bit_cast<unsigned>(bit_cast<float>(magnitude) + 16384.f) - bit_cast<unsigned>(16384.f);
        return static_cast<Code>((code > 0x7e ? 0x7e : code) | (bits >> 24 & 0x80));
    }
};

// THREADS neighbouring threads, a warp or the whole block, quantize a row of C numbers, each of which read(c) gives twice.
template <class Format, unsigned THREADS, class Read>
__device__ void quantize_row(unsigned C, float eps, Read read, typename Format::Code* codes, float* scale) {
    const unsigned thread = threadIdx.x % THREADS;
    // As integers, magnitudes are in the order of the numbers, and infinity and NaN are above them all.
    int largest = 0;
    for (unsigned c = thread; c < C; c += THREADS) largest = max(largest, bit_cast<int>(read(c)) & 0x7fffffff);
    largest = reduce<THREADS>(largest, [](int a, int b) { return max(a, b); });
    const bool finite = largest < 0x7f800000;
    const float step = finite ? __fdiv_rn(fmaxf(bit_cast<float>(largest), eps), Format::LARGEST) : bit_cast<float>(0x7fc00000);
    if (thread == 0) *scale = step;
    for (unsigned c = thread; c < C; c += THREADS) codes[c] = finite ? Format::code(__fdiv_rn(read(c), step)) : 0;
}

// X(NAME of an entry, Format, T) for every format of codes and dtype of activations.
#define TOKEN_ENTRIES(X, NAME)               \
    X(NAME##_int8_f32, Int8, float)          \
    X(NAME##_int8_f16, Int8, F16)            \
    X(NAME##_int8_bf16, Int8, BF16)          \
    X(NAME##_e4m3fn_f32, E4m3fn, float)      \
    X(NAME##_e4m3fn_f16, E4m3fn, F16)        \
    X(NAME##_e4m3fn_bf16, E4m3fn, BF16)
