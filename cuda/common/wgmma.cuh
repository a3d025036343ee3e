// wgmma, m64n128k32: sum += a * b of a warpgroup, four neighbouring warps, both operands in shared memory, while its threads go on
// (sm_90a; PTX ISA, "Asynchronous Warpgroup Level Matrix Multiply-Accumulate Instructions").
//   a, b  64 and 128 rows of 32 bytes, each told by a descriptor
//   sum   64 x 128: lane 4 g + t of warp w has in 4 j + 2 h + i row 16 w + 8 h + g, column 8 j + 2 t + i
// In this order:
//   fence_async_proxy, __syncthreads   those who wrote the operands; common/memory.cuh
//   wgmma_fence                        once the accumulators have been touched by anything else
//   wgmma, wgmma_commit                any number of them, then the end of their group
//   wgmma_wait<N>(sum)                 all groups but the last N are done; `sum` may be touched, and their operands overwritten by all
//                                      behind the next __syncthreads; without `sum` for the sake of the operands alone
// int8 sums in int32, exactly. How 8-bit floats sum in f32 the ISA leaves open. As measured bit for bit (MMA-Sim, arXiv 2511.10909), the
// 32 products and the sum before are aligned to the largest exponent, cut behind 13 bits of fraction, added, and cut to 13 bits again;
// the exponent of a product is that of its factors, a subnormal's that of the smallest normal number. The twin does that.
#pragma once
#include "common/minifloat.cuh"
#include "common/mma.cuh"

// Of rows of 128 bytes, eight of which make up 1024, in the 128-byte swizzle (Tile<.., 128, true>). What is 16 times smaller there:
// where they begin (bits 0 to 13), 1 that is not used (16 to 29), from eight rows to the next (32 to 45); 1 in 62 to 63: this swizzle.
// Adding 2 moves on by 32 bytes of each row.
__device__ inline unsigned long long descriptor_of(unsigned address) {
    return (address & 0x3ffff) >> 4 | 1ull << 16 | (1024ull >> 4) << 32 | 1ull << 62;
}

#if defined(__CUDA_ARCH__)

#define FOUR(AS, I) AS(sum[I]), AS(sum[I + 1]), AS(sum[I + 2]), AS(sum[I + 3])
#define SIXTEEN(AS, I) FOUR(AS, I), FOUR(AS, I + 4), FOUR(AS, I + 8), FOUR(AS, I + 12)
#define SUM(AS) SIXTEEN(AS, 0), SIXTEEN(AS, 16), SIXTEEN(AS, 32), SIXTEEN(AS, 48)
#define REGISTERS                                                                                                          \
    "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, %24, " \
    "%25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "  \
    "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}"
#define WGMMA(TYPES, AS, SIGNS)                                                                                 \
    asm volatile("{\n.reg .pred more;\nsetp.ne.b32 more, %66, 0;\n"                                             \
                 "wgmma.mma_async.sync.aligned.m64n128k32." TYPES " " REGISTERS ", %64, %65, more" SIGNS ";\n}" \
                 : SUM(AS)                                                                                      \
                 : "l"(a), "l"(b), "r"(int(more)))

__device__ inline unsigned long long descriptor(const void* tile) {
    return descriptor_of(static_cast<unsigned>(__cvta_generic_to_shared(tile)));
}
__device__ inline void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
// `more`: sum += a * b; otherwise sum = a * b.
__device__ inline void wgmma(float (&sum)[64], unsigned long long a, unsigned long long b, bool more, E4m3) {
    WGMMA("f32.e4m3.e4m3", "+f", ", 1, 1");
}
__device__ inline void wgmma(float (&sum)[64], unsigned long long a, unsigned long long b, bool more, E5m2) {
    WGMMA("f32.e5m2.e5m2", "+f", ", 1, 1");
}
__device__ inline void wgmma(int (&sum)[64], unsigned long long a, unsigned long long b, bool more, S8) {
    WGMMA("s32.s8.s8", "+r", "");
}
__device__ inline void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <unsigned PENDING> __device__ inline void wgmma_wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(PENDING) : "memory");
}
// The accumulators go through the wait, or the compiler would read them in front of it.
template <unsigned PENDING> __device__ inline void wgmma_wait(float (&sum)[64]) {
    asm volatile("wgmma.wait_group.sync.aligned %64;" : SUM("+f") : "n"(PENDING) : "memory");
}
template <unsigned PENDING> __device__ inline void wgmma_wait(int (&sum)[64]) {
    asm volatile("wgmma.wait_group.sync.aligned %64;" : SUM("+r") : "n"(PENDING) : "memory");
}
#undef FOUR
#undef SIXTEEN
#undef SUM
#undef REGISTERS
#undef WGMMA

#else

inline unsigned long long descriptor(const void* tile) { return descriptor_of(emulator::shared_address(tile)); }
inline void wgmma_fence() { emulator::wgmma_fence(); }
inline void wgmma_commit() { emulator::wgmma_commit(); }
template <unsigned PENDING> inline void wgmma_wait() { emulator::wgmma_wait(PENDING); }
template <unsigned PENDING, class Sum> inline void wgmma_wait(Sum (&)[64]) { emulator::wgmma_wait(PENDING); }

// A number as significand * 2^exponent, the exponent as a tensor core has it.
struct Scientific {
    double significand;
    int exponent;
};
inline Scientific scientific(unsigned char code, unsigned bits, int bias, bool infinite) {  // bits of fraction
    const int field = (code & 0x7f) >> bits, exponent = (field ? field : 1) - bias, sign = code & 0x80 ? -1 : 1;
    const unsigned fraction = code & ((1u << bits) - 1), top = infinite ? 0x7c : 0x7f;
    if ((code & 0x7f) >= top) return {(code & 0x7f) == top && infinite ? sign * HUGE_VAL : NAN, exponent};
    return {sign * ldexp((field ? 1u << bits : 0) + fraction, -int(bits)), exponent};
}
inline Scientific scientific(unsigned char code, E4m3) { return scientific(code, 3, 7, false); }
inline Scientific scientific(unsigned char code, E5m2) { return scientific(code, 2, 15, true); }
inline Scientific scientific(float sum) {
    if (sum == 0 || !isfinite(sum)) return {sum, 0};
    const int exponent = ilogb(sum) < -126 ? -126 : ilogb(sum);
    return {ldexp(double(sum), -exponent), exponent};
}

// One element of sum, of the 32 bytes of its row of a and of b.
template <class Format> float multiplied(const unsigned char* a, const unsigned char* b, float sum, Format format) {
    Scientific each[33];
    double plain = 0;
    int largest = -1000;
    for (unsigned k = 0; k < 33; k++) {
        if (k < 32) {
            const Scientific left = scientific(a[k], format), right = scientific(b[k], format);
            each[k] = {left.significand * right.significand, left.exponent + right.exponent};
        } else {
            each[k] = scientific(sum);
        }
        plain += each[k].significand;
        if (each[k].significand != 0 && each[k].exponent > largest) largest = each[k].exponent;
    }
    if (isnan(plain)) return bit_cast<float>(0x7fffffff);
    if (isinf(plain)) return static_cast<float>(plain);
    double total = 0;  // in units of the last place that is kept
    for (const Scientific& one : each)
        if (one.significand != 0) total += trunc(ldexp(one.significand, one.exponent - largest + 13));
    const float wide = static_cast<float>(ldexp(total, largest - 13));  // 20 bits at most: exact
    return bit_cast<float>(bit_cast<unsigned>(wide) & 0xfffffc00);
}
inline int multiplied(const unsigned char* a, const unsigned char* b, int sum, S8) {
    for (unsigned k = 0; k < 32; k++) sum += static_cast<signed char>(a[k]) * static_cast<signed char>(b[k]);
    return sum;
}

template <class Sum, class T> void wgmma_all(const unsigned char* a, const unsigned char* b, bool more, void** sums) {
    for (unsigned row = 0; row < 64; row++) {
        for (unsigned column = 0; column < 128; column++) {
            const unsigned lane = row / 16 * 32 + row % 8 * 4 + column % 8 / 2;
            Sum& sum = static_cast<Sum*>(sums[lane])[column / 8 * 4 + row / 8 % 2 * 2 + column % 2];
            sum = multiplied(a + row * 32, b + column * 32, more ? sum : Sum(0), T{});
        }
    }
}
template <class Sum, class T> inline void wgmma(Sum (&sum)[64], unsigned long long a, unsigned long long b, bool more, T) {
    emulator::wgmma(a, b, 128, more, sum, sizeof sum, wgmma_all<Sum, T>);
}

#endif
