// cuda_host.h lets g++ compile the kernels' CUDA C++: threads of a block are fibers, warp instructions meet in the scheduler
// (block.cc), and what a GPU would do silently wrong stops the program with a message.
#pragma once
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <utility>

#define HOSTGPU 1
#define __global__
#define __device__
#define __forceinline__ inline
#define __restrict__
#define __shared__ static
#define __align__(n) __attribute__((aligned(n)))
#define __launch_bounds__(...)
#define __noinline__ __attribute__((noinline))

namespace hostgpu {

struct Dim3 {
	unsigned x, y, z;
};
extern Dim3 threadIdx, blockIdx, blockDim, gridDim;

struct Four {
	uint32_t x, y, z, w;
};

// What a kernel calls. Each waits until all threads that it concerns are there; kinds must agree.
void syncThreads();
void syncWarp();
// exchange gives the values of all 32 lanes.
const uint64_t *exchange(uint32_t mask, uint64_t mine);
void mma(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1);
void mmaSparse(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[4], uint32_t e, int selector);
void ldmatrix(uint32_t (&r)[4], const void *p, bool transposed);
// copyAsync takes place at the copyWait that waits for its group, not before.
void copyAsync(void *dst, const void *src, bool in);
void copyCommit();
void copyWait(int left);
char *dynamicShared();
[[noreturn]] void fail(const char *format, ...);

// Kernels register themselves; run unpacks the launch's parameters.
struct Kernel {
	const char *name;
	unsigned bounds; // of __launch_bounds__
	void (*run)(void **params);
	int params;
};
void add(const Kernel &k);

template <class T> T parameter(void *p) {
	static_assert(sizeof(T) == 4 || sizeof(T) == 8, "kernel parameters have 4 or 8 bytes");
	T v;
	memcpy(&v, p, sizeof v);
	return v;
}

template <auto F> struct Call;
template <class... A, void (*F)(A...)> struct Call<F> {
	template <size_t... I> static void with(void **p, std::index_sequence<I...>) { F(parameter<A>(p[I])...); }
	static void run(void **p) { with(p, std::index_sequence_for<A...>()); }
	static const int params = sizeof...(A);
};

float fromF16(uint16_t h);
uint16_t toF16(float f);
inline uint16_t toBF16(float f) {
	uint32_t u;
	memcpy(&u, &f, 4);
	if (f != f) return 0x7fff; // as cvt.rn.bf16.f32
	return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

} // namespace hostgpu

using hostgpu::blockDim;
using hostgpu::blockIdx;
using hostgpu::gridDim;
using hostgpu::threadIdx;
typedef hostgpu::Four uint4;

inline void __syncthreads() { hostgpu::syncThreads(); }
inline void __syncwarp(uint32_t mask = 0xffffffff) {
	if (mask != 0xffffffff) hostgpu::fail("__syncwarp of a part of a warp");
	hostgpu::syncWarp();
}

template <class T> T __shfl_sync(uint32_t mask, T x, int lane) {
	uint64_t bits = 0;
	memcpy(&bits, &x, sizeof x);
	memcpy(&x, &hostgpu::exchange(mask, bits)[lane & 31], sizeof x);
	return x;
}
template <class T> T __shfl_xor_sync(uint32_t mask, T x, int d) { return __shfl_sync(mask, x, (threadIdx.x & 31) ^ d); }
template <class T> T __shfl_up_sync(uint32_t mask, T x, int d) {
	int lane = threadIdx.x & 31;
	return __shfl_sync(mask, x, lane < d ? lane : lane - d);
}
template <class T> T __shfl_down_sync(uint32_t mask, T x, int d) {
	int lane = threadIdx.x & 31;
	return __shfl_sync(mask, x, lane + d > 31 ? lane : lane + d);
}
inline uint32_t __ballot_sync(uint32_t mask, bool x) {
	const uint64_t *all = hostgpu::exchange(mask, x);
	uint32_t bits = 0;
	for (int k = 0; k < 32; k++) bits |= (uint32_t)all[k] << k;
	return bits;
}
inline bool __any_sync(uint32_t mask, bool x) { return __ballot_sync(mask, x) != 0; }
inline bool __all_sync(uint32_t mask, bool x) { return __ballot_sync(mask, x) == 0xffffffff; }
template <class F> int hostgpuReduce(uint32_t mask, int x, F f) {
	const uint64_t *all = hostgpu::exchange(mask, (uint32_t)x);
	for (int k = 0; k < 32; k++) x = f(x, (int)(uint32_t)all[k]);
	return x;
}
inline int __reduce_min_sync(uint32_t mask, int x) {
	return hostgpuReduce(mask, x, [](int a, int b) { return b < a ? b : a; });
}
inline int __reduce_max_sync(uint32_t mask, int x) {
	return hostgpuReduce(mask, x, [](int a, int b) { return b > a ? b : a; });
}
inline int __syncthreads_or(int x) {
	static int any; // reset by the first, read by all between two barriers
	__syncthreads();
	any = 0;
	__syncthreads();
	any |= x != 0;
	__syncthreads();
	return any;
}

template <class D, class S> D hostgpuCast(S s) {
	D d;
	memcpy(&d, &s, sizeof d);
	return d;
}
inline float __int_as_float(int x) { return hostgpuCast<float>(x); }
inline float __uint_as_float(uint32_t x) { return hostgpuCast<float>(x); }
inline int __float_as_int(float x) { return hostgpuCast<int>(x); }
inline uint32_t __float_as_uint(float x) { return hostgpuCast<uint32_t>(x); }
inline int __popc(uint32_t x) { return __builtin_popcount(x); }
inline int __popcll(uint64_t x) { return __builtin_popcountll(x); }
inline float rsqrtf(float x) { return 1 / sqrtf(x); }
template <class T> T min(T a, T b) { return b < a ? b : a; }
template <class T> T max(T a, T b) { return a < b ? b : a; }
