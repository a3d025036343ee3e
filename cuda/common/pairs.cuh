// Codes as pairs of 16-bit floats, the way mma takes them: eight codes of BITS bits to four registers, (q0, q4) (q1, q5) (q2, q6)
// (q3, q7), each code minus a zero point of 0 to 255: whole numbers that f16 and bf16 hold, so nothing is rounded.
// A code in the last places of 1024 (f16) or 128 (bf16) is that number plus the code; one addition brings both down.
#pragma once
#include "common/convert.cuh"
#include "common/memory.cuh"

__device__ inline unsigned one_pair(F16) { return 0x3c003c00; }
__device__ inline unsigned one_pair(BF16) { return 0x3f803f80; }

#if defined(__CUDA_ARCH__)

__device__ inline unsigned prmt(unsigned low, unsigned high, unsigned which) { return __byte_perm(low, high, which); }
// a + b for either half of a register; by fma, as bf16 has no addition before sm_90.
__device__ inline unsigned add_pair(unsigned a, unsigned b, F16) {
    unsigned sum;
    asm("fma.rn.f16x2 %0, %1, %2, %3;" : "=r"(sum) : "r"(a), "r"(one_pair(F16{})), "r"(b));
    return sum;
}
__device__ inline unsigned add_pair(unsigned a, unsigned b, BF16) {
    unsigned sum;
    asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(sum) : "r"(a), "r"(one_pair(BF16{})), "r"(b));
    return sum;
}
// a * b, the same way.
__device__ inline unsigned multiply_pair(unsigned a, unsigned b, F16) {
    unsigned product;
    asm("fma.rn.f16x2 %0, %1, %2, %3;" : "=r"(product) : "r"(a), "r"(b), "r"(0x80008000));
    return product;
}
__device__ inline unsigned multiply_pair(unsigned a, unsigned b, BF16) {
    unsigned product;
    asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(product) : "r"(a), "r"(b), "r"(0x80008000));
    return product;
}

#else

// Bytes 0 to 3 are those of low, 4 to 7 of high; a digit of `which` chooses each.
inline unsigned prmt(unsigned low, unsigned high, unsigned which) {
    unsigned result = 0;
    for (unsigned at = 0; at < 4; at++) {
        const unsigned from = which >> 4 * at & 7;
        result |= ((from < 4 ? low : high) >> from % 4 * 8 & 0xff) << 8 * at;
    }
    return result;
}
template <class T, class Join> inline unsigned join_pair(unsigned a, unsigned b, Join join) {
    unsigned result = 0;
    for (unsigned shift = 0; shift < 32; shift += 16) {
        T half;
        narrow(join(widen(T{static_cast<unsigned short>(a >> shift)}), widen(T{static_cast<unsigned short>(b >> shift)})), half);
        result |= unsigned(half.bits) << shift;
    }
    return result;
}
template <class T> inline unsigned add_pair(unsigned a, unsigned b, T) {
    return join_pair<T>(a, b, [](float a, float b) { return a + b; });
}
template <class T> inline unsigned multiply_pair(unsigned a, unsigned b, T) {
    return join_pair<T>(a, b, [](float a, float b) { return a * b; });
}

#endif

__device__ inline unsigned biased(unsigned pair, unsigned zero, F16 type) {
    return add_pair(pair | 0x64006400, 0xe400e400 + zero * 0x10001, type);  // (1024 + code) - (1024 + zero)
}
// Beyond 256 bf16 does not hold every whole number: the difference is made in f32, whose upper half it fits.
__device__ inline unsigned biased(unsigned pair, unsigned zero, BF16) {
    const float shift = bit_cast<float>(0x4b000000 + zero);
    const float low = bit_cast<float>((pair & 0xff) | 0x4b000000) - shift, high = bit_cast<float>(pair >> 16 | 0x4b000000) - shift;
    return prmt(bit_cast<unsigned>(low), bit_cast<unsigned>(high), 0x7632);
}

// Codes i and i + 4 of eight from the low end of a register, or of two where a code has 8 bits.
template <unsigned BITS> __device__ inline unsigned code_pair(unsigned low, unsigned high, unsigned i) {
    constexpr unsigned MASK = (1 << BITS) - 1;
    if constexpr (BITS == 8)
        return prmt(low, high, 0x0400 + i * 0x0101) & 0x00ff00ff;
    else if constexpr (BITS == 4)
        return low >> 4 * i & 0x000f000f;
    else
        return (low >> BITS * i & MASK) | ((BITS > 4 ? low >> 24 | high << 8 : low >> BITS * 4) >> BITS * i & MASK) << 16;
}

// Eight neighbouring codes from the low end of `low` on; of 8 bits the last four lie in `high`, of 6 bits a part of them.
struct Eight {
    unsigned low, high;
};
// From shared memory: the t-th eight of the 32 that begin at `chunk`, which is aligned to 4 bytes.
template <unsigned BITS> __device__ inline Eight eight_of(const unsigned char* chunk, unsigned t) {
    if constexpr (BITS % 4 == 0) {
        const auto codes = load<Words<BITS / 4>>(chunk + t * BITS);
        return {codes.word[0], codes.word[BITS / 4 - 1]};
    } else if constexpr (BITS == 2) {
        return {load<unsigned short>(chunk + t * 2), 0};
    } else {
        static_assert(BITS == 3, "codes of 2, 3, 4 or 8 bits");
        const unsigned at = t * 24 / 32, next = at < 2 ? at + 1 : at;  // 24 bits of 96, across two words
        const unsigned first = load<Words<1>>(chunk + at * 4).word[0], second = load<Words<1>>(chunk + next * 4).word[0];
        return {unsigned((static_cast<unsigned long long>(second) << 32 | first) >> t * 24 % 32), 0};
    }
}
// From registers: the `at`-th eight of an endless stream.
template <unsigned BITS, unsigned WORDS> __device__ inline Eight eight_of(const unsigned (&words)[WORDS], unsigned at) {
    const unsigned first = 8 * BITS * at, word = first / 32, shift = first % 32;
    unsigned low = words[word] >> shift;
    const unsigned next = word + 1 < WORDS ? words[word + 1] : 0;
    if (shift + 8 * BITS > 32 && shift > 0) low |= next << (32 - shift);
    return {low, next};
}

// What codes stand for: whole numbers, less a zero point; common/table.cuh has the values of a table.
template <unsigned BITS> struct Whole {
    static constexpr unsigned BYTES = 0;  // of shared memory
    // What `pairs` has to know of a column of the tile, as long as nothing else is said.
    __device__ unsigned of_column(unsigned) const { return 1u << (BITS - 1); }
    template <class T> __device__ void pairs(Eight codes, unsigned zero, unsigned (&to)[4], T type) const {
#pragma unroll
        for (unsigned i = 0; i < 4; i++) to[i] = biased(code_pair<BITS>(codes.low, codes.high, i), zero, type);
    }
};

// Eight neighbouring 16-bit values in the same order.
__device__ inline void value_pairs(const Words<4>& x, unsigned (&pairs)[4]) {
    pairs[0] = prmt(x.word[0], x.word[2], 0x5410), pairs[1] = prmt(x.word[0], x.word[2], 0x7632);
    pairs[2] = prmt(x.word[1], x.word[3], 0x5410), pairs[3] = prmt(x.word[1], x.word[3], 0x7632);
}
