// dst = W̃ = M ⊙ (W + s·B·A) of a 2:4 weight as the sparse tensor cores take it: of each four neighbours the two kept ones, and their places.
//
// The sums are merge's, for the same bits: float32, rounded once. A block takes 128 rows and 256 inputs, a warp 16 rows; of 64 inputs at a time
// lane (g, t) holds, for four groups of 16, inputs 4t…4t+3 of rows g and g+8, of which it keeps two: its own registers of two mma.sp.
#include "lowrank.cuh"
#include "mma_sp.cuh"

#define COLS 256

// places is the metadata of four neighbours with mask bits `kept`: two bits for the lower place, two for the higher. Two are kept; of a row that
// is not there, none: then places 0 and 1, for metadata must be in order.
__device__ __forceinline__ u32 places(u32 kept) { return (u32)(0x444e4dc449844444ull >> (kept & 15) * 4) & 15; }

__device__ __forceinline__ float pick(const float (&x)[4], u32 k) { return k < 2 ? (k == 0 ? x[0] : x[1]) : (k == 2 ? x[2] : x[3]); }

template <class S> struct alignas(2 * sizeof(S)) Two {
	S x, y;
};

template <class S> __device__ __forceinline__ void compress(Tile *dst, const S *values, const u64 *bits, const f32 *b, const f32 *a, i64 out, i64 in,
	int r, float s) {
	__shared__ PartA ahi, alo;
	__shared__ PartB bhi, blo;
	int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;
	i64 i0 = (i64)blockIdx.y * ROWS, i1 = i0 + warp * 16 + g;
	bool pairs = (u64)values % sizeof(Two<S>) == 0;
	for (i64 j0 = (i64)blockIdx.x * COLS; j0 < in && j0 < (blockIdx.x + 1ll) * COLS; j0 += 64) {
		float sum[2][4][4];
		lowRank(sum, ahi, alo, bhi, blo, b, a, out, in, r, s, i0, j0, j0 % COLS == 0,
			[](int e, int n) { return e / 4 * 32 + e % 4 / 2 * 16 + n / 2 * 4 + e % 2 * 2 + n % 2; });
		if (i0 + warp * 16 >= out) continue;
		Tile &tile = dst[(i0 / 16 + warp) * (in / 64) + j0 / 64];
		u64 word[2];
		u32 meta = 0;
#pragma unroll
		for (int e = 0; e < 2; e++) {
			word[e] = i1 + e * 8 < out ? bits[(i1 + e * 8) * (in / 64) + j0 / 64] : 0;
#pragma unroll
			for (int q = 0; q < 4; q++) meta |= places((u32)(word[e] >> (16 * t + 4 * q))) << (16 * e + 4 * q); // of inputs 16t…16t+15
		}
		tile.meta[lane] = meta;
#pragma unroll
		for (int h = 0; h < 2; h++) {
			u32 kept[4] = {};
#pragma unroll
			for (int k = 0; k < 4; k++) {
				int q = k / 2, e = k % 2, c = h * 32 + q * 16 + 4 * t;
				if (i1 + e * 8 >= out) continue;
				u32 at = places((u32)(word[e] >> c));
				float x[4] = {sum[h][2 * q][2 * e], sum[h][2 * q][2 * e + 1], sum[h][2 * q + 1][2 * e], sum[h][2 * q + 1][2 * e + 1]};
				const S *v = values + ((i1 + e * 8) * in + j0 + c) / 2;
				Two<S> w = pairs ? *(const Two<S> *)v : Two<S>{v[0], v[1]};
				kept[k] = pack(pick(x, at & 3) + widen(w.x), pick(x, at >> 2) + widen(w.y));
			}
			tile.kept[h][lane] = uint4{kept[0], kept[1], kept[2], kept[3]};
		}
	}
}

#define X(S) \
	extern "C" __global__ void __launch_bounds__(THREADS) compress_##S(Tile *dst, const S *values, const u64 *bits, const f32 *b, const f32 *a, i64 out, \
		i64 in, int r, float s) { \
		compress<S>(dst, values, bits, b, a, out, in, r, s); \
	}
X(f32)
X(bf16)
X(f16)
