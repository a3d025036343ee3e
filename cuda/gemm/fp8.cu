// fp8: y[m, n] = sum_b (sum_k x[m, k] * w[n, k]) * (x_scale[m, b] * w_scale[n, b]) + bias[n], b = k / 128; 8-bit floats.
//   x [M, K] and w [N, K]: codes, all E4M3 or all E5M2 | bias [N] f32, or null | y [M, N] f32
//   x_scale, w_scale [R, B] f32: row r of the matrix has the scales of row min(r / tall, R - 1), all columns those of block 0 if B is 1
//   parts [gridDim.y, M, N] f32, or null; depth: columns of K that a block sums, a multiple of 128
//   All row-major, M and N below 2^31. Grid (ceil(M / ROWS) * ceil(N / 128), ceil(K / depth)) x 256 threads; STAGES * (ROWS + 128) * 128
//   bytes of dynamic shared memory; ROWS is 16 or 64. With one slice of K y is written; with more each writes its part, and fp8_sum
//   adds them, grid ceil(M * N / 256) x 256.
//   Codes become f16, exactly but for a power of two that the scales take back; sums of 128 columns, and over them, are f32:
//   |error| <= (K + 3) * 2^-23 * sum_k |x w| x_scale w_scale. NaN and infinity spread.
//
// On sm_80 there are no tensor cores for 8-bit floats, and on sm_90 mma has none of its own: both decode (three to seven operations
// for four codes) and use those for f16. wgmma would be twice as fast for many rows. Limit: bandwidth for few rows, the f16 rate and the
// decoding for many. Not timed on a GPU so far.
//
//   ROWS 16: 8 warps side by side, each 16 x 16 of y        ROWS 64: 2 x 4 warps, each 32 x 32 of y
#include "common/mma.cuh"
#include "common/tile.cuh"

enum : unsigned { COLUMNS = 128, DEPTH = 128, CHUNK = 64, STAGES = 3, THREADS = 256 };

// Four codes as two pairs of f16: codes 0 and 2, codes 1 and 3; which k meet in a pair is free, as it is the same for both operands.
struct E4m3 {
    static constexpr float SCALE = 256.f;  // the exponents' biases are 7 and 15
    __device__ static unsigned widen_pair(unsigned high) {
        const unsigned magnitude = (high & 0x7f007f00) >> 1;
        // The one NaN, all ones, is the only code that a carry reaches bit 14 from; the exponent is then all ones in f16, too.
        return (high & 0x80008000) | magnitude | ((magnitude + 0x00800080) & 0x40004000);
    }
};
struct E5m2 {
    static constexpr float SCALE = 1.f;
    __device__ static unsigned widen_pair(unsigned high) { return high; }
};
template <class Format> __device__ inline void widen_codes(unsigned codes, unsigned (&pairs)[2]) {
    pairs[0] = Format::widen_pair(codes << 8 & 0xff00ff00), pairs[1] = Format::widen_pair(codes & 0xff00ff00);
}

struct Scales {
    const float* values;
    unsigned rows, blocks, tall;
    __device__ float at(unsigned row, unsigned block) const {
        const unsigned r = row / tall < rows ? row / tall : rows - 1, b = block < blocks ? block : blocks - 1;
        return values[size_t(r) * blocks + b];
    }
};

template <class Format, unsigned ROWS>
__device__ void fp8(const unsigned char* x, const unsigned char* w, Scales x_scale, Scales w_scale, const float* bias, float* y,
                    float* parts, unsigned M, unsigned N, unsigned K, unsigned depth) {
    using X = Tile<ROWS, DEPTH>;
    using W = Tile<COLUMNS, DEPTH>;
    constexpr unsigned WARP_ROWS = ROWS == 16 ? 16 : 32, WARPS_DOWN = ROWS / WARP_ROWS, WARP_COLUMNS = COLUMNS / (8 / WARPS_DOWN);
    constexpr unsigned DOWN = WARP_ROWS / 16, ACROSS = WARP_COLUMNS / 8;  // mma tiles of a warp
    const unsigned downs = (M + ROWS - 1) / ROWS;
    // Blocks that read the same weights follow each other.
    const unsigned m0 = blockIdx.x % downs * ROWS, n0 = blockIdx.x / downs * COLUMNS;
    const unsigned begin = blockIdx.y * depth, end = K - begin < depth ? K : begin + depth;
    const unsigned warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    const unsigned warp_m = warp % WARPS_DOWN * WARP_ROWS, warp_n = warp / WARPS_DOWN * WARP_COLUMNS;

    const Pipeline<X, W, STAGES, THREADS> tiles{{x, M, K, m0}, {w, N, K, n0}};
    for (unsigned stage = 0, k = begin; stage < STAGES - 1; stage++, k += DEPTH) tiles.fill(stage, k < end, k, k);

    float total[DOWN][ACROSS][4] = {};
    for (unsigned stage = 0, k0 = begin; k0 < end; stage++, k0 += DEPTH) {
        const unsigned char *x_tile = tiles.take(stage), *w_tile = x_tile + X::SIZE;
        const unsigned next = k0 + (STAGES - 1) * DEPTH;
        tiles.fill(stage + STAGES - 1, next < end, next, next);
        float sum[DOWN][ACROSS][4] = {};
#pragma unroll
        for (unsigned chunk = 0; chunk < DEPTH / CHUNK; chunk++) {
            const unsigned byte = chunk * CHUNK + t * 16;
            unsigned a[DOWN][4][4];  // [..][step of mma][register]
#pragma unroll
            for (unsigned down = 0; down < DOWN; down++) {
#pragma unroll
                for (unsigned half = 0; half < 2; half++) {
                    const auto codes = load<Words<4>>(x_tile + X::place(warp_m + down * 16 + half * 8 + g, byte));
#pragma unroll
                    for (unsigned step = 0; step < 4; step++) {
                        unsigned pairs[2];
                        widen_codes<Format>(codes.word[step], pairs);
                        a[down][step][half] = pairs[0], a[down][step][2 + half] = pairs[1];
                    }
                }
            }
#pragma unroll
            for (unsigned across = 0; across < ACROSS; across++) {
                const auto codes = load<Words<4>>(w_tile + W::place(warp_n + across * 8 + g, byte));
#pragma unroll
                for (unsigned step = 0; step < 4; step++) {
                    unsigned b[2];
                    widen_codes<Format>(codes.word[step], b);
                    for (unsigned down = 0; down < DOWN; down++) mma(sum[down][across], a[down][step], b, F16{});
                }
            }
        }
        const unsigned block = k0 / DEPTH;
        float of_row[DOWN][2], of_column[ACROSS][2];
        for (unsigned down = 0; down < DOWN; down++) {
            for (unsigned half = 0; half < 2; half++) {
                const unsigned m = m0 + warp_m + down * 16 + half * 8 + g;
                of_row[down][half] = m < M ? x_scale.at(m, block) : 0.f;
            }
        }
        for (unsigned across = 0; across < ACROSS; across++) {
            for (unsigned each = 0; each < 2; each++) {
                const unsigned n = n0 + warp_n + across * 8 + t * 2 + each;
                of_column[across][each] = n < N ? w_scale.at(n, block) * (Format::SCALE * Format::SCALE) : 0.f;
            }
        }
#pragma unroll
        for (unsigned down = 0; down < DOWN; down++) {
#pragma unroll
            for (unsigned across = 0; across < ACROSS; across++) {
#pragma unroll
                for (unsigned i = 0; i < 4; i++) {
                    float& all = total[down][across][i];
                    all = fmaf(sum[down][across][i], of_row[down][i / 2] * of_column[across][i % 2], all);
                }
            }
        }
    }
    wait_async<0>();
    for (unsigned down = 0; down < DOWN; down++) {
        for (unsigned across = 0; across < ACROSS; across++) {
            for (unsigned i = 0; i < 4; i++) {
                const unsigned m = m0 + warp_m + down * 16 + i / 2 * 8 + g, n = n0 + warp_n + across * 8 + t * 2 + i % 2;
                if (m >= M || n >= N) continue;
                if (parts)
                    parts[(size_t(blockIdx.y) * M + m) * N + n] = total[down][across][i];
                else
                    y[size_t(m) * N + n] = total[down][across][i] + (bias ? bias[n] : 0.f);
            }
        }
    }
}

#define ENTRY(NAME, FORMAT, ROWS)                                                                                                      \
    extern "C" __global__ void __launch_bounds__(THREADS, 1)                                                                           \
        NAME(const unsigned char* x, const unsigned char* w, const float* x_scale, const float* w_scale, const float* bias, float* y,  \
             float* parts, unsigned M, unsigned N, unsigned K, unsigned x_rows, unsigned x_blocks, unsigned x_tall, unsigned w_rows,   \
             unsigned w_blocks, unsigned w_tall, unsigned depth) {                                                                     \
        const Scales of_x = {x_scale, x_rows, x_blocks, x_tall}, of_w = {w_scale, w_rows, w_blocks, w_tall};                           \
        fp8<FORMAT, ROWS>(x, w, of_x, of_w, bias, y, parts, M, N, K, depth);                                                           \
    }

ENTRY(fp8_e4m3fn_m16, E4m3, 16)
ENTRY(fp8_e4m3fn_m64, E4m3, 64)
ENTRY(fp8_e5m2_m16, E5m2, 16)
ENTRY(fp8_e5m2_m64, E5m2, 64)

// The slices' parts, in order.
extern "C" __global__ void __launch_bounds__(THREADS)
    fp8_sum(const float* parts, const float* bias, float* y, unsigned slices, unsigned M, unsigned N) {
    const size_t at = size_t(blockIdx.x) * THREADS + threadIdx.x, count = size_t(M) * N;
    if (at >= count) return;
    float total = 0.f;
    for (unsigned slice = 0; slice < slices; slice++) total += parts[slice * count + at];
    y[at] = total + (bias ? bias[at % N] : 0.f);
}
