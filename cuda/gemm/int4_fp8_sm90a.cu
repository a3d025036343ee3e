// int4_fp8_sm90a: int4_fp8.cu for many rows, on Hopper's tensor cores for 8-bit floats.
//   Arguments and grid as there, blocks of 2 * ROWS threads; STAGES * (ROWS * 128 + 128 * 64) + 128 * (128 + 8) bytes of dynamic
//   shared memory that begins at a multiple of 1024; ROWS is 64 or 128.
//   Codes minus 8 are exact in E4M3. Sums of 64 columns are those of wgmma, which cut numbers behind 13 bits of fraction (common/wgmma.cuh);
//   scales multiply them and what is added over them is f32:
//   |error| <= (68 * 2^-13 + (K + 6) * 2^-23) * sum_k |x w| x_scale tensor_scale + (K + 6) * 2^-23 * |bias|, where a subnormal of x counts as
//   the smallest normal number. NaN and infinity spread.
//
// The product under FireQ (arXiv 2505.20839) on the tensor cores that it is for, except that no weight is rounded: the scale of a group
// multiplies its sum. Words of codes come by cp.async with the tiles of x, threads turn them into a tile of E4M3 in the 128-byte swizzle,
// and a warpgroup multiplies 64 x 128 of y half a stage at a time: the first half is scaled and added while the second is multiplied.
// Nothing of a block is multiplied while its threads turn the next stage; the other block of a multiprocessor, where there is one, may
// be. Limit: the 8-bit rate and what turns and scales. Run on the emulator alone so far, on no GPU.
//
//   ROWS 64: a warpgroup, two blocks a multiprocessor        ROWS 128: two warpgroups, one block
#include "common/pairs.cuh"
#include "common/scaled.cuh"
#include "common/tile.cuh"
#include "common/wgmma.cuh"

enum : unsigned { COLUMNS = 128, DEPTH = 128, SPAN = 64, STEP = 32, STAGES = 4 };

// Eight codes of a word, low ones first, minus 8, as E4M3.
__device__ inline Words<2> float_codes(unsigned word) {
    // -8 to -1, the codes below 8, and 0 to 7, the others.
    constexpr unsigned NEGATIVE[2] = {0xcaccced0, 0xb8c0c4c8}, POSITIVE[2] = {0x44403800, 0x4e4c4a48};
    Words<2> floats;
#pragma unroll
    for (unsigned half = 0; half < 2; half++) {
        const unsigned codes = word >> half * 16, which = codes & 0x7777;
        // The highest bit of each code, at the high end of its byte, then in all of it.
        const unsigned high = prmt(codes << 4, codes, 0x5140) & 0x80808080, mask = high | (high - (high >> 7));
        const unsigned below = prmt(NEGATIVE[0], NEGATIVE[1], which), above = prmt(POSITIVE[0], POSITIVE[1], which);
        floats.word[half] = (above & mask) | (below & ~mask);
    }
    return floats;
}

template <class Scale, unsigned ROWS>
__device__ void int4_fp8(const unsigned char* x, const Scales& x_scale, const unsigned* words, const GroupScales<Scale>& w_scale,
                         const Result& result, unsigned K, unsigned depth) {
    using X = Tile<ROWS, DEPTH, true>;
    using Codes = Tile<COLUMNS, DEPTH / 2>;
    using W = Tile<COLUMNS, DEPTH, true>;
    constexpr unsigned THREADS = 2 * ROWS, UNITS = DEPTH / 2 / 16;
    const unsigned M = result.M, N = result.N, downs = (M + ROWS - 1) / ROWS;
    // Blocks that read the same weights follow each other.
    const unsigned m0 = blockIdx.x % downs * ROWS, n0 = blockIdx.x / downs * COLUMNS;
    const unsigned begin = blockIdx.y * depth, end = K - begin < depth ? K : begin + depth;
    const unsigned count = (end - begin + DEPTH - 1) / DEPTH;  // of stages
    const unsigned g = threadIdx.x % 32 / 4, t = threadIdx.x % 4, warp_m = threadIdx.x / 32 * 16;

    using Tiles = Pipeline<X, Codes, STAGES, THREADS>;
    const Tiles tiles{{x, M, K, m0}, {words, N, size_t((K + 7) / 8) * 4, n0}};
    // Behind them the weights of a stage as floats, and their scales, those of the first half in front.
    unsigned char* const floats = tiles.stages + STAGES * (X::SIZE + Codes::SIZE);
    float* const scales = reinterpret_cast<float*>(floats + W::SIZE);
    const auto fill = [&](unsigned stage) {
        const unsigned k = begin + stage * DEPTH;
        tiles.fill(stage, k < end, k, k / 2);
    };
    for (unsigned stage = 0; stage < Tiles::AHEAD; stage++) fill(stage);

    float total[64] = {}, first[64], second[64];
    const auto turn = [&](unsigned stage) {
        float mine[2 * COLUMNS / THREADS];  // asked for before the tiles are waited for
#pragma unroll
        for (unsigned each = 0; each < 2 * COLUMNS / THREADS; each++) {
            const unsigned at = each * THREADS + threadIdx.x, n = n0 + at % COLUMNS, k = begin + stage * DEPTH + at / COLUMNS * SPAN;
            mine[each] = n < N && k < end ? w_scale.at(n, k) : 0.f;
        }
        const unsigned char* codes = tiles.take(stage) + X::SIZE;
#pragma unroll
        for (unsigned at = threadIdx.x; at < COLUMNS * UNITS; at += THREADS) {
            const unsigned row = at / UNITS, unit = at % UNITS;
            const auto four = load<Words<4>>(codes + Codes::place(row, unit * 16));
#pragma unroll
            for (unsigned half = 0; half < 2; half++) {
                const auto low = float_codes(four.word[half * 2]), high = float_codes(four.word[half * 2 + 1]);
                const Words<4> sixteen = {low.word[0], low.word[1], high.word[0], high.word[1]};
                store(floats + W::place(row, unit * 32 + half * 16), sixteen);
            }
        }
#pragma unroll
        for (unsigned each = 0; each < 2 * COLUMNS / THREADS; each++)
            scales[each * THREADS + threadIdx.x] = mine[each];
        fence_async_proxy();
        __syncthreads();
    };
    const auto multiply = [&](unsigned stage, unsigned half, float(&sum)[64]) {  // starts to
        const auto a = descriptor(tiles.at(stage) + threadIdx.x / 128 * 64 * DEPTH) + half * SPAN / 16;
        const auto b = descriptor(floats) + half * SPAN / 16;
        wgmma_fence();
        wgmma(sum, a, b, false, E4m3{});
        wgmma(sum, a + STEP / 16, b + STEP / 16, true, E4m3{});
        wgmma_commit();
    };
    const auto add = [&](unsigned half, float(&sum)[64]) {
#pragma unroll
        for (unsigned j = 0; j < COLUMNS / 8; j++) {
            const auto both = load<Words<2>>(scales + half * COLUMNS + j * 8 + t * 2);
#pragma unroll
            for (unsigned i = 0; i < 4; i++)
                total[j * 4 + i] = fmaf(sum[j * 4 + i], bit_cast<float>(both.word[i % 2]), total[j * 4 + i]);
        }
    };
    for (unsigned stage = 0; stage < count; stage++) {
        turn(stage);
        multiply(stage, 0, first);
        multiply(stage, 1, second);
        fill(stage + Tiles::AHEAD);
        wgmma_wait<1>(first);
        add(0, first);
        wgmma_wait<0>(second);
        add(1, second);
    }
    wait_async<0>();
#pragma unroll
    for (unsigned half = 0; half < 2; half++) {
        const unsigned m = m0 + warp_m + half * 8 + g;
        const float scale = m < M ? x_scale.at(m, 0) : 0.f;
#pragma unroll
        for (unsigned i = 0; i < 32; i++) {
            const unsigned n = n0 + i / 2 * 8 + t * 2 + i % 2;
            if (m < M && n < N) result.put(m, n, total[i / 2 * 4 + half * 2 + i % 2] * scale);
        }
    }
}

#define ENTRY(NAME, TYPE, ROWS)                                                                                                      \
    extern "C" __global__ void __launch_bounds__(2 * ROWS, 1)                                                                        \
        NAME(const unsigned char* x, const unsigned* words, const float* x_scale, const TYPE* w_scale, const float* bias, float* y,  \
             float* parts, unsigned M, unsigned N, unsigned K, unsigned group, unsigned x_rows, float tensor_scale, unsigned depth) { \
        const GroupScales<TYPE> of_w = {w_scale, group, K / group, tensor_scale};                                                    \
        int4_fp8<TYPE, ROWS>(x, {x_scale, x_rows, 1, 1}, words, of_w, {bias, y, parts, M, N}, K, depth);                             \
    }

ENTRY(int4_fp8_sm90a_e4m3fn_m64, E4m3Scale, 64)
ENTRY(int4_fp8_sm90a_e4m3fn_m128, E4m3Scale, 128)
ENTRY(int4_fp8_sm90a_bf16_m64, BF16, 64)
ENTRY(int4_fp8_sm90a_bf16_m128, BF16, 128)
