// y = x·rstd ⊙ w, rstd = 1/√(mean(x²)+eps);   dx = rstd·(g − x·rstd²·mean(g ⊙ x)) + β·dx, g = dy ⊙ w.
#include "reduce.cuh"

#define KERNEL extern "C" __global__ void __launch_bounds__(THREADS)

template <class T> __device__ void rmsnorm(T *y, f32 *rstd, const T *x, const f32 *w, i64 c, float eps) {
	x += blockIdx.x * c;
	y += blockIdx.x * c;
	bool vectors = aligned(x) && aligned(y) && aligned(w);
	float sum = 0;
	rowSweep(c, vectors, [&](i64 i, auto v) {
		float a[v.n];
		load(a, x + i);
		for (int k = 0; k < v.n; k++) sum += a[k] * a[k];
	});
	float r = 1 / sqrtf(blockReduce<Sum>(sum) / c + eps);
	if (threadIdx.x == 0) rstd[blockIdx.x] = r;
	rowSweep(c, vectors, [&](i64 i, auto v) {
		float a[v.n], b[v.n];
		load(a, x + i);
		load(b, w + i);
		for (int k = 0; k < v.n; k++) a[k] = a[k] * r * b[k];
		store(y + i, a);
	});
}

template <class T> __device__ void rmsnormBack(T *dx, const T *dy, const T *x, const f32 *w, const f32 *rstd, i64 c, float beta) {
	x += blockIdx.x * c;
	dy += blockIdx.x * c;
	dx += blockIdx.x * c;
	bool vectors = aligned(x) && aligned(dy) && aligned(dx) && aligned(w);
	float sum = 0;
	rowSweep(c, vectors, [&](i64 i, auto v) {
		float a[v.n], b[v.n], d[v.n];
		load(a, x + i);
		load(b, w + i);
		load(d, dy + i);
		for (int k = 0; k < v.n; k++) sum += d[k] * b[k] * a[k];
	});
	float r = rstd[blockIdx.x], mean = r * r * (blockReduce<Sum>(sum) / c);
	rowSweep(c, vectors, [&](i64 i, auto v) {
		float a[v.n], b[v.n], d[v.n], old[v.n];
		load(a, x + i);
		load(b, w + i);
		load(d, dy + i);
		for (int k = 0; k < v.n; k++) d[k] = r * (d[k] * b[k] - a[k] * mean);
		if (beta != 0) {
			load(old, dx + i);
			for (int k = 0; k < v.n; k++) d[k] += old[k];
		}
		store(dx + i, d);
	});
}

#define X(T) \
	KERNEL rmsnorm_##T(T *y, f32 *rstd, const T *x, const f32 *w, i64 n, i64 c, float eps) { rmsnorm(y, rstd, x, w, c, eps); } \
	KERNEL rmsnorm_back_##T(T *dx, const T *dy, const T *x, const f32 *w, const f32 *rstd, i64 n, i64 c, float beta) { \
		rmsnormBack(dx, dy, x, w, rstd, c, beta); \
	}
X(f32)
X(bf16)
