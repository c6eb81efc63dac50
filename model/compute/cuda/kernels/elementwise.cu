// y_i = f(x_i, …): fill, copy, add, addbias, dropout, gates.
#include "types.cuh"

#define KERNEL extern "C" __global__ void __launch_bounds__(THREADS)

template <class T> __device__ void fill(T *dst, i64 n, float v) {
	sweep(n, aligned(dst), [&](i64 i, auto w) {
		float x[w.n];
		for (int k = 0; k < w.n; k++) x[k] = v;
		store(dst + i, x);
	});
}

template <class D, class S> __device__ void copy(D *dst, const S *src, i64 n) {
	sweep(n, aligned(dst) && aligned(src), [&](i64 i, auto w) {
		float x[w.n];
		load(x, src + i);
		store(dst + i, x);
	});
}

template <class T> __device__ void add(T *y, const T *x, i64 n) {
	sweep(n, aligned(y) && aligned(x), [&](i64 i, auto w) {
		float a[w.n], b[w.n];
		load(a, y + i);
		load(b, x + i);
		for (int k = 0; k < w.n; k++) a[k] += b[k];
		store(y + i, a);
	});
}

template <class T> __device__ void addbias(T *y, const f32 *bias, i64 rows, i64 cols) {
	bool vectors = aligned(y) && aligned(bias) && cols % 8 == 0;
	sweep(rows * cols, vectors, [&](i64 i, auto w) {
		float a[w.n], b[w.n];
		load(a, y + i);
		load(b, bias + i % cols);
		for (int k = 0; k < w.n; k++) a[k] += b[k];
		store(y + i, a);
	});
}

__device__ __forceinline__ u64 mix(u64 z) {
	z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9ull;
	z = (z ^ z >> 27) * 0x94D049BB133111EBull;
	return z ^ z >> 31;
}

template <class T> __device__ void dropout(T *y, const T *x, const int *ids, i64 rows, i64 cols, u64 seed, u64 limit, float scale) {
	bool vectors = aligned(y) && aligned(x) && cols % 8 == 0;
	sweep(rows * cols, vectors, [&](i64 i, auto w) {
		u64 at = seed + (((u64)(u32)ids[i / cols] << 32) + (u64)(i % cols) + 1) * 0x9E3779B97F4A7C15ull;
		float a[w.n];
		load(a, x + i);
		for (int k = 0; k < w.n; k++, at += 0x9E3779B97F4A7C15ull) a[k] = mix(at) >> 40 < limit ? 0 : a[k] * scale;
		store(y + i, a);
	});
}

// sigmoid gives σ(x) and 1 − σ(x) = e⁻ˣ·σ(x), which subtraction would cancel.
__device__ __forceinline__ float sigmoid(float x, float &rest) {
	float e = expf(-x), s = 1 / (1 + e);
	rest = e * s;
	if (!(rest <= 1)) rest = 1; // ∞·0
	return s;
}

template <class T> __device__ void silu(T *h, const T *g, const T *u, i64 n) {
	sweep(n, aligned(h) && aligned(g) && aligned(u), [&](i64 i, auto w) {
		float a[w.n], b[w.n], rest;
		load(a, g + i);
		load(b, u + i);
		for (int k = 0; k < w.n; k++) a[k] = a[k] * sigmoid(a[k], rest) * b[k];
		store(h + i, a);
	});
}

template <class T> __device__ void siluBack(T *dg, T *du, const T *dh, const T *g, const T *u, i64 n) {
	bool vectors = aligned(dg) && aligned(du) && aligned(dh) && aligned(g) && aligned(u);
	sweep(n, vectors, [&](i64 i, auto w) {
		float a[w.n], b[w.n], d[w.n];
		load(a, g + i);
		load(b, u + i);
		load(d, dh + i);
		for (int k = 0; k < w.n; k++) {
			float rest, s = sigmoid(a[k], rest);
			b[k] = d[k] * b[k] * (s * (1 + a[k] * rest));
			d[k] = d[k] * (a[k] * s);
		}
		store(dg + i, b);
		store(du + i, d);
	});
}

#define X(T) \
	KERNEL fill_##T(T *dst, i64 n, float v) { fill(dst, n, v); } \
	KERNEL add_##T(T *y, const T *x, i64 n) { add(y, x, n); } \
	KERNEL addbias_##T(T *y, const f32 *bias, i64 rows, i64 cols) { addbias(y, bias, rows, cols); } \
	KERNEL dropout_##T(T *y, const T *x, const int *ids, i64 rows, i64 cols, u64 seed, u64 limit, float scale) { \
		dropout(y, x, ids, rows, cols, seed, limit, scale); \
	} \
	KERNEL silu_##T(T *h, const T *g, const T *u, i64 n) { silu(h, g, u, n); } \
	KERNEL silu_back_##T(T *dg, T *du, const T *dh, const T *g, const T *u, i64 n) { siluBack(dg, du, dh, g, u, n); }
X(f32)
X(bf16)
#undef X

#define X(D, S) \
	KERNEL copy_##D##_##S(D *dst, const S *src, i64 n) { copy(dst, src, n); }
X(f32, bf16)
X(f32, f16)
X(bf16, f32)
X(bf16, f16)
X(f16, f32)
X(f16, bf16)
