//go:build cuda

package nccl

/*
#cgo LDFLAGS: -ldl
#include <dlfcn.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

// The ABI of NCCL 2.18 and later, declared here so that no header is needed: one trampoline per prototype, and addresses
// as integers, for they are not Go's.

typedef void *comm_t;
typedef void *stream_t;
typedef void *fn;
typedef uintptr_t word;
typedef struct { char internal[128]; } unique_id; // passed by value

static int call_version(fn f, int *out) { return ((int (*)(int *))f)(out); }
static const char *call_last_error(fn f, word c) { return ((const char *(*)(comm_t))f)((comm_t)c); }
static const char *call_error_string(fn f, int r) { return ((const char *(*)(int))f)(r); }
static int call_unique_id(fn f, void *id) { return ((int (*)(unique_id *))f)(id); }
static int call_comm_unique_id(fn f, word c, void *id) { return ((int (*)(comm_t, unique_id *))f)((comm_t)c, id); }

static int call_init(fn f, word *out, int n, void *id, int rank, void *config) {
	comm_t c = NULL;
	int r = ((int (*)(comm_t *, int, unique_id, int, void *))f)(&c, n, *(unique_id *)id, rank, config);
	*out = (word)c;
	return r;
}
static int call_init_scalable(fn f, word *out, int n, int rank, int nid, void *ids, void *config) {
	comm_t c = NULL;
	int r = ((int (*)(comm_t *, int, int, int, unique_id *, void *))f)(&c, n, rank, nid, ids, config);
	*out = (word)c;
	return r;
}
static word load_slot(void **slot) { return (word)__atomic_load_n(slot, __ATOMIC_ACQUIRE); }
static int call_split(fn f, word c, int color, int key, void **slot, void *config) {
	return ((int (*)(comm_t, int, int, comm_t *, void *))f)((comm_t)c, color, key, slot, config);
}
static int call_shrink(fn f, word c, int *ranks, int n, void **slot, void *config, int flags) {
	return ((int (*)(comm_t, int *, int, comm_t *, void *, int))f)((comm_t)c, ranks, n, slot, config, flags);
}
static int call_grow(fn f, word c, int n, void *id, int rank, void **slot, void *config) {
	return ((int (*)(comm_t, int, const unique_id *, int, comm_t *, void *))f)((comm_t)c, n, id, rank, slot, config);
}

static int call_comm(fn f, word c) { return ((int (*)(comm_t))f)((comm_t)c); }
static int call_comm_out(fn f, word c, int *out) { return ((int (*)(comm_t, int *))f)((comm_t)c, out); }
static int call_comm_flags(fn f, word c, int flags) { return ((int (*)(comm_t, int))f)((comm_t)c, flags); }
static int call_mem_stats(fn f, word c, int stat, uint64_t *out) { return ((int (*)(comm_t, int, uint64_t *))f)((comm_t)c, stat, out); }
static int call_register(fn f, word c, word p, size_t n, word *out) {
	void *h = NULL;
	int r = ((int (*)(comm_t, void *, size_t, void **))f)((comm_t)c, (void *)p, n, &h);
	*out = (word)h;
	return r;
}
static int call_deregister(fn f, word c, word h) { return ((int (*)(comm_t, void *))f)((comm_t)c, (void *)h); }
static int call_mem_alloc(fn f, word *out, size_t n) {
	void *p = NULL;
	int r = ((int (*)(void **, size_t))f)(&p, n);
	*out = (word)p;
	return r;
}
static int call_mem_free(fn f, word p) { return ((int (*)(void *))f)((void *)p); }
static int call_group(fn f) { return ((int (*)(void))f)(); }

static int call_reduce_all(fn f, word s, word d, size_t n, int t, int op, word c, word st) { // AllReduce, ReduceScatter
	return ((int (*)(const void *, void *, size_t, int, int, comm_t, stream_t))f)((void *)s, (void *)d, n, t, op, (comm_t)c, (stream_t)st);
}
static int call_reduce(fn f, word s, word d, size_t n, int t, int op, int root, word c, word st) {
	return ((int (*)(const void *, void *, size_t, int, int, int, comm_t, stream_t))f)((void *)s, (void *)d, n, t, op, root, (comm_t)c, (stream_t)st);
}
static int call_broadcast(fn f, word s, word d, size_t n, int t, int root, word c, word st) {
	return ((int (*)(const void *, void *, size_t, int, int, comm_t, stream_t))f)((void *)s, (void *)d, n, t, root, (comm_t)c, (stream_t)st);
}
static int call_gather(fn f, word s, word d, size_t n, int t, word c, word st) {
	return ((int (*)(const void *, void *, size_t, int, comm_t, stream_t))f)((void *)s, (void *)d, n, t, (comm_t)c, (stream_t)st);
}
static int call_peer(fn f, word p, size_t n, int t, int peer, word c, word st) { // Send, Recv
	return ((int (*)(void *, size_t, int, int, comm_t, stream_t))f)((void *)p, n, t, peer, (comm_t)c, (stream_t)st);
}
*/
import "C"

import (
	"errors"
	"unsafe"
)

// built tells whether this program can open a library at all.
const built = true

// table of a library's functions. The library stays open as long as the process lives: it has threads of its own.
type table map[string]C.fn

func dlopen(path string) (abi, error) {
	p := C.CString(path)
	defer C.free(unsafe.Pointer(p))
	handle := C.dlopen(p, C.RTLD_NOW|C.RTLD_LOCAL)
	if handle == nil {
		return nil, errors.New(C.GoString(C.dlerror()))
	}
	t := table{}
	look := func(symbol string) {
		s := C.CString(symbol)
		defer C.free(unsafe.Pointer(s))
		if f := C.dlsym(handle, s); f != nil {
			t[symbol] = C.fn(f)
		}
	}
	for _, s := range required {
		look(s)
	}
	for _, o := range optional {
		look(o.symbol)
	}
	return t, nil
}

func (t table) has(symbol string) bool { return t[symbol] != nil }

func (t table) getVersion() (int, Result) {
	var v C.int
	r := C.call_version(t["ncclGetVersion"], &v)
	return int(v), Result(r)
}

func (t table) lastError(comm uintptr) string {
	return C.GoString(C.call_last_error(t["ncclGetLastError"], C.word(comm)))
}

func (t table) errorString(r Result) string {
	return C.GoString(C.call_error_string(t["ncclGetErrorString"], C.int(r)))
}

func (t table) uniqueID(comm uintptr, id *UniqueId) Result {
	if comm == 0 {
		return Result(C.call_unique_id(t["ncclGetUniqueId"], unsafe.Pointer(id)))
	}
	return Result(C.call_comm_unique_id(t["ncclCommGetUniqueId"], C.word(comm), unsafe.Pointer(id)))
}

func (t table) initRank(comm *uintptr, nranks int, ids []UniqueId, rank int, c *config) Result {
	var out C.word
	var r C.int
	if id := unsafe.Pointer(&ids[0]); len(ids) == 1 {
		r = C.call_init(t["ncclCommInitRankConfig"], &out, C.int(nranks), id, C.int(rank), unsafe.Pointer(c))
	} else {
		r = C.call_init_scalable(t["ncclCommInitRankScalable"], &out, C.int(nranks), C.int(rank), C.int(len(ids)), id, unsafe.Pointer(c))
	}
	*comm = uintptr(out)
	return Result(r)
}

// cslot is a slot in C's memory.
type cslot struct{ p *unsafe.Pointer }

func (s cslot) load() uintptr { return uintptr(C.load_slot(s.p)) }
func (s cslot) free()         { C.free(unsafe.Pointer(s.p)) }

func (t table) newSlot() slot {
	return cslot{(*unsafe.Pointer)(C.calloc(1, C.size_t(unsafe.Sizeof(uintptr(0)))))}
}

func (t table) split(comm uintptr, color, key int, s slot, c *config) Result {
	return Result(C.call_split(t["ncclCommSplit"], C.word(comm), C.int(color), C.int(key), s.(cslot).p, unsafe.Pointer(c)))
}

func (t table) shrink(comm uintptr, exclude []int32, s slot, c *config, flags int) Result {
	return Result(C.call_shrink(t["ncclCommShrink"], C.word(comm), (*C.int)(unsafe.SliceData(exclude)), C.int(len(exclude)), s.(cslot).p, unsafe.Pointer(c), C.int(flags)))
}

func (t table) grow(comm uintptr, nranks int, id *UniqueId, rank int, s slot, c *config) Result {
	return Result(C.call_grow(t["ncclCommGrow"], C.word(comm), C.int(nranks), unsafe.Pointer(id), C.int(rank), s.(cslot).p, unsafe.Pointer(c)))
}

func (t table) comm(symbol string, comm uintptr) Result {
	return Result(C.call_comm(t[symbol], C.word(comm)))
}

func (t table) commInt(symbol string, comm uintptr) (int, Result) {
	var v C.int
	r := C.call_comm_out(t[symbol], C.word(comm), &v)
	return int(v), Result(r)
}

func (t table) commFlags(symbol string, comm uintptr, f int) Result {
	return Result(C.call_comm_flags(t[symbol], C.word(comm), C.int(f)))
}

func (t table) memStats(comm uintptr, stat int) (uint64, Result) {
	var v C.uint64_t
	r := C.call_mem_stats(t["ncclCommMemStats"], C.word(comm), C.int(stat), &v)
	return uint64(v), Result(r)
}

func (t table) register(comm, ptr uintptr, n int) (uintptr, Result) {
	var h C.word
	r := C.call_register(t["ncclCommRegister"], C.word(comm), C.word(ptr), C.size_t(n), &h)
	return uintptr(h), Result(r)
}

func (t table) deregister(comm, handle uintptr) Result {
	return Result(C.call_deregister(t["ncclCommDeregister"], C.word(comm), C.word(handle)))
}

func (t table) memAlloc(n int) (uintptr, Result) {
	var p C.word
	r := C.call_mem_alloc(t["ncclMemAlloc"], &p, C.size_t(n))
	return uintptr(p), Result(r)
}

func (t table) memFree(ptr uintptr) Result {
	return Result(C.call_mem_free(t["ncclMemFree"], C.word(ptr)))
}

func (t table) group(symbol string) Result { return Result(C.call_group(t[symbol])) }

func (t table) collective(symbol string, comm uintptr, a call) Result {
	f, c, st := t[symbol], C.word(comm), C.word(a.stream)
	s, d, n := C.word(a.send), C.word(a.recv), C.size_t(a.count)
	dt, op, root := C.int(a.dtype), C.int(a.op), C.int(a.root)
	switch symbol {
	case "ncclAllReduce", "ncclReduceScatter":
		return Result(C.call_reduce_all(f, s, d, n, dt, op, c, st))
	case "ncclReduce":
		return Result(C.call_reduce(f, s, d, n, dt, op, root, c, st))
	case "ncclBroadcast":
		return Result(C.call_broadcast(f, s, d, n, dt, root, c, st))
	case "ncclAllGather":
		return Result(C.call_gather(f, s, d, n, dt, c, st))
	case "ncclSend":
		return Result(C.call_peer(f, s, n, dt, root, c, st))
	case "ncclRecv":
		return Result(C.call_peer(f, d, n, dt, root, c, st))
	}
	panic("nccl: no collective " + symbol)
}
