// Products of 16-bit floats with codes on tensor cores, a tile of ROWS x COLUMNS of y a block: what wna16_mma.cu, which tells how,
// wna16_grouped.cu and lookup_mma.cu share.
#pragma once
#include "common/mma.cuh"
#include "common/pairs.cuh"
#include "common/tile.cuh"

enum : unsigned { COLUMNS = 128, DEPTH = 64, CHUNK = 32, STAGES = 4, THREADS = 256 };
enum Zero { SYM, ASYM, FLOAT };

// N rows of K columns: words [N, ceil(K * BITS / 32)], scale and zero [N, K / group], as wna16_mma.cu has them. SYM: no zero is read.
template <class T> struct Affine {
    const unsigned* words;
    const T* scale;
    const void* zero;
};

template <unsigned BITS, unsigned ROWS> struct Shape {
    using X = Tile<ROWS, DEPTH * 2>;
    using W = Tile<COLUMNS, DEPTH * BITS / 8>;
    static constexpr unsigned WARP_ROWS = ROWS == 16 ? 16 : 32, WARPS_DOWN = ROWS / WARP_ROWS, WARP_COLUMNS = COLUMNS / (8 / WARPS_DOWN);
    static constexpr unsigned DOWN = WARP_ROWS / 16, ACROSS = WARP_COLUMNS / 8;  // mma tiles of a warp
};

// Rows `m0` to `m_end` of y [M, N], ROWS of them, and COLUMNS columns from n0 on; slice blockIdx.y of K, `depth` columns of it.
//   x      the rows that meet them, as an Operand or one that chooses them (common/experts.cuh); rows it has not give NaN
//   parts  [gridDim.y, M, N] f32: where a slice leaves its sums, or null where there is one slice, which writes y
//   codes  what they stand for, as `Whole` (common/pairs.cuh) does it; it has the first BYTES of dynamic shared memory
template <unsigned BITS, class T, Zero ZERO, unsigned ROWS, class Rows, class Codes = Whole<BITS>>
__device__ void affine_product(const Rows& x, const Affine<T>& weight, T* y, float* parts, unsigned m0, unsigned m_end, unsigned n0, unsigned M,
                               unsigned N, unsigned K, unsigned group, unsigned depth, const Codes& codes = {}) {
    using S = Shape<BITS, ROWS>;
    const auto [words, scale, zero] = weight;
    const unsigned first = blockIdx.y * depth, end = K - first < depth ? K : first + depth;
    const unsigned warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    const unsigned warp_m = warp % S::WARPS_DOWN * S::WARP_ROWS, warp_n = warp / S::WARPS_DOWN * S::WARP_COLUMNS;
    const size_t w_bytes = (size_t(K) * BITS + 31) / 32 * 4, groups = K / group;

    const Pipeline<typename S::X, typename S::W, STAGES, THREADS, Rows> tiles{x, {words, N, w_bytes, n0}, dynamic_shared() + Codes::BYTES};
    const auto fill = [&](unsigned stage, unsigned k) { tiles.fill(stage, k < end, size_t(k) * 2, size_t(k) * BITS / 8); };
    for (unsigned stage = 0; stage < STAGES - 1; stage++) fill(stage, first + stage * DEPTH);

    float total[S::DOWN][S::ACROSS][4] = {}, sum[S::DOWN][S::ACROSS][4] = {}, x_sum[S::DOWN][4] = {};
    float scales[S::ACROSS][2] = {}, shifts[S::ACROSS][2] = {};  // of columns 2 t and 2 t + 1, as the sums lie
    unsigned zeros[S::ACROSS];                                   // of column g, as the codes lie
    for (unsigned across = 0; across < S::ACROSS; across++) zeros[across] = codes.of_column(warp_n + across * 8 + g);
    unsigned at_group = first / group, left = 0;                 // columns until the next group

    for (unsigned stage = 0, k0 = first; k0 < end; stage++, k0 += DEPTH) {
        const unsigned char *x_tile = tiles.take(stage), *w_tile = x_tile + S::X::SIZE;
        fill(stage + STAGES - 1, k0 + (STAGES - 1) * DEPTH);
#pragma unroll
        for (unsigned chunk = 0; chunk < DEPTH / CHUNK; chunk++) {
            const unsigned k = k0 + chunk * CHUNK;
            if (k >= end) break;
            if (left == 0) {  // the scales have until the end of the group to arrive
                at_group = k / group, left = group - k % group;
#pragma unroll
                for (unsigned across = 0; across < S::ACROSS; across++) {
                    const unsigned n = n0 + warp_n + across * 8;
                    for (unsigned each = 0; each < 2; each++) {
                        if (n + 2 * t + each >= N) continue;
                        const size_t at = (n + 2 * t + each) * groups + at_group;
                        scales[across][each] = widen(scale[at]);
                        if (ZERO == FLOAT) shifts[across][each] = widen(static_cast<const T*>(zero)[at]) - float(1 << (BITS - 1));
                    }
                    if (ZERO == ASYM && n + g < N) zeros[across] = static_cast<const unsigned char*>(zero)[(n + g) * groups + at_group];
                }
            }
            unsigned a[S::DOWN][2][4];  // [..][step of mma][register]
#pragma unroll
            for (unsigned down = 0; down < S::DOWN; down++) {
#pragma unroll
                for (unsigned half = 0; half < 2; half++) {
                    const unsigned row = warp_m + down * 16 + half * 8 + g;
                    unsigned pairs[4];
                    value_pairs(load<Words<4>>(x_tile + S::X::place(row, chunk * CHUNK * 2 + t * 16)), pairs);
                    for (unsigned i = 0; i < 4; i++) a[down][i / 2][i % 2 * 2 + half] = pairs[i];
                }
            }
#pragma unroll
            for (unsigned across = 0; across < S::ACROSS; across++) {
                unsigned pairs[4];
                const unsigned byte = S::W::place(warp_n + across * 8 + g, chunk * CHUNK * BITS / 8);
                codes.pairs(eight_of<BITS>(w_tile + byte, t), zeros[across], pairs, T{});
                const unsigned b[2][2] = {{pairs[0], pairs[1]}, {pairs[2], pairs[3]}};
#pragma unroll
                for (unsigned step = 0; step < 2; step++)
                    for (unsigned down = 0; down < S::DOWN; down++) mma(sum[down][across], a[down][step], b[step], T{});
            }
            if (ZERO == FLOAT) {
                const unsigned ones[2] = {one_pair(T{}), one_pair(T{})};
                for (unsigned step = 0; step < 2; step++)
                    for (unsigned down = 0; down < S::DOWN; down++) mma(x_sum[down], a[down][step], ones, T{});
            }
            left -= left < CHUNK ? left : CHUNK;
            if (left == 0 || k + CHUNK >= end) {
#pragma unroll
                for (unsigned down = 0; down < S::DOWN; down++) {
#pragma unroll
                    for (unsigned across = 0; across < S::ACROSS; across++) {
#pragma unroll
                        for (unsigned i = 0; i < 4; i++) {
                            float whole = sum[down][across][i];
                            if (ZERO == FLOAT) whole = fmaf(-shifts[across][i % 2], x_sum[down][i], whole);
                            total[down][across][i] = fmaf(scales[across][i % 2], whole, total[down][across][i]);
                            sum[down][across][i] = 0.f;
                        }
                    }
                    for (float& each : x_sum[down]) each = 0.f;
                }
            }
        }
    }
    wait_async<0>();
    for (unsigned down = 0; down < S::DOWN; down++) {
        for (unsigned across = 0; across < S::ACROSS; across++) {
            for (unsigned i = 0; i < 4; i++) {
                const unsigned row = warp_m + down * 16 + i / 2 * 8 + g, m = m0 + row, n = n0 + warp_n + across * 8 + t * 2 + i % 2;
                if (m >= m_end || n >= N) continue;
                const float sum = x.at(row) < x.rows ? total[down][across][i] : bit_cast<float>(0x7fffffff);
                if (parts)
                    parts[(size_t(blockIdx.y) * M + m) * N + n] = sum;
                else
                    narrow(sum, y[size_t(m) * N + n]);
            }
        }
    }
}
