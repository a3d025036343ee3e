// mma.sync of small floats in blocks, m16n8 by 32 bytes of each row, on tensor cores that take the scales of both operands: sum +=
// (a * scale_a) * (b * scale_b) (sm_120a; PTX ISA, "Block Scaling for mma.sync").
//   a, b, sum  lie as in common/mma.cuh: k is 64 codes of 4 bits, or 32 of 8
//   scale      a register with four scales of a row, which follow each other. Lanes 4 g and 4 g + 1 give those of rows g and g + 8 of a,
//              lane 4 g those of column g of b (thread-id 0 of the ISA, in which the others are not looked at). Which of the four a
//              product takes, BYTE tells (the byte-id): of Nvfp4 all, of Mxfp4 two from 0 or 2 on, of 8 bits that one
// E8M0 255, and an E4M3 scale of all ones, are NaN; the sign of an E4M3 scale is not looked at. How sums are rounded NVIDIA does not say.
//
// load_matrices  ldmatrix: four matrices of 8 rows of 16 bytes. Lane 8 i + r tells where row r of matrix i lies, and lane 4 g + t gets
//                bytes 4 t to 4 t + 3 of row g of each: the fragments of mma.
#pragma once
#include "common/elements.cuh"
#include "common/memory.cuh"

#if defined(__CUDA_ARCH__)

__device__ inline void load_matrices(const void* row, unsigned (&to)[4]) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(static_cast<unsigned>(__cvta_generic_to_shared(row)))
                 : "memory");
}

#define MMA(KIND, TYPES)                                                                                                                  \
    template <unsigned BYTE>                                                                                                              \
    __device__ inline void mma(float (&sum)[4], const unsigned (&a)[4], const unsigned (&b)[2], unsigned scale_a, unsigned scale_b,       \
                               TYPES) {                                                                                                   \
        asm volatile("mma.sync.aligned." KIND " {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3}, %10, {%12, 0}, %11, "      \
                     "{%12, 0};"                                                                                                          \
                     : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])                                                             \
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "r"(scale_a), "r"(scale_b), "n"(BYTE));          \
    }
MMA("m16n8k64.row.col.kind::mxf4nvf4.block_scale.scale_vec::4X.f32.e2m1.e2m1.f32.ue4m3", Nvfp4)
MMA("m16n8k64.row.col.kind::mxf4.block_scale.scale_vec::2X.f32.e2m1.e2m1.f32.ue8m0", Mxfp4)
MMA("m16n8k32.row.col.kind::mxf8f6f4.block_scale.scale_vec::1X.f32.e4m3.e4m3.f32.ue8m0", Mx8<elements::E4m3fn>)
MMA("m16n8k32.row.col.kind::mxf8f6f4.block_scale.scale_vec::1X.f32.e5m2.e5m2.f32.ue8m0", Mx8<elements::E5m2>)
#undef MMA

#else

struct Matrices {
    Words<4> row;
    unsigned* to;
};
inline void matrices_all(void** lanes) {
    for (unsigned lane = 0; lane < 32; lane++)
        for (unsigned i = 0; i < 4; i++)
            static_cast<Matrices*>(lanes[lane])->to[i] = static_cast<Matrices*>(lanes[8 * i + lane / 4])->row.word[lane % 4];
}
inline void load_matrices(const void* row, unsigned (&to)[4]) {
    Matrices mine = {load<Words<4>>(row), to};
    emulator::collective(matrices_all, &mine);
}

// What the bits of a small float say, without its sign; `last`: the magnitudes from there on are infinity and NaN, or NaN alone.
inline double magnitude_of(unsigned code, int exponent, int mantissa, unsigned last, bool infinite) {
    if (code >= last) return code == last && infinite ? HUGE_VAL : NAN;
    const int field = code >> mantissa, bias = (1 << (exponent - 1)) - 1;
    return ldexp(double(code & ((1u << mantissa) - 1)) + (field ? 1 << mantissa : 0), (field ? field : 1) - bias - mantissa);
}
inline double value_of(unsigned code, elements::E2m1) { return (code & 8 ? -1 : 1) * magnitude_of(code & 7, 2, 1, 8, false); }
inline double value_of(unsigned code, elements::E4m3fn) { return (code & 0x80 ? -1 : 1) * magnitude_of(code & 0x7f, 4, 3, 0x7f, false); }
inline double value_of(unsigned code, elements::E5m2) { return (code & 0x80 ? -1 : 1) * magnitude_of(code & 0x7f, 5, 2, 0x7c, true); }
inline double scale_of(unsigned code, bool power) {
    return power ? code == 255 ? double(NAN) : ldexp(1.0, int(code) - 127) : magnitude_of(code & 0x7f, 4, 3, 0x7f, false);
}

struct ScaledMma {
    float* sum;
    const unsigned *a, *b;
    unsigned scale_a, scale_b;
};
template <class Format, unsigned BYTE> void scaled_mma_all(void** lanes) {
    const auto of = [&](unsigned lane) { return static_cast<ScaledMma*>(lanes[lane]); };
    constexpr unsigned EACH = 32 / Format::BITS, K = 8 * EACH;  // codes of a register; of a row
    for (unsigned row = 0; row < 16; row++) {
        for (unsigned column = 0; column < 8; column++) {
            double total = 0;  // closer than the f32 that it is rounded to
            for (unsigned k = 0; k < K; k++) {
                const unsigned half = k / (K / 2), t = k % (K / 2) / EACH, shift = k % EACH * Format::BITS, mask = (1u << Format::BITS) - 1;
                const unsigned scale = (BYTE + k / Format::BLOCK) * 8;
                const auto scaled = [&](unsigned codes, unsigned scales) {
                    return value_of(codes >> shift & mask, typename Format::Element{}) * scale_of(scales >> scale & 255, Format::POWER);
                };
                total += scaled(of(row % 8 * 4 + t)->a[row / 8 + 2 * half], of(row % 8 * 4 + row / 8)->scale_a) *
                         scaled(of(column * 4 + t)->b[half], of(column * 4)->scale_b);
            }
            float& sum = of(row % 8 * 4 + column / 2)->sum[row / 8 * 2 + column % 2];
            sum = static_cast<float>(sum + total);
        }
    }
}
template <unsigned BYTE, class Format>
inline void mma(float (&sum)[4], const unsigned (&a)[4], const unsigned (&b)[2], unsigned scale_a, unsigned scale_b, Format) {
    static_assert(BYTE < 4 && BYTE % (256 / Format::BITS / Format::BLOCK) == 0, "the first scale of those that this product takes");
    ScaledMma mine = {sum, a, b, scale_a, scale_b};
    emulator::collective(scaled_mma_all<Format, BYTE>, &mine);
}

#endif
