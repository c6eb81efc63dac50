// dQ = scale·dS·K, dS = P ⊙ (dY·Vᵀ − δ), P = e^{scale·Q·Kᵀ − lse}, δ = rowsum(dY ⊙ Y).
#include "attention.cuh"

#define LOG2E 1.4426950408889634f

template <class T> __device__ __forceinline__ void delta(f32 *out, const T *dy, const T *y, i64 B, int Tq, int Hq, int D) {
	i64 row = (i64)blockIdx.x * (THREADS / 32) + threadIdx.x / 32; // (b·Tq + i)·Hq + h
	if (row >= B * Tq * Hq) return;
	float sum = 0;
	for (int d = threadIdx.x % 32; d < D; d += 32) sum += widen(dy[row * D + d]) * widen(y[row * D + d]);
#pragma unroll
	for (int d = 16; d > 0; d /= 2) sum += __shfl_xor_sync(0xffffffff, sum, d);
	i64 i = row / Hq;
	if (threadIdx.x % 32 == 0) out[(i / Tq * Hq + row % Hq) * Tq + i % Tq] = sum;
}

// A warp has 16·M queries, a block 64·M; keys and values of the next tile arrive while this one is used.
template <int P> __device__ __forceinline__ void dq(bf16 *dq, const bf16 *dy, const f32 *lse, const f32 *delta, const bf16 *q, const bf16 *k,
	const bf16 *v, const Call &c) {
	const int M = P > 128 ? 1 : 2, BM = 64 * M, BN = 32, W = Pitch<bf16, P>::n;
	SHARED(shared);
	bf16 *qs = (bf16 *)shared, *ys = qs + BM * W, *ks = ys + BM * W; // then v, k, v of the two stages
	u8 *bad = (u8 *)(ks + 4 * BN * W), *state = bad + EXTRA;
	int i0 = blockIdx.x * BM, h = blockIdx.y, kv = (i64)h * c.Hkv / c.Hq, row = threadIdx.x / 32 * 16 * M, g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
	Rows<const bf16> K = head(k, c.Tk, c.Hkv, kv, c.D), V = head(v, c.Tk, c.Hkv, kv, c.D);
	fetch<P, BM>(qs, head(q, c.Tq, c.Hq, h, c.D), i0);
	fetch<P, BM>(ys, head(dy, c.Tq, c.Hq, h, c.D), i0);
	int tiles = plan<Keys, BM, BN>(state, c, i0), tile = next(state, -1, tiles), stage = 0;
	if (tile < tiles) {
		fetch<P, BN>(ks, K, tile * BN);
		fetch<P, BN>(ks + BN * W, V, tile * BN);
	}
	copyCommit();
	float o[M][P / 8][4] = {}, at[2 * M], dd[2 * M], scale2 = c.scale * LOG2E;
#pragma unroll
	for (int r = 0; r < 2 * M; r++) {
		int i = i0 + row + g + 8 * r;
		i64 n = ((i64)blockIdx.z * c.Hq + h) * c.Tq + i;
		at[r] = i < c.Tq ? lse[n] * LOG2E : 0;
		dd[r] = i < c.Tq ? delta[n] : 0;
	}
	for (; tile < tiles; stage ^= 1) {
		bf16 *kt = ks + stage * 2 * BN * W, *vt = kt + BN * W;
		int j0 = tile * BN;
		bool mixed = state[tile] == MIXED;
		tile = next(state, tile, tiles);
		copyWait<0>();
		__syncthreads(); // this stage is here, and the other was used
		if (tile < tiles) {
			bf16 *to = ks + (stage ^ 1) * 2 * BN * W;
			fetch<P, BN>(to, K, tile * BN);
			fetch<P, BN>(to + BN * W, V, tile * BN);
		}
		copyCommit();
		if (mixed) disarm<P, BN>(kt, vt, bad);
		float s[M][BN / 8][4], ds[M][BN / 8][4];
		scores<P>(s, qs, row, kt);
		scores<P>(ds, ys, row, vt);
#pragma unroll
		for (int m = 0; m < M; m++)
#pragma unroll
			for (int n = 0; n < BN / 8; n++)
#pragma unroll
				for (int e = 0; e < 4; e++) {
					int r = 2 * m + e / 2;
					float x = exp2fast(s[m][n][e] * scale2 - at[r]) * (ds[m][n][e] - dd[r]);
					if (mixed) {
						int j = n * 8 + 2 * t + e % 2;
						x = !c.sees(i0 + row + g + 8 * r, j0 + j) ? 0 : bad[j] ? NAN32 : x;
					}
					ds[m][n][e] = x;
				}
		product<P>(o, ds, kt, 0);
	}
	copyWait<0>();
	__syncthreads(); // queries may be overwritten
#pragma unroll
	for (int m = 0; m < M; m++) deliver<P>(head(dq, c.Tq, c.Hq, h, c.D), i0 + row + m * 16, 0, qs, row + m * 16, o[m], c.scale, c.scale);
}

// The float32 twin.
template <int P> __device__ __forceinline__ void dq(f32 *dq, const f32 *dy, const f32 *lse, const f32 *delta, const f32 *q, const f32 *k, const f32 *v,
	const Call &c) {
	const int W = Pitch<f32, P>::n;
	SHARED(shared);
	f32 *qs = (f32 *)shared, *ys = qs + SIDE * W, *ks = ys + SIDE * W, *vs = ks + SIDE * W, *ds = vs + SIDE * W;
	u8 *bad = (u8 *)(ds + 2 * SIDE * SPITCH), *state = bad + EXTRA;
	int i0 = blockIdx.x * SIDE, h = blockIdx.y, kv = (i64)h * c.Hkv / c.Hq, row = threadIdx.x / 4;
	Rows<const f32> K = head(k, c.Tk, c.Hkv, kv, c.D), V = head(v, c.Tk, c.Hkv, kv, c.D);
	fetch<P, SIDE>(qs, head(q, c.Tq, c.Hq, h, c.D), i0);
	fetch<P, SIDE>(ys, head(dy, c.Tq, c.Hq, h, c.D), i0);
	copyCommit();
	int tiles = plan<Keys, SIDE, SIDE>(state, c, i0);
	lse += ((i64)blockIdx.z * c.Hq + h) * c.Tq;
	delta += ((i64)blockIdx.z * c.Hq + h) * c.Tq;
	float o[P / 16][4] = {};
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
		float s[2][4], d[2][4];
		scores<P>(s, qs, ks);
		scores<P>(d, ys, vs);
		for (int e = 0; e < 8; e++) {
			int i = threadIdx.x / 8 + e / 4 * 16, j = threadIdx.x % 8 + e % 4 * 8;
			float x = 0;
			if (!mixed || c.sees(i0 + i, j0 + j)) x = expf(s[e / 4][e % 4] * c.scale - lse[i0 + i]) * (d[e / 4][e % 4] - delta[i0 + i]);
			if (mixed && bad[j] && c.sees(i0 + i, j0 + j)) x = NAN32;
			ds[i * SPITCH + j] = x;
		}
		__syncthreads();
		product<P>(o, ds + row * SPITCH, 1, ks);
	}
	copyWait<0>();
	deliver<P>(head(dq, c.Tq, c.Hq, h, c.D), i0 + row, o, c.scale);
}

#define X(T) \
	extern "C" __global__ void __launch_bounds__(THREADS) attention_delta_##T(f32 *out, const T *dy, const T *y, i64 B, int Tq, int Hq, int D) { \
		delta(out, dy, y, B, Tq, Hq, D); \
	}
X(f32)
X(bf16)
#undef X

#define Y(T, P) \
	extern "C" __global__ void __launch_bounds__(ATTENTION_THREADS) attention_dq_##T##_##P(T *out, const T *dy, const f32 *lse, const f32 *delta, \
		const T *q, const T *k, const T *v, PARAMETERS) { \
		dq<P>(out, dy, lse, delta, q, k, v, SEQUENCE); \
	}
#define X(P) Y(f32, P) Y(bf16, P)
WIDTHS(X)
