// Products with up to 16 rows of x, made for bandwidth: weights go from global memory to registers, so that no barrier waits for them
// and each warp has several wide loads a lane under way; they are the 16 rows of an mma, x its 8 columns, so that nothing is computed
// for rows that are not there. What codes mean is the kernel's own.
//
//   TOKENS 8:  32 columns of y, 2 warps down, 4 along K      a chunk, 32 * EIGHTS columns: lane t of the four that share a row has
//   TOKENS 16: 64 columns of y, 4 warps down, 2 along K      EIGHTS neighbouring eights of codes; x lies in shared memory the same way.
//                                                            Of 6 bits an eight begins in the middle of a word every other time.
#pragma once
#include "common/memory.cuh"
#include "common/mma.cuh"
#include "common/pairs.cuh"

enum : unsigned { THREADS = 256, WARPS = THREADS / 32 };

// BITS of a column's code, or of its part of one.
template <unsigned BITS, unsigned EIGHTS, unsigned TOKENS> struct Shape {
    static constexpr unsigned DOWN = TOKENS / 4, ALONG = WARPS / DOWN, ACROSS = TOKENS / 8;  // warps, warps, tiles of mma
    static constexpr unsigned COLUMNS = DOWN * 16, CHUNK = 32 * EIGHTS, WORDS = (EIGHTS * BITS + 3) / 4;
    // Columns of K that all warps take in turn, 128 each, and between two barriers; more under way would not fit the registers.
    static constexpr unsigned SLICE = ALONG * 128, STRETCH = SLICE * (BITS > 4 ? 2 : 4);
    static constexpr unsigned PITCH = STRETCH * 2 + 64;  // bytes of a row of x in shared memory, so that rows meet other banks
    static constexpr unsigned STEPS = STRETCH / CHUNK / ALONG, TOGETHER = 128 / CHUNK;  // chunks of a warp in them; neighbours
    __device__ static unsigned chunk(unsigned step, unsigned along) {
        return (step / TOGETHER * ALONG + along) * TOGETHER + step % TOGETHER;
    }
    // Of a row: where those of lane t begin, and the bits of that word that are another's.
    __device__ static size_t word(unsigned chunk, unsigned t) { return (size_t(chunk) * 4 + t) * (EIGHTS * BITS) / 4; }
    __device__ static unsigned shift(unsigned t) { return EIGHTS * BITS % 4 ? t % 2 * 16 : 0; }
};

// The words of one lane; zeros behind the end of the row.
template <unsigned WORDS>
__device__ inline void read_codes(const unsigned* row, size_t row_words, size_t first, bool wide, unsigned (&to)[WORDS]) {
    constexpr unsigned EACH = WORDS % 4 == 0 ? 4 : WORDS % 2 == 0 ? 2 : 1;
#pragma unroll
    for (unsigned i = 0; i < WORDS; i += EACH) {
        Words<EACH> words = {};
        if (EACH > 1 && wide && first + i + EACH <= row_words) {
            load_once(row + first + i, words);
        } else {
            for (unsigned each = 0; each < EACH; each++)
                if (first + i + each < row_words) words.word[each] = row[first + i + each];
        }
        for (unsigned each = 0; each < EACH; each++) to[i + each] = words.word[each];
    }
}

// x from column k0 on as the B operand takes it: pairs of one eight together, and of a chunk first the first eight of each lane. From
// column `end` on there are zeros.
template <unsigned EIGHTS, class T>
__device__ inline void stage(const T* x, const unsigned* order, unsigned M, unsigned K, unsigned end, unsigned k0, unsigned stretch,
                             unsigned char* to) {
    const unsigned eights = stretch / 8;
    const bool wide = !order && (size_t(x) | size_t(K) * 2 | k0 * 2) % 16 == 0;
    for (unsigned at = threadIdx.x; at < M * eights; at += THREADS) {
        const unsigned m = at / eights, eight = at % eights, k = k0 + eight * 8;
        const T* from = x + size_t(m) * K;
        Words<4> values = {};
        if (wide && k + 8 <= end) {
            values = load<Words<4>>(from + k);
        } else {
            for (unsigned each = 0; each < 8; each++) {
                if (k + each >= end) break;
                const unsigned column = order ? order[k + each] : k + each;
                const unsigned bits = column < K ? from[column].bits : 0x7fff;  // NaN in f16 and in bf16
                values.word[each / 2] |= bits << each % 2 * 16;
            }
        }
        Words<4> pairs;
        value_pairs(values, pairs.word);
        const unsigned chunk = eight / (4 * EIGHTS), t = eight / EIGHTS % 4, j = eight % EIGHTS;
        store(to + m * (stretch * 2 + 64) + ((chunk * EIGHTS + j) * 4 + t) * 16, pairs);
    }
}

// Adds what the warps along K have, and writes it: the sums of lane (g, t) are of these two columns, of rows 2 t and 2 t + 1 behind m0.
template <class S, class T>
__device__ inline void finish(const float (&total)[S::ACROSS][4], unsigned m0, const unsigned (&columns)[2], T* y, float* parts,
                              unsigned M, unsigned N) {
    __shared__ float sums[WARPS][S::ACROSS * 4][32];
    const unsigned warp = threadIdx.x / 32, lane = threadIdx.x % 32, down = warp % S::DOWN, t = lane % 4;
    __syncthreads();  // those of a call before have been read by all
    for (unsigned i = 0; i < S::ACROSS * 4; i++) sums[warp][i][lane] = total[i / 4][i % 4];
    __syncthreads();
    if (warp >= S::DOWN) return;
    for (unsigned i = 0; i < S::ACROSS * 4; i++) {
        float all = 0.f;
        for (unsigned each = 0; each < S::ALONG; each++) all += sums[down + each * S::DOWN][i][lane];
        const unsigned m = m0 + i / 4 * 8 + t * 2 + i % 2, n = columns[i % 4 / 2];
        if (m >= M || n >= N) continue;
        if (parts)
            parts[(size_t(blockIdx.y) * M + m) * N + n] = all;
        else
            narrow(all, y[size_t(m) * N + n]);
    }
}

// y [M, N] of x [M, K] and codes in groups of K that share a scale, as wna16_few.cu has the arguments; what a code stands for is that of
// `Whole` (common/pairs.cuh) or of what does the same, which has the first BYTES of dynamic shared memory.
template <unsigned BITS, unsigned EIGHTS, unsigned TOKENS, class Codes, class T>
__device__ void few_product(const T* x, const unsigned* words, const T* scale, const unsigned char* zero, const unsigned* order, T* y,
                            float* parts, unsigned M, unsigned N, unsigned K, unsigned group, unsigned depth, const Codes& meaning) {
    using S = Shape<BITS, EIGHTS, TOKENS>;
    unsigned char* x_tile = dynamic_shared() + Codes::BYTES;
    const unsigned first = blockIdx.y * depth, end = K - first < depth ? K : first + depth;
    const unsigned warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    const unsigned down = warp % S::DOWN, along = warp / S::DOWN, in_block = down * 16 + g, n0 = blockIdx.x * S::COLUMNS + in_block;
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
                const size_t at = chunk * S::CHUNK < end ? S::word(chunk, t) : row_words;
                read_codes(words + column[half] * row_words, row_words, at, wide, codes[step][half]);
            }
        }
        __syncthreads();  // the stretch before has been read by all
        stage<EIGHTS>(x, order, M, K, K, k0, S::STRETCH, x_tile);
        __syncthreads();
#pragma unroll
        for (unsigned step = 0; step < S::STEPS; step++) {
            const unsigned in_tile = S::chunk(step, along), k = k0 + in_tile * S::CHUNK;
            if (k >= end) break;
            const size_t at[2] = {column[0] * groups + k / group, column[1] * groups + k / group};
            const float scales[2] = {widen(scale[at[0]]), widen(scale[at[1]])};
            const unsigned zeros[2] = {zero ? zero[at[0]] : meaning.of_column(in_block),
                                       zero ? zero[at[1]] : meaning.of_column(in_block + 8)};
            float sum[S::ACROSS][4] = {};
#pragma unroll
            for (unsigned j = 0; j < EIGHTS; j++) {
                unsigned rows[2][4];
                for (unsigned half = 0; half < 2; half++) meaning.pairs(eight_of<BITS>(codes[step][half], j), zeros[half], rows[half], T{});
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
    finish<S>(total, 0, {n0, n0 + 8}, y, parts, M, N);
}
