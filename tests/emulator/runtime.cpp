// The scheduler of cuda_on_cpu.h and its record of every memory access; compiled without instrumentation.
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "cuda_on_cpu.h"

// Ends of the library's zeroed data. Instrumented code has nothing there but its static shared memory.
extern char __bss_start[] __attribute__((visibility("hidden")));
extern char _end[] __attribute__((visibility("hidden")));

namespace emulator {
namespace {

constexpr size_t STACK = 64 * 1024, SLOT = size_t(1) << 28, SLOTS = 64;
constexpr unsigned LANES = 32, NOBODY = ~0u, MANY = ~1u;
enum Place { READY, AT_BARRIER, IN_WARP, ENDED };

struct Copy {
    char* to;
    const char* from;
    unsigned bytes, valid;
};
struct Fibre {
    ucontext_t context;
    std::unique_ptr<char[]> stack{new char[STACK]};
    Place place;
    int line;                             // of the barrier it waits at
    Collective operation;                 // of the warp that it waits in
    void* brought;                        // to that operation
    std::vector<std::vector<Copy>> groups;  // of cp.async, the last one open
    std::map<void*, unsigned> visits;     // of each access in the code since the last barrier, for the bank conflicts
};
// What is known of a byte: who wrote and read it since which barrier.
struct Byte {
    unsigned writer = NOBODY, written = 0, reader = NOBODY, read = 0;
    bool holds = false, flying = false;
};
// Memory that a kernel may touch.
struct Region {
    char* first = nullptr;
    size_t bytes = 0;
    bool shared = false;
    std::string name;
    std::vector<Byte> record;
};

std::vector<Fibre> fibres;
ucontext_t scheduler;
unsigned current, epoch;
bool failed, counting;
std::string message;
Dim grid_sides, block_size, block_at;
void (*entry)(void**);
void** arguments;

char* arena;
Region regions[SLOTS], fixed_shared;
Region* dynamic;

struct Access {
    unsigned lane;
    uintptr_t at;
    size_t bytes;
};
std::map<std::pair<unsigned, std::pair<void*, unsigned>>, std::vector<Access>> warp_accesses;
size_t wavefronts, conflicts;

// Records what went wrong first and leaves the block for good.
void fail(const char* format, ...) {
    char text[400];
    va_list values;
    va_start(values, format);
    vsnprintf(text, sizeof text, format, values);
    va_end(values);
    char where[100];
    snprintf(where, sizeof where, "block (%u, %u, %u), thread %u: ", block_at.x, block_at.y, block_at.z, current);
    if (!failed) message = where + std::string(text);
    failed = true;
    swapcontext(&fibres[current].context, &scheduler);
}

Region* region_of(const char* at) {
    if (at >= fixed_shared.first && at < fixed_shared.first + fixed_shared.bytes) return &fixed_shared;
    return at >= arena && at < arena + SLOT * SLOTS ? &regions[(at - arena) / SLOT] : nullptr;
}

void visit_banks(void* code, const char* at, size_t bytes) {
    const unsigned visit = fibres[current].visits[code]++;
    warp_accesses[{current / LANES, {code, visit}}].push_back({current % LANES, uintptr_t(at), bytes});
}
// Lanes that make an access together, 128 bytes at a time: so often as the fullest of 32 banks is asked for different words.
void count_banks() {
    for (const auto& [key, accesses] : warp_accesses) {
        const unsigned together = accesses[0].bytes > 4 ? 128 / accesses[0].bytes : LANES;
        for (unsigned first = 0; first < LANES; first += together) {
            std::vector<uintptr_t> words;
            for (const Access& access : accesses)
                if (access.lane / together == first / together)
                    for (uintptr_t word = access.at / 4; word <= (access.at + access.bytes - 1) / 4; word++) words.push_back(word);
            if (words.empty()) continue;
            std::sort(words.begin(), words.end());
            words.erase(std::unique(words.begin(), words.end()), words.end());
            size_t busy[32] = {};
            for (uintptr_t word : words) busy[word % 32]++;
            const size_t most = *std::max_element(busy, busy + 32);
            wavefronts += most, conflicts += most - 1;
        }
    }
    warp_accesses.clear();
    for (Fibre& fibre : fibres) fibre.visits.clear();
}

// `aligned` is 0 where the compiler says that any address will do.
void check(const void* address, size_t bytes, size_t aligned, bool write, void* code) {
    const char* at = static_cast<const char*>(address);
    Region* region = region_of(at);
    if (!region || failed) return;  // a fibre's own stack, or a constant
    const char* does = write ? "write" : "read";
    const char* name = region->name.c_str();
    const ptrdiff_t offset = at - region->first;
    if (!region->first || offset < 0 || offset + bytes > region->bytes) {
        fail("%s of %zu bytes at byte %td of %s, which has %zu", does, bytes, offset, name, region->bytes);
    }
    if (aligned && uintptr_t(at) % aligned) fail("misaligned %s of %zu bytes at byte %td of %s", does, bytes, offset, name);
    if (region->shared && counting && code) visit_banks(code, at, bytes);
    for (size_t each = offset; each < offset + bytes; each++) {
        Byte& byte = region->record[each];
        if (!write && !byte.holds) fail("read of byte %zu of %s, which nobody has written", each, name);
        if (region->shared) {
            if (byte.flying) fail("%s of byte %zu of %s, which a cp.async is still to write", does, each, name);
            const bool raced = byte.written == epoch && byte.writer != current;
            if (raced) fail("%s of byte %zu of %s, which thread %u wrote since the last barrier", does, each, name, byte.writer);
            if (write && byte.read == epoch && byte.reader != current)
                fail("write of byte %zu of %s, which another thread read since the last barrier", each, name);
            if (!write) byte.reader = byte.read == epoch && byte.reader != current ? MANY : current, byte.read = epoch;
        }
        if (write) byte.writer = current, byte.written = epoch, byte.holds = true;
    }
}

void wait() { swapcontext(&fibres[current].context, &scheduler); }

void start() {
    entry(arguments);
    for (const auto& group : fibres[current].groups)
        if (!group.empty()) fail("ends with a cp.async that nobody waits for");
    fibres[current].place = ENDED;
    wait();
}

void forget(Region& region) { region.record.assign(region.bytes, Byte()); }

bool run_block(bool reverse) {
    for (Fibre& fibre : fibres) {
        getcontext(&fibre.context);
        fibre.context.uc_stack.ss_sp = fibre.stack.get();
        fibre.context.uc_stack.ss_size = STACK;
        makecontext(&fibre.context, start, 0);
        fibre.place = READY;
        fibre.groups.assign(1, {});
    }
    forget(fixed_shared);
    if (dynamic) forget(*dynamic);
    epoch = 1;
    while (true) {
        bool moved = false;
        for (size_t step = 0; step < fibres.size(); step++) {
            current = reverse ? fibres.size() - 1 - step : step;
            if (fibres[current].place != READY) continue;
            moved = true;
            swapcontext(&scheduler, &fibres[current].context);
            if (failed) return false;
        }
        if (moved) continue;
        bool together = true;
        for (const Fibre& fibre : fibres) together &= fibre.place == fibres[0].place && fibre.line == fibres[0].line;
        if (counting) count_banks();
        if (together && fibres[0].place == ENDED) return true;
        if (!together || fibres[0].place != AT_BARRIER) {
            message = "threads of a block wait at different barriers, or lanes of a warp at different operations";
            return false;
        }
        epoch++;
        for (Fibre& fibre : fibres) fibre.place = READY;
    }
}

}  // namespace

Dim thread_index() {
    return {current % block_size.x, current / block_size.x % block_size.y, current / block_size.x / block_size.y};
}
Dim block_index() { return block_at; }
Dim grid_size() { return grid_sides; }

void barrier(int line) {
    fibres[current].place = AT_BARRIER;
    fibres[current].line = line;
    wait();
    fibres[current].line = 0;
}

void collective(Collective all, void* mine) {
    Fibre* warp = &fibres[current / LANES * LANES];
    fibres[current].operation = all, fibres[current].brought = mine, fibres[current].place = IN_WARP;
    void* brought[LANES];
    for (unsigned lane = 0; lane < LANES; lane++) {
        if (warp[lane].place != IN_WARP) return wait();  // the last one to come does it for all
        if (warp[lane].operation != all) fail("lanes of a warp at different operations");
        brought[lane] = warp[lane].brought;
    }
    all(brought);
    for (unsigned lane = 0; lane < LANES; lane++) warp[lane].place = READY;
}

void load(void* to, const void* from, size_t bytes) {
    check(from, bytes, bytes, false, __builtin_return_address(0));
    memcpy(to, from, bytes);
}
void store(void* to, const void* from, size_t bytes) {
    check(to, bytes, bytes, true, __builtin_return_address(0));
    memcpy(to, from, bytes);
}

void* dynamic_shared() { return dynamic ? dynamic->first : nullptr; }

void copy_async(void* to, const void* from, unsigned bytes, unsigned valid) {
    check(to, bytes, bytes, true, __builtin_return_address(0));  // it may land from now on
    if (uintptr_t(from) % bytes) fail("misaligned cp.async of %u bytes", bytes);
    if (valid) check(from, valid, 0, false, nullptr);
    Region* region = region_of(static_cast<char*>(to));
    for (unsigned each = 0; each < bytes; each++) region->record[static_cast<char*>(to) - region->first + each].flying = true;
    fibres[current].groups.back().push_back({static_cast<char*>(to), static_cast<const char*>(from), bytes, valid});
}
void commit_async() { fibres[current].groups.emplace_back(); }
void wait_async(unsigned pending) {
    auto& groups = fibres[current].groups;
    while (groups.size() > pending + 1) {  // the open one counts as none
        for (const Copy& copy : groups.front()) {
            Region* region = region_of(copy.to);
            for (unsigned each = 0; each < copy.bytes; each++) region->record[copy.to - region->first + each].flying = false;
            check(copy.to, copy.bytes, copy.bytes, true, nullptr);
            memcpy(copy.to, copy.from, copy.valid);
            memset(copy.to + copy.valid, 0, copy.bytes - copy.valid);
        }
        groups.erase(groups.begin());
    }
}

}  // namespace emulator

using namespace emulator;

// Memory of a launch: zeroed, in a slot of its own, `offset` bytes beyond an address that any access is aligned to.
extern "C" void* acquire(size_t bytes, size_t offset, const char* name, bool holds) {
    if (!arena) {
        void* all = mmap(nullptr, SLOT * SLOTS, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (all == MAP_FAILED) return nullptr;
        arena = static_cast<char*>(all);
    }
    for (size_t slot = 0; slot < SLOTS; slot++) {
        Region& region = regions[slot];
        if (region.first) continue;
        char* page = arena + slot * SLOT + SLOT / 2;
        if (bytes + offset > SLOT / 2 || mprotect(page, bytes + offset + 1, PROT_READ | PROT_WRITE)) return nullptr;
        region.first = page + offset, region.bytes = bytes, region.name = name, region.shared = false;
        forget(region);
        for (Byte& byte : region.record) byte.holds = holds;
        return region.first;
    }
    return nullptr;
}
extern "C" void release(void* memory) {
    Region& region = *region_of(static_cast<char*>(memory));
    char* slot = arena + (static_cast<char*>(memory) - arena) / SLOT * SLOT;
    mmap(slot, SLOT, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
    region = Region();
}
// What stopped the last launch, and the wavefronts and bank conflicts of its accesses to shared memory.
extern "C" const char* problem() { return message.c_str(); }
extern "C" size_t counted(bool conflicting) { return conflicting ? conflicts : wavefronts; }

// As cuLaunchKernel: args points to one pointer a parameter.
bool emulator::run(void (*body)(void**), void** args, const unsigned* grid, const unsigned* block, size_t shared, bool reverse,
                   bool count) {
    entry = body, arguments = args, grid_sides = {grid[0], grid[1], grid[2]}, block_size = {block[0], block[1], block[2]};
    failed = false, counting = count, message.clear(), wavefronts = conflicts = 0, warp_accesses.clear();
    fibres = std::vector<Fibre>(size_t(block[0]) * block[1] * block[2]);
    fixed_shared = {__bss_start, size_t(_end - __bss_start), true, "static shared memory", {}};
    dynamic = nullptr;
    if (shared) {
        dynamic = region_of(static_cast<char*>(acquire(shared, 0, "dynamic shared memory", false)));
        dynamic->shared = true;
    }
    bool well = true;
    const unsigned blocks = grid[0] * grid[1] * grid[2];
    for (unsigned step = 0; step < blocks && well; step++) {
        const unsigned at = reverse ? blocks - 1 - step : step;
        block_at = {at % grid[0], at / grid[0] % grid[1], at / grid[0] / grid[1]};
        well = run_block(reverse);
    }
    if (dynamic) release(dynamic->first);
    return well;
}

// What -fsanitize=thread calls.
#define ACCESS(BYTES)                                                                                                              \
    void __tsan_read##BYTES(void* at) { check(at, BYTES, BYTES, false, __builtin_return_address(0)); }                             \
    void __tsan_write##BYTES(void* at) { check(at, BYTES, BYTES, true, __builtin_return_address(0)); }                             \
    void __tsan_unaligned_read##BYTES(void* at) { check(at, BYTES, 0, false, __builtin_return_address(0)); }                       \
    void __tsan_unaligned_write##BYTES(void* at) { check(at, BYTES, 0, true, __builtin_return_address(0)); }
extern "C" {
ACCESS(1)
ACCESS(2)
ACCESS(4)
ACCESS(8)
ACCESS(16)
void __tsan_read_range(void* at, size_t bytes) { check(at, bytes, 0, false, __builtin_return_address(0)); }
void __tsan_write_range(void* at, size_t bytes) { check(at, bytes, 0, true, __builtin_return_address(0)); }
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
}
