// y_i = x_{rows(i)}: gather, scatter, and RoPE: (a, b) → (a·cos − b·sin, b·cos + a·sin) for a = x_j, b = x_{j+D/2}.
#include "types.cuh"

#define KERNEL extern "C" __global__ void __launch_bounds__(THREADS)

template <class T, class S> __device__ void gather(T *dst, const S *table, const int *rows, i64 c) {
	i64 row = rows[blockIdx.x];
	dst += blockIdx.x * c;
	const S *src = table + row * c;
	rowSweep(c, aligned(dst) && (row < 0 || aligned(src)), [&](i64 i, auto w) {
		float x[w.n];
		if (row >= 0)
			load(x, src + i);
		else
			for (int k = 0; k < w.n; k++) x[k] = 0;
		store(dst + i, x);
	});
}

template <class T> __device__ void scatter(T *dst, const T *src, const int *rows, i64 c) {
	i64 row = rows[blockIdx.x];
	if (row < 0) return;
	dst += row * c;
	src += blockIdx.x * c;
	rowSweep(c, aligned(dst) && aligned(src), [&](i64 i, auto w) {
		float x[w.n];
		load(x, src + i);
		store(dst + i, x);
	});
}

template <class T> __device__ void rope(T *x, const f32 *cos, const f32 *sin, const int *pos, int heads, int half, float sign) {
	x += (i64)blockIdx.x * heads * 2 * half;
	cos += (i64)pos[blockIdx.x] * half;
	sin += (i64)pos[blockIdx.x] * half;
	bool vectors = aligned(x) && aligned(cos) && aligned(sin) && half % 8 == 0;
	rowSweep(heads * half, vectors, [&](i64 i, auto w) {
		int j = (int)i % half;
		T *at = x + (i - j) * 2 + j;
		float a[w.n], b[w.n], c[w.n], s[w.n];
		load(a, at);
		load(b, at + half);
		load(c, cos + j);
		load(s, sin + j);
		for (int k = 0; k < w.n; k++) {
			float t = a[k];
			s[k] *= sign;
			a[k] = t * c[k] - b[k] * s[k];
			b[k] = b[k] * c[k] + t * s[k];
		}
		store(at, a);
		store(at + half, b);
	});
}

#define X(T, S) \
	KERNEL gather_##T##_##S(T *dst, const S *table, const int *rows, i64 n, i64 c) { gather(dst, table, rows, c); }
X(f32, f32)
X(f32, bf16)
X(f32, f16)
X(bf16, f32)
X(bf16, bf16)
X(bf16, f16)
#undef X

#define X(T) \
	KERNEL scatter_##T(T *dst, const T *src, const int *rows, i64 n, i64 c) { scatter(dst, src, rows, c); } \
	KERNEL rope_##T(T *x, const f32 *cos, const f32 *sin, const int *pos, i64 n, int heads, int half, float sign) { \
		rope(x, cos, sin, pos, heads, half, sign); \
	}
X(f32)
X(bf16)
