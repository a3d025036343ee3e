// wna16_few: wna16 for up to 16 rows of x, made for bandwidth: y[m, n] = sum_k x[m, order[k]] * scale[n, g] * (code[n, k] - zero[n, g]).
//   x [M, K], M at most TOKENS | words [N, ceil(K * BITS / 32)] u32, layout "dense" | scale [N, K / group] | y [M, N]
//   zero [N, K / group] u8, or null: 2^(BITS - 1) | order [K] u32, or null: k; what is no column of x is NaN
//   parts, depth: as in wna16_mma.cu, depth a multiple of SLICE
//   All row-major; x, scale and y are all f16 or all bf16. M, N, K below 2^31.
//   BITS 2, 3, 4, 8 and groups of a multiple of 128, or of all of K (EIGHTS 4); BITS 4, 8 and groups of a multiple of 32 (EIGHTS 1).
//   Grid (ceil(N / COLUMNS), ceil(K / depth)) x 256 threads, M * (STRETCH * 2 + 64) bytes of dynamic shared memory; with more than one
//   slice of K wna16_mma_sum_* adds the parts. |error| as for wna16_mma.cu. Rows do not touch each other.
//
// Against wna16_mma.cu: weights go from global memory to registers, so that no barrier waits for them and each warp has up to eight loads
// of 16 bytes a lane under way; and they are the 16 rows of an mma, x its 8 columns, so that nothing is computed for rows that are not there:
// 1.9 instead of 4 instructions a code of 4 bits, where a card of 132 multiprocessors and 4.8 TB/s can issue 3.
// Limit: bandwidth. Not timed on a GPU so far.
//
//   TOKENS 8:  32 columns of y, 2 warps down, 4 along K      a chunk, 32 * EIGHTS columns: lane t of the four that share a row has
//   TOKENS 16: 64 columns of y, 4 warps down, 2 along K      EIGHTS neighbouring eights of codes; x lies in shared memory the same way
#include "common/mma.cuh"
#include "common/pairs.cuh"

enum : unsigned { THREADS = 256, WARPS = THREADS / 32 };

template <unsigned BITS, unsigned EIGHTS, unsigned TOKENS> struct Shape {
    static constexpr unsigned DOWN = TOKENS / 4, ALONG = WARPS / DOWN, ACROSS = TOKENS / 8;  // warps, warps, tiles of mma
    static constexpr unsigned COLUMNS = DOWN * 16, CHUNK = 32 * EIGHTS, WORDS = EIGHTS * BITS / 4;
    // Columns of K that all warps take in turn, 128 each, and between two barriers; more under way would not fit the registers.
    static constexpr unsigned SLICE = ALONG * 128, STRETCH = SLICE * (BITS == 8 ? 2 : 4);
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

template <unsigned BITS, unsigned EIGHTS, unsigned TOKENS, class T>
__device__ void wna16_few(const T* x, const unsigned* words, const T* scale, const unsigned char* zero, const unsigned* order, T* y,
                          float* parts, unsigned M, unsigned N, unsigned K, unsigned group, unsigned depth) {
    using S = Shape<BITS, EIGHTS, TOKENS>;
    __shared__ float sums[WARPS][S::ACROSS * 4][32];
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
                    const auto b = load<Words<4>>(x_tile + m * (S::STRETCH * 2 + 64) + ((in_tile * EIGHTS + j) * 4 + t) * 16);
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
    for (unsigned i = 0; i < S::ACROSS * 4; i++) sums[warp][i][lane] = total[i / 4][i % 4];
    __syncthreads();
    if (along != 0) return;
    for (unsigned i = 0; i < S::ACROSS * 4; i++) {
        float all = 0.f;
        for (unsigned each = 0; each < S::ALONG; each++) all += sums[down + each * S::DOWN][i][lane];
        const unsigned m = i / 4 * 8 + t * 2 + i % 2, n = n0 + i % 4 / 2 * 8;
        if (m >= M || n >= N) continue;
        if (parts)
            parts[(size_t(blockIdx.y) * M + m) * N + n] = all;
        else
            narrow(all, y[size_t(m) * N + n]);
    }
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
