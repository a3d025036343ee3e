// wna16_few: wna16 for up to 16 rows of x, made for bandwidth: y[m, n] = sum_k x[m, order[k]] * scale[n, g] * (code[n, k] - zero[n, g]).
//   x [M, K], M at most TOKENS | words [N, ceil(K * BITS / 32)] u32, layout "dense" | scale [N, K / group] | y [M, N]
//   zero [N, K / group] u8, or null: 2^(BITS - 1) | order [K] u32, or null: k; what is no column of x is NaN
//   parts, depth: as in wna16_mma.cu, depth a multiple of SLICE
//   All row-major; x, scale and y are all f16 or all bf16. M, N, K below 2^31.
//   BITS 2, 3, 4, 8 and groups of a multiple of 128, or of all of K (EIGHTS 4); BITS 4, 8 and groups of a multiple of 32 (EIGHTS 1).
//   Grid (ceil(N / COLUMNS), ceil(K / depth)) x 256 threads, M * (STRETCH * 2 + 64) bytes of dynamic shared memory; with more than one
//   slice of K wna16_mma_sum_* adds the parts. |error| as for wna16_mma.cu. Rows do not touch each other.
//
// Against wna16_mma.cu (common/few.cuh has the way): 1.9 instead of 4 instructions a code of 4 bits, where a card of 132 multiprocessors
// and 4.8 TB/s can issue 3. Limit: bandwidth. Not timed on a GPU so far.
#include "common/few.cuh"
#include "common/mma.cuh"

template <unsigned BITS, unsigned EIGHTS, unsigned TOKENS, class T>
__device__ void wna16_few(const T* x, const unsigned* words, const T* scale, const unsigned char* zero, const unsigned* order, T* y,
                          float* parts, unsigned M, unsigned N, unsigned K, unsigned group, unsigned depth) {
    using S = Shape<BITS, EIGHTS, TOKENS>;
    unsigned char* x_tile = dynamic_shared();
    const unsigned first = blockIdx.y * depth, end = K - first < depth ? K : first + depth;
    const unsigned warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    const unsigned down = warp % S::DOWN, along = warp / S::DOWN, n0 = blockIdx.x * S::COLUMNS + down * 16 + g;
    const size_t row_words = (size_t(K) * BITS + 31) / 32, groups = K / group;
    const bool wide = (size_t(words) | row_words * 4) % 16 == 0;
    // What lies beyond the edges is that of the last column and row, and is not written.
    const size_t column[2] = {n0 < N ? n0 : N - 1, n0 + 8 < N ? n0 + 8 : N - 1};

    float total[S::ACROSS][4] = {};
    for (unsigned k0 = first; k0 < end; k0 += S::STRETCH) {
        unsigned codes[S::STEPS][2][S::WORDS];
#pragma unroll
        for (unsigned step = 0; step < S::STEPS; step++) {
            const unsigned chunk = k0 / S::CHUNK + S::chunk(step, along);
            for (unsigned half = 0; half < 2; half++) {
                const size_t at = (size_t(chunk) * 4 + t) * S::WORDS;
                read_codes(words + column[half] * row_words, row_words, chunk * S::CHUNK < end ? at : row_words, wide, codes[step][half]);
            }
        }
        __syncthreads();  // the stretch before has been read by all
        stage<EIGHTS>(x, order, M, K, k0, S::STRETCH, x_tile);
        __syncthreads();
#pragma unroll
        for (unsigned step = 0; step < S::STEPS; step++) {
            const unsigned in_tile = S::chunk(step, along), k = k0 + in_tile * S::CHUNK;
            if (k >= end) break;
            const size_t at[2] = {column[0] * groups + k / group, column[1] * groups + k / group};
            const float scales[2] = {widen(scale[at[0]]), widen(scale[at[1]])};
            const unsigned zeros[2] = {zero ? zero[at[0]] : 1u << (BITS - 1), zero ? zero[at[1]] : 1u << (BITS - 1)};
            float sum[S::ACROSS][4] = {};
#pragma unroll
            for (unsigned j = 0; j < EIGHTS; j++) {
                unsigned rows[2][4];
                for (unsigned half = 0; half < 2; half++) code_pairs<BITS>(codes[step][half], j, zeros[half], rows[half], T{});
#pragma unroll
                for (unsigned across = 0; across < S::ACROSS; across++) {
                    const unsigned m = across * 8 + g < M ? across * 8 + g : M - 1;
                    const auto b = load<Words<4>>(x_tile + m * S::PITCH + ((in_tile * EIGHTS + j) * 4 + t) * 16);
#pragma unroll
                    for (unsigned i = 0; i < 4; i += 2) {
                        const unsigned a[4] = {rows[0][i], rows[1][i], rows[0][i + 1], rows[1][i + 1]};
                        mma(sum[across], a, {b.word[i], b.word[i + 1]}, T{});
                    }
                }
            }
            for (unsigned across = 0; across < S::ACROSS; across++)
                for (unsigned i = 0; i < 4; i++) total[across][i] = fmaf(scales[i / 2], sum[across][i], total[across][i]);
        }
    }
    finish<S>(total, 0, n0, y, parts, M, N);
}

#define ENTRY(NAME, BITS, EIGHTS, TOKENS, T)                                                                                          \
    extern "C" __global__ void __launch_bounds__(THREADS, 2)                                                                          \
        NAME(const T* x, const unsigned* words, const T* scale, const unsigned char* zero, const unsigned* order, T* y, float* parts, \
             unsigned M, unsigned N, unsigned K, unsigned group, unsigned depth) {                                                    \
        wna16_few<BITS, EIGHTS, TOKENS>(x, words, scale, zero, order, y, parts, M, N, K, group, depth);                               \
    }
#define INSTANCES(BITS, EIGHTS)                                             \
    ENTRY(wna16_few_w##BITS##_f16_e##EIGHTS##_m8, BITS, EIGHTS, 8, F16)     \
    ENTRY(wna16_few_w##BITS##_f16_e##EIGHTS##_m16, BITS, EIGHTS, 16, F16)   \
    ENTRY(wna16_few_w##BITS##_bf16_e##EIGHTS##_m8, BITS, EIGHTS, 8, BF16)   \
    ENTRY(wna16_few_w##BITS##_bf16_e##EIGHTS##_m16, BITS, EIGHTS, 16, BF16)

INSTANCES(2, 4)
INSTANCES(3, 4)
INSTANCES(4, 4)
INSTANCES(8, 4)
INSTANCES(4, 1)
INSTANCES(8, 1)
