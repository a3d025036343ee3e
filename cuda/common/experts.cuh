// Rows that are sorted by their expert: which of them a block computes, found by the block itself in one launch.
//   offsets [E + 1] u32, from 0 to R, never falling: expert e has the rows offsets[e] to offsets[e + 1] - 1 of y, or none
// A tile holds rows of one expert only, so R rows make at most R / ROWS + min(E, R) tiles; those that are too many do nothing.
#pragma once
#include "common/warp.cuh"

// Rows `first` to `end` of y belong to `expert`. Where offsets fall, or do not run from 0 to R, no row has an expert: `known` is false
// and the tiles are those of R rows without any, so that each row can be told.
struct Part {
    unsigned expert, first, end;
    bool known;
};

// Tile number `tile` of ROWS rows; first == end for one too many. All threads of a warp, all of which get the same.
template <unsigned ROWS> __device__ Part part_of(const unsigned* offsets, unsigned experts, unsigned R, unsigned tile) {
    const unsigned lane = threadIdx.x % 32;
    unsigned before = 0;  // tiles of the experts so far
    int expert = -1, first = -1, wrong = 0;
    for (unsigned at = lane; at - lane < experts; at += 32) {
        unsigned begin = 0, end = 0;
        if (at < experts) {
            begin = offsets[at], end = offsets[at + 1];
            if (end < begin || end > R || (at == 0 && begin) || (at == experts - 1 && end < R)) wrong = 1, end = begin;
        }
        const unsigned mine = (end - begin + ROWS - 1) / ROWS;
        unsigned all = mine;  // first of two, then of four neighbouring lanes, and so on
        unsigned until = before;
        for (unsigned mask = 1; mask < 32; mask *= 2) {
            const unsigned other = shuffle_xor(int(all), mask);
            if (lane & mask) until += other;
            all += other;
        }
        if (tile >= until && tile - until < mine) expert = at, first = begin + (tile - until) * ROWS;
        before += all;
    }
    const auto larger = [](int a, int b) { return a > b ? a : b; };
    expert = reduce<32>(expert, larger), first = reduce<32>(first, larger), wrong = reduce<32>(wrong, larger);
    const unsigned plain = tile * ROWS < R ? tile * ROWS : R;
    if (wrong) return {0, plain, R, false};
    return expert < 0 ? Part{0, 0, 0, true} : Part{unsigned(expert), unsigned(first), offsets[expert + 1], true};
}

// The operand (common/tile.cuh) whose row r is that of number order[first + r], or first + r where order is null.
struct Gathered {
    const void* data;
    unsigned rows;
    size_t bytes;
    const unsigned* order;
    unsigned first, end;
    __device__ unsigned at(unsigned r) const {
        const unsigned place = first + r;
        return place >= end ? rows : order ? order[place] : place;
    }
};
