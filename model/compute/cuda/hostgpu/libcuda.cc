// libcuda.cc is a libcuda.so.1 without a GPU: the part of the driver API that the backend uses, over host memory and the kernels
// compiled for the host. Device pointers are host pointers, fresh memory is NaN, and everything is done at once, in order.
//
// It is strict: a call without a current context, a copy beyond an allocation, a launch that a GPU would refuse, a module whose kernel
// does not have the parameters that the host's has: each gives the driver's error code and a line on stderr.
//
// HOSTGPU_MEMORY is the device's memory in bytes (default 8 GiB), HOSTGPU_DEVICES the number of devices (1).
#include "block.h"
#include <chrono>
#include <map>
#include <mutex>
#include <set>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string>

typedef int Result;
typedef int Device;
typedef unsigned long long Pointer;
enum { OK = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NOT_INITIALIZED = 3, NO_DEVICE = 100, INVALID_DEVICE = 101, INVALID_IMAGE = 200,
	INVALID_CONTEXT = 201, INVALID_HANDLE = 400, NOT_FOUND = 500, NOT_READY = 600, LAUNCH_OUT_OF_RESOURCES = 701, PEER_ACCESS_NOT_ENABLED = 705 };

struct Context {
	Device device;
};
struct Module;
struct Function {
	const hostgpu::Kernel *kernel;
	int maxShared = 48 << 10;
};
struct Module {
	std::string text;
	std::map<std::string, Function *> functions;
};
struct Stream {
	Context *context;
	unsigned flags;
};
struct Event {
	std::chrono::steady_clock::time_point time;
	bool recorded, timed;
};

static std::mutex mutex;
static std::map<uintptr_t, size_t> memory, pinned;
static size_t used;
static std::set<void *> streams, events, modules, functions;
static bool initialized;
static Context contexts[64];
static int retained[64];
static thread_local Context *current;
static thread_local Context *stack[16];
static thread_local int depth;

static Result error(Result rc, const char *format, ...) {
	va_list list;
	va_start(list, format);
	fputs("hostgpu: ", stderr);
	vfprintf(stderr, format, list);
	fputc('\n', stderr);
	va_end(list);
	return rc;
}

static long setting(const char *name, long otherwise) {
	const char *v = getenv(name);
	return v ? atol(v) : otherwise;
}
static int count() { return (int)setting("HOSTGPU_DEVICES", 1); }
static size_t total() { return (size_t)setting("HOSTGPU_MEMORY", 8l << 30); }

#define NEED_INIT if (!initialized) return NOT_INITIALIZED
#define NEED_DEVICE(d) NEED_INIT; if (d < 0 || d >= count()) return INVALID_DEVICE
#define NEED_CONTEXT if (!current) return error(INVALID_CONTEXT, "%s: this thread has no current context", __func__)
#define LOCK std::lock_guard<std::mutex> lock(mutex)

// within says whether [p, p+n) lies in one allocation.
static bool within(const std::map<uintptr_t, size_t> &m, uintptr_t p, size_t n) {
	auto it = m.upper_bound(p);
	if (it == m.begin()) return false;
	--it;
	return p + n <= it->first + it->second;
}

static Result check(const char *who, Pointer p, size_t n) {
	LOCK;
	return n == 0 || within(memory, p, n) ? OK : error(INVALID_VALUE, "%s: %zu bytes at %#llx are not all device memory", who, n, p);
}

extern "C" {

// ---- driver and devices ----

Result cuInit(unsigned) {
	if (count() == 0) return NO_DEVICE;
	initialized = true;
	return OK;
}
Result cuDriverGetVersion(int *v) { return *v = 13020, OK; }
Result cuDeviceGetCount(int *n) { NEED_INIT; return *n = count(), OK; }
Result cuDeviceGet(Device *d, int i) { NEED_DEVICE(i); return *d = i, OK; }
Result cuDeviceGetName(char *name, int n, Device d) { NEED_DEVICE(d); return snprintf(name, n, "Host stand-in"), OK; }
Result cuDeviceTotalMem_v2(size_t *n, Device d) { NEED_DEVICE(d); return *n = total(), OK; }
Result cuDeviceGetUuid(unsigned char *u, Device d) {
	NEED_DEVICE(d);
	for (int i = 0; i < 16; i++) u[i] = (unsigned char)(i == 15 ? d : 0xa0 + i);
	return OK;
}
Result cuDeviceGetUuid_v2(unsigned char *u, Device d) { return cuDeviceGetUuid(u, d); }
Result cuDeviceGetPCIBusId(char *s, int n, Device d) { NEED_DEVICE(d); return snprintf(s, n, "0000:%02x:00.0", d + 1), OK; }
Result cuDeviceGetAttribute(int *v, int a, Device d) {
	NEED_DEVICE(d);
	static const std::map<int, int> known = {{1, 1024}, {2, 1024}, {3, 1024}, {4, 64}, {5, 2147483647}, {6, 65535}, {7, 65535}, {8, 48 << 10},
		{9, 65536}, {10, 32}, {12, 65536}, {13, 1000000}, {16, 4}, {17, 0}, {18, 0}, {20, 0}, {33, 0}, {34, 0}, {39, 2048}, {41, 1}, {75, 9}, {76, 0},
		{81, 228 << 10}, {82, 65536}, {97, 227 << 10}};
	auto it = known.find(a);
	*v = it == known.end() ? 0 : it->second;
	return OK;
}
Result cuDeviceCanAccessPeer(int *v, Device a, Device b) { NEED_DEVICE(a); return *v = a != b, OK; }
Result cuDeviceGetP2PAttribute(int *v, int, Device a, Device b) { NEED_DEVICE(a); return *v = a != b, OK; }

// ---- contexts ----

Result cuDevicePrimaryCtxRetain(Context **c, Device d) {
	NEED_DEVICE(d);
	LOCK;
	retained[d]++;
	contexts[d].device = d;
	return *c = &contexts[d], OK;
}
Result cuDevicePrimaryCtxRelease_v2(Device d) {
	NEED_DEVICE(d);
	LOCK;
	if (retained[d] == 0) return error(INVALID_CONTEXT, "the primary context is released once too often");
	return retained[d]--, OK;
}
Result cuDevicePrimaryCtxGetState(Device d, unsigned *flags, int *active) { NEED_DEVICE(d); return *flags = 0, *active = retained[d] > 0, OK; }
Result cuDevicePrimaryCtxSetFlags_v2(Device d, unsigned) { NEED_DEVICE(d); return OK; }
Result cuDevicePrimaryCtxReset_v2(Device d) { NEED_DEVICE(d); return OK; }
Result cuCtxSetCurrent(Context *c) { NEED_INIT; return current = c, OK; }
Result cuCtxGetCurrent(Context **c) { NEED_INIT; return *c = current, OK; }
Result cuCtxPushCurrent_v2(Context *c) {
	NEED_INIT;
	if (depth == 16) return INVALID_VALUE;
	return stack[depth++] = current, current = c, OK;
}
Result cuCtxPopCurrent_v2(Context **c) {
	NEED_CONTEXT;
	if (c) *c = current;
	return current = depth ? stack[--depth] : nullptr, OK;
}
Result cuCtxGetDevice(Device *d) { NEED_CONTEXT; return *d = current->device, OK; }
Result cuCtxGetApiVersion(Context *, unsigned *v) { return *v = 3020, OK; }
Result cuCtxGetFlags(unsigned *f) { NEED_CONTEXT; return *f = 0, OK; }
Result cuCtxSynchronize() { NEED_CONTEXT; return OK; }
Result cuCtxGetStreamPriorityRange(int *least, int *greatest) { NEED_CONTEXT; return *least = 0, *greatest = -5, OK; }
Result cuCtxEnablePeerAccess(Context *, unsigned) { NEED_CONTEXT; return OK; }
Result cuCtxDisablePeerAccess(Context *) { NEED_CONTEXT; return OK; }

// ---- memory ----

Result cuMemAlloc_v2(Pointer *p, size_t n) {
	NEED_CONTEXT;
	LOCK;
	if (n == 0) return INVALID_VALUE;
	if (used + n > total()) return OUT_OF_MEMORY;
	void *at;
	if (posix_memalign(&at, 512, n)) return OUT_OF_MEMORY;
	memset(at, 0xff, n); // NaN in every float type, −1 in integers
	memory[(uintptr_t)at] = n;
	used += n;
	return *p = (uintptr_t)at, OK;
}
Result cuMemFree_v2(Pointer p) {
	NEED_CONTEXT;
	LOCK;
	auto it = memory.find(p);
	if (p == 0) return OK;
	if (it == memory.end()) return error(INVALID_VALUE, "%#llx is freed and was not allocated", p);
	used -= it->second;
	memory.erase(it);
	return free((void *)p), OK;
}
Result cuMemGetInfo_v2(size_t *left, size_t *all) { NEED_CONTEXT; LOCK; return *all = total(), *left = total() - used, OK; }
Result cuMemGetAddressRange_v2(Pointer *base, size_t *n, Pointer p) {
	NEED_CONTEXT;
	LOCK;
	if (!within(memory, p, 1)) return NOT_FOUND;
	auto it = --memory.upper_bound(p);
	if (base) *base = it->first;
	if (n) *n = it->second;
	return OK;
}
Result cuMemHostAlloc(void **p, size_t n, unsigned) {
	NEED_CONTEXT;
	LOCK;
	if (posix_memalign(p, 4096, n ? n : 1)) return OUT_OF_MEMORY;
	return pinned[(uintptr_t)*p] = n, OK;
}
Result cuMemAllocHost_v2(void **p, size_t n) { return cuMemHostAlloc(p, n, 0); }
Result cuMemFreeHost(void *p) {
	NEED_CONTEXT;
	LOCK;
	if (!pinned.erase((uintptr_t)p)) return error(INVALID_VALUE, "%p is freed and was not allocated as pinned memory", p);
	return free(p), OK;
}
Result cuMemHostRegister_v2(void *, size_t, unsigned) { NEED_CONTEXT; return OK; }
Result cuMemHostUnregister(void *) { NEED_CONTEXT; return OK; }

Result cuMemcpyHtoD_v2(Pointer dst, const void *src, size_t n) {
	NEED_CONTEXT;
	Result rc = check(__func__, dst, n);
	return rc || !n ? rc : (memcpy((void *)dst, src, n), OK);
}
Result cuMemcpyDtoH_v2(void *dst, Pointer src, size_t n) {
	NEED_CONTEXT;
	Result rc = check(__func__, src, n);
	return rc || !n ? rc : (memcpy(dst, (void *)src, n), OK);
}
Result cuMemcpyDtoD_v2(Pointer dst, Pointer src, size_t n) {
	NEED_CONTEXT;
	Result rc = check(__func__, src, n);
	if (!rc) rc = check(__func__, dst, n);
	return rc || !n ? rc : (memmove((void *)dst, (void *)src, n), OK);
}
static Result known(Stream *s, const char *who) {
	LOCK;
	return !s || (uintptr_t)s <= 2 || streams.count(s) ? OK : error(INVALID_HANDLE, "%s: %p is no stream", who, (void *)s);
}
#define ON_STREAM if (Result bad = known(s, __func__)) return bad
Result cuMemcpyHtoDAsync_v2(Pointer dst, const void *src, size_t n, Stream *s) { ON_STREAM; return cuMemcpyHtoD_v2(dst, src, n); }
Result cuMemcpyDtoHAsync_v2(void *dst, Pointer src, size_t n, Stream *s) { ON_STREAM; return cuMemcpyDtoH_v2(dst, src, n); }
Result cuMemcpyDtoDAsync_v2(Pointer dst, Pointer src, size_t n, Stream *s) { ON_STREAM; return cuMemcpyDtoD_v2(dst, src, n); }
Result cuMemcpy(Pointer dst, Pointer src, size_t n) { NEED_CONTEXT; return memmove((void *)dst, (void *)src, n), OK; }
Result cuMemcpyAsync(Pointer dst, Pointer src, size_t n, Stream *s) { ON_STREAM; return cuMemcpy(dst, src, n); }

} // extern "C"

template <class T> static Result set(const char *who, Pointer p, T v, size_t n) {
	if (!current) return error(INVALID_CONTEXT, "%s: this thread has no current context", who);
	if (p % sizeof(T)) return error(INVALID_VALUE, "%s: %#llx is not aligned", who, p);
	Result rc = check(who, p, n * sizeof(T));
	for (size_t i = 0; !rc && i < n; i++) ((T *)p)[i] = v;
	return rc;
}

static Result entry(const Module &m, const char *name, int params) {
	std::string head = std::string(".entry ") + name + "(";
	size_t at = m.text.find(head);
	if (at == std::string::npos) return error(NOT_FOUND, "the module has no kernel %s", name);
	size_t end = m.text.find(')', at);
	int n = 0;
	for (at = m.text.find(".param", at); at < end; at = m.text.find(".param", at + 1)) n++;
	return n == params ? OK : error(INVALID_IMAGE, "%s has %d parameters in the module and %d in the host's kernels: the PTX is stale", name, n, params);
}

extern "C" {

Result cuMemsetD8_v2(Pointer p, unsigned char v, size_t n) { return set(__func__, p, v, n); }
Result cuMemsetD16_v2(Pointer p, unsigned short v, size_t n) { return set(__func__, p, v, n); }
Result cuMemsetD32_v2(Pointer p, unsigned v, size_t n) { return set(__func__, p, v, n); }
Result cuMemsetD8Async(Pointer p, unsigned char v, size_t n, Stream *s) { ON_STREAM; return set(__func__, p, v, n); }
Result cuMemsetD16Async(Pointer p, unsigned short v, size_t n, Stream *s) { ON_STREAM; return set(__func__, p, v, n); }
Result cuMemsetD32Async(Pointer p, unsigned v, size_t n, Stream *s) { ON_STREAM; return set(__func__, p, v, n); }

Result cuPointerGetAttribute(void *v, int a, Pointer p) {
	NEED_CONTEXT;
	LOCK;
	bool device = within(memory, p, 1);
	if (!device && !within(pinned, p, 1)) return INVALID_VALUE;
	switch (a) {
	case 1: return *(Context **)v = current, OK;   // CONTEXT
	case 2: return *(unsigned *)v = device ? 2 : 1, OK; // MEMORY_TYPE
	case 3: return *(Pointer *)v = p, OK;          // DEVICE_POINTER
	case 8: return *(unsigned *)v = 0, OK;         // IS_MANAGED
	case 9: return *(int *)v = current->device, OK; // DEVICE_ORDINAL
	}
	return INVALID_VALUE;
}

// ---- streams and events ----

Result cuStreamCreate(Stream **s, unsigned flags) {
	NEED_CONTEXT;
	LOCK;
	return streams.insert(*s = new Stream{current, flags}), OK;
}
Result cuStreamCreateWithPriority(Stream **s, unsigned flags, int) { return cuStreamCreate(s, flags); }
Result cuStreamDestroy_v2(Stream *s) {
	NEED_CONTEXT;
	LOCK;
	if (!streams.erase(s)) return error(INVALID_HANDLE, "%p is no stream", (void *)s);
	return delete s, OK;
}
Result cuStreamSynchronize(Stream *s) { NEED_CONTEXT; ON_STREAM; return OK; }
Result cuStreamQuery(Stream *s) { NEED_CONTEXT; ON_STREAM; return OK; }
Result cuStreamGetFlags(Stream *s, unsigned *f) { NEED_CONTEXT; ON_STREAM; return *f = s ? s->flags : 0, OK; }
Result cuStreamGetPriority(Stream *s, int *p) { NEED_CONTEXT; ON_STREAM; return *p = 0, OK; }
Result cuStreamGetCtx(Stream *s, Context **c) { NEED_CONTEXT; ON_STREAM; return *c = s ? s->context : current, OK; }

Result cuEventCreate(Event **e, unsigned flags) {
	NEED_CONTEXT;
	LOCK;
	return events.insert(*e = new Event{{}, false, !(flags & 2)}), OK;
}
Result cuEventDestroy_v2(Event *e) {
	LOCK;
	if (!events.erase(e)) return error(INVALID_HANDLE, "%p is no event", (void *)e);
	return delete e, OK;
}
static Result knownEvent(Event *e) { LOCK; return events.count(e) ? OK : error(INVALID_HANDLE, "%p is no event", (void *)e); }
Result cuEventRecord(Event *e, Stream *s) {
	ON_STREAM;
	if (Result rc = knownEvent(e)) return rc;
	return e->time = std::chrono::steady_clock::now(), e->recorded = true, OK;
}
Result cuEventQuery(Event *e) { return knownEvent(e); }
Result cuEventSynchronize(Event *e) { return knownEvent(e); }
Result cuStreamWaitEvent(Stream *s, Event *e, unsigned) { ON_STREAM; return knownEvent(e); }
Result cuEventElapsedTime(float *ms, Event *a, Event *b) {
	if (knownEvent(a) || knownEvent(b) || !a->timed || !b->timed || !a->recorded || !b->recorded) return INVALID_HANDLE;
	return *ms = std::chrono::duration<float, std::milli>(b->time - a->time).count(), OK;
}
Result cuEventElapsedTime_v2(float *ms, Event *a, Event *b) { return cuEventElapsedTime(ms, a, b); }

// ---- modules and launches ----

Result cuModuleLoadDataEx(Module **m, const void *image, unsigned, int *, void **) {
	NEED_CONTEXT;
	const char *text = (const char *)image;
	if (!strstr(text, ".version ") || !strstr(text, ".address_size 64")) return error(INVALID_IMAGE, "the module is no PTX");
	LOCK;
	modules.insert(*m = new Module{text, {}});
	return OK;
}
Result cuModuleLoadData(Module **m, const void *image) { return cuModuleLoadDataEx(m, image, 0, nullptr, nullptr); }
Result cuModuleUnload(Module *m) {
	NEED_CONTEXT;
	LOCK;
	if (!modules.erase(m)) return error(INVALID_HANDLE, "%p is no module", (void *)m);
	for (auto &f : m->functions) functions.erase(f.second), delete f.second;
	return delete m, OK;
}
Result cuModuleGetFunction(Function **f, Module *m, const char *name) {
	NEED_CONTEXT;
	LOCK;
	if (!modules.count(m)) return error(INVALID_HANDLE, "%p is no module", (void *)m);
	auto it = m->functions.find(name);
	if (it != m->functions.end()) return *f = it->second, OK;
	const hostgpu::Kernel *k = hostgpu::find(name);
	if (!k) return error(NOT_FOUND, "no kernel %s was compiled for the host", name);
	if (Result rc = entry(*m, name, k->params)) return rc;
	functions.insert(*f = m->functions[name] = new Function{k});
	return OK;
}
static Result knownFunction(Function *f) { LOCK; return functions.count(f) ? OK : error(INVALID_HANDLE, "%p is no function", (void *)f); }
Result cuFuncSetAttribute(Function *f, int a, int v) {
	NEED_CONTEXT;
	if (Result rc = knownFunction(f)) return rc;
	if (a == 8 && (v < 0 || v > 227 << 10)) return error(INVALID_VALUE, "%s: %d bytes of shared memory; at most %d", f->kernel->name, v, 227 << 10);
	if (a == 8) f->maxShared = v;
	return OK;
}
Result cuFuncGetAttribute(int *v, int a, Function *f) {
	NEED_CONTEXT;
	if (Result rc = knownFunction(f)) return rc;
	return *v = a == 0 ? (int)f->kernel->bounds : a == 8 ? f->maxShared : 0, OK;
}
Result cuFuncSetCacheConfig(Function *, int) { return OK; }
Result cuOccupancyMaxActiveBlocksPerMultiprocessor(int *n, Function *f, int, size_t) { return knownFunction(f) ? INVALID_HANDLE : (*n = 1, OK); }

Result cuLaunchKernel(Function *f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared, Stream *s,
	void **params, void **extra) {
	NEED_CONTEXT;
	ON_STREAM;
	if (Result rc = knownFunction(f)) return rc;
	const char *name = f->kernel->name;
	if (gx == 0 || gy == 0 || gz == 0 || gx > 2147483647u || gy > 65535 || gz > 65535)
		return error(INVALID_VALUE, "%s: grid (%u,%u,%u)", name, gx, gy, gz);
	if (bx == 0 || by == 0 || bz == 0 || (unsigned long long)bx * by * bz > f->kernel->bounds)
		return error(INVALID_VALUE, "%s: block (%u,%u,%u); at most %u threads", name, bx, by, bz, f->kernel->bounds);
	if ((int)shared > f->maxShared) return error(INVALID_VALUE, "%s: %u bytes of dynamic shared memory; %d are set", name, shared, f->maxShared);
	if (!params || extra) return error(INVALID_VALUE, "%s: no parameters", name);
	hostgpu::launch(*f->kernel, {gx, gy, gz}, {bx, by, bz}, shared, params);
	return OK;
}

// ---- errors ----

static const std::map<int, std::pair<const char *, const char *>> names = {{OK, {"CUDA_SUCCESS", "no error"}},
	{INVALID_VALUE, {"CUDA_ERROR_INVALID_VALUE", "invalid argument"}}, {OUT_OF_MEMORY, {"CUDA_ERROR_OUT_OF_MEMORY", "out of memory"}},
	{NOT_INITIALIZED, {"CUDA_ERROR_NOT_INITIALIZED", "initialization error"}}, {NO_DEVICE, {"CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected"}},
	{INVALID_DEVICE, {"CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"}}, {INVALID_IMAGE, {"CUDA_ERROR_INVALID_IMAGE", "device kernel image is invalid"}},
	{INVALID_CONTEXT, {"CUDA_ERROR_INVALID_CONTEXT", "invalid device context"}}, {INVALID_HANDLE, {"CUDA_ERROR_INVALID_HANDLE", "invalid resource handle"}},
	{NOT_FOUND, {"CUDA_ERROR_NOT_FOUND", "named symbol not found"}}};
Result cuGetErrorName(Result rc, const char **s) {
	auto it = names.find(rc);
	return it == names.end() ? (*s = nullptr, INVALID_VALUE) : (*s = it->second.first, OK);
}
Result cuGetErrorString(Result rc, const char **s) {
	auto it = names.find(rc);
	return it == names.end() ? (*s = nullptr, INVALID_VALUE) : (*s = it->second.second, OK);
}

} // extern "C"
