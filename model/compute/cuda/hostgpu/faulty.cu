// out = what it should not be: kernels with one fault each, which the stand-in must not let pass.
#include "mma_sp.cuh"

#define KERNEL extern "C" __global__ void __launch_bounds__(THREADS)

// No barrier between the write and the read: out_t = 255 − t only in some orders.
KERNEL faulty_race(f32 *out) {
	__shared__ f32 x[THREADS];
	x[threadIdx.x] = threadIdx.x;
	out[threadIdx.x] = x[THREADS - 1 - threadIdx.x];
}

KERNEL faulty_barrier(f32 *out) {
	if (threadIdx.x < 100) __syncthreads();
	out[threadIdx.x] = 255 - (int)threadIdx.x;
}

KERNEL faulty_shuffle(f32 *out) {
	f32 x = 255 - (int)threadIdx.x;
	if (threadIdx.x % 32 < 16) x = __shfl_xor_sync(0xffffffff, x, 1);
	out[threadIdx.x] = x;
}

// Shared memory is read before the copy into it was waited for.
KERNEL faulty_copy(f32 *out) {
	SHARED(shared);
	f32 *x = (f32 *)shared;
	out[threadIdx.x] = 255 - (int)threadIdx.x;
	__syncthreads();
	if (threadIdx.x < 64) copyAsync(x + threadIdx.x * 4, out + threadIdx.x * 4, true);
	copyCommit();
	__syncthreads();
	f32 y = x[threadIdx.x];
	copyWait<0>();
	out[threadIdx.x] = y;
}

KERNEL faulty_overrun(f32 *out) {
	out[threadIdx.x] = 255 - (int)threadIdx.x;
	if (threadIdx.x == 0) out[THREADS] = 0;
}

KERNEL faulty_shared(f32 *out) {
	SHARED(shared);
	f32 *x = (f32 *)shared;
	x[threadIdx.x + 1] = 0;
	out[threadIdx.x] = 255 - (int)threadIdx.x;
}

KERNEL faulty_alignment(f32 *out) {
	f32 x[8];
	load(x, out + 1);
	out[threadIdx.x] = 255 - (int)threadIdx.x;
}

// Metadata says twice that the first of four is kept.
KERNEL faulty_metadata(f32 *out) {
	f32 c[4] = {};
	u32 a[4] = {}, b[4] = {};
	mmaSparse<1>(c, a, b, threadIdx.x % 4 == 3 ? 0 : 0x44444444);
	out[threadIdx.x] = 255 - (int)threadIdx.x + c[0];
}

KERNEL faulty_none(f32 *out) { out[threadIdx.x] = 255 - (int)threadIdx.x; }
