// s = x_0 ∘ x_1 ∘ … over the threads of a warp or a block, in a fixed order, for every thread.
#pragma once
#include "types.cuh"

struct Sum {
	template <class T> __device__ static T of(T a, T b) { return a + b; }
};
struct Max { // NaN does not count
	__device__ static float of(float a, float b) { return fmaxf(a, b); }
};

template <class Op, class T> __device__ __forceinline__ T warpReduce(T x) {
#pragma unroll
	for (int d = 16; d > 0; d /= 2) x = Op::of(x, __shfl_xor_sync(0xffffffff, x, d));
	return x;
}

// blockReduce is for blocks of whole warps; every thread calls it.
template <class Op, class T> __device__ __forceinline__ T blockReduce(T x) {
	__shared__ T part[32];
	x = warpReduce<Op>(x);
	if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = x;
	__syncthreads();
	x = part[0];
	for (int k = 1; k < blockDim.x / 32; k++) x = Op::of(x, part[k]);
	__syncthreads(); // part may be used again
	return x;
}
