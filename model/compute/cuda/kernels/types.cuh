// x = ±m·2^e: the number types of the kernels, their conversions (nearest, ties to even; NaN stays NaN) and vector loads.
#pragma once

typedef long long i64;
typedef unsigned long long u64;
typedef unsigned int u32;
typedef unsigned short u16;
typedef unsigned char u8;
typedef float f32;
struct bf16 {
	u16 bits;
};
struct f16 {
	u16 bits;
};

#define THREADS 256
#define INF __int_as_float(0x7f800000)
#define NAN32 __int_as_float(0x7fffffff)

__device__ __forceinline__ float widen(f32 x) { return x; }
__device__ __forceinline__ float widen(bf16 x) { return __uint_as_float((u32)x.bits << 16); }
#ifdef HOSTGPU
__device__ __forceinline__ float widen(f16 x) { return hostgpu::fromF16(x.bits); }
__device__ __forceinline__ void narrow(f16 &y, float x) { y.bits = hostgpu::toF16(x); }
__device__ __forceinline__ void narrow(bf16 &y, float x) { y.bits = hostgpu::toBF16(x); }
#else
__device__ __forceinline__ float widen(f16 x) {
	float y;
	asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x.bits));
	return y;
}
__device__ __forceinline__ void narrow(f16 &y, float x) { asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y.bits) : "f"(x)); }
__device__ __forceinline__ void narrow(bf16 &y, float x) { asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y.bits) : "f"(x)); }
#endif
__device__ __forceinline__ void narrow(f32 &y, float x) { y = x; }

// pack is two bfloat16 in one register: lo in the low half.
__device__ __forceinline__ u32 pack(float lo, float hi) {
#ifdef HOSTGPU
	return (u32)hostgpu::toBF16(hi) << 16 | hostgpu::toBF16(lo);
#else
	u32 y;
	asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(y) : "f"(hi), "f"(lo));
	return y;
#endif
}

__device__ __forceinline__ bool aligned(const void *p) { return ((u64)p & 15) == 0; }

// Vec is V elements that are loaded and stored at once: 16 bytes at a time where V is 8, which needs 16-byte alignment.
template <class T, int V> struct alignas(V == 8 ? 16 : sizeof(T)) Vec {
	T x[V];
};

template <int V, class T> __device__ __forceinline__ void load(float (&x)[V], const T *p) {
	Vec<T, V> v = *(const Vec<T, V> *)p;
#pragma unroll
	for (int k = 0; k < V; k++) x[k] = widen(v.x[k]);
}

template <int V, class T> __device__ __forceinline__ void store(T *p, const float (&x)[V]) {
	Vec<T, V> v;
#pragma unroll
	for (int k = 0; k < V; k++) narrow(v.x[k], x[k]);
	*(Vec<T, V> *)p = v;
}

// Four is 16 bytes of shared memory.
struct __align__(16) Four {
	float x[4];
};
__device__ __forceinline__ void load(float (&x)[4], const Four *p) {
	Four v = *p;
#pragma unroll
	for (int k = 0; k < 4; k++) x[k] = v.x[k];
}

// SHARED declares the block's dynamic shared memory.
#ifdef HOSTGPU
#define SHARED(name) char *name = hostgpu::dynamicShared()
#else
#define SHARED(name) extern __shared__ __align__(16) char name[]
#endif

template <int N> struct Width {
	enum { n = N };
};

// sweep calls f(i, Width<V>) for elements [i, i+V) of n, V = 8 where vectors may be used, else 1, in strides of the grid.
template <class F> __device__ __forceinline__ void sweep(i64 n, bool vectors, F f) {
	i64 t = (i64)blockIdx.x * blockDim.x + threadIdx.x, step = (i64)gridDim.x * blockDim.x, body = vectors ? n / 8 * 8 : 0;
	for (i64 i = t * 8; i < body; i += step * 8) f(i, Width<8>());
	for (i64 i = body + t; i < n; i += step) f(i, Width<1>());
}

// rowSweep is sweep over one row of c elements by the threads of a block.
template <class F> __device__ __forceinline__ void rowSweep(i64 c, bool vectors, F f) {
	i64 body = vectors ? c / 8 * 8 : 0;
	for (i64 i = threadIdx.x * 8; i < body; i += blockDim.x * 8) f(i, Width<8>());
	for (i64 i = body + threadIdx.x; i < c; i += blockDim.x) f(i, Width<1>());
}
