// As much of CUDA C++ as cuda/ uses, on one CPU thread, so that the arithmetic of a kernel can be checked where there is no GPU.
// Every thread of a block is a fibre that runs until a barrier or its end; then the next one runs. So a missing barrier shows as a
// wrong result, as the first fibre reads what the others have not written yet, whichever end the fibres are started from.
// What this cannot show: races within a warp, memory orders, and inline PTX, of which common/ keeps a twin in C++.
#pragma once
#include <math.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include <functional>
#include <memory>
#include <utility>
#include <vector>

#define __global__
#define __device__
#define __shared__ static  // one block runs at a time
#define __launch_bounds__(...)
#define __syncthreads() emulator::barrier(__LINE__)

struct Dim {
    unsigned x, y, z;
};
inline Dim threadIdx, blockIdx, blockDim, gridDim;

namespace emulator {

constexpr size_t STACK = 64 * 1024;
constexpr int STARTED = 0, ENDED = -1;  // where a fibre is; else the line of the barrier it waits at

struct Fibre {
    ucontext_t context;
    std::unique_ptr<char[]> stack{new char[STACK]};
    int place;
};
inline ucontext_t scheduler;
inline Fibre* running;
inline std::function<void()> body;

inline void barrier(int line) {
    running->place = line;
    swapcontext(&running->context, &scheduler);
}
inline void start() {
    body();
    barrier(ENDED);
}

// One block; false if its threads wait at different barriers, which on a GPU hangs or worse.
inline bool run_block(std::vector<Fibre>& fibres, bool reverse) {
    for (Fibre& fibre : fibres) {
        getcontext(&fibre.context);
        fibre.context.uc_stack.ss_sp = fibre.stack.get();
        fibre.context.uc_stack.ss_size = STACK;
        makecontext(&fibre.context, start, 0);
        fibre.place = STARTED;
    }
    do {
        for (size_t step = 0; step < fibres.size(); step++) {
            const unsigned thread = reverse ? fibres.size() - 1 - step : step;
            threadIdx = {thread % blockDim.x, thread / blockDim.x % blockDim.y, thread / blockDim.x / blockDim.y};
            running = &fibres[thread];
            swapcontext(&scheduler, &running->context);
        }
        for (const Fibre& fibre : fibres)
            if (fibre.place != fibres[0].place) return false;
    } while (fibres[0].place != ENDED);
    return true;
}

template <class... Args, size_t... Index> void prepare(void (*entry)(Args...), void** args, std::index_sequence<Index...>) {
    body = [=] { entry(*static_cast<Args*>(args[Index])...); };
}

// As cuLaunchKernel: args points to one pointer a parameter.
template <class... Args> bool launch(void (*entry)(Args...), const unsigned* grid, const unsigned* block, void** args, bool reverse) {
    gridDim = {grid[0], grid[1], grid[2]};
    blockDim = {block[0], block[1], block[2]};
    std::vector<Fibre> fibres(size_t(block[0]) * block[1] * block[2]);
    prepare(entry, args, std::index_sequence_for<Args...>());
    for (unsigned z = 0; z < grid[2]; z++)
        for (unsigned y = 0; y < grid[1]; y++)
            for (unsigned x = 0; x < grid[0]; x++) {
                blockIdx = {x, y, z};
                if (!run_block(fibres, reverse)) return false;
            }
    return true;
}

}  // namespace emulator

// Memory that ends where a forbidden page begins: reading or writing one byte too far ends the process.
extern "C" void* guarded(size_t bytes) {
    const size_t page = getpagesize(), pages = (bytes + page - 1) / page * page;
    char* first = static_cast<char*>(mmap(nullptr, pages + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    if (first == MAP_FAILED || mprotect(first + pages, page, PROT_NONE) != 0) return nullptr;
    return first + pages - bytes;
}
extern "C" void release(void* memory, size_t bytes) {
    const size_t page = getpagesize(), pages = (bytes + page - 1) / page * page;
    munmap(static_cast<char*>(memory) + bytes - pages, pages + page);
}
