// A stand-in for NVIDIA's driver library: the C functions that the CUDA backend calls, on main memory.
// Device 0 answers; device 1 has fallen off the bus. Nothing is computed: kernels cannot be launched.
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { OUT_OF_MEMORY = 2, INVALID_DEVICE = 101, INVALID_PTX = 218, UNSUPPORTED_PTX = 222, NOT_FOUND = 500,
       ILLEGAL_ADDRESS = 700 };

static const size_t MEMORY = (size_t)16 << 30;
static const size_t LARGEST = (size_t)1 << 30;
static __thread void *current;
static int fault;

int cuInit(unsigned flags) { return 0; }
int cuDriverGetVersion(int *version) { *version = 13010; return 0; }
int cuDeviceGetCount(int *count) { *count = 2; return 0; }
int cuDeviceGet(int *device, int ordinal) {
    *device = ordinal;
    return ordinal == 0 ? 0 : INVALID_DEVICE;
}
int cuDeviceGetName(char *name, int length, int device) { strncpy(name, "Stand-in GPU", length); return 0; }
int cuDeviceGetUuid_v2(unsigned char *uuid, int device) {
    for (int i = 0; i < 16; i++) uuid[i] = i;
    return 0;
}
int cuDeviceTotalMem_v2(size_t *bytes, int device) { *bytes = MEMORY; return 0; }
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    switch (attribute) {
    case 16: *value = 132; break;  // multiprocessors
    case 32: *value = 1; break;    // ECC on
    case 33: *value = 0x3b; break; // PCI bus
    case 75: *value = 9; break;    // compute capability
    case 115: *value = 1; break;   // memory pools
    default: *value = 0;
    }
    return 0;
}
int cuGetErrorString(int error, const char **text) { *text = "stand-in error"; return 0; }
int cuGetErrorName(int error, const char **text) { *text = "STAND_IN"; return 0; }

int cuDevicePrimaryCtxRetain(void **context, int device) { *context = &fault; return 0; }
int cuDevicePrimaryCtxRelease_v2(int device) { return 0; }
int cuCtxGetCurrent(void **context) { *context = current; return 0; }
int cuCtxSetCurrent(void *context) { current = context; return 0; }
int cuCtxSynchronize(void) { return fault; }
int cuStreamCreate(void **stream, unsigned flags) { *stream = malloc(1); return 0; }
int cuStreamDestroy_v2(void *stream) { free(stream); return 0; }
int cuStreamQuery(void *stream) { return fault; }
int cuStreamSynchronize(void *stream) { return fault; }
int cuStreamWaitEvent(void *stream, void *event, unsigned flags) { return 0; }
int cuEventCreate(void **event, unsigned flags) { *event = malloc(1); return 0; }
int cuEventRecord(void *event, void *stream) { return 0; }
int cuEventDestroy_v2(void *event) { free(event); return 0; }
int cuEventSynchronize(void *event) { return fault; }

int cuMemAllocAsync(uint64_t *pointer, size_t bytes, void *stream) {
    if (bytes > LARGEST) return OUT_OF_MEMORY;
    *pointer = (uint64_t)(uintptr_t)malloc(bytes ? bytes : 1);
    return 0;
}
int cuMemFreeAsync(uint64_t pointer, void *stream) { free((void *)(uintptr_t)pointer); return 0; }
int cuMemsetD8Async(uint64_t pointer, unsigned char value, size_t bytes, void *stream) {
    memset((void *)(uintptr_t)pointer, value, bytes);
    return 0;
}
int cuMemcpyHtoDAsync_v2(uint64_t to, const void *from, size_t bytes, void *stream) {
    memcpy((void *)(uintptr_t)to, from, bytes);
    return 0;
}
int cuMemcpyDtoHAsync_v2(void *to, uint64_t from, size_t bytes, void *stream) {
    memcpy(to, (void *)(uintptr_t)from, bytes);
    return 0;
}

int cuModuleLoadData(void **module, const char *image) {
    if (strncmp(image, ".version 99", 11) == 0) return UNSUPPORTED_PTX;
    if (strncmp(image, ".version", 8) != 0) return INVALID_PTX;
    *module = malloc(1);
    return 0;
}
int cuModuleUnload(void *module) { free(module); return 0; }
int cuModuleGetFunction(void **function, void *module, const char *name) {
    if (strcmp(name, "fault") == 0) fault = ILLEGAL_ADDRESS;
    if (strcmp(name, "twice") != 0) return NOT_FOUND;
    *function = module;
    return 0;
}
