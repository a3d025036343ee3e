// w4a4: y[m, n] = sum_g s_g * x_scale[m, g] * w_scale[n, g] + o * x_outlier_scale[m] * w_outlier_scale[n] + bias[n], with exact sums
// s_g = sum_k (x[m, k] - 8) * (code[n, k] - 8), k of group g, and o = sum_j x_outliers[m, j] * w_outliers[n, j].
//   x [M, K / 8], words [N, K / 8] u32, 4-bit codes in layout "dense" (common/codes.cuh); 8 divides K, K below 2^17
//   x_scale [M, K / group], w_scale [N, K / group] f32 | bias [N] f32, or null | y [M, N] f32 | all row-major, M and N below 2^31
//   depth: columns of K that a block sums, a multiple of 256 | grid (ceil(M / ROWS) * ceil(N / COLUMNS), ceil(K / depth)) x threads as the
//   entries say; stages of (ROWS + COLUMNS) * 128 bytes of dynamic shared memory
//   w4a4_m16, _m128: one group and no outliers; parts, x_step, w_step: as in w8a8.cu, whose w8a8_sum adds the parts; s * x_scale * w_scale +
//   bias is rounded in this order, so the bits are those of every other path
//   w4a4_groups_m16, _m64: 128 divides group, or group is K; x_outliers [M, O], w_outliers [N, O] i8 with x_outlier_scale [M] and
//   w_outlier_scale [N] f32, O 0 where there are none; parts [gridDim.y, M, N] f32, or null, which sum.cu adds
//   |error| <= (K / 128 + O / 64 + 6) * 2^-23 * sum|terms|. NaN and infinity in scales spread.
//
// As Atom (Zhao et al., 2024), whose outliers are the last 128 columns, and with one group QuaRot (Ashkboos et al., 2024). Sums of 128
// columns are scaled and added in f32; they are exact there: an accumulator that starts as the bits of 1.5 * 2^23 is, while the sum is below
// 2^22, a float, and no conversion is needed. Fragments by wide loads (common/tile.cuh), four words of eight codes at a time; on sm_80 int4
// tensor cores multiply them, on sm_90, which has none, those for bytes (common/mma.cuh). Limit: bandwidth for few rows, the int4 or int8
// rate for many. Not timed on a GPU so far.
//
//   w4a4_m16:         16 x  64 of y, 4 warps side by side, each 16 x 16, 4 stages
//   w4a4_m128:       128 x 128 of y, 2 x 4 warps, each 64 x 32, 3 stages
//   w4a4_groups_m16:  16 x 128 of y, 8 warps side by side, each 16 x 16, 3 stages
//   w4a4_groups_m64:  64 x 128 of y, 2 x 4 warps, each 32 x 32, 3 stages
#include "common/mma.cuh"
#include "common/scaled.cuh"
#include "common/tile.cuh"

enum : unsigned { DEPTH = 256, BYTES = 128, CHUNK = 64, SPAN = 128 };  // a stage: columns, bytes of them; a chunk: bytes, columns of 4 bits

// What a kernel multiplies: codes of 4 bits, or outliers of 8.
struct Codes {
    using Element = Nibbles;
    // Two's complement; what lies behind the last column is 0.
    __device__ static unsigned of_x(unsigned word, bool inside) { return inside ? word ^ 0x88888888 : 0; }
    __device__ static unsigned of_w(unsigned word) { return word ^ 0x88888888; }
};
struct Outliers {
    using Element = S8;
    __device__ static unsigned of_x(unsigned word, bool) { return word; }
    __device__ static unsigned of_w(unsigned word) { return word; }
};

template <unsigned ROWS_, unsigned COLUMNS_, unsigned WARP_ROWS, unsigned WARP_COLUMNS> struct Block {
    static constexpr unsigned ROWS = ROWS_, COLUMNS = COLUMNS_;
    using X = Tile<ROWS, BYTES>;
    using W = Tile<COLUMNS, BYTES>;
    static constexpr unsigned WARPS_DOWN = ROWS / WARP_ROWS, THREADS = WARPS_DOWN * (COLUMNS / WARP_COLUMNS) * 32;
    static constexpr unsigned DOWN = WARP_ROWS / 16, ACROSS = WARP_COLUMNS / 8;  // mma tiles of a warp
    // Where this block and this lane stand in y; blocks that read the same weights follow each other.
    unsigned m0, n0, warp_m, warp_n, g, t;
    __device__ explicit Block(unsigned M)
        : m0(blockIdx.x % ((M + ROWS - 1) / ROWS) * ROWS), n0(blockIdx.x / ((M + ROWS - 1) / ROWS) * COLUMNS),
          warp_m(threadIdx.x / 32 % WARPS_DOWN * WARP_ROWS), warp_n(threadIdx.x / 32 / WARPS_DOWN * WARP_COLUMNS),
          g(threadIdx.x % 32 / 4), t(threadIdx.x % 4) {}
    __device__ unsigned m(unsigned down, unsigned i) const { return m0 + warp_m + down * 16 + i / 2 * 8 + g; }
    __device__ unsigned n(unsigned across, unsigned i) const { return n0 + warp_n + across * 8 + t * 2 + i % 2; }

    // Adds the products of a chunk of columns that begin at `k`; those from `end` on are none.
    template <class Kind>
    __device__ void multiply(const unsigned char* tiles, unsigned chunk, unsigned k, unsigned end, int (&sum)[DOWN][ACROSS][4], Kind) const {
        const unsigned byte = chunk * CHUNK + t * 16;
        unsigned a[DOWN][2][4];  // [..][step of mma][register]
#pragma unroll
        for (unsigned down = 0; down < DOWN; down++) {
#pragma unroll
            for (unsigned half = 0; half < 2; half++) {
                const auto codes = load<Words<4>>(tiles + X::place(warp_m + down * 16 + half * 8 + g, byte));
#pragma unroll
                for (unsigned i = 0; i < 4; i++) a[down][i / 2][i % 2 * 2 + half] = Kind::of_x(codes.word[i], k + t * 32 + i * 8 < end);
            }
        }
#pragma unroll
        for (unsigned across = 0; across < ACROSS; across++) {
            const auto codes = load<Words<4>>(tiles + X::SIZE + W::place(warp_n + across * 8 + g, byte));
#pragma unroll
            for (unsigned step = 0; step < 2; step++) {
                const unsigned b[2] = {Kind::of_w(codes.word[2 * step]), Kind::of_w(codes.word[2 * step + 1])};
                for (unsigned down = 0; down < DOWN; down++) mma(sum[down][across], a[down][step], b, typename Kind::Element{});
            }
        }
    }

    // The same, scaled: rows of x and of w have a scale every `step`. They are asked for first, so that they have time to arrive.
    template <class Kind>
    __device__ void add(const unsigned char* tiles, unsigned chunk, unsigned k, unsigned end, const float* x_scale, const float* w_scale,
                        size_t step, unsigned M, unsigned N, float (&total)[DOWN][ACROSS][4], Kind kind) const {
        constexpr int ZERO = 0x4b400000;  // the bits of 1.5 * 2^23
        constexpr float UNIT = 1.f / (1 << Kind::Element::SHIFT);
        float of_row[DOWN][2], of_column[ACROSS][2];
        int sum[DOWN][ACROSS][4];
#pragma unroll
        for (unsigned down = 0; down < DOWN; down++)
            for (unsigned half = 0; half < 2; half++) of_row[down][half] = m(down, half * 2) < M ? x_scale[m(down, half * 2) * step] : 0.f;
#pragma unroll
        for (unsigned across = 0; across < ACROSS; across++)
            for (unsigned each = 0; each < 2; each++) of_column[across][each] = n(across, each) < N ? w_scale[n(across, each) * step] : 0.f;
#pragma unroll
        for (unsigned down = 0; down < DOWN; down++)
            for (unsigned across = 0; across < ACROSS; across++)
                for (unsigned i = 0; i < 4; i++) sum[down][across][i] = ZERO;
        multiply(tiles, chunk, k, end, sum, kind);
#pragma unroll
        for (unsigned down = 0; down < DOWN; down++) {
#pragma unroll
            for (unsigned across = 0; across < ACROSS; across++) {
#pragma unroll
                for (unsigned i = 0; i < 4; i++) {
                    const float exact = (bit_cast<float>(sum[down][across][i]) - bit_cast<float>(ZERO)) * UNIT;
                    float& all = total[down][across][i];
                    all = fmaf(exact, of_row[down][i / 2] * of_column[across][i % 2], all);
                }
            }
        }
    }
};

template <class Block, unsigned STAGES>
__device__ void w4a4(const unsigned* x, const unsigned* words, const ExactResult& result, unsigned K, unsigned depth) {
    const unsigned M = result.M, N = result.N;
    const Block block{M};
    const unsigned begin = blockIdx.y * depth, end = K - begin < depth ? K : begin + depth;
    const Pipeline<typename Block::X, typename Block::W, STAGES, Block::THREADS> tiles{{x, M, K / 2, block.m0}, {words, N, K / 2, block.n0}};
    for (unsigned stage = 0, k = begin; stage < STAGES - 1; stage++, k += DEPTH) tiles.fill(stage, k < end, k / 2, k / 2);

    int sum[Block::DOWN][Block::ACROSS][4] = {};
    for (unsigned stage = 0, k0 = begin; k0 < end; stage++, k0 += DEPTH) {
        const unsigned char* taken = tiles.take(stage);
        const unsigned next = k0 + (STAGES - 1) * DEPTH;
        tiles.fill(stage + STAGES - 1, next < end, next / 2, next / 2);
#pragma unroll
        for (unsigned chunk = 0; chunk < BYTES / CHUNK; chunk++)
            block.multiply(taken, chunk, k0 + chunk * SPAN, end, sum, Codes{});
    }
    wait_async<0>();
    for (unsigned down = 0; down < Block::DOWN; down++) {
        for (unsigned across = 0; across < Block::ACROSS; across++) {
            for (unsigned i = 0; i < 4; i++) {
                const unsigned m = block.m(down, i), n = block.n(across, i);
                if (m < M && n < N) result.put(m, n, sum[down][across][i] >> Nibbles::SHIFT);
            }
        }
    }
}

// One operand with its scales of groups, and its outliers with theirs.
struct Operands {
    const unsigned* codes;
    const float* scale;
    const signed char* outliers;
    const float* outlier_scale;
};

template <class Block, unsigned STAGES>
__device__ void w4a4_groups(const Operands& x, const Operands& w, const Result& result, unsigned K, unsigned group, unsigned O,
                            unsigned depth) {
    const unsigned M = result.M, N = result.N;
    const Block block{M};
    const unsigned begin = blockIdx.y * depth, end = K - begin < depth ? K : begin + depth;
    // Stages of codes, then, in the last slice, of outliers.
    const unsigned coded = (end - begin + DEPTH - 1) / DEPTH, stages = coded + (blockIdx.y + 1 == gridDim.y ? (O + BYTES - 1) / BYTES : 0);
    const size_t groups = K / group;
    using Tiles = Pipeline<typename Block::X, typename Block::W, STAGES, Block::THREADS>;
    const Tiles codes{{x.codes, M, K / 2, block.m0}, {w.codes, N, K / 2, block.n0}};
    const Tiles outliers{{x.outliers, M, O, block.m0}, {w.outliers, N, O, block.n0}};
    const auto fill = [&](unsigned stage) {
        const size_t byte = stage < coded ? (begin + stage * DEPTH) / 2 : (stage - coded) * BYTES;
        stage < coded ? codes.fill(stage, true, byte, byte) : outliers.fill(stage, stage < stages, byte, byte);
    };
    for (unsigned stage = 0; stage < STAGES - 1; stage++) fill(stage);

    float total[Block::DOWN][Block::ACROSS][4] = {};
    for (unsigned stage = 0; stage < stages; stage++) {
        const unsigned char* taken = codes.take(stage);
        fill(stage + STAGES - 1);
#pragma unroll
        for (unsigned chunk = 0; chunk < BYTES / CHUNK; chunk++) {
            const unsigned k = begin + stage * DEPTH + chunk * SPAN;
            if (stage >= coded)
                block.add(taken, chunk, 0, end, x.outlier_scale, w.outlier_scale, 1, M, N, total, Outliers{});
            else if (k < end)
                block.add(taken, chunk, k, end, x.scale + k / group, w.scale + k / group, groups, M, N, total, Codes{});
        }
    }
    wait_async<0>();
    for (unsigned down = 0; down < Block::DOWN; down++) {
        for (unsigned across = 0; across < Block::ACROSS; across++) {
            for (unsigned i = 0; i < 4; i++) {
                const unsigned m = block.m(down, i), n = block.n(across, i);
                if (m < M && n < N) result.put(m, n, total[down][across][i]);
            }
        }
    }
}

#define ENTRY(NAME, THREADS, ROWS, COLUMNS, WARP_ROWS, WARP_COLUMNS, STAGES)                                                              \
    extern "C" __global__ void __launch_bounds__(THREADS)                                                                                 \
        NAME(const unsigned* x, const unsigned* words, const float* x_scale, const float* w_scale, const float* bias, float* y, int* parts, \
             unsigned M, unsigned N, unsigned K, unsigned x_step, unsigned w_step, unsigned depth) {                                      \
        const ExactResult result = {{x_scale, w_scale, bias, x_step, w_step}, y, parts, M, N};                                            \
        w4a4<Block<ROWS, COLUMNS, WARP_ROWS, WARP_COLUMNS>, STAGES>(x, words, result, K, depth);                                          \
    }
#define GROUPS_ENTRY(NAME, ROWS, WARP_ROWS, WARP_COLUMNS)                                                                                 \
    extern "C" __global__ void __launch_bounds__(256, 1)                                                                                  \
        NAME(const unsigned* x, const unsigned* words, const float* x_scale, const float* w_scale, const signed char* x_outliers,         \
             const signed char* w_outliers, const float* x_outlier_scale, const float* w_outlier_scale, const float* bias, float* y,      \
             float* parts, unsigned M, unsigned N, unsigned K, unsigned group, unsigned O, unsigned depth) {                              \
        const Operands of_x = {x, x_scale, x_outliers, x_outlier_scale}, of_w = {words, w_scale, w_outliers, w_outlier_scale};            \
        w4a4_groups<Block<ROWS, 128, WARP_ROWS, WARP_COLUMNS>, 3>(of_x, of_w, {bias, y, parts, M, N}, K, group, O, depth);                \
    }

ENTRY(w4a4_m16, 128, 16, 64, 16, 16, 4)
ENTRY(w4a4_m128, 256, 128, 128, 64, 32, 3)
GROUPS_ENTRY(w4a4_groups_m16, 16, 16, 16)
GROUPS_ENTRY(w4a4_groups_m64, 64, 32, 32)
