// codebook_gemm_vectors: y[m, n] = sum_k x[m, k] * W[n, k], where a code stands for V neighbouring rows of W in one column.
//   x [M, K] | words [ceil(N / V), ceil(K * bits / 32)] u32: the codes of a strip of V rows as one dense bit stream | y [M, N]
//   first, second [K / group, count, V]: codewords of groups of columns, second may be null. W is the codeword of the low first.bits of a
//     code, and that of the second.bits above them added to it; a code without codeword is NaN. bits, their sum, at most 32
//   inside: whether a stage's codewords of a group are to lie in shared memory | parts: as in wna16_mma.cu
//   depth: columns of K that a block sums, a multiple of 8
//   All row-major; x, codewords and y are all f16 or all bf16. M, N, K below 2^31.
//   Grid (blocks, ceil(K / depth)) x 256 threads; a block takes one tile of y after the other, of which there are
//   ceil(M / TOKENS) * ceil(N / V / 8) * ceil(V / VALUES). Dynamic shared memory: min(M, TOKENS) * PITCH bytes, and for each stage inside
//   (count + 2) * VALUES * 2, in whole 16. With more than one slice of K sum.cu adds the parts.
//   The stages are multiplied apart and summed in f32: |error| <= (2 K + 3) * 2^-23 * sum_k |x| (|first| + |second|) before y is rounded.
//   Rows do not touch each other.
//
// VPTQ (Liu et al., 2024) stores vectors along the outputs. A lane reads whole codewords and keeps them: the rows of an mma that it has are
// those of its strip, two in each of VALUES / 2 tiles, and only the columns have to be paired. All warps of a block lie along K. Limit: the
// look-ups in shared memory, 2 bytes a weight at random places. Not timed on a GPU so far.
#include "common/few.cuh"

enum : unsigned { STRIPS = 8, CHUNK = 32, STEPS = 2, STRETCH = STEPS * WARPS * CHUNK, PITCH = STRETCH * 2 + 64 };

// The codewords of one stage: VALUES values of each from `skip` on, and zeros where the vector ends before.
template <unsigned VALUES, class T> struct Book {
    using Word = Words<VALUES / 2>;
    const T* given;
    unsigned count, bits, vector, skip;
    unsigned char* inside;  // those of one group, behind them one of NaN and one of zeros; null: they are read where they were given

    __device__ static unsigned bytes(unsigned count) { return ((count + 2) * sizeof(Word) + 15) / 16 * 16; }

    __device__ Word read(size_t group, unsigned number) const {
        Word word = {};
        if (number == count)
            for (unsigned& pair : word.word) pair = 0x7fff7fff;
        if (number >= count) return word;
        const T* from = given + (group * count + number) * vector + skip;
        if (vector % VALUES == 0 && size_t(given) % sizeof(Word) == 0) return load<Word>(from);
        for (unsigned i = 0; i < VALUES; i++)
            if (skip + i < vector) word.word[i / 2] |= unsigned(from[i].bits) << i % 2 * 16;
        return word;
    }
    __device__ void fill(size_t group) const {
        if (!inside) return;
        for (unsigned number = threadIdx.x; number < count + 2; number += THREADS)
            store(inside + number * sizeof(Word), read(group, number));
    }
    // Of a column that is not there, zeros.
    __device__ Word of(size_t group, unsigned code, bool there) const {
        const unsigned low = code & ((1u << bits) - 1), number = !there ? count + 1 : low < count ? low : count;
        return inside ? load<Word>(inside + number * sizeof(Word)) : read(group, number);
    }
};

__device__ inline unsigned code_of(const unsigned* row, unsigned k, unsigned bits) {
    if (bits == 0) return 0;  // one codeword, and no word to be read
    const size_t first = size_t(k) * bits;
    const unsigned* word = row + first / 32;
    const unsigned shift = first % 32, code = word[0] >> shift;
    return shift + bits > 32 ? code | word[1] << (32 - shift) : code;
}

// The warps of a block, for `finish`: one down, all along K.
template <unsigned TOKENS> struct Warps {
    static constexpr unsigned DOWN = 1, ALONG = WARPS, ACROSS = TOKENS / 8;
};

template <unsigned VALUES, unsigned TOKENS, class T>
__device__ void codebook_gemm_vectors(const T* x, const unsigned* words, Book<VALUES, T> first, Book<VALUES, T> second, T* y, float* parts,
                                      unsigned M, unsigned N, unsigned K, unsigned group, unsigned depth) {
    constexpr unsigned DOWN = VALUES / 2, ACROSS = TOKENS / 8;  // tiles of mma
    unsigned char* x_tile = dynamic_shared();
    const unsigned vector = first.vector, bits = first.bits + second.bits, strips = (N + vector - 1) / vector;
    const unsigned downs = (M + TOKENS - 1) / TOKENS, across_n = (strips + STRIPS - 1) / STRIPS, sides = (vector + VALUES - 1) / VALUES;
    const unsigned begin = blockIdx.y * depth, end = K - begin < depth ? K : begin + depth;
    const unsigned warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    const size_t row_words = (size_t(K) * bits + 31) / 32;
    const unsigned stages = second.given ? 2 : 1;

    unsigned filled = ~0u;  // with which group's codewords, and which of their values
    for (unsigned tile = blockIdx.x; tile < downs * across_n * sides; tile += gridDim.x) {
        const unsigned m0 = tile % downs * TOKENS, rows = M - m0 < TOKENS ? M - m0 : TOKENS;
        const unsigned strip = tile / downs % across_n * STRIPS + g, side = tile / downs / across_n;
        // What lies beyond the edges is that of the last strip and row, and is not written.
        const unsigned* row = words + (strip < strips ? strip : strips - 1) * row_words;
        first.skip = second.skip = side * VALUES;

        float sum[DOWN][ACROSS][4] = {};
        for (unsigned from = begin, stop; from < end; from = stop) {
            const unsigned own = from / group, group_end = (own + 1) * group;
            stop = group_end < end ? group_end : end;
            for (unsigned k0 = from; k0 < stop; k0 += STRETCH) {
                unsigned codes[STEPS][8];
#pragma unroll
                for (unsigned step = 0; step < STEPS; step++) {
#pragma unroll
                    for (unsigned i = 0; i < 8; i++) {
                        const unsigned k = k0 + (step * WARPS + warp) * CHUNK + t * 8 + i;
                        codes[step][i] = k < stop ? code_of(row, k, bits) : 0;
                    }
                }
                __syncthreads();  // the stretch before has been read by all
                stage<1>(x + size_t(m0) * K, nullptr, rows, K, stop, k0, STRETCH, x_tile);
                if (const unsigned wanted = side * (K / group) + own; filled != wanted) {
                    first.fill(own), second.fill(own);
                    filled = wanted;
                }
                __syncthreads();
#pragma unroll
                for (unsigned step = 0; step < STEPS; step++) {
                    const unsigned chunk = step * WARPS + warp, k = k0 + chunk * CHUNK;
                    if (k >= stop) break;
                    Words<4> b[ACROSS];
#pragma unroll
                    for (unsigned across = 0; across < ACROSS; across++) {
                        const unsigned m = across * 8 + g < rows ? across * 8 + g : rows - 1;
                        b[across] = load<Words<4>>(x_tile + m * PITCH + (chunk * 4 + t) * 16);
                    }
#pragma unroll 1  // one body for both stages: the driver compiles it at the first load
                    for (unsigned of = 0; of < stages; of++) {
                        const auto& book = of ? second : first;
                        const unsigned shift = of ? first.bits : 0;
#pragma unroll
                        for (unsigned i = 0; i < 4; i += 2) {
                            unsigned a[DOWN][4];
#pragma unroll
                            for (unsigned each = 0; each < 2; each++) {
                                const unsigned at = i + each, left_at = t * 8 + at, right_at = left_at + 4;
                                const auto left = book.of(own, codes[step][at] >> shift, left_at < stop - k);
                                const auto right = book.of(own, codes[step][at + 4] >> shift, right_at < stop - k);
#pragma unroll
                                for (unsigned down = 0; down < DOWN; down++) {
                                    a[down][2 * each] = prmt(left.word[down], right.word[down], 0x5410);
                                    a[down][2 * each + 1] = prmt(left.word[down], right.word[down], 0x7632);
                                }
                            }
#pragma unroll
                            for (unsigned down = 0; down < DOWN; down++)
                                for (unsigned across = 0; across < ACROSS; across++)
                                    mma(sum[down][across], a[down], {b[across].word[i], b[across].word[i + 1]}, T{});
                        }
                    }
                }
            }
        }
#pragma unroll
        for (unsigned down = 0; down < DOWN; down++) {
            unsigned n[2];
            for (unsigned half = 0; half < 2; half++) {
                const unsigned value = side * VALUES + down * 2 + half;
                n[half] = strip < strips && value < vector ? strip * vector + value : N;
            }
            finish<Warps<TOKENS>>(sum[down], m0, n, y, parts, M, N);
        }
    }
}

#define ENTRY(NAME, VALUES, TOKENS, T)                                                                                                \
    extern "C" __global__ void __launch_bounds__(THREADS, TOKENS == 8 ? 2 : 1)                                                        \
        NAME(const T* x, const unsigned* words, const T* first, const T* second, T* y, float* parts, unsigned M, unsigned N,          \
             unsigned K, unsigned group, unsigned vector, unsigned first_count, unsigned first_bits, unsigned first_inside,           \
             unsigned second_count, unsigned second_bits, unsigned second_inside, unsigned depth) {                                   \
        using Stage = Book<VALUES, T>;                                                                                                \
        unsigned char* behind_x = dynamic_shared() + (M < TOKENS ? M : TOKENS) * PITCH;                                               \
        unsigned char* behind_first = behind_x + (first_inside ? Stage::bytes(first_count) : 0);                                      \
        const Stage one = {first, first_count, first_bits, vector, 0, first_inside ? behind_x : nullptr};                             \
        const Stage two = {second, second_count, second_bits, vector, 0, second_inside ? behind_first : nullptr};                     \
        codebook_gemm_vectors<VALUES, TOKENS, T>(x, words, one, two, y, parts, M, N, K, group, depth);                                \
    }
#define INSTANCES(VALUES)                                                    \
    ENTRY(codebook_gemm_vectors_v##VALUES##_f16_m8, VALUES, 8, F16)          \
    ENTRY(codebook_gemm_vectors_v##VALUES##_f16_m32, VALUES, 32, F16)        \
    ENTRY(codebook_gemm_vectors_v##VALUES##_bf16_m8, VALUES, 8, BF16)        \
    ENTRY(codebook_gemm_vectors_v##VALUES##_bf16_m32, VALUES, 32, BF16)

INSTANCES(2)
INSTANCES(4)
INSTANCES(8)
