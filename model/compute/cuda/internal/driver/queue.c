//go:build cuda

#include "queue.h"
#include <stdlib.h>

// What this thread's context was last set for.
static __thread uint64_t bound;

splora_queue *splora_queue_new(CUcontext ctx) {
	static uint64_t ids;
	splora_queue *q = calloc(1, sizeof *q);
	q->ctx = ctx;
	q->id = __atomic_add_fetch(&ids, 1, __ATOMIC_RELAXED);
	for (int i = 0; i < SPLORA_ARGS; i++) q->at[i] = &q->slot[i];
	return q;
}

CUresult splora_bind(splora_queue *q) {
	if (bound == q->id) return CUDA_SUCCESS;
	CUresult rc = cuCtxSetCurrent(q->ctx);
	if (rc == CUDA_SUCCESS) bound = q->id;
	return rc;
}

#define BOUND(call) { CUresult rc = splora_bind(q); return rc ? rc : (call); }

CUresult splora_launch(splora_queue *q, CUfunction f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared)
	BOUND(cuLaunchKernel(f, gx, gy, gz, bx, by, bz, shared, q->stream, q->at, 0))

CUresult splora_set(splora_queue *q, CUdeviceptr dst, uint32_t v, int size, size_t n)
	BOUND(size == 4 ? cuMemsetD32Async(dst, v, n, q->stream) : size == 2 ? cuMemsetD16Async(dst, v, n, q->stream) : cuMemsetD8Async(dst, v, n, q->stream))

CUresult splora_to(splora_queue *q, CUdeviceptr dst, const void *src, size_t n) BOUND(cuMemcpyHtoDAsync(dst, src, n, q->stream))
CUresult splora_from(splora_queue *q, void *dst, CUdeviceptr src, size_t n) BOUND(cuMemcpyDtoHAsync(dst, src, n, q->stream))
CUresult splora_copy(splora_queue *q, CUdeviceptr dst, CUdeviceptr src, size_t n) BOUND(cuMemcpyDtoDAsync(dst, src, n, q->stream))
CUresult splora_wait(splora_queue *q) BOUND(cuStreamSynchronize(q->stream))
CUresult splora_query(splora_queue *q) BOUND(cuStreamQuery(q->stream))
