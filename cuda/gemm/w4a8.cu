// w4a8: y[m, n] = f32(sum_k x[m, k] * W[n, k]) * x_scale[m] * w_scale[n] + bias[n], W[n, k] = level[n, g] * (code[n, k] - zero[n, g]).
//   x [M, K] i8 | words [N, ceil(K / 8)] u32, 4-bit codes in layout "dense" (common/codes.cuh) | level, zero [N, K / group] u8, or null:
//   1 and 8 | x_scale, w_scale, bias, y, parts, x_step, w_step, depth: as in w8a8.cu; with more than one slice of K w8a8_sum adds them
//   16 divides group, or group is K; K below 2^17. W must lie within -128 to 127 (no byte may borrow from the next).
//   Grid (ceil(M / ROWS) * ceil(N / COLUMNS), ceil(K / depth)) x threads as the entries say; stages of ROWS * 128 + COLUMNS * 64 bytes of
//   shared memory. The sum is exact, so the bits are those of every other path.
//
// As QServe (Lin et al., 2024, section 5.2.2 and 5.2.3): codes become bytes in registers, four by four, and the zero point goes off
// after the multiplication, level * code + (128 - level * zero) in each byte of a word by one multiplication and addition; what is
// 128 too high is signed once the top bits are turned. Other than QServe, weights are read as they are stored: a word holds even
// columns in its low nibbles and odd ones in its high nibbles, and the bytes of x are sorted the same way once they are in
// registers, where a fragment serves all columns of a warp. Limit: bandwidth for few rows, the int8 rate for many. Not timed on a GPU
// so far.
//
//   w4a8_m16:   16 x  64 of y, 4 warps side by side, each 16 x 16, 6 stages
//   w4a8_m128: 128 x 128 of y, 2 x 4 warps, each 64 x 32, 3 stages
#include "common/mma.cuh"
#include "common/pairs.cuh"
#include "common/scaled.cuh"
#include "common/tile.cuh"

enum : unsigned { DEPTH = 128, CHUNK = 64 };

// Level and zero point of groups of the weight, as the factor and the addend of four codes in a word.
struct Grid {
    const unsigned char *level, *zero;
    unsigned group;
    size_t groups;
    __device__ void at(size_t n, unsigned k, unsigned& factor, unsigned& addend) const {
        const size_t place = n * groups + k / group;
        factor = level ? level[place] : 1;
        addend = (128 - factor * (zero ? zero[place] : 8)) * 0x01010101;
    }
};
__device__ inline unsigned expand(unsigned codes, unsigned factor, unsigned addend) {
    return ((codes & 0x0f0f0f0f) * factor + addend) ^ 0x80808080;
}

template <unsigned ROWS, unsigned COLUMNS, unsigned WARP_ROWS, unsigned WARP_COLUMNS, unsigned STAGES>
__device__ void w4a8(const signed char* x, const unsigned* words, Grid grid, const ExactResult& result, unsigned K, unsigned depth) {
    using X = Tile<ROWS, DEPTH>;
    using W = Tile<COLUMNS, DEPTH / 2>;
    constexpr unsigned WARPS_DOWN = ROWS / WARP_ROWS, THREADS = WARPS_DOWN * (COLUMNS / WARP_COLUMNS) * 32;
    constexpr unsigned DOWN = WARP_ROWS / 16, ACROSS = WARP_COLUMNS / 8;  // mma tiles of a warp
    const unsigned M = result.M, N = result.N, downs = (M + ROWS - 1) / ROWS;
    // Blocks that read the same weights follow each other.
    const unsigned m0 = blockIdx.x % downs * ROWS, n0 = blockIdx.x / downs * COLUMNS;
    const unsigned begin = blockIdx.y * depth, end = K - begin < depth ? K : begin + depth;
    const unsigned warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    const unsigned warp_m = warp % WARPS_DOWN * WARP_ROWS, warp_n = warp / WARPS_DOWN * WARP_COLUMNS;

    const Pipeline<X, W, STAGES, THREADS> tiles{{x, M, K, m0}, {words, N, (size_t(K) + 7) / 8 * 4, n0}};
    for (unsigned stage = 0, k = begin; stage < STAGES - 1; stage++, k += DEPTH) tiles.fill(stage, k < end, k, k / 2);

    // Read a chunk ahead, as nothing can be multiplied before they are there. Beyond the edges: those of the last row and group.
    unsigned factor[ACROSS], addend[ACROSS];
    const auto fetch = [&](unsigned k) {
        const unsigned mine = k + t * 16;
#pragma unroll
        for (unsigned across = 0; across < ACROSS; across++) {
            const unsigned n = n0 + warp_n + across * 8 + g;
            grid.at(n < N ? n : N - 1, mine < K ? mine : K - 1, factor[across], addend[across]);
        }
    };
    if (begin < end) fetch(begin);

    int sum[DOWN][ACROSS][4] = {};
    for (unsigned stage = 0, k0 = begin; k0 < end; stage++, k0 += DEPTH) {
        const unsigned char *x_tile = tiles.take(stage), *w_tile = x_tile + X::SIZE;
        const unsigned next = k0 + (STAGES - 1) * DEPTH;
        tiles.fill(stage + STAGES - 1, next < end, next, next / 2);
#pragma unroll
        for (unsigned chunk = 0; chunk < DEPTH / CHUNK; chunk++) {
            unsigned b[ACROSS][2][2];  // [..][step of mma][register]
#pragma unroll
            for (unsigned across = 0; across < ACROSS; across++) {
                const auto codes = load<Words<2>>(w_tile + W::place(warp_n + across * 8 + g, chunk * CHUNK / 2 + t * 8));
#pragma unroll
                for (unsigned i = 0; i < 4; i++)
                    b[across][i / 2][i % 2] = expand(codes.word[i / 2] >> i % 2 * 4, factor[across], addend[across]);
            }
            fetch(k0 + (chunk + 1) * CHUNK);
#pragma unroll
            for (unsigned down = 0; down < DOWN; down++) {
                unsigned a[2][4];
#pragma unroll
                for (unsigned half = 0; half < 2; half++) {
                    const auto codes = load<Words<4>>(x_tile + X::place(warp_m + down * 16 + half * 8 + g, chunk * CHUNK + t * 16));
#pragma unroll
                    for (unsigned step = 0; step < 2; step++) {
                        const unsigned low = codes.word[2 * step], high = codes.word[2 * step + 1];
                        a[step][half] = prmt(low, high, 0x6420), a[step][2 + half] = prmt(low, high, 0x7531);
                    }
                }
#pragma unroll
                for (unsigned step = 0; step < 2; step++)
                    for (unsigned across = 0; across < ACROSS; across++) mma(sum[down][across], a[step], b[across][step]);
            }
        }
    }
    wait_async<0>();
    for (unsigned down = 0; down < DOWN; down++) {
        for (unsigned across = 0; across < ACROSS; across++) {
            for (unsigned i = 0; i < 4; i++) {
                const unsigned m = m0 + warp_m + down * 16 + i / 2 * 8 + g, n = n0 + warp_n + across * 8 + t * 2 + i % 2;
                if (m < M && n < N) result.put(m, n, sum[down][across][i]);
            }
        }
    }
}

#define ENTRY(NAME, THREADS, ROWS, COLUMNS, WARP_ROWS, WARP_COLUMNS, STAGES)                                                            \
    extern "C" __global__ void __launch_bounds__(THREADS)                                                                               \
        NAME(const signed char* x, const unsigned* words, const unsigned char* level, const unsigned char* zero, const float* x_scale, \
             const float* w_scale, const float* bias, float* y, int* parts, unsigned M, unsigned N, unsigned K, unsigned group,         \
             unsigned x_step, unsigned w_step, unsigned depth) {                                                                        \
        const ExactResult result = {{x_scale, w_scale, bias, x_step, w_step}, y, parts, M, N};                                          \
        w4a8<ROWS, COLUMNS, WARP_ROWS, WARP_COLUMNS, STAGES>(x, words, {level, zero, group, K / group}, result, K, depth);              \
    }

ENTRY(w4a8_m16, 128, 16, 64, 16, 16, 6)
ENTRY(w4a8_m128, 256, 128, 128, 64, 32, 3)
