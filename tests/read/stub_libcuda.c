/* A CUDA driver whose device memory is the host's: what kvikio and we call of it, and nothing else. All is done at once.

   With it kvikio's own code runs on a machine without a GPU, up to the driver. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef unsigned long long Pointer;
enum { OK = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NOT_SUPPORTED = 801, MOST = 256 };
static struct { Pointer base; size_t size; } allocations[MOST];
static char context[1];
static int delay_us;

void stub_delay(int us) { delay_us = us; }
int stub_count_allocations(void) {
  int count = 0;
  for (int i = 0; i < MOST; i++) count += allocations[i].base != 0;
  return count;
}

int cuInit(unsigned flags) { return OK; }
int cuDriverGetVersion(int *version) { *version = 12000; return OK; }
int cuDeviceGet(int *device, int ordinal) { *device = ordinal; return OK; }
int cuDeviceGetCount(int *count) { *count = 1; return OK; }
int cuDeviceGetAttribute(int *value, int attribute, int device) { *value = 0; return OK; }
int cuDevicePrimaryCtxRetain(void **ctx, int device) { *ctx = context; return OK; }
int cuDevicePrimaryCtxRelease_v2(int device) { return OK; }
int cuCtxCreate_v2(void **ctx, unsigned flags, int device) { *ctx = context; return OK; }
int cuCtxCreate_v4(void **ctx, void *parameters, unsigned flags, int device) { *ctx = context; return OK; }
int cuCtxDestroy_v2(void *ctx) { return OK; }
int cuCtxSetCurrent(void *ctx) { return OK; }
int cuCtxPushCurrent_v2(void *ctx) { return OK; }
int cuCtxPopCurrent_v2(void **ctx) { if (ctx) *ctx = context; return OK; }
int cuCtxGetCurrent(void **ctx) { *ctx = context; return OK; }
int cuCtxGetDevice(int *device) { *device = 0; return OK; }

int cuMemAlloc_v2(Pointer *pointer, size_t size) {
  for (int i = 0; i < MOST; i++)
    if (!allocations[i].base) {
      void *memory = aligned_alloc(4096, (size + 4095) / 4096 * 4096);
      if (!memory) return OUT_OF_MEMORY;
      memset(memory, 0xEE, size);
      *pointer = allocations[i].base = (Pointer)(uintptr_t)memory;
      allocations[i].size = size;
      return OK;
    }
  return OUT_OF_MEMORY;
}
int cuMemFree_v2(Pointer pointer) {
  for (int i = 0; i < MOST; i++)
    if (allocations[i].base == pointer) {
      free((void *)(uintptr_t)pointer);
      allocations[i].base = 0;
      return OK;
    }
  return INVALID_VALUE;
}
int cuMemGetAddressRange_v2(Pointer *base, size_t *size, Pointer pointer) {
  for (int i = 0; i < MOST; i++)
    if (allocations[i].base && pointer >= allocations[i].base && pointer < allocations[i].base + allocations[i].size) {
      if (base) *base = allocations[i].base;
      if (size) *size = allocations[i].size;
      return OK;
    }
  return INVALID_VALUE;
}
static int attribute(void *value, int which, Pointer pointer) {
  switch (which) {
    case 1: *(void **)value = context; break;          /* context */
    case 2: *(int *)value = 2; break;                  /* memory type: the device's */
    case 3: *(Pointer *)value = pointer; break;        /* device pointer */
    default: *(int *)value = 0;
  }
  return OK;
}
int cuPointerGetAttribute(void *value, int which, Pointer pointer) { return attribute(value, which, pointer); }
int cuPointerGetAttributes(unsigned count, int *which, void **values, Pointer pointer) {
  for (unsigned i = 0; i < count; i++) attribute(values[i], which[i], pointer);
  return OK;
}

int cuMemHostAlloc(void **memory, size_t size, unsigned flags) {
  *memory = aligned_alloc(4096, (size + 4095) / 4096 * 4096);
  return *memory ? OK : OUT_OF_MEMORY;
}
int cuMemFreeHost(void *memory) { free(memory); return OK; }
int cuMemHostRegister_v2(void *memory, size_t size, unsigned flags) { return OK; }
int cuMemHostUnregister(void *memory) { return OK; }
int cuMemcpyHtoD_v2(Pointer to, const void *from, size_t size) { memcpy((void *)(uintptr_t)to, from, size); return OK; }
int cuMemcpyDtoH_v2(void *to, Pointer from, size_t size) { memcpy(to, (void *)(uintptr_t)from, size); return OK; }
int cuMemcpyHtoDAsync_v2(Pointer to, const void *from, size_t size, void *s) { return cuMemcpyHtoD_v2(to, from, size); }
int cuMemcpyDtoHAsync_v2(void *to, Pointer from, size_t size, void *s) { return cuMemcpyDtoH_v2(to, from, size); }
int cuMemcpyAsync(Pointer to, Pointer from, size_t size, void *s) {
  memcpy((void *)(uintptr_t)to, (void *)(uintptr_t)from, size);
  return OK;
}
int cuMemcpyBatchAsync(Pointer *to, Pointer *from, size_t *sizes, size_t count, void *a, size_t *i, size_t n, size_t *f,
                       void *s) { return NOT_SUPPORTED; }
int cuMemcpyBatchAsync_v2(Pointer *to, Pointer *from, size_t *sizes, size_t count, void *a, size_t *i, size_t n, void *s) {
  for (size_t at = 0; at < count; at++) memcpy((void *)(uintptr_t)to[at], (void *)(uintptr_t)from[at], sizes[at]);
  return OK;
}

int cuStreamCreate(void **stream, unsigned flags) { *stream = context; return OK; }
int cuStreamDestroy_v2(void *stream) { return OK; }
int cuStreamSynchronize(void *stream) { usleep(delay_us); return OK; }
int cuEventCreate(void **event, unsigned flags) { *event = context; return OK; }
int cuEventDestroy_v2(void *event) { return OK; }
int cuEventRecord(void *event, void *stream) { return OK; }
int cuEventSynchronize(void *event) { return OK; }
int cuEventQuery(void *event) { return OK; }
int cuLaunchHostFunc(void *stream, void (*call)(void *), void *argument) { call(argument); return OK; }
int cuGetErrorName(int code, const char **name) { *name = "STUB"; return OK; }
int cuGetErrorString(int code, const char **text) { *text = "an error of the stub"; return OK; }
