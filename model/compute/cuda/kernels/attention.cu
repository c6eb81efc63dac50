// y = softmax(scale·Q·Kᵀ)·V by tiles of keys: m' = max(m, s), l' = l·e^{m−m'} + Σ e^{s−m'}, o' = o·e^{m−m'} + e^{s−m'}·V; y = o/l, lse = m + log l.
#include "attention.cuh"

#define LOG2E 1.4426950408889634f

// quad reduces over the four lanes that hold a row.
__device__ __forceinline__ float quadMax(float x) {
	x = fmaxf(x, __shfl_xor_sync(0xffffffff, x, 1));
	return fmaxf(x, __shfl_xor_sync(0xffffffff, x, 2));
}
__device__ __forceinline__ float quadSum(float x) {
	x += __shfl_xor_sync(0xffffffff, x, 1);
	return x + __shfl_xor_sync(0xffffffff, x, 2);
}

// A warp has 16·M queries, a block 64·M; K of the next tile arrives while this one's V is used.
template <int P> __device__ __forceinline__ void attention(bf16 *y, f32 *lse, const bf16 *q, const bf16 *k, const bf16 *v, const Call &c) {
	const int M = P > 128 ? 1 : 2, BM = 64 * M, BN = P == 128 ? 32 : 64, W = Pitch<bf16, P>::n;
	SHARED(shared);
	bf16 *qs = (bf16 *)shared, *ks = qs + BM * W, *vs = ks + BN * W;
	u8 *bad = (u8 *)(vs + BN * W), *state = bad + EXTRA;
	int i0 = blockIdx.x * BM, h = blockIdx.y, kv = (i64)h * c.Hkv / c.Hq, row = threadIdx.x / 32 * 16 * M, g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
	Rows<const bf16> Q = head(q, c.Tq, c.Hq, h, c.D), K = head(k, c.Tk, c.Hkv, kv, c.D), V = head(v, c.Tk, c.Hkv, kv, c.D);
	fetch<P, BM>(qs, Q, i0);
	int tiles = plan<Keys, BM, BN>(state, c, i0), tile = next(state, -1, tiles);
	if (tile < tiles) fetch<P, BN>(ks, K, tile * BN);
	copyCommit();

	float o[M][P / 8][4] = {}, top[M][2], sum[M][2] = {}, scale2 = c.scale * LOG2E; // of a row: the greatest score, Σ e^{s−top}
#pragma unroll
	for (int m = 0; m < M; m++) top[m][0] = top[m][1] = -INF;
	while (tile < tiles) {
		copyWait<0>();
		__syncthreads(); // K is here, and V may be overwritten
		fetch<P, BN>(vs, V, tile * BN);
		copyCommit();
		float s[M][BN / 8][4];
		scores<P>(s, qs, row, ks);
		copyWait<0>();
		__syncthreads(); // V is here, and K may be overwritten
		int j0 = tile * BN;
		bool mixed = state[tile] == MIXED;
		tile = next(state, tile, tiles);
		if (tile < tiles) fetch<P, BN>(ks, K, tile * BN);
		copyCommit();
		if (mixed) {
			disarm<P, BN>(vs, vs, bad);
#pragma unroll
			for (int m = 0; m < M; m++)
#pragma unroll
				for (int n = 0; n < BN / 8; n++)
#pragma unroll
					for (int e = 0; e < 4; e++) {
						int i = row + m * 16 + g + e / 2 * 8, j = n * 8 + 2 * t + e % 2;
						s[m][n][e] = !c.sees(i0 + i, j0 + j) ? -INF : bad[j] ? NAN32 : s[m][n][e];
					}
		}
#pragma unroll
		for (int r = 0; r < 2 * M; r++) {
			int m = r / 2, e0 = r % 2 * 2;
			float most = top[m][r % 2], old = most, part = 0;
#pragma unroll
			for (int n = 0; n < BN / 8; n++) most = fmaxf(most, fmaxf(s[m][n][e0], s[m][n][e0 + 1]));
			most = quadMax(most);
			float at = most == -INF ? 0 : most * scale2, shrink = exp2fast(old * scale2 - at);
			top[m][r % 2] = most;
#pragma unroll
			for (int n = 0; n < BN / 8; n++)
#pragma unroll
				for (int e = e0; e < e0 + 2; e++) part += s[m][n][e] = exp2fast(s[m][n][e] * scale2 - at);
			sum[m][r % 2] = sum[m][r % 2] * shrink + part;
#pragma unroll
			for (int d = 0; d < P / 8; d++) o[m][d][e0] *= shrink, o[m][d][e0 + 1] *= shrink;
		}
		product<P>(o, s, vs, 0);
	}
	copyWait<0>();
	__syncthreads(); // queries may be overwritten
#pragma unroll
	for (int m = 0; m < M; m++) {
		float f[2];
#pragma unroll
		for (int r = 0; r < 2; r++) {
			float all = quadSum(sum[m][r]);
			int i = i0 + row + m * 16 + g + 8 * r;
			f[r] = all == 0 ? 0 : 1 / all;
			if (t == 0 && i < c.Tq) lse[((i64)blockIdx.z * c.Hq + h) * c.Tq + i] = all == 0 ? -INF : top[m][r] * c.scale + logf(all);
		}
		deliver<P>(head(y, c.Tq, c.Hq, h, c.D), i0 + row + m * 16, 0, qs, row + m * 16, o[m], f[0], f[1]);
	}
}

// The float32 twin: a block has 32 queries, a row belongs to four threads.
template <int P> __device__ __forceinline__ void attention(f32 *y, f32 *lse, const f32 *q, const f32 *k, const f32 *v, const Call &c) {
	const int W = Pitch<f32, P>::n;
	SHARED(shared);
	f32 *qs = (f32 *)shared, *ks = qs + SIDE * W, *vs = ks + SIDE * W, *p = vs + SIDE * W;
	u8 *bad = (u8 *)(p + 2 * SIDE * SPITCH), *state = bad + EXTRA;
	int i0 = blockIdx.x * SIDE, h = blockIdx.y, kv = (i64)h * c.Hkv / c.Hq, row = threadIdx.x / 4, t = threadIdx.x % 4;
	Rows<const f32> Q = head(q, c.Tq, c.Hq, h, c.D), K = head(k, c.Tk, c.Hkv, kv, c.D), V = head(v, c.Tk, c.Hkv, kv, c.D);
	fetch<P, SIDE>(qs, Q, i0);
	copyCommit();
	int tiles = plan<Keys, SIDE, SIDE>(state, c, i0);
	float o[P / 16][4] = {}, m = -INF, l = 0;
	for (int tile = next(state, -1, tiles); tile < tiles; tile = next(state, tile, tiles)) {
		int j0 = tile * SIDE;
		__syncthreads(); // the last tile was used
		fetch<P, SIDE>(ks, K, j0);
		fetch<P, SIDE>(vs, V, j0);
		copyCommit();
		copyWait<0>();
		__syncthreads();
		bool mixed = state[tile] == MIXED;
		if (mixed) disarm<P, SIDE>(ks, vs, bad);
		float s[2][4];
		scores<P>(s, qs, ks);
		for (int e = 0; e < 8; e++) {
			int i = threadIdx.x / 8 + e / 4 * 16, j = threadIdx.x % 8 + e % 4 * 8;
			float x = s[e / 4][e % 4] * c.scale;
			if (mixed) x = !c.sees(i0 + i, j0 + j) ? -INF : bad[j] ? NAN32 : x;
			p[i * SPITCH + j] = x;
		}
		__syncthreads();
		float top = m, sum = 0;
		for (int j = t; j < SIDE; j += 4) top = fmaxf(top, p[row * SPITCH + j]);
		top = quadMax(top);
		float at = top == -INF ? 0 : top, shrink = expf(m - at);
		for (int j = t; j < SIDE; j += 4) sum += p[row * SPITCH + j] = expf(p[row * SPITCH + j] - at);
		__syncwarp();
		m = top;
		l = l * shrink + quadSum(sum);
#pragma unroll
		for (int d = 0; d < P / 16; d++)
#pragma unroll
			for (int e = 0; e < 4; e++) o[d][e] *= shrink;
		product<P>(o, p + row * SPITCH, 1, vs);
	}
	copyWait<0>();
	int i = i0 + row;
	if (t == 0 && i < c.Tq) lse[((i64)blockIdx.z * c.Hq + h) * c.Tq + i] = l == 0 ? -INF : m + logf(l);
	deliver<P>(head(y, c.Tq, c.Hq, h, c.D), i, o, l == 0 ? 0 : 1 / l);
}

#define X(P) \
	extern "C" __global__ void __launch_bounds__(ATTENTION_THREADS) attention_f32_##P(f32 *y, f32 *lse, const f32 *q, const f32 *k, const f32 *v, \
		PARAMETERS) { \
		attention<P>(y, lse, q, k, v, SEQUENCE); \
	} \
	extern "C" __global__ void __launch_bounds__(ATTENTION_THREADS) attention_bf16_##P(bf16 *y, f32 *lse, const bf16 *q, const bf16 *k, \
		const bf16 *v, PARAMETERS) { \
		attention<P>(y, lse, q, k, v, SEQUENCE); \
	}
WIDTHS(X)
