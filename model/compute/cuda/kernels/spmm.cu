// y = x·W̃ᵀ + β·y by the sparse tensor cores, W̃ 2:4 as compress leaves it: half the multiplications of the dense product.
//
// A block takes 128 outputs and 128 rows of x, 64 inputs at a time, three stages in shared memory; a warp has 64 × 64 of them. In a stage W̃'s tiles
// lie as in memory, and x's rows of 64 inputs with their 16 bytes dealt so that eight rows' lie in different banks.
#include "mma_sp.cuh"

#define SIDE 128
#define SPMM_THREADS 128
#define STAGES 3
#define PITCH (SIDE + 4) // of float32 sums on their way to y

struct Stage {
	Tile w[SIDE / 16];
	bf16 x[SIDE][64];
};

// Fetch is what a thread copies of every stage: its 16 bytes of tiles and of rows.
struct Fetch {
	const Tile *w; // of the block's first 16 outputs
	const bf16 *x; // of the block's first row
	i64 in, rows;
	int tiles; // of 16 outputs that are there; beyond, the last one is taken again, and what comes of it is not stored

	__device__ __forceinline__ const Tile &tile(int i, i64 k) const { return w[(i < tiles ? i : tiles - 1) * (in / 64) + k]; }

	__device__ __forceinline__ void operator()(Stage &s, i64 k) const {
		int id = threadIdx.x;
#pragma unroll
		for (int q = 0; q < SIDE / 16 * 64 / SPMM_THREADS; q++) {
			int i = q * (SPMM_THREADS / 64) + id / 64;
			copyAsync((char *)s.w[i].kept + id % 64 * 16, (const char *)tile(i, k).kept + id % 64 * 16, true);
		}
		if (id < SIDE / 16 * 8) copyAsync((char *)s.w[id / 8].meta + id % 8 * 16, (const char *)tile(id / 8, k).meta + id % 8 * 16, true);
#pragma unroll
		for (int q = 0; q < SIDE * 8 / SPMM_THREADS; q++) {
			int i = q * (SPMM_THREADS / 8) + id / 8;
			bool there = i < rows;
			copyAsync(&s.x[i][(id % 8 ^ i % 8) * 8], x + (there ? i * in : 0) + k * 64 + id % 8 * 8, there);
		}
	}
};

// multiply adds the products of inputs 32·H…32·H+31 of a stage to c, 64 outputs from tile w0 on by 64 rows from x0 on.
template <int H> __device__ __forceinline__ void multiply(float (&c)[4][8][4], const Stage &s, const u32 (&meta)[4], int w0, int x0) {
	int l = threadIdx.x % 32;
	u32 b[8][4];
#pragma unroll
	for (int n = 0; n < 8; n++) ldmatrix(b[n], &s.x[x0 + n * 8 + l % 8][((H * 4 + l / 8) ^ l % 8) * 8]);
#pragma unroll
	for (int m = 0; m < 4; m++) {
		uint4 v = s.w[w0 + m].kept[H][l];
		u32 a[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
		for (int n = 0; n < 8; n++) mmaSparse<H>(c[m][n], a, b[n], meta[m]);
	}
}

// deliver stores the block's sums [rows][outputs], which stand in shared memory.
__device__ __forceinline__ void deliver(bf16 *y, const float *sums, i64 i0, i64 j0, i64 n, i64 out, float beta) {
	bool vectors = out % 8 == 0 && aligned(y);
	for (int e = threadIdx.x; e < SIDE * SIDE / 8; e += SPMM_THREADS) {
		i64 i = i0 + e / (SIDE / 8), j = j0 + e % (SIDE / 8) * 8;
		if (i >= n || j >= out) continue;
		const float *sum = sums + e / (SIDE / 8) * PITCH + e % (SIDE / 8) * 8;
		bf16 *to = y + i * out + j;
		if (vectors) {
			float x[8], old[8];
			load(x, sum);
			if (beta != 0) {
				load(old, to);
#pragma unroll
				for (int d = 0; d < 8; d++) x[d] += beta * old[d];
			}
			store(to, x);
		} else {
			for (int d = 0; d < 8 && j + d < out; d++) narrow(to[d], sum[d] + (beta != 0 ? beta * widen(to[d]) : 0));
		}
	}
}

extern "C" __global__ void __launch_bounds__(SPMM_THREADS) spmm_bf16(bf16 *y, const bf16 *x, const Tile *w, i64 n, i64 out, i64 in, float beta) {
	SHARED(shared);
	Stage *stages = (Stage *)shared;
	int l = threadIdx.x % 32, w0 = threadIdx.x / 32 % 2 * 4, x0 = threadIdx.x / 64 * 64;
	i64 i0 = (i64)blockIdx.x * SIDE, j0 = (i64)blockIdx.y * SIDE, steps = in / 64, left = (out + 15) / 16 - j0 / 16;
	Fetch fetch = {w + j0 / 16 * steps, x + i0 * in, in, n - i0, left < SIDE / 16 ? (int)left : SIDE / 16};
	for (int k = 0; k < STAGES - 1; k++) {
		if (k < steps) fetch(stages[k], k);
		copyCommit();
	}
	float c[4][8][4] = {};
	int now = 0, next = STAGES - 1;
	for (i64 k = 0; k < steps; k++) {
		copyWait<STAGES - 2>();
		__syncthreads(); // this stage is here, and all have used the one before
		if (k + STAGES - 1 < steps) fetch(stages[next], k + STAGES - 1);
		copyCommit();
		const Stage &s = stages[now];
		u32 meta[4];
#pragma unroll
		for (int m = 0; m < 4; m++) meta[m] = s.w[w0 + m].meta[l];
		multiply<0>(c, s, meta, w0, x0);
		multiply<1>(c, s, meta, w0, x0);
		now = now + 1 < STAGES ? now + 1 : 0;
		next = next + 1 < STAGES ? next + 1 : 0;
	}
	copyWait<0>();
	__syncthreads(); // stages may be overwritten
	float *sums = (float *)shared;
#pragma unroll
	for (int e = 0; e < 128; e++) {
		int m = e / 32, k = e / 4 % 8, q = e % 4;
		sums[(x0 + k * 8 + l % 4 * 2 + q % 2) * PITCH + (w0 + m) * 16 + l / 4 + q / 2 * 8] = c[m][k][q];
	}
	__syncthreads();
	deliver(y, sums, i0, j0, n, out, beta);
}
