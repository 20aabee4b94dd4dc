// A stand-in for NVIDIA's management library: one GPU, the one that cuda.c shows, and one that does not answer.
#include <string.h>

enum { NOT_SUPPORTED = 3, NOT_FOUND = 6, GPU_IS_LOST = 15 };

struct pci { char legacy[16]; unsigned domain, bus, device, ids, subsystem; char bus_id[32]; };
struct memory { unsigned version; unsigned long long total, reserved, free, used; };
struct rates { unsigned gpu, memory; };

static int gpu;

int nvmlInit_v2(void) { return 0; }
int nvmlShutdown(void) { return 0; }
int nvmlSystemGetDriverVersion(char *text, unsigned length) { strncpy(text, "580.65.06", length); return 0; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = 2; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) {
    *device = &gpu;
    return index == 0 ? 0 : GPU_IS_LOST;
}
int nvmlDeviceGetHandleByPciBusId_v2(const char *address, void **device) {
    *device = &gpu;
    return strcmp(address, "0000:3b:00.0") == 0 ? 0 : NOT_FOUND;
}
int nvmlDeviceGetName(void *device, char *text, unsigned length) { strncpy(text, "Stand-in GPU", length); return 0; }
int nvmlDeviceGetUUID(void *device, char *text, unsigned length) {
    strncpy(text, "GPU-00010203-0405-0607-0809-0a0b0c0d0e0f", length);
    return 0;
}
int nvmlDeviceGetPciInfo_v3(void *device, struct pci *pci) {
    memset(pci, 0, sizeof *pci);
    pci->bus = 0x3b;
    pci->ids = 0x233010de;
    strcpy(pci->legacy, "0000:3B:00.0");
    strcpy(pci->bus_id, "00000000:3B:00.0");
    return 0;
}
int nvmlDeviceGetCudaComputeCapability(void *device, int *major, int *minor) { *major = 9; *minor = 0; return 0; }
int nvmlDeviceGetMemoryInfo_v2(void *device, struct memory *memory) {
    memory->total = 16ull << 30;
    memory->reserved = 256ull << 20;
    memory->used = 1ull << 30;
    memory->free = memory->total - memory->reserved - memory->used;
    return 0;
}
int nvmlDeviceGetMemoryAffinity(void *device, unsigned words, unsigned long *mask, unsigned scope) {
    memset(mask, 0, words * sizeof *mask);
    mask[0] = 1;
    return 0;
}
int nvmlDeviceGetEccMode(void *device, unsigned *now, unsigned *pending) { *now = *pending = 1; return 0; }
int nvmlDeviceGetMigMode(void *device, unsigned *now, unsigned *pending) { *now = *pending = 0; return 0; }
int nvmlDeviceGetMaxMigDeviceCount(void *device, unsigned *count) { *count = 7; return 0; }
int nvmlDeviceGetUtilizationRates(void *device, struct rates *rates) { rates->gpu = 37; rates->memory = 5; return 0; }
int nvmlDeviceGetTemperature(void *device, unsigned sensor, unsigned *degrees) { *degrees = 61; return 0; }
int nvmlDeviceGetPowerUsage(void *device, unsigned *milliwatts) { *milliwatts = 312500; return 0; }
int nvmlDeviceGetClockInfo(void *device, unsigned clock, unsigned *mhz) {
    *mhz = 1980;
    return clock == 1 ? 0 : NOT_SUPPORTED;
}
int nvmlDeviceGetTotalEccErrors(void *device, unsigned type, unsigned counter, unsigned long long *count) {
    *count = type == 0 ? 3 : 0;
    return 0;
}
int nvmlDeviceGetCurrentClocksThrottleReasons(void *device, unsigned long long *reasons) { *reasons = 4; return 0; }
