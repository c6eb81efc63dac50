// loss = m + log Σ exp(x − m) − x_target, m = max x;   x = exp(x − m)/Σ − onehot(target).
#include "reduce.cuh"

// scan goes over a row once: (m, s) with s = Σ exp(x − m) of the thread's elements. NaN does not enter m, and stays in s.
template <class T> __device__ __forceinline__ void scan(const T *x, i64 v, float &m, float &s) {
	m = -INF;
	s = 0;
	rowSweep(v, aligned(x), [&](i64 i, auto w) {
		float a[w.n], top = m;
		load(a, x + i);
		for (int k = 0; k < w.n; k++) top = fmaxf(top, a[k]);
		if (top > m) {
			s *= expf(m - top);
			m = top;
		}
		for (int k = 0; k < w.n; k++)
			if (!(a[k] == -INF)) s += expf(a[k] - m);
	});
}

template <class T> __device__ void crossentropy(f32 *loss, T *x, const int *target, i64 v, int grad) {
	x += blockIdx.x * v;
	i64 k = target[blockIdx.x];
	float mine, part;
	scan(x, v, mine, part);
	float m = blockReduce<Max>(mine), at = widen(x[k]);
	float sum = blockReduce<Sum>(mine == m ? part : part * expf(mine - m)); // it waits: x[k] is read by all before it is written
	if (threadIdx.x == 0) loss[blockIdx.x] = logf(sum) + (m - at);
	if (!grad) return;
	float inv = 1 / sum;
	rowSweep(v, aligned(x), [&](i64 i, auto w) {
		float a[w.n];
		load(a, x + i);
		for (int j = 0; j < w.n; j++) a[j] = expf(a[j] - m) * inv - (i + j == k ? 1 : 0);
		store(x + i, a);
	});
}

#define X(T) \
	extern "C" __global__ void __launch_bounds__(512) crossentropy_##T(f32 *loss, T *x, const int *target, i64 n, i64 v, int grad) { \
		crossentropy(loss, x, target, v, grad); \
	}
X(f32)
X(bf16)
