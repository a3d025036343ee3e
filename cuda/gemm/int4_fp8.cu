// int4_fp8: y[m, n] = (sum_g w_scale[n, g] * sum_k x[m, k] * (code[n, k] - 8)) * x_scale[m] * tensor_scale + bias[n], k of group g.
//   x [M, K] E4M3 | words [N, ceil(K / 8)] u32, 4-bit codes in layout "dense" (common/codes.cuh) | w_scale [N, K / group] E4M3 or bf16
//   x_scale [x_rows] f32: one for all rows, or one for each | bias [N] f32, or null | y [M, N] f32 | parts, depth: as in fp8.cu
//   All row-major; 64 divides group, or group is K. M and N below 2^31. Grid (ceil(M / ROWS) * ceil(N / 128), ceil(K / depth)) x 256
//   threads; STAGES * (ROWS * 128 + 128 * 64) bytes of dynamic shared memory; ROWS is 16 or 64. With more than one slice of K sum.cu
//   adds the parts.
//   Both operands are exact in f16, x but for a power of two; sums of 64 or 128 columns, and over them, are f32:
//   |error| <= (K + 6) * 2^-23 * (sum_k |x w| x_scale tensor_scale + |bias|). NaN and infinity spread.
//
// The product under FireQ (arXiv 2505.20839). Other than there, where a code times its scale is rounded to E4M3 once more for the sake of
// tensor cores for 8-bit floats, the scale of a group multiplies its sum, so no weight is rounded. For more than 16 rows sm_90a has
// int4_fp8_sm90a.cu. Limit: bandwidth for few rows, the f16 rate and the decoding for many. Not timed on a GPU so far.
//
//   ROWS 16: 8 warps side by side, each 16 x 16 of y        ROWS 64: 2 x 4 warps, each 32 x 32 of y
#include "common/float8.cuh"
#include "common/pairs.cuh"

// The weight, as `Floats` (common/float8.cuh) is one. A pair is two codes of a word that lie four apart, and the same of x.
template <class Scale> struct Int4 {
    using Codes = Tile<COLUMNS, DEPTH / 2>;
    const unsigned* codes;
    GroupScales<Scale> scales;
    unsigned span;
    __device__ static size_t bytes(size_t k) { return (k + 7) / 8 * 4; }
    __device__ static void widen_x(const Words<4>& codes, unsigned (&pairs)[4][2]) {
#pragma unroll
        for (unsigned i = 0; i < 8; i++) {
            const unsigned word = i / 4 * 2, high = prmt(codes.word[word], codes.word[word + 1], 0x4000 + i % 4 * 0x1010);
            pairs[i / 2][i % 2] = E4m3::widen_pair(high);
        }
    }
    __device__ static void widen(const unsigned char* tile, unsigned row, unsigned chunk, unsigned t, unsigned (&pairs)[4][2]) {
        const auto codes = load<Words<2>>(tile + Codes::place(row, chunk * CHUNK / 2 + t * 8));
#pragma unroll
        for (unsigned i = 0; i < 8; i++) pairs[i / 2][i % 2] = biased(code_pair<4>(codes.word[i / 4], 0, i % 4), 8, F16{});
    }
    __device__ float factor(unsigned n, unsigned k) const { return scales.at(n, k); }
};

template <class Scale, unsigned ROWS>
__device__ void int4_fp8(const unsigned char* x, const Scales& x_scale, const Int4<Scale>& weight, const Result& result, unsigned K,
                         unsigned depth) {
    const unsigned M = result.M, downs = (M + ROWS - 1) / ROWS;
    // Blocks that read the same weights follow each other.
    const unsigned m0 = blockIdx.x % downs * ROWS, n0 = blockIdx.x / downs * COLUMNS;
    const Operand rows = {x, M, K, m0};
    float8_product<ROWS>(rows, x_scale, weight, result, m0, M, n0, K, depth);
}

#define ENTRY(NAME, TYPE, ROWS)                                                                                                      \
    extern "C" __global__ void __launch_bounds__(THREADS, 1)                                                                         \
        NAME(const unsigned char* x, const unsigned* words, const float* x_scale, const TYPE* w_scale, const float* bias, float* y,  \
             float* parts, unsigned M, unsigned N, unsigned K, unsigned group, unsigned x_rows, float tensor_scale, unsigned depth) { \
        const unsigned span = group % DEPTH && group != K ? CHUNK : DEPTH;                                                           \
        const Int4<TYPE> weight = {words, {w_scale, group, K / group, E4m3::SCALE * tensor_scale}, span};                            \
        int4_fp8<TYPE, ROWS>(x, {x_scale, x_rows, 1, 1}, weight, {bias, y, parts, M, N}, K, depth);                                  \
    }

ENTRY(int4_fp8_e4m3fn_m16, E4m3Scale, 16)
ENTRY(int4_fp8_e4m3fn_m64, E4m3Scale, 64)
ENTRY(int4_fp8_bf16_m16, BF16, 16)
ENTRY(int4_fp8_bf16_m64, BF16, 64)
