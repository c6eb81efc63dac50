// dst = α·op(a)·op(b) + β·dst, for what cuBLAS does not take: mixed types, widened as they are read; sums in float32.
#include "types.cuh"

#define TILE 64
#define DEPTH 16

__device__ __forceinline__ float element(const void *x, int type, i64 i) {
	if (type == 0) return ((const f32 *)x)[i];
	return type == 1 ? widen(((const bf16 *)x)[i]) : widen(((const f16 *)x)[i]);
}

// stage sets tile [DEPTH,TILE] = op(x) of rows [k0, k0+DEPTH), columns [j0, j0+TILE) where op(x) is [k,n], zeros beyond.
__device__ __forceinline__ void stage(float (*tile)[TILE + 1], const void *x, int type, bool trans, i64 k0, i64 j0, i64 k, i64 n) {
	for (int e = threadIdx.x; e < DEPTH * TILE; e += THREADS) {
		int p = trans ? e % DEPTH : e / TILE, j = trans ? e / DEPTH : e % TILE; // neighbours in memory by neighbours
		bool in = k0 + p < k && j0 + j < n;
		tile[p][j] = in ? element(x, type, trans ? (j0 + j) * k + k0 + p : (k0 + p) * n + j0 + j) : 0;
	}
}

extern "C" __global__ void __launch_bounds__(THREADS) gemm_any(void *dst, int dstType, float alpha, const void *a, int aType, int ta, const void *b,
	int bType, int tb, float beta, i64 m, i64 n, i64 k) {
	__shared__ float left[DEPTH][TILE + 1], right[DEPTH][TILE + 1];
	int row = threadIdx.x / 16, col = threadIdx.x % 16;
	i64 j0 = (i64)blockIdx.x * TILE;
	for (i64 i0 = (i64)blockIdx.y * TILE; i0 < m; i0 += (i64)gridDim.y * TILE) {
		float c[4][4] = {};
		for (i64 k0 = 0; k0 < k; k0 += DEPTH) {
			stage(left, a, aType, !ta, k0, i0, k, m);
			stage(right, b, bType, tb, k0, j0, k, n);
			__syncthreads();
			for (int p = 0; p < DEPTH; p++) {
#pragma unroll
				for (int e = 0; e < 16; e++) c[e / 4][e % 4] += left[p][row + e / 4 * 16] * right[p][col + e % 4 * 16];
			}
			__syncthreads();
		}
		for (int e = 0; e < 16; e++) {
			i64 i = i0 + row + e / 4 * 16, j = j0 + col + e % 4 * 16;
			if (i >= m || j >= n) continue;
			float x = alpha * c[e / 4][e % 4];
			if (beta != 0) x += beta * element(dst, dstType, i * n + j);
			if (dstType == 0)
				((f32 *)dst)[i * n + j] = x;
			else
				narrow(((bf16 *)dst)[i * n + j], x);
		}
	}
}
