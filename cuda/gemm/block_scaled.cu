// block_scaled: y[m, n] = sum_k x[m, k] * code[n, k] * scale[n, k / block] * tensor_scale, with small floats or integers as codes.
//   x [M, K] | words [N, ceil(K * BITS / 32)] u32: codes of 4, 6 or 8 bits, layout "dense" | y [M, N]
//   scale [N, K / block] bytes: E8M0 (power 1), or E4M3 | block 16 or 32, which divides K
//   parts, depth: as in wna16_mma.cu, depth a multiple of SLICE
//   All row-major; x and y are both f16 or both bf16. M, N, K below 2^31.
//   Grid (ceil(M / TOKENS) * ceil(N / COLUMNS), ceil(K / depth)) x 256 threads, min(M, TOKENS) * PITCH bytes of dynamic shared memory; with
//   more than one slice of K sum.cu adds the parts.
//   Codes are exact in f16 and bf16. Sums of a block are f32, times scale * tensor_scale, itself rounded to f32:
//   |error| <= (K + 4) * 2^-23 * sum_k |x w| before y is rounded, as long as that factor is a normal number. NaN and infinity spread, in
//   codes as in scales. Rows do not touch each other.
//
// common/few.cuh has the way. A chunk of 32 columns is one block, or two of 16, between which the four lanes that share a row are split: the
// mma of one block then finds zeros in the lanes of the other. Limit: bandwidth; with many rows codes are decoded once for every TOKENS of
// them. Not timed on a GPU so far.
#include "common/elements.cuh"
#include "common/few.cuh"
#include "common/mma.cuh"

// The scales of one row of W. Beyond the last block they are 0: there is nothing behind it.
struct Scales {
    const unsigned char* row;
    unsigned blocks;
    bool power;
    float factor;
    __device__ float at(unsigned block) const {
        if (block >= blocks) return 0.f;
        const unsigned code = row[block];
        if (power) return factor * bit_cast<float>(code == 0 ? 0x00400000 : code == 255 ? 0x7fc00000 : code << 23);
        const unsigned magnitude = code & 0x7f;
        // As f16, whose bias is 8 larger.
        const float wide = widen(F16{static_cast<unsigned short>(magnitude == 0x7f ? 0x7fff : magnitude << 7 | (code & 0x80) << 8)});
        return factor * (wide * 256.f);
    }
};

template <class Element, unsigned TOKENS, class T>
__device__ void block_scaled(const T* x, const unsigned* words, const unsigned char* scale, T* y, float* parts, unsigned M, unsigned N,
                             unsigned K, unsigned block, unsigned power, unsigned depth, float tensor_scale) {
    constexpr unsigned BITS = Element::BITS, CHUNK = 32;
    using S = Shape<BITS, 1, TOKENS>;
    unsigned char* x_tile = dynamic_shared();
    const unsigned downs = (M + TOKENS - 1) / TOKENS, m0 = blockIdx.x % downs * TOKENS, rows = M - m0 < TOKENS ? M - m0 : TOKENS;
    const unsigned first = blockIdx.y * depth, end = K - first < depth ? K : first + depth;
    const unsigned warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    const unsigned down = warp % S::DOWN, along = warp / S::DOWN, n0 = blockIdx.x / downs * S::COLUMNS + down * 16 + g;
    const size_t row_words = (size_t(K) * BITS + 31) / 32, blocks = K / block;
    const bool wide = BITS != 6 && (size_t(words) | row_words * 4) % 16 == 0;
    // What lies beyond the edges is that of the last column and row, and is not written.
    const size_t column[2] = {n0 < N ? n0 : N - 1, n0 + 8 < N ? n0 + 8 : N - 1};
    const Scales scales[2] = {{scale + column[0] * blocks, unsigned(blocks), power != 0, tensor_scale},
                              {scale + column[1] * blocks, unsigned(blocks), power != 0, tensor_scale}};

    float total[S::ACROSS][4] = {};
    for (unsigned k0 = first; k0 < end; k0 += S::STRETCH) {
        unsigned codes[S::STEPS][2][S::WORDS];
#pragma unroll
        for (unsigned step = 0; step < S::STEPS; step++) {
            const unsigned chunk = k0 / CHUNK + S::chunk(step, along);
            for (unsigned half = 0; half < 2; half++) {
                const size_t at = chunk * CHUNK < end ? S::word(chunk, t) : row_words;
                read_codes(words + column[half] * row_words, row_words, at, wide, codes[step][half]);
            }
        }
        __syncthreads();  // the stretch before has been read by all
        stage<1>(x + size_t(m0) * K, nullptr, rows, K, K, k0, S::STRETCH, x_tile);
        __syncthreads();
#pragma unroll
        for (unsigned step = 0; step < S::STEPS; step++) {
            const unsigned in_tile = S::chunk(step, along), k = k0 + in_tile * CHUNK;
            if (k >= end) break;
            unsigned pairs[2][4];
            for (unsigned half = 0; half < 2; half++) {
                const unsigned first = codes[step][half][0], last = codes[step][half][S::WORDS - 1];
                const unsigned low = unsigned((static_cast<unsigned long long>(last) << 32 | first) >> S::shift(t));
                for (unsigned i = 0; i < 4; i++) pairs[half][i] = Element::pair(low, last >> S::shift(t), i, T{});
            }
            for (unsigned of = 0; of < CHUNK / block; of++) {
                const bool mine = block == CHUNK || t / 2 == of;
                const float factors[2] = {scales[0].at(k / block + of), scales[1].at(k / block + of)};
#pragma unroll
                for (unsigned across = 0; across < S::ACROSS; across++) {
                    const unsigned m = across * 8 + g < rows ? across * 8 + g : rows - 1;
                    const auto b = load<Words<4>>(x_tile + m * S::PITCH + (in_tile * 4 + t) * 16);
                    float sum[4] = {};
#pragma unroll
                    for (unsigned i = 0; i < 4; i += 2) {
                        const unsigned a[4] = {mine ? pairs[0][i] : 0, mine ? pairs[1][i] : 0, mine ? pairs[0][i + 1] : 0,
                                               mine ? pairs[1][i + 1] : 0};
                        mma(sum, a, {mine ? b.word[i] : 0, mine ? b.word[i + 1] : 0}, T{});
                    }
                    for (unsigned i = 0; i < 4; i++) total[across][i] = fmaf(factors[i / 2], sum[i], total[across][i]);
                }
            }
        }
    }
    finish<S>(total, m0, {n0, n0 + 8}, y, parts, M, N);
}

#define ENTRY(NAME, ELEMENT, TOKENS, T)                                                                                               \
    extern "C" __global__ void __launch_bounds__(THREADS, 2)                                                                          \
        NAME(const T* x, const unsigned* words, const unsigned char* scale, T* y, float* parts, unsigned M, unsigned N, unsigned K,   \
             unsigned block, unsigned power, unsigned depth, float tensor_scale) {                                                    \
        block_scaled<ELEMENT, TOKENS>(x, words, scale, y, parts, M, N, K, block, power, depth, tensor_scale);                         \
    }
#define INSTANCES(NAME, ELEMENT)                               \
    ENTRY(block_scaled_##NAME##_f16_m8, ELEMENT, 8, F16)       \
    ENTRY(block_scaled_##NAME##_f16_m16, ELEMENT, 16, F16)     \
    ENTRY(block_scaled_##NAME##_bf16_m8, ELEMENT, 8, BF16)     \
    ENTRY(block_scaled_##NAME##_bf16_m16, ELEMENT, 16, BF16)

INSTANCES(e2m1, elements::E2m1)
INSTANCES(e2m3, elements::E2m3)
INSTANCES(e3m2, elements::E3m2)
INSTANCES(e4m3fn, elements::E4m3fn)
INSTANCES(e5m2, elements::E5m2)
INSTANCES(int8, elements::Int8)
INSTANCES(int6, elements::Int6)
INSTANCES(int4, elements::Int4)
