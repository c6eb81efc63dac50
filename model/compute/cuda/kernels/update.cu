// m = β1·m + (1−β1)·ĝ, v = β2·v + (1−β2)·ĝ², p = p·(1 − lr·wd) − lr·(m/b1)/(√(v/b2)+eps), ĝ = scale·g;   Σ x² in float64.
#include "reduce.cuh"

#define SUMSQUARES_BLOCKS 512

extern "C" __global__ void __launch_bounds__(THREADS) adamw_f32(f32 *p, const f32 *g, f32 *m, f32 *v, i64 n, float lr, float beta1, float beta2,
	float eps, float wd, float bias1, float bias2, float scale) {
	bool vectors = aligned(p) && aligned(g) && aligned(m) && aligned(v);
	float c1 = 1 - beta1, c2 = 1 - beta2, keep = 1 - lr * wd;
	sweep(n, vectors, [&](i64 i, auto w) {
		float a[w.n], d[w.n], m1[w.n], v1[w.n];
		load(a, p + i);
		load(d, g + i);
		load(m1, m + i);
		load(v1, v + i);
		for (int k = 0; k < w.n; k++) {
			float x = scale * d[k];
			m1[k] = beta1 * m1[k] + c1 * x;
			v1[k] = beta2 * v1[k] + c2 * x * x;
			a[k] = a[k] * keep - lr * (m1[k] / bias1) / (sqrtf(v1[k] / bias2) + eps);
		}
		store(p + i, a);
		store(m + i, m1);
		store(v + i, v1);
	});
}

extern "C" __global__ void __launch_bounds__(THREADS) sumsquares_f32(double *part, const f32 *x, i64 n) {
	double sum = 0;
	for (i64 i = (i64)blockIdx.x * THREADS + threadIdx.x; i < n; i += SUMSQUARES_BLOCKS * THREADS) sum += (double)x[i] * x[i];
	sum = blockReduce<Sum>(sum);
	if (threadIdx.x == 0) part[blockIdx.x] = sum;
}

extern "C" __global__ void __launch_bounds__(THREADS) sumsquares_final(double *sum, const double *part) {
	double s = 0;
	for (int i = threadIdx.x; i < SUMSQUARES_BLOCKS; i += THREADS) s += part[i];
	s = blockReduce<Sum>(s);
	if (threadIdx.x == 0) *sum = s;
}
