// The calls that gorgonia.org/cu lacks, or that are hot: one crossing from Go each, on whatever thread it happens.
#pragma once
#include <cuda.h>
#include <stdint.h>

enum { SPLORA_ARGS = 48 };

// A queue is a stream of a context, and the block from which a launch takes its arguments.
typedef struct {
	CUcontext ctx;
	CUstream stream;
	uint64_t id; // of the queue, never used twice
	uint64_t slot[SPLORA_ARGS];
	void *at[SPLORA_ARGS];
} splora_queue;

splora_queue *splora_queue_new(CUcontext ctx);
CUresult splora_bind(splora_queue *q);
CUresult splora_launch(splora_queue *q, CUfunction f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared);
CUresult splora_set(splora_queue *q, CUdeviceptr dst, uint32_t v, int size, size_t n);
CUresult splora_to(splora_queue *q, CUdeviceptr dst, const void *src, size_t n);
CUresult splora_from(splora_queue *q, void *dst, CUdeviceptr src, size_t n);
CUresult splora_copy(splora_queue *q, CUdeviceptr dst, CUdeviceptr src, size_t n);
CUresult splora_wait(splora_queue *q);
CUresult splora_query(splora_queue *q);
