// block_scaled_pair_sm100a: block_scaled_pair.cu for many rows on tensor cores that take floats in blocks as they are (B200).
//   Arguments and grid as there, tiles of 128 x 128, blocks of 128 threads, 6 stages of 2 * 17 KiB (nvfp4: 18) of dynamic shared memory
//   that begins at a multiple of 1024.
//   How these tensor cores round sums NVIDIA does not say, and nobody has measured it here: as f32 does, |error| is that of
//   block_scaled_pair.cu. The sign of an E4M3 scale is not looked at.
//
// Codes go by cp.async into the 128-byte swizzle, from which tcgen05.mma reads them; their scales go from there to tensor memory, through
// registers, in which a lane has those of four rows at once. A stage is four products, which one thread starts; two stages may be
// multiplied while four are copied (no clusters, no TMA, no pairs of multiprocessors). sm_103 takes no code of sm_100a and runs
// block_scaled_pair.cu. Limit: the bandwidth of L2, of which a tile of 128 x 128 asks 36 KiB for 256 columns of FP4, before the rate of
// tensor cores. Run on the emulator alone so far, on no GPU.
#include "common/blocks.cuh"
#include "common/tensor_memory.cuh"

enum : unsigned { ROWS = 128, LANES = 128, STAGES = 6, STEP = 32 };  // threads of a block; stages; bytes of a row in a product

// Codes begin at a multiple of 1024, and are read after the next stage is taken.
template <class Format> struct Aligned : BlocksTile<Format, ROWS, true> {
    using Plain = BlocksTile<Format, ROWS, true>;
    static constexpr bool WGMMA = true;
    static constexpr unsigned SIZE = (Plain::SIZE + 1023) / 1024 * 1024, WORDS = Plain::Scales::BYTES / 4;
    // Puts the scales of this tile to tensor memory, four columns for each word of them, in the quarter of this warp.
    __device__ static void store_scales(const unsigned char* tile, unsigned at) {
        const unsigned lane = threadIdx.x % 32, quarter = threadIdx.x / 32 << 21;
        Words<WORDS> scales[4];
#pragma unroll
        for (unsigned i = 0; i < 4; i++) scales[i] = load<Words<WORDS>>(tile + Plain::scale(i * 32 + lane, 0));
#pragma unroll
        for (unsigned word = 0; word < WORDS; word++) {
            const unsigned four[4] = {scales[0].word[word], scales[1].word[word], scales[2].word[word], scales[3].word[word]};
            store_columns(at + quarter + word * 4, four);
        }
    }
};

template <class Format, unsigned NUMBER>
__device__ void step(unsigned d, unsigned long long a, unsigned long long b, unsigned scale_a, unsigned scale_b, bool more) {
    constexpr unsigned TAKEN = STEP * 8 / Format::BITS / Format::BLOCK, WORD = NUMBER * TAKEN / 4, BYTE = NUMBER * TAKEN % 4;
    multiply<BYTE>(d, a + NUMBER * STEP / 16, b + NUMBER * STEP / 16, scale_a + WORD * 4, scale_b + WORD * 4, more, Format{});
}

template <class Format>
__device__ void blocks_tcgen05(const void* x, const void* x_scale, const void* w, const void* w_scale, const Result& result, unsigned K,
                               float tensor_scale, unsigned depth) {
    using Operands = Aligned<Format>;
    constexpr unsigned SUMS = 0, SCALES = COLUMNS, EACH = 16, ALLOCATED = 256;  // columns of tensor memory, EACH for the scales of a tile
    __shared__ unsigned allocated;
    __shared__ unsigned long long done[2];
    const unsigned M = result.M, N = result.N, downs = (M + ROWS - 1) / ROWS;
    // Blocks that read the same weights follow each other.
    const unsigned m0 = blockIdx.x % downs * ROWS, n0 = blockIdx.x / downs * COLUMNS;
    const unsigned begin = blockIdx.y * depth, end = K - begin < depth ? K : begin + depth;
    const unsigned count = (end - begin + Operands::DEPTH - 1) / Operands::DEPTH;  // of stages

    using Tiles = Pipeline<Operands, Operands, STAGES, LANES, Blocks, Blocks>;
    const Tiles tiles{Blocks::of<Format>(x, x_scale, M, K, m0), Blocks::of<Format>(w, w_scale, N, K, n0)};
    const auto fill = [&](unsigned stage) {
        const unsigned k = begin + stage * Operands::DEPTH;
        tiles.fill(stage, k < end, k, k);
    };
    for (unsigned stage = 0; stage < Tiles::AHEAD; stage++) fill(stage);
    if (threadIdx.x < 32) allocate<ALLOCATED>(&allocated);
    if (threadIdx.x == 0) begin_barrier(&done[0]), begin_barrier(&done[1]);
    __syncthreads();
    const unsigned memory = allocated;

    for (unsigned stage = 0; stage < count; stage++) {
        const unsigned char *x_tile = tiles.take(stage), *w_tile = x_tile + Operands::SIZE;
        unsigned long long* barrier = &done[stage % 2];
        // The stage before the last one has read its tiles and its scales, whose places are free.
        if (stage >= 2) wait_barrier(barrier, stage / 2 % 2 ^ 1);
        fill(stage + Tiles::AHEAD);
        const unsigned scale_x = memory + SCALES + stage % 2 * 2 * EACH, scale_w = scale_x + EACH;
        Operands::store_scales(x_tile, scale_x);
        Operands::store_scales(w_tile, scale_w);
        wait_stores();
        fence_before_sync();
        __syncthreads();
        if (threadIdx.x == 0) {
            fence_after_sync();
            const auto a = tensor_descriptor(x_tile), b = tensor_descriptor(w_tile);
            static_assert(BYTES / STEP == 4, "a stage is four products deep");
            step<Format, 0>(memory + SUMS, a, b, scale_x, scale_w, stage > 0);
            step<Format, 1>(memory + SUMS, a, b, scale_x, scale_w, true);
            step<Format, 2>(memory + SUMS, a, b, scale_x, scale_w, true);
            step<Format, 3>(memory + SUMS, a, b, scale_x, scale_w, true);
            commit(barrier);
        }
    }
    wait_async<0>();
    if (count > 0) wait_barrier(&done[(count - 1) % 2], (count - 1) / 2 % 2);  // and so are those before
    fence_after_sync();
    const unsigned m = m0 + threadIdx.x;
    for (unsigned column = 0; column < COLUMNS; column += 16) {
        unsigned sums[16] = {};
        if (count > 0) load_columns(memory + SUMS + column + (threadIdx.x / 32 << 21), sums);
#pragma unroll
        for (unsigned i = 0; i < 16; i++)
            if (m < M && n0 + column + i < N) result.put(m, n0 + column + i, bit_cast<float>(sums[i]) * tensor_scale);
    }
    fence_before_sync();
    __syncthreads();
    if (threadIdx.x < 32) deallocate<ALLOCATED>(memory);
}

#define ENTRY(NAME, FORMAT)                                                                                                              \
    extern "C" __global__ void __launch_bounds__(LANES, 1)                                                                               \
        NAME(const unsigned* x, const unsigned* words, const unsigned char* x_scale, const unsigned char* w_scale, float* y, float* parts, \
             unsigned M, unsigned N, unsigned K, float tensor_scale, unsigned depth) {                                                   \
        blocks_tcgen05<FORMAT>(x, x_scale, words, w_scale, {nullptr, y, parts, M, N}, K, tensor_scale, depth);                            \
    }

ENTRY(block_scaled_pair_sm100a_nvfp4_m128, Nvfp4)
ENTRY(block_scaled_pair_sm100a_mxfp4_m128, Mxfp4)
ENTRY(block_scaled_pair_sm100a_mxfp8_e4m3fn_m128, Mx8<elements::E4m3fn>)
ENTRY(block_scaled_pair_sm100a_mxfp8_e5m2_m128, Mx8<elements::E5m2>)
