// Products with up to 16 rows of x, made for bandwidth: weights go from global memory to registers, so that no barrier waits for them
// and each warp has several wide loads a lane under way; they are the 16 rows of an mma, x its 8 columns, so that nothing is computed
// for rows that are not there. What codes mean is the kernel's own.
//
//   TOKENS 8:  32 columns of y, 2 warps down, 4 along K      a chunk, 32 * EIGHTS columns: lane t of the four that share a row has
//   TOKENS 16: 64 columns of y, 4 warps down, 2 along K      EIGHTS neighbouring eights of codes; x lies in shared memory the same way
#pragma once
#include "common/memory.cuh"
#include "common/pairs.cuh"

enum : unsigned { THREADS = 256, WARPS = THREADS / 32 };

// BITS of a column's code, or of its part of one.
template <unsigned BITS, unsigned EIGHTS, unsigned TOKENS> struct Shape {
    static constexpr unsigned DOWN = TOKENS / 4, ALONG = WARPS / DOWN, ACROSS = TOKENS / 8;  // warps, warps, tiles of mma
    static constexpr unsigned COLUMNS = DOWN * 16, CHUNK = 32 * EIGHTS, WORDS = EIGHTS * BITS / 4;
    // Columns of K that all warps take in turn, 128 each, and between two barriers; more under way would not fit the registers.
    static constexpr unsigned SLICE = ALONG * 128, STRETCH = SLICE * (BITS == 8 ? 2 : 4);
    static constexpr unsigned PITCH = STRETCH * 2 + 64;  // bytes of a row of x in shared memory, so that rows meet other banks
    static constexpr unsigned STEPS = STRETCH / CHUNK / ALONG, TOGETHER = 128 / CHUNK;  // chunks of a warp in them; neighbours
    __device__ static unsigned chunk(unsigned step, unsigned along) {
        return (step / TOGETHER * ALONG + along) * TOGETHER + step % TOGETHER;
    }
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

// x from column k0 on as the B operand takes it: pairs of one eight together, and of a chunk first the first eight of each lane.
template <unsigned EIGHTS, class T>
__device__ inline void stage(const T* x, const unsigned* order, unsigned M, unsigned K, unsigned k0, unsigned stretch, unsigned char* to) {
    const unsigned eights = stretch / 8;
    const bool wide = !order && (size_t(x) | size_t(K) * 2) % 16 == 0;
    for (unsigned at = threadIdx.x; at < M * eights; at += THREADS) {
        const unsigned m = at / eights, eight = at % eights, k = k0 + eight * 8;
        const T* from = x + size_t(m) * K;
        Words<4> values = {};
        if (wide && k + 8 <= K) {
            values = load<Words<4>>(from + k);
        } else {
            for (unsigned each = 0; each < 8; each++) {
                if (k + each >= K) break;
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

// Adds what the warps along K have, and writes it: the sums of lane (g, t) are of columns n0 and n0 + 8, of rows 2 t and 2 t + 1 behind m0.
template <class S, class T>
__device__ inline void finish(const float (&total)[S::ACROSS][4], unsigned m0, unsigned n0, T* y, float* parts, unsigned M, unsigned N) {
    __shared__ float sums[WARPS][S::ACROSS * 4][32];
    const unsigned warp = threadIdx.x / 32, lane = threadIdx.x % 32, down = warp % S::DOWN, t = lane % 4;
    for (unsigned i = 0; i < S::ACROSS * 4; i++) sums[warp][i][lane] = total[i / 4][i % 4];
    __syncthreads();
    if (warp >= S::DOWN) return;
    for (unsigned i = 0; i < S::ACROSS * 4; i++) {
        float all = 0.f;
        for (unsigned each = 0; each < S::ALONG; each++) all += sums[down + each * S::DOWN][i][lane];
        const unsigned m = m0 + i / 4 * 8 + t * 2 + i % 2, n = n0 + i % 4 / 2 * 8;
        if (m >= M || n >= N) continue;
        if (parts)
            parts[(size_t(blockIdx.y) * M + m) * N + n] = all;
        else
            narrow(all, y[size_t(m) * N + n]);
    }
}
