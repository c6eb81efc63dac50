// s·B·A for 128 rows and 64 inputs, by tensor cores: what a merge in bfloat16 adds to W.
//
// Each factor is split in two bfloat16, x = hi + lo: hi·hi + hi·lo + lo·hi is right to about 2⁻¹⁶, and rounded once to 2⁻⁹.
#pragma once
#include "mma.cuh"

#define ROWS 128
#define DEPTH 16

// scaled is s·b_{i,p}, zero beyond.
__device__ __forceinline__ float scaled(const f32 *b, i64 i, i64 out, int p, int r, float s) { return i < out && p < r ? s * b[i * r + p] : 0; }

// split gives two neighbours as hi and lo parts, x = hi + lo.
__device__ __forceinline__ void split(float x, float y, u32 &hi, u32 &lo) {
	hi = pack(x, y);
	bf16 a = {(u16)hi}, b = {(u16)(hi >> 16)};
	float dx = x - widen(a), dy = y - widen(b);
	bool finite = dx == dx && dy == dy; // Inf − Inf is NaN: what is not finite stands in hi alone
	lo = finite ? pack(dx, dy) : 0;
}

// A block's parts of A and B in shared memory, hi and lo: pairs along the rank.
typedef u32 PartA[DEPTH / 2][66];
typedef u32 PartB[ROWS][12];

// lowRank sets sum = s·B·A, a warp's 16 rows of i0…i0+127 by inputs j0…j0+63 as eight mma tiles: column n of tile e is input column(e, n).
// B is read where first says so, or does not fit at once.
template <class F> __device__ __forceinline__ void lowRank(float (&sum)[2][4][4], PartA &ahi, PartA &alo, PartB &bhi, PartB &blo, const f32 *b,
	const f32 *a, i64 out, i64 in, int r, float s, i64 i0, i64 j0, bool first, F column) {
	int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;
#pragma unroll
	for (int e = 0; e < 32; e++) sum[e / 16][e / 4 % 4][e % 4] = r == 0 ? -0.f : 0.f;
	for (int p0 = 0; p0 < r; p0 += DEPTH) {
		__syncthreads();
		for (int e = threadIdx.x; e < DEPTH / 2 * 64; e += THREADS) {
			int p = p0 + e / 64 * 2;
			i64 j = j0 + e % 64;
			float x = p < r && j < in ? a[p * in + j] : 0, y = p + 1 < r && j < in ? a[(p + 1) * in + j] : 0;
			split(x, y, ahi[e / 64][e % 64], alo[e / 64][e % 64]);
		}
		for (int e = threadIdx.x; e < ROWS * DEPTH / 2 && (first || r > DEPTH); e += THREADS) {
			int p = p0 + e % (DEPTH / 2) * 2;
			i64 i = i0 + e / (DEPTH / 2);
			split(scaled(b, i, out, p, r, s), scaled(b, i, out, p + 1, r, s), bhi[e / (DEPTH / 2)][e % (DEPTH / 2)],
				blo[e / (DEPTH / 2)][e % (DEPTH / 2)]);
		}
		__syncthreads();
		int i = warp * 16 + g;
		u32 hi[4] = {bhi[i][t], bhi[i + 8][t], bhi[i][t + 4], bhi[i + 8][t + 4]};
		u32 lo[4] = {blo[i][t], blo[i + 8][t], blo[i][t + 4], blo[i + 8][t + 4]};
#pragma unroll
		for (int e = 0; e < 8; e++) {
			int j = column(e, g);
			float(&c)[4] = sum[e / 4][e % 4];
			mma(c, lo, ahi[t][j], ahi[t + 4][j]);
			mma(c, hi, alo[t][j], alo[t + 4][j]);
			mma(c, hi, ahi[t][j], ahi[t + 4][j]);
		}
	}
}
