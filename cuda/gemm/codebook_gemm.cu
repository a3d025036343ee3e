// codebook_gemm: y[m, n] = sum_k x[m, k] * W[n, k], W in E8P codes of 8 BITS bits for eight columns each (docs/layouts.md, "E8P").
//   x [M, K] | words [N, ceil(K * BITS / 32)] u32: the codes of a row as one dense bit stream | y [M, N]; 8 divides K
//   tables [3, 256] u32: nibbles of eight values each, (v0, v4) in bits 0 to 3 and 16 to 19, (v1, v5) in the next, ...
//     0  by the high byte of a code: 2 v + 7.5 of the values where the low byte is 0
//     1  by the low byte: what it changes in those, by XOR: the three high bits where a sign is minus, the lowest where the shift is -1/4
//     2  by the code of the E8 stage: 2 v + 8
//   step: what a value of the second stage counts, 1 / 2.04 (BITS 3, E8) or 1 / 3.45 (BITS 4, E8P)
//   parts, depth: as in wna16_mma.cu, depth a multiple of SLICE
//   All row-major; x and y are both f16 or both bf16. M, N, K below 2^31.
//   Grid (ceil(M / TOKENS) * ceil(N / COLUMNS), ceil(K / depth)) x 256 threads, min(M, TOKENS) * PITCH bytes of dynamic shared memory; with
//   more than one slice of K sum.cu adds the parts.
//   Values are multiples of 1/4 below 4, exact in f16 and bf16; the stages are summed apart, in f32:
//   |error| <= (K + 3) * 2^-23 * sum_k |x| (|first| + |second| step) before y is rounded. Rows do not touch each other.
//
// common/few.cuh has the way. A codeword is two look-ups of 4 bytes and an XOR, and a pair of its values three instructions; tables lie in
// shared memory eight times over, so that few lanes meet in a bank. Limit: these instructions. With many rows
// codes are decoded once for every TOKENS of them. Not timed on a GPU so far.
#include "common/few.cuh"
#include "common/mma.cuh"

enum : unsigned { EIGHTS = 4, COPIES = 8 };
enum Kind { MAGNITUDES, SIGNS, SHORTEST };
using Table = unsigned[256][COPIES];

// Two values from nibbles: n / 2 lies in the last places of 256 (f16) or 32 (bf16), above a bit of 1/4.
__device__ inline unsigned halves(unsigned pair, unsigned quarters, F16 type) {
    return add_pair((pair << 1 & 0x001e001e) | 0x5c005c00, 0xdc00dc00 + quarters * 0x10001, type);  // (256 + n / 2) - (256 + quarters / 4)
}
__device__ inline unsigned halves(unsigned pair, unsigned quarters, BF16 type) {
    return add_pair((pair << 1 & 0x001e001e) | 0x42004200, 0xc200c200 + quarters * 0x10001, type);  // the same about 32
}

template <class T> __device__ inline void values(unsigned nibbles, unsigned quarters, unsigned (&pairs)[4], T type) {
#pragma unroll
    for (unsigned i = 0; i < 4; i++) pairs[i] = halves(nibbles >> 4 * i, quarters, type);
}
template <class T> __device__ inline void e8p(const Table* tables, unsigned code, unsigned (&pairs)[4], T type) {
    const unsigned copy = threadIdx.x % COPIES;
    values(tables[MAGNITUDES][code >> 8 & 255][copy] ^ tables[SIGNS][code & 255][copy], 15, pairs, type);
}

// The `at`-th code of WIDTH bits of a lane.
template <unsigned WIDTH, unsigned WORDS> __device__ inline unsigned code_of(const unsigned (&words)[WORDS], unsigned at) {
    const unsigned first = at * WIDTH / 32, shift = at * WIDTH % 32;
    unsigned code = words[first] >> shift;
    if constexpr (32 % WIDTH != 0)
        if (shift + WIDTH > 32) code |= words[first + 1] << (32 - shift);
    return code;
}

template <unsigned BITS, unsigned TOKENS, class T>
__device__ void codebook_gemm(const T* x, const unsigned* words, const unsigned* given, T* y, float* parts, unsigned M, unsigned N,
                              unsigned K, unsigned depth, float step_of_second) {
    using S = Shape<BITS, EIGHTS, TOKENS>;
    constexpr unsigned STAGES = BITS == 2 ? 1 : 2, TABLES = BITS == 3 ? 3 : 2;
    __shared__ Table tables[TABLES];
    unsigned char* x_tile = dynamic_shared();
    for (unsigned at = threadIdx.x; at < TABLES * 256 * COPIES; at += THREADS)
        tables[at / COPIES / 256][at / COPIES % 256][at % COPIES] = given[at / COPIES];

    const unsigned downs = (M + TOKENS - 1) / TOKENS, m0 = blockIdx.x % downs * TOKENS, rows = M - m0 < TOKENS ? M - m0 : TOKENS;
    const unsigned first = blockIdx.y * depth, end = K - first < depth ? K : first + depth;
    const unsigned warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    const unsigned down = warp % S::DOWN, along = warp / S::DOWN, n0 = blockIdx.x / downs * S::COLUMNS + down * 16 + g;
    const size_t row_words = (size_t(K) * BITS + 31) / 32;
    const bool wide = (size_t(words) | row_words * 4) % 16 == 0;
    // What lies beyond the edges is that of the last column and row, and is not written.
    const size_t column[2] = {n0 < N ? n0 : N - 1, n0 + 8 < N ? n0 + 8 : N - 1};

    float sum[STAGES][S::ACROSS][4] = {};
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
        __syncthreads();  // the tables are there, and the stretch before has been read by all
        stage<EIGHTS>(x + size_t(m0) * K, nullptr, rows, K, K, k0, S::STRETCH, x_tile);
        __syncthreads();
#pragma unroll
        for (unsigned step = 0; step < S::STEPS; step++) {
            const unsigned in_tile = S::chunk(step, along);
            if (k0 + in_tile * S::CHUNK >= end) break;
#pragma unroll
            for (unsigned j = 0; j < EIGHTS; j++) {
                unsigned a[STAGES][2][4];  // [..][half of the columns][pair]
                for (unsigned half = 0; half < 2; half++) {
                    const unsigned code = code_of<8 * BITS>(codes[step][half], j);
                    e8p(tables, code, a[0][half], T{});
                    if constexpr (BITS == 3) values(tables[SHORTEST][code >> 16 & 255][lane % COPIES], 16, a[1][half], T{});
                    if constexpr (BITS == 4) e8p(tables, code >> 16, a[1][half], T{});
                }
#pragma unroll
                for (unsigned across = 0; across < S::ACROSS; across++) {
                    const unsigned m = across * 8 + g < rows ? across * 8 + g : rows - 1;
                    const auto b = load<Words<4>>(x_tile + m * S::PITCH + ((in_tile * EIGHTS + j) * 4 + t) * 16);
#pragma unroll
                    for (unsigned of = 0; of < STAGES; of++) {
#pragma unroll
                        for (unsigned i = 0; i < 4; i += 2) {
                            const unsigned pairs[4] = {a[of][0][i], a[of][1][i], a[of][0][i + 1], a[of][1][i + 1]};
                            mma(sum[of][across], pairs, {b.word[i], b.word[i + 1]}, T{});
                        }
                    }
                }
            }
        }
    }
    if constexpr (STAGES == 2) {
        for (unsigned across = 0; across < S::ACROSS; across++)
            for (unsigned i = 0; i < 4; i++) sum[0][across][i] = fmaf(sum[1][across][i], step_of_second, sum[0][across][i]);
    }
    finish<S>(sum[0], m0, {n0, n0 + 8}, y, parts, M, N);
}

#define ENTRY(NAME, BITS, TOKENS, T)                                                                                                  \
    extern "C" __global__ void __launch_bounds__(THREADS, 2)                                                                          \
        NAME(const T* x, const unsigned* words, const unsigned* tables, T* y, float* parts, unsigned M, unsigned N, unsigned K,       \
             unsigned depth, float step) {                                                                                            \
        codebook_gemm<BITS, TOKENS>(x, words, tables, y, parts, M, N, K, depth, step);                                                \
    }
#define INSTANCES(BITS)                                        \
    ENTRY(codebook_gemm_e8p##BITS##_f16_m8, BITS, 8, F16)      \
    ENTRY(codebook_gemm_e8p##BITS##_f16_m16, BITS, 16, F16)    \
    ENTRY(codebook_gemm_e8p##BITS##_bf16_m8, BITS, 8, BF16)    \
    ENTRY(codebook_gemm_e8p##BITS##_bf16_m16, BITS, 16, BF16)

INSTANCES(2)
INSTANCES(3)
INSTANCES(4)
