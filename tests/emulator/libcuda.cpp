// A driver of one device that runs kernels on the CPU: as much of libcuda.so.1 as python/subbyte/cuda calls, so that loading and
// launching go through the real cuda-python. Kernels are looked up among the emulated ones (cuda_on_cpu.h) of this process.
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <string>

namespace {

typedef bool (*Launcher)(const unsigned* grid, const unsigned* block, size_t shared, void** args, bool reverse, bool count);

int setting(const char* name, int otherwise) {
    const char* text = getenv(name);
    return text ? atoi(text) : otherwise;
}

int contexts = 0;  // pushed and not popped
unsigned allowed = 48 * 1024;  // bytes of dynamic shared memory
constexpr int INVALID_VALUE = 1, NOT_FOUND = 500, LAUNCH_FAILED = 719;

}  // namespace

extern "C" {

int cuInit(unsigned) { return setting("FAKE_INIT", 0); }
int cuDriverGetVersion(int* version) { return *version = setting("FAKE_VERSION", 12080), 0; }
int cuDeviceGetCount(int* count) { return *count = 1, 0; }
int cuDeviceGet(int* device, int index) { return *device = index, index == 0 ? 0 : 101; }
int cuDeviceGetName(char* name, int size, int) { return snprintf(name, size, "CPU as a GPU"), 0; }
int cuDeviceTotalMem_v2(size_t* bytes, int) { return *bytes = size_t(3) << 30, 0; }
int cuDeviceGetAttribute(int* value, int attribute, int) {
    const int capability = setting("FAKE_CAPABILITY", 90);
    if (attribute == 16) return *value = 132, 0;         // multiprocessors
    if (attribute == 97) return *value = 227 * 1024, 0;  // bytes of shared memory
    if (attribute != 75 && attribute != 76) return INVALID_VALUE;
    return *value = attribute == 75 ? capability / 10 : capability % 10, 0;
}
int cuDevicePrimaryCtxRetain(void** context, int) { return *context = &contexts, 0; }
int cuCtxPushCurrent_v2(void* context) { return contexts++, context == &contexts ? 0 : INVALID_VALUE; }
int cuCtxPopCurrent_v2(void** context) { return *context = &contexts, contexts-- > 0 ? 0 : INVALID_VALUE; }

// Prints the target, by which the test sees which file was chosen.
int cuModuleLoadData(void** module, const void* image) {
    const char* target = strstr(static_cast<const char*>(image), ".target ");
    if (contexts == 0 || !target) return INVALID_VALUE;
    printf("loaded %.*s\n", static_cast<int>(strcspn(target + 8, "\n")), target + 8);
    fflush(stdout);
    return *module = &contexts, setting("FAKE_LOAD", 0);
}
int cuModuleGetFunction(void** function, void* module, const char* name) {
    *function = dlsym(RTLD_DEFAULT, (std::string("launch_") + name).c_str());
    return module != &contexts ? INVALID_VALUE : *function ? 0 : NOT_FOUND;
}
int cuFuncSetAttribute(void*, int attribute, int value) {
    if (contexts == 0 || attribute != 8 || value > 227 * 1024) return INVALID_VALUE;
    return allowed = value, 0;
}
int cuLaunchKernel(void* function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared,
                   void* stream, void** args, void** extra) {
    if (contexts == 0 || extra || shared > allowed) return INVALID_VALUE;
    printf("launched on stream %zu\n", reinterpret_cast<size_t>(stream));
    fflush(stdout);
    const unsigned grid[] = {gx, gy, gz}, block[] = {bx, by, bz};
    return reinterpret_cast<Launcher>(function)(grid, block, shared, args, false, false) ? 0 : LAUNCH_FAILED;
}
int cuMemAlloc_v2(void** memory, size_t bytes) { return *memory = malloc(bytes), contexts == 0; }
int cuMemcpyHtoD_v2(void* to, const void* from, size_t bytes) { return memcpy(to, from, bytes), contexts == 0; }
int cuStreamSynchronize(void*) { return 0; }

// cuda-python finds everything else through this one; names come without their version.
int cuGetProcAddress_v2(const char* name, void** function, int, uint64_t, int* status) {
    *function = dlsym(RTLD_DEFAULT, (std::string(name) + "_v2").c_str());
    if (!*function) *function = dlsym(RTLD_DEFAULT, name);
    if (status) *status = *function ? 0 : 1;
    return 0;
}
int cuGetProcAddress(const char* name, void** function, int version, uint64_t flags) {
    return cuGetProcAddress_v2(name, function, version, flags, nullptr);
}
}
