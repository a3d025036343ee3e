// mma.sync, m16n8: sum += a * b over a whole warp. Lane 4 g + t holds (PTX ISA, "Matrix Fragments for mma.m16n8k16", k32 and k64):
//   a     16 x k: registers 0 and 2 of row g, 1 and 3 of row g + 8; of k, four bytes from 4 t on, 2 and 3 the same in the second half
//   b     k x 8:  column g; register 0 the first half of k, 1 the second
//   sum   16 x 8: 0 and 1 in row g, columns 2 t and 2 t + 1; 2 and 3 the same in row g + 8
// f16 and bf16 sum in f32 (products exact, an order of the card's own), int8 and int4 in int32 (exact).
#pragma once
#include "common/convert.cuh"

// Whole numbers, two's complement; a product of ones adds 2^SHIFT to the sum.
struct S8 {
    static constexpr unsigned SHIFT = 0;
};
struct S4 {
    static constexpr unsigned SHIFT = 0;
};
struct S4InBytes {
    static constexpr unsigned SHIFT = 8;
};
// Tensor cores for 4 bits ended with sm_8x: behind them the assembler puts hundreds of instructions into the place of one, so bytes do it.
#if (defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 900) || defined(EMULATES_SM_80)
using Nibbles = S4;
#else
using Nibbles = S4InBytes;
#endif

#if defined(__CUDA_ARCH__)

#define MMA(SHAPE, REGISTER)                                                                                          \
    asm volatile("mma.sync.aligned." SHAPE " {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"           \
                 : REGISTER(sum[0]), REGISTER(sum[1]), REGISTER(sum[2]), REGISTER(sum[3])                             \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]))

__device__ inline void mma(float (&sum)[4], const unsigned (&a)[4], const unsigned (&b)[2], F16) {
    MMA("m16n8k16.row.col.f32.f16.f16.f32", "+f");
}
__device__ inline void mma(float (&sum)[4], const unsigned (&a)[4], const unsigned (&b)[2], BF16) {
    MMA("m16n8k16.row.col.f32.bf16.bf16.f32", "+f");
}
__device__ inline void mma(int (&sum)[4], const unsigned (&a)[4], const unsigned (&b)[2], S8 = {}) {
    MMA("m16n8k32.row.col.s32.s8.s8.s32", "+r");
}
__device__ inline void mma(int (&sum)[4], const unsigned (&a)[4], const unsigned (&b)[2], S4) {
    MMA("m16n8k64.row.col.s32.s4.s4.s32", "+r");
}
#undef MMA

#else

template <class Sum> struct Mma {
    Sum* sum;
    const unsigned *a, *b;
};
// Element `at` of a register, and how many it has.
inline double element(unsigned word, unsigned at, F16*) { return widen(F16{static_cast<unsigned short>(word >> 16 * at)}); }
inline double element(unsigned word, unsigned at, BF16*) { return widen(BF16{static_cast<unsigned short>(word >> 16 * at)}); }
inline double element(unsigned word, unsigned at, S8*) { return static_cast<signed char>(word >> 8 * at); }
inline double element(unsigned word, unsigned at, S4*) { return static_cast<int>(word << (28 - 4 * at)) >> 28; }
inline constexpr unsigned each(BF16*) { return 2; }
inline constexpr unsigned each(F16*) { return 2; }
inline constexpr unsigned each(S8*) { return 4; }
inline constexpr unsigned each(S4*) { return 8; }

template <class Sum, class T> void mma_all(void** lanes) {
    constexpr unsigned EACH = each(static_cast<T*>(nullptr)), HALF = 4 * EACH;  // in a register; of k
    for (unsigned row = 0; row < 16; row++) {
        for (unsigned column = 0; column < 8; column++) {
            double total = 0;  // exact for int8; for floats far closer than the f32 that it is rounded to
            for (unsigned k = 0; k < 2 * HALF; k++) {
                const unsigned half = k / HALF, t = k % HALF / EACH, at = k % EACH;
                const auto* left = static_cast<Mma<Sum>*>(lanes[row % 8 * 4 + t]);
                const auto* right = static_cast<Mma<Sum>*>(lanes[column * 4 + t]);
                T* type = nullptr;
                total += element(left->a[row / 8 + 2 * half], at, type) * element(right->b[half], at, type);
            }
            Sum& sum = static_cast<Mma<Sum>*>(lanes[row % 8 * 4 + column / 2])->sum[row / 8 * 2 + column % 2];
            sum = static_cast<Sum>(sum + total);
        }
    }
}
template <class T> inline void mma(float (&sum)[4], const unsigned (&a)[4], const unsigned (&b)[2], T) {
    Mma<float> mine = {sum, a, b};
    emulator::collective(mma_all<float, T>, &mine);
}
inline void mma(int (&sum)[4], const unsigned (&a)[4], const unsigned (&b)[2], S8 = {}) {
    Mma<int> mine = {sum, a, b};
    emulator::collective(mma_all<int, S8>, &mine);
}
inline void mma(int (&sum)[4], const unsigned (&a)[4], const unsigned (&b)[2], S4) {
    Mma<int> mine = {sum, a, b};
    emulator::collective(mma_all<int, S4>, &mine);
}

#endif

// The registers of S4: their even codes, then their odd ones, at the high ends of bytes, so each is 16 times as large.
__device__ inline void mma(int (&sum)[4], const unsigned (&a)[4], const unsigned (&b)[2], S4InBytes) {
#pragma unroll
    for (unsigned odd = 0; odd < 2; odd++) {
        unsigned left[4], right[2];
        for (unsigned i = 0; i < 4; i++) left[i] = (odd ? a[i] : a[i] << 4) & 0xf0f0f0f0;
        for (unsigned i = 0; i < 2; i++) right[i] = (odd ? b[i] : b[i] << 4) & 0xf0f0f0f0;
        mma(sum, left, right);
    }
}
