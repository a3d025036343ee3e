// The scheduler of cuda_on_cpu.h and its record of every memory access; compiled without instrumentation.
#include <stdarg.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include <algorithm>
#include <deque>
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
constexpr unsigned LANES = 32, WARPGROUP = 128, NOBODY = ~0u, MANY = ~1u;
enum Place { READY, AT_BARRIER, AT_MBARRIER, IN_WARP, ENDED };

struct Copy {
    char* to;
    const char* from;
    unsigned bytes, valid;
};
// Accumulators of one thread, on its stack, once a wgmma has been given them.
struct Registers {
    char* first;
    size_t bytes;
    unsigned flying;  // wgmmas that are still to write them
    bool touched;     // since the last wgmma.fence
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
    std::vector<unsigned> fences;         // the epoch of each fence.proxy.async
    std::vector<Registers> registers;
    bool fenced;                          // by a wgmma.fence, ever
    void* mbarrier;                       // that it waits at, for the phase of this parity
    unsigned parity;
    unsigned waited;                      // for its stores to tensor memory, so often
    std::vector<std::pair<unsigned, unsigned>> before;  // tcgen05.fence::before_thread_sync: the epoch, and `waited` then
    unsigned known;                       // products in tensor memory that are done, as far as this thread has waited, or another before a barrier
    unsigned after, finished;             // the last ::after_thread_sync: the epoch, and `known` then
};
// What is known of a byte: who wrote and read it since which barrier, and how many fences for wgmma the writer had come to.
struct Byte {
    unsigned writer = NOBODY, written = 0, reader = NOBODY, read = 0, fences = 0, multiplied = 0;  // products that are still to read it
    unsigned done = 0;                                                                             // the last of them in tensor memory
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

// A wgmma under way: where its operands lie, and the accumulators of its lanes.
struct Product {
    std::vector<size_t> a, b;  // bytes of the dynamic shared memory
    bool more;
    std::vector<void*> sums;
    size_t bytes;
    Multiply multiply;
};

// 32 bits of tensor memory: who stored them, how often that one had waited for its stores, and products that are still to read or write them.
struct Cell {
    unsigned bits = 0, writer = NOBODY, waited = 0, reading = 0, writing = 0, finished = 0;  // the last of them
    bool holds = false;
};
constexpr unsigned TENSOR_LANES = 128, TENSOR_COLUMNS = 512, TENSOR_BEGIN = 32;  // the first column that a block gets
// A tcgen05.mma under way, and those that were committed together.
struct TensorProduct {
    Kind kind;
    unsigned d, instruction, scale_a, scale_b;
    std::vector<size_t> a, b;
    bool more;
};
struct Committed {
    void* barrier;
    std::vector<TensorProduct> products;
};
std::vector<Cell> cells;  // of the columns that are allocated
std::vector<TensorProduct> started;
std::deque<Committed> committed;
struct Phases {
    unsigned through, finished;  // how many, and the products that were done then
};
std::map<void*, Phases> phases;  // of each mbarrier
unsigned finished;               // products that are done

std::vector<Fibre> fibres;
std::vector<std::vector<std::vector<Product>>> warpgroups;  // groups of each, the last one open
ucontext_t scheduler;
unsigned current, epoch;
bool failed, counting, multiplying;
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

// An access to a thread's own stack.
void check_registers(const char* at, size_t bytes, const char* does) {
    for (Registers& each : fibres[current].registers) {
        if (at + bytes <= each.first || at >= each.first + each.bytes) continue;
        if (each.flying) fail("%s of an accumulator that a wgmma is still to write", does);
        each.touched = true;
    }
}

// `aligned` is 0 where the compiler says that any address will do.
void check(const void* address, size_t bytes, size_t aligned, bool write, void* code) {
    const char* at = static_cast<const char*>(address);
    if (failed || multiplying || fibres.empty()) return;  // or no launch at all
    Region* region = region_of(at);
    const char* does = write ? "write" : "read";
    if (!region) return check_registers(at, bytes, does);  // a fibre's own stack, or a constant
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
            if (write && byte.multiplied) fail("write of byte %zu of %s, which a %s is still to read", each, name, cells.empty() ? "wgmma" : "tcgen05.mma");
            if (write && byte.done > fibres[current].known)
                fail("write of byte %zu of %s, which a tcgen05.mma has read that this thread has not waited for", each, name);
            if (!write) byte.reader = byte.read == epoch && byte.reader != current ? MANY : current, byte.read = epoch;
        }
        if (write) byte.writer = current, byte.written = epoch, byte.fences = fibres[current].fences.size(), byte.holds = true;
    }
}

void wait() { swapcontext(&fibres[current].context, &scheduler); }

void start() {
    entry(arguments);
    for (const auto& group : fibres[current].groups)
        if (!group.empty()) fail("ends with a cp.async that nobody waits for");
    if (current % WARPGROUP == 0 && current / WARPGROUP < warpgroups.size())
        for (const auto& group : warpgroups[current / WARPGROUP])
            if (!group.empty()) fail("ends with a wgmma that nobody waits for");
    if (!started.empty() || !committed.empty()) fail("ends with a tcgen05.mma that nobody waits for");
    fibres[current].place = ENDED;
    wait();
}

// Whether a thread that waits at an mbarrier may go on: its phase is through, or would be once what was committed is done.
bool arrives(const Fibre& fibre) {
    const auto of = [&](const Committed& each) { return each.barrier == fibre.mbarrier; };
    return phases[fibre.mbarrier].through % 2 != fibre.parity || std::any_of(committed.begin(), committed.end(), of);
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
        fibre.fences.clear(), fibre.registers.clear(), fibre.fenced = false;
        fibre.waited = fibre.known = fibre.after = fibre.finished = 0, fibre.before.clear();
    }
    cells.clear(), started.clear(), committed.clear(), phases.clear(), finished = 0;
    warpgroups.assign(fibres.size() / WARPGROUP, std::vector<std::vector<Product>>(1));
    forget(fixed_shared);
    if (dynamic) forget(*dynamic);
    epoch = 1;
    while (true) {
        bool moved = false;
        for (size_t step = 0; step < fibres.size(); step++) {
            current = reverse ? fibres.size() - 1 - step : step;
            if (fibres[current].place == AT_MBARRIER && arrives(fibres[current])) fibres[current].place = READY;
            if (fibres[current].place != READY) continue;
            moved = true;
            swapcontext(&scheduler, &fibres[current].context);
            if (failed) return false;
        }
        if (moved) continue;
        bool together = true;
        for (const Fibre& fibre : fibres) together &= fibre.place == fibres[0].place && fibre.line == fibres[0].line;
        if (counting) count_banks();
        if (together && fibres[0].place == ENDED) {
            if (!cells.empty()) message = "tensor memory that nobody has given back";
            return cells.empty();
        }
        if (std::any_of(fibres.begin(), fibres.end(), [](const Fibre& fibre) { return fibre.place == AT_MBARRIER; })) {
            message = "a thread waits at an mbarrier that nobody arrives at";
            return false;
        }
        if (!together || fibres[0].place != AT_BARRIER) {
            message = "threads of a block wait at different barriers, or lanes of a warp at different operations";
            return false;
        }
        epoch++;
        unsigned known = 0;
        for (const Fibre& fibre : fibres) known = std::max(known, fibre.known);
        for (Fibre& fibre : fibres) fibre.place = READY, fibre.known = known;
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

void collective(Collective all, void* mine, unsigned lanes) {
    const unsigned first = current / lanes * lanes;
    if (first + lanes > fibres.size()) fail("an operation of %u lanes in a block of %zu threads", lanes, fibres.size());
    Fibre* warp = &fibres[first];
    fibres[current].operation = all, fibres[current].brought = mine, fibres[current].place = IN_WARP;
    void* brought[WARPGROUP];
    for (unsigned lane = 0; lane < lanes; lane++)
        if (warp[lane].place != IN_WARP) return wait();  // the last one to come does it for all
    for (unsigned lane = 0; lane < lanes; lane++) {
        if (warp[lane].operation != all) fail("lanes of a warp at different operations");
        brought[lane] = warp[lane].brought;
    }
    all(brought);
    for (unsigned lane = 0; lane < lanes; lane++) warp[lane].place = READY;
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
void fence_async_proxy() { fibres[current].fences.push_back(epoch); }

namespace {

constexpr unsigned SHARED_BEGIN = 1024;  // of the dynamic memory in the window of shared addresses, where sm_90 has it

struct Issue {
    unsigned long long a, b;
    unsigned columns;
    bool more;
    void* sum;
    size_t bytes;
    Multiply multiply;
};

// Where the bytes of an operand lie, 32 of each row, K-major in the 128-byte swizzle, from the bits of its descriptor (PTX ISA, "Matrix
// Descriptor Format" and "Strides"): eight rows of 128 bytes follow each other, from one such eight to the next it is the stride; in
// the address of what would be there without a swizzle, bits 4 to 6 are then those xor bits 7 to 9.
std::vector<size_t> operand(unsigned long long descriptor, unsigned rows, const char* what = "wgmma") {
    const unsigned start = (descriptor & 0x3fff) << 4, stride = (descriptor >> 32 & 0x3fff) << 4;
    if (descriptor >> 49 & 7 || start >> 7 & 7) fail("a descriptor of a tile that begins at %u, no multiple of 1024", start & ~0x7fu);
    if (start % 128 > 96) fail("a descriptor whose 32 bytes begin at byte %u of 128", start % 128);
    if (stride % 1024) fail("a descriptor of stride %u, no multiple of 1024", stride);
    std::vector<size_t> places;
    for (unsigned row = 0; row < rows; row++) {
        for (unsigned byte = 0; byte < 32; byte++) {
            const unsigned plain = start + row / 8 * stride + row % 8 * 128 + byte, address = plain ^ (plain >> 7 & 7) << 4;
            if (!dynamic || address < SHARED_BEGIN || address - SHARED_BEGIN >= dynamic->bytes)
                fail("%s of byte %d of dynamic shared memory", what, int(address) - int(SHARED_BEGIN));
            places.push_back(address - SHARED_BEGIN);
        }
    }
    return places;
}

// May a wgmma, or what else it is, read it from now on?
void watch(size_t at, const char* what = "wgmma") {
    Byte& byte = dynamic->record[at];
    if (!byte.holds) fail("%s of byte %zu of dynamic shared memory, which nobody has written", what, at);
    if (byte.flying) fail("%s of byte %zu of dynamic shared memory, which a cp.async is still to write", what, at);
    if (byte.written == epoch) fail("%s of byte %zu of dynamic shared memory, which thread %u wrote since the last barrier", what, at, byte.writer);
    const auto& fences = fibres[byte.writer].fences;
    if (byte.fences >= fences.size() || fences[byte.fences] >= epoch)
        fail("%s of byte %zu of dynamic shared memory, which thread %u wrote without fence.proxy.async and a barrier", what, at, byte.writer);
    byte.multiplied++;
}

void issue_all(void** lanes) {
    const unsigned first = current / WARPGROUP * WARPGROUP;
    const Issue& one = *static_cast<Issue*>(lanes[0]);
    for (unsigned long long descriptor : {one.a, one.b})
        if (descriptor >> 62 != 1) fail("a descriptor of swizzle %u: only that of 128 bytes (1) is known here", unsigned(descriptor >> 62));
    Product product = {operand(one.a, 64), operand(one.b, one.columns), one.more, {}, one.bytes, one.multiply};
    for (unsigned lane = 0; lane < WARPGROUP; lane++) {
        const Issue& each = *static_cast<Issue*>(lanes[lane]);
        if (each.a != one.a || each.b != one.b || each.more != one.more) fail("wgmma of different descriptors in one warpgroup");
        Fibre& fibre = fibres[first + lane];
        if (!fibre.fenced) fail("the first wgmma, without wgmma.fence");
        char* sum = static_cast<char*>(each.sum);
        const auto mine = std::find_if(fibre.registers.begin(), fibre.registers.end(), [&](auto& one) { return one.first == sum; });
        if (mine == fibre.registers.end()) {
            fibre.registers.push_back({sum, each.bytes, 1, false});
        } else {
            if (mine->touched) fail("wgmma with accumulators that were touched since the last wgmma.fence");
            mine->flying++;
        }
        product.sums.push_back(sum);
    }
    for (const auto* places : {&product.a, &product.b})
        for (size_t at : *places) watch(at);
    warpgroups[first / WARPGROUP].back().push_back(std::move(product));
}

// What a product reads when it is done; `after` is that of a byte.
template <class After> std::vector<unsigned char> read(const std::vector<size_t>& places, After after) {
    std::vector<unsigned char> bytes;
    for (size_t at : places) {
        dynamic->record[at].multiplied--, after(dynamic->record[at]);
        bytes.push_back(dynamic->first[at]);
    }
    return bytes;
}

void finish(const Product& product, unsigned first) {
    const auto after = [](Byte& byte) { byte.reader = MANY, byte.read = epoch; };  // whoever writes it now needs a barrier
    const std::vector<unsigned char> a = read(product.a, after), b = read(product.b, after);
    std::vector<void*> sums = product.sums;
    multiplying = true;
    product.multiply(a.data(), b.data(), product.more, sums.data());
    multiplying = false;
    for (unsigned lane = 0; lane < WARPGROUP; lane++)
        for (Registers& each : fibres[first + lane].registers)
            if (each.first == product.sums[lane]) each.flying--;
}

void commit_all(void**) { warpgroups[current / WARPGROUP].emplace_back(); }
void wait_all(void** pending) {
    auto& groups = warpgroups[current / WARPGROUP];
    while (groups.size() > *static_cast<unsigned*>(pending[0]) + 1) {  // the open one counts as none
        for (const Product& product : groups.front()) finish(product, current / WARPGROUP * WARPGROUP);
        groups.erase(groups.begin());
    }
}

}  // namespace

unsigned shared_address(const void* at) { return SHARED_BEGIN + unsigned(static_cast<const char*>(at) - dynamic->first); }
void wgmma_fence() {
    fibres[current].fenced = true;
    for (Registers& each : fibres[current].registers) each.touched = false;
}
void wgmma(unsigned long long a, unsigned long long b, unsigned columns, bool more, void* sum, size_t bytes, Multiply multiply) {
    Issue mine = {a, b, columns, more, sum, bytes, multiply};
    collective(issue_all, &mine, WARPGROUP);
}
void wgmma_commit() { collective(commit_all, nullptr, WARPGROUP); }
void wgmma_wait(unsigned pending) { collective(wait_all, &pending, WARPGROUP); }

namespace {

Cell& cell(unsigned lane, unsigned column) {
    const unsigned columns = cells.size() / TENSOR_LANES;
    if (lane >= TENSOR_LANES || column < TENSOR_BEGIN || column - TENSOR_BEGIN >= columns)
        fail("tensor memory of lane %u, column %u, which this block does not have", lane, column);
    return cells[lane * columns + column - TENSOR_BEGIN];
}

// A load or a store of a warp, in the quarter of tensor memory that is its own.
struct Columns {
    unsigned at, count;
    unsigned* registers;
    bool store;
};
void columns_all(void** lanes) {
    const Columns& one = *static_cast<Columns*>(lanes[0]);
    const unsigned first = current / LANES * LANES, quarter = current / LANES % 4 * LANES;
    const char* does = one.store ? "store to" : "load from";
    if (one.at >> 16 != quarter) fail("%s lane %u of tensor memory, where this warp has those from %u on", does, one.at >> 16, quarter);
    for (unsigned lane = 0; lane < LANES; lane++) {
        const Columns& each = *static_cast<Columns*>(lanes[lane]);
        if (each.at != one.at) fail("%s different places of tensor memory in one warp", does);
        Fibre& fibre = fibres[first + lane];
        for (unsigned i = 0; i < one.count; i++) {
            Cell& here = cell(quarter + lane, (one.at & 0xffff) + i);
            if (here.writing) fail("%s tensor memory that a tcgen05.mma is still to write", does);
            if (one.store && here.reading) fail("store to tensor memory that a tcgen05.mma is still to read");
            if (!one.store && !here.holds) fail("load from tensor memory that nobody has written");
            if (one.store && here.finished > fibre.known) fail("store to tensor memory without a wait for the tcgen05.mma that used it");
            if (!one.store && here.finished > fibre.finished) fail("load of a sum without a wait and tcgen05.fence::after_thread_sync");
            if (!one.store && here.writer != NOBODY && fibre.waited <= here.waited) fail("load from tensor memory without tcgen05.wait::st");
            if (one.store)
                here.bits = each.registers[i], here.holds = true, here.writer = first + lane, here.waited = fibre.waited;
            else
                each.registers[i] = here.bits;
        }
    }
}

// May a tcgen05.mma of this thread read or write it, from now on? Stores are then waited for, and fences lie on both sides of a barrier.
Cell& watched(unsigned lane, unsigned column) {
    Cell& here = cell(lane, column);
    if (here.writer == NOBODY) return here;
    for (const auto& [at, waited] : fibres[here.writer].before)
        if (waited > here.waited && at < epoch && at < fibres[current].after) return here;
    fail("tcgen05.mma of tensor memory that thread %u stored without tcgen05.wait::st and the fences around a barrier", here.writer);
    return here;
}

// What a code says: `bits` of them, of which `exponent` and `mantissa`; `last`: magnitudes from there on are infinity, if so, and NaN.
struct Small {
    unsigned bits, exponent, mantissa, last;
    bool infinite;
    double of(unsigned code) const {
        const unsigned magnitude = code & ((1u << (bits - 1)) - 1);
        const double sign = code >> (bits - 1) & 1 ? -1 : 1;
        if (magnitude >= last) return magnitude == last && infinite ? sign * HUGE_VAL : NAN;
        const int field = magnitude >> mantissa, bias = (1 << (exponent - 1)) - 1;
        const double significand = (magnitude & ((1u << mantissa) - 1)) / double(1u << mantissa) + (field ? 1 : 0);
        return sign * ldexp(significand, (field ? field : 1) - bias);
    }
};
constexpr Small E2M1 = {4, 2, 1, 8, false}, E4M3 = {8, 4, 3, 0x7f, false}, E5M2 = {8, 5, 2, 0x7c, true};

// The element of the one operand and of the other, by "Instruction descriptor" of .kind::mxf8f6f4, and of .kind::mxf4 and ::mxf4nvf4.
Small element(Kind kind, unsigned id) {
    if (kind != MXF8F6F4_1X && id == 1) return E2M1;
    if (kind == MXF8F6F4_1X && id <= 1) return id ? E5M2 : E4M3;
    fail("a tcgen05.mma of elements %u, which are not known here", id);
    return E2M1;
}
double scale(unsigned code, bool power) { return power ? code == 255 ? double(NAN) : ldexp(1.0, int(code) - 127) : E4M3.of(code & 0x7f); }

// Scale `at` of those that a product takes of a row, by "Scale Factor A/B Layout": the same in all quarters.
unsigned scale_code(unsigned address, unsigned row, unsigned byte) {
    const unsigned bits = cell(row % 32, (address & 0xffff) + row / 32).bits;
    for (unsigned quarter = 1; quarter < 4; quarter++)
        if (cell(quarter * 32 + row % 32, (address & 0xffff) + row / 32).bits != bits)
            fail("scales of row %u differ from one quarter of tensor memory to another", row);
    return bits >> 8 * byte & 255;
}

void finish(const TensorProduct& one) {
    finished++;
    const auto after = [](Byte& byte) { byte.done = finished; };
    const std::vector<unsigned char> a = read(one.a, after), b = read(one.b, after);
    const unsigned taken = one.kind == MXF4NVF4_4X ? 4 : one.kind == MXF4_2X ? 2 : 1;
    const bool power = one.instruction >> 23 & 1;
    const Small of_a = element(one.kind, one.instruction >> 7 & 7), of_b = element(one.kind, one.instruction >> 10 & 7);
    const unsigned byte_a = one.instruction >> 29 & 3, byte_b = one.instruction >> 4 & 3, each = 32 / taken;  // bytes of a block
    const auto decode = [&](const std::vector<unsigned char>& bytes, const Small& of, unsigned scales, unsigned byte) {
        std::vector<std::vector<double>> rows(128);
        for (unsigned row = 0; row < 128; row++) {
            for (unsigned at = 0; at < 32; at++) {
                const double factor = scale(scale_code(scales, row, byte + at / each), power);
                const unsigned code = bytes[row * 32 + at];
                rows[row].push_back(of.of(of.bits == 4 ? code & 15 : code) * factor);
                if (of.bits == 4) rows[row].push_back(of.of(code >> 4) * factor);
            }
        }
        return rows;
    };
    const auto left = decode(a, of_a, one.scale_a, byte_a), right = decode(b, of_b, one.scale_b, byte_b);
    for (unsigned row = 0; row < 128; row++) {
        for (unsigned column = 0; column < 128; column++) {
            Cell& here = cell(row, (one.d & 0xffff) + column);
            float sum = 0;
            if (one.more) memcpy(&sum, &here.bits, sizeof sum);
            double total = 0;  // closer than the f32 that it is rounded to
            for (size_t k = 0; k < left[row].size(); k++) total += left[row][k] * right[column][k];
            sum = static_cast<float>(sum + total);
            memcpy(&here.bits, &sum, sizeof sum);
            here.writing--, here.holds = true, here.writer = NOBODY, here.finished = finished;
        }
    }
    for (unsigned lane = 0; lane < TENSOR_LANES; lane++)
        for (unsigned column = 0; column < 4; column++)
            for (unsigned scales : {one.scale_a, one.scale_b}) {
                Cell& here = cell(lane, (scales & 0xffff) + column);
                here.reading--, here.finished = finished;
            }
}

unsigned given;  // columns that the warp asks for
void allocate_all(void** columns) {
    given = *static_cast<unsigned*>(columns[0]);
    if (!cells.empty()) fail("tensor memory twice");
    if (given < 32 || given > TENSOR_COLUMNS || (given & (given - 1))) fail("%u columns of tensor memory, no power of two from 32 to 512", given);
    cells.assign(size_t(TENSOR_LANES) * given, Cell());
}
void deallocate_all(void** columns) {
    if (cells.size() != TENSOR_LANES * *static_cast<unsigned*>(columns[0])) fail("gives back other tensor memory than it has");
    for (const Cell& each : cells)
        if (each.reading || each.writing) fail("gives back tensor memory that a tcgen05.mma is still to use");
    cells.clear();
}
void wait_stores_all(void**) {
    for (unsigned lane = 0; lane < LANES; lane++) fibres[current / LANES * LANES + lane].waited++;
}

}  // namespace

unsigned tensor_allocate(unsigned columns) {
    collective(allocate_all, &columns);
    return TENSOR_BEGIN;
}
void tensor_deallocate(unsigned at, unsigned columns) {
    if (at != TENSOR_BEGIN) fail("gives back other tensor memory than it has");
    collective(deallocate_all, &columns);
}
void tensor_store(unsigned at, const unsigned* from, unsigned columns) {
    Columns mine = {at, columns, const_cast<unsigned*>(from), true};
    collective(columns_all, &mine);
}
void tensor_load(unsigned at, unsigned* to, unsigned columns) {
    Columns mine = {at, columns, to, false};
    collective(columns_all, &mine);
}
void tensor_wait_stores() { collective(wait_stores_all, nullptr); }
void tensor_fence_before() { fibres[current].before.push_back({epoch, fibres[current].waited}); }
void tensor_fence_after() { fibres[current].after = epoch, fibres[current].finished = fibres[current].known; }

void tensor_multiply(Kind kind, unsigned d, unsigned long long a, unsigned long long b, unsigned instruction, unsigned scale_a,
                     unsigned scale_b, bool more) {
    const unsigned taken = kind == MXF4NVF4_4X ? 4 : kind == MXF4_2X ? 2 : 1;
    for (unsigned long long descriptor : {a, b}) {
        if (descriptor >> 61 != 2) fail("a descriptor of swizzle %u: only that of 128 bytes (2) is known here", unsigned(descriptor >> 61));
        if ((descriptor >> 46 & 7) != 1 || descriptor >> 52 & 0x1ff) fail("a descriptor without the constants of tcgen05");
    }
    if (instruction & 0x8701e04f) fail("an instruction descriptor %x with bits that are 0 here", instruction);
    if ((instruction >> 17 & 63) != 128 / 8 || (instruction >> 27 & 3) != 1) fail("an instruction descriptor that is not of 128 x 128");
    if (kind != MXF4NVF4_4X && !(instruction >> 23 & 1)) fail("scales of E4M3, which this kind does not take");
    for (unsigned byte : {instruction >> 29 & 3, instruction >> 4 & 3})
        if (byte % taken) fail("scales from byte %u on, of which a product takes %u", byte, taken);
    TensorProduct one = {kind, d, instruction, scale_a, scale_b, operand(a, 128, "tcgen05.mma"), operand(b, 128, "tcgen05.mma"), more};
    for (const auto* places : {&one.a, &one.b})
        for (size_t at : *places) watch(at, "tcgen05.mma");
    for (unsigned lane = 0; lane < TENSOR_LANES; lane++) {
        for (unsigned column = 0; column < 128; column++) {
            Cell& here = watched(lane, (d & 0xffff) + column);
            if (more && !here.holds && !here.writing) fail("tcgen05.mma adds to sums that nobody has written");
            if (here.reading) fail("tcgen05.mma puts sums where another one is still to read scales");
            here.writing++;
        }
        for (unsigned scales : {scale_a, scale_b}) {
            for (unsigned column = 0; column < 4; column++) {
                Cell& here = watched(lane, (scales & 0xffff) + column);
                if (!here.holds || here.writing) fail("tcgen05.mma of scales that nobody has written");
                here.reading++;
            }
        }
    }
    started.push_back(std::move(one));
}
void tensor_commit(void* barrier) {
    if (!phases.count(barrier)) fail("a commit to an mbarrier that nobody has initialised");
    committed.push_back({barrier, std::move(started)});
    started.clear();
}
void barrier_begin(void* barrier) {
    check(barrier, 8, 8, true, nullptr);
    phases[barrier] = {0, 0};
}
void barrier_wait(void* barrier, unsigned parity) {
    check(barrier, 8, 8, false, nullptr);
    if (!phases.count(barrier)) fail("waits at an mbarrier that nobody has initialised");
    Fibre& mine = fibres[current];
    mine.mbarrier = barrier, mine.parity = parity;
    if (!arrives(mine)) {
        mine.place = AT_MBARRIER;
        wait();
    }
    while (phases[barrier].through % 2 == parity) {  // products are done in the order in which they were started
        for (const TensorProduct& one : committed.front().products) finish(one);
        Phases& through = phases[committed.front().barrier];
        through.through++, through.finished = finished;
        committed.pop_front();
    }
    mine.known = std::max(mine.known, phases[barrier].finished);
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
