// dA += s·Bᵀ·(M ⊙ G), dB += s·(M ⊙ G)·Aᵀ: both from one reading of G, which is masked on its way and not written.
//
// A block takes a stripe of rows and 8192/R columns of G [out,in], 128×128 at a time: dB of its rows is summed over its columns, dA of its
// columns over its rows; a second kernel adds the blocks' parts in order. G is 16-byte aligned, in a multiple of 8. A, B and G are bfloat16 operands of the tensor cores, sums float32.
#include "mma.cuh"

#define SIDE 128

// Chunk is what a thread holds of the next 128×128 elements of G while the last are used: eight times eight neighbours, and their masks.
struct Chunk {
	uint4 g[8];
	u64 kept;
};

__device__ __forceinline__ void fetch(Chunk &c, const bf16 *g, const u64 *bits, i64 i0, i64 j0, i64 out, i64 in) {
	c.kept = 0;
#pragma unroll
	for (int q = 0; q < 8; q++) {
		int e = q * THREADS + threadIdx.x;
		i64 i = i0 + e / (SIDE / 8), j = j0 + e % (SIDE / 8) * 8;
		c.g[q] = uint4{0, 0, 0, 0};
		if (i >= out || j >= in) continue;
		c.g[q] = *(const uint4 *)(g + i * in + j);
		c.kept |= (u64)(bits ? ((const u8 *)bits)[(i * ((in + 63) / 64)) * 8 + j / 8] : 0xff) << q * 8;
	}
}

// spread is a mask of 16-bit halves of two bits.
__device__ __forceinline__ u32 spread(u32 two) { return (two & 1 ? 0xffffu : 0) | (two & 2 ? 0xffff0000u : 0); }

__device__ __forceinline__ void put(bf16 *tile, const Chunk &c) {
#pragma unroll
	for (int q = 0; q < 8; q++) {
		int e = q * THREADS + threadIdx.x;
		u32 kept = (u32)(c.kept >> q * 8) & 0xff;
		uint4 v = c.g[q];
		v.x &= spread(kept), v.y &= spread(kept >> 2), v.z &= spread(kept >> 4), v.w &= spread(kept >> 6);
		*(uint4 *)(tile + e / (SIDE / 8) * Pitch<bf16, SIDE>::n + e % (SIDE / 8) * 8) = v;
	}
}

// R is r rounded up; partA [gridDim.y,R,in], partB [gridDim.x,out,R]. dA of the block's columns stands in shared memory, each thread's sums in
// its own places; dB of the rows at hand in registers.
template <int R> __device__ __forceinline__ void adapter(f32 *partA, f32 *partB, const bf16 *g, const u64 *bits, const f32 *b, const f32 *a, i64 out,
	i64 in, int r, i64 stripe) {
	const int W = 8192 / R, E = R / 2; // E sums of a thread for 128 columns
	SHARED(shared);
	f32 *sums = (f32 *)shared;
	bf16 *gs = (bf16 *)(sums + R * W), *as = gs + SIDE * Pitch<bf16, SIDE>::n, *bs = as + R * Pitch<bf16, W>::n;
	int own = threadIdx.x / 32 * 16, row = threadIdx.x % 32 / 4, col = threadIdx.x % 4 * 2;
	i64 j0 = (i64)blockIdx.x * W, i0 = blockIdx.y * stripe, i1 = i0 + stripe < out ? i0 + stripe : out;
	for (int e = threadIdx.x; e < R * W; e += THREADS) {
		int p = e / W;
		i64 j = j0 + e % W;
		narrow(as[p * Pitch<bf16, W>::n + e % W], p < r && j < in ? a[p * in + j] : 0);
		sums[e] = 0;
	}
	Chunk chunk;
	fetch(chunk, g, bits, i0, j0, out, in);
	for (; i0 < i1; i0 += SIDE) {
		float ob[R / 8][4] = {};
		for (int c = 0; c < W; c += SIDE) {
			__syncthreads(); // the last tile was used
			put(gs, chunk);
			for (int e = threadIdx.x; c == 0 && e < SIDE * R; e += THREADS) {
				i64 i = i0 + e / R;
				narrow(bs[e / R * Pitch<bf16, R>::n + e % R], i < out && e % R < r ? b[i * r + e % R] : 0);
			}
			__syncthreads();
			bool last = c + SIDE == W;
			if (!last || i0 + SIDE < i1) fetch(chunk, g, bits, last ? i0 + SIDE : i0, last ? j0 : j0 + c + SIDE, out, in);
			float oa[R / 16][2][4] = {};
#pragma unroll 2
			for (int k = 0; k < SIDE; k += 16) {
				u32 x[4], y[4];
				fragA<SIDE>(x, gs, own, k); // dB of the warp's rows
#pragma unroll
				for (int n = 0; n < R / 16; n++) {
					fragB<W>(y, as, n * 16, c + k);
					mma(ob[2 * n], x, y[0], y[1]);
					mma(ob[2 * n + 1], x, y[2], y[3]);
				}
				fragBT<SIDE>(y, gs, k, own); // dA of the warp's columns
#pragma unroll
				for (int m = 0; m < R / 16; m++) {
					fragAT<R>(x, bs, k, m * 16);
					mma(oa[m][0], x, y[0], y[1]);
					mma(oa[m][1], x, y[2], y[3]);
				}
			}
#pragma unroll
			for (int e = 0; e < E; e++) sums[(c / SIDE * E + e) * THREADS + threadIdx.x] += oa[e / 8][e / 4 % 2][e % 4];
		}
#pragma unroll
		for (int e = 0; e < R / 2; e++) {
			i64 i = i0 + own + row + e / 2 % 2 * 8;
			if (i < out) partB[(blockIdx.x * out + i) * R + e / 4 * 8 + col + e % 2] = ob[e / 4][e % 4];
		}
	}
	for (int c = 0; c < W; c += SIDE)
#pragma unroll
		for (int e = 0; e < E; e++) {
			i64 p = e / 8 * 16 + row + e / 2 % 2 * 8, j = j0 + c + own + e / 4 % 2 * 8 + col + e % 2;
			if (j < in) partA[((i64)blockIdx.y * R + p) * in + j] = sums[(c / SIDE * E + e) * THREADS + threadIdx.x];
		}
}

#define X(R) \
	extern "C" __global__ void __launch_bounds__(THREADS) adapter_bf16_##R(f32 *partA, f32 *partB, const bf16 *g, const u64 *bits, const f32 *b, \
		const f32 *a, i64 out, i64 in, int r, i64 stripe) { \
		adapter<R>(partA, partB, g, bits, b, a, out, in, r, stripe); \
	}
X(16)
X(32)
X(64)

extern "C" __global__ void __launch_bounds__(THREADS) adapter_sum(f32 *da, f32 *db, const f32 *partA, const f32 *partB, i64 out, i64 in, int r, int R,
	int stripes, int columns, float s) {
	sweep(r * (in + out), false, [&](i64 e, auto) {
		float sum = 0;
		if (e < r * in) {
			for (int k = 0; k < stripes; k++) sum += partA[(i64)k * R * in + e];
			da[e] += s * sum;
		} else {
			e -= r * in;
			for (int k = 0; k < columns; k++) sum += partB[(k * out + e / r) * R + e % r];
			db[e] += s * sum;
		}
	});
}
