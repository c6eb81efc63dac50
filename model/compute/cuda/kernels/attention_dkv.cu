// dV = Pᵀ·dY, dK = scale·dSᵀ·Q, dS = P ⊙ (dY·Vᵀ − δ), P = e^{scale·Q·Kᵀ − lse}: summed over the queries of all heads that share the key.
#include "attention.cuh"

#define LOG2E 1.4426950408889634f

// A warp has 16 keys, a block 64, and 128 columns of dK and dV at most; queries of the next tile arrive while this one is used. Scores are
// transposed: Sᵀ = K·Qᵀ, so that Pᵀ and dSᵀ are left factors as they stand in registers.
template <int P> __device__ __forceinline__ void dkv(bf16 *dk, bf16 *dv, const bf16 *dy, const f32 *lse, const f32 *delta, const bf16 *q,
	const bf16 *k, const bf16 *v, const Call &c) {
	const int BN = 64, BM = P > 64 ? 32 : 64, W = Pitch<bf16, P>::n, SPLIT = (P + 127) / 128, COLS = P / SPLIT;
	SHARED(shared);
	bf16 *ks = (bf16 *)shared, *vs = ks + BN * W, *qs = vs + BN * W; // then dy, q, dy of the two stages
	u8 *bad = (u8 *)(qs + 4 * BM * W), *state = bad + EXTRA;
	f32 *ls = (f32 *)(bad + 64), *dl = ls + 64;
	int j0 = blockIdx.x / SPLIT * BN, c0 = blockIdx.x % SPLIT * COLS, kv = blockIdx.y, row = threadIdx.x / 32 * 16, g = threadIdx.x % 32 / 4,
		t = threadIdx.x % 4, group = c.Hq / c.Hkv;
	fetch<P, BN>(ks, head(k, c.Tk, c.Hkv, kv, c.D), j0);
	fetch<P, BN>(vs, head(v, c.Tk, c.Hkv, kv, c.D), j0);
	int tiles = plan<Queries, BM, BN>(state, c, j0), first = next(state, -1, tiles), tile = first, stage = 0, h = kv * group;
	if (tile < tiles) {
		fetch<P, BM>(qs, head(q, c.Tq, c.Hq, h, c.D), tile * BM);
		fetch<P, BM>(qs + BM * W, head(dy, c.Tq, c.Hq, h, c.D), tile * BM);
	}
	copyCommit();
	float ok[1][COLS / 8][4] = {}, ov[1][COLS / 8][4] = {}, scale2 = c.scale * LOG2E;
	for (; tile < tiles; stage ^= 1) {
		bf16 *qt = qs + stage * 2 * BM * W, *yt = qt + BM * W;
		int i0 = tile * BM;
		i64 at = ((i64)blockIdx.z * c.Hq + h) * c.Tq;
		bool mixed = state[tile] == MIXED;
		tile = next(state, tile, tiles);
		if (tile == tiles && ++h < (kv + 1) * group) tile = first;
		copyWait<0>();
		__syncthreads(); // this stage is here, and the other was used
		if (threadIdx.x < BM) {
			int i = i0 + threadIdx.x;
			ls[threadIdx.x] = i < c.Tq ? lse[at + i] * LOG2E : 0;
			dl[threadIdx.x] = i < c.Tq ? delta[at + i] : 0;
		}
		if (tile < tiles) {
			bf16 *to = qs + (stage ^ 1) * 2 * BM * W;
			fetch<P, BM>(to, head(q, c.Tq, c.Hq, h, c.D), tile * BM);
			fetch<P, BM>(to + BM * W, head(dy, c.Tq, c.Hq, h, c.D), tile * BM);
		}
		copyCommit();
		if (mixed)
			disarm<P, BM>(qt, yt, bad);
		else
			__syncthreads(); // lse and δ are here
		float s[1][BM / 8][4], ds[1][BM / 8][4];
		scores<P>(s, ks, row, qt);
		scores<P>(ds, vs, row, yt);
#pragma unroll
		for (int n = 0; n < BM / 8; n++)
#pragma unroll
			for (int e = 0; e < 4; e++) {
				int i = n * 8 + 2 * t + e % 2;
				float p = exp2fast(s[0][n][e] * scale2 - ls[i]), x = p * (ds[0][n][e] - dl[i]);
				if (mixed) {
					bool in = c.sees(i0 + i, j0 + row + g + e / 2 * 8);
					p = !in ? 0 : bad[i] ? NAN32 : p;
					x = !in ? 0 : bad[i] ? NAN32 : x;
				}
				s[0][n][e] = p;
				ds[0][n][e] = x;
			}
		product<P>(ov, s, yt, c0);
		product<P>(ok, ds, qt, c0);
	}
	copyWait<0>();
	__syncthreads(); // keys and values may be overwritten
	deliver<P>(head(dk, c.Tk, c.Hkv, kv, c.D), j0 + row, c0, ks, row, ok[0], c.scale, c.scale);
	deliver<P>(head(dv, c.Tk, c.Hkv, kv, c.D), j0 + row, c0, vs, row, ov[0], 1, 1);
}

// The float32 twin: thread (row, part) holds its key's columns.
template <int P> __device__ __forceinline__ void dkv(f32 *dk, f32 *dv, const f32 *dy, const f32 *lse, const f32 *delta, const f32 *q, const f32 *k,
	const f32 *v, const Call &c) {
	const int W = Pitch<f32, P>::n;
	SHARED(shared);
	f32 *ks = (f32 *)shared, *vs = ks + SIDE * W, *qs = vs + SIDE * W, *ys = qs + SIDE * W, *p = ys + SIDE * W, *ds = p + SIDE * SPITCH;
	u8 *bad = (u8 *)(ds + SIDE * SPITCH), *state = bad + EXTRA;
	int j0 = blockIdx.x * SIDE, kv = blockIdx.y, row = threadIdx.x / 4, group = c.Hq / c.Hkv;
	fetch<P, SIDE>(ks, head(k, c.Tk, c.Hkv, kv, c.D), j0);
	fetch<P, SIDE>(vs, head(v, c.Tk, c.Hkv, kv, c.D), j0);
	copyCommit();
	int tiles = plan<Queries, SIDE, SIDE>(state, c, j0);
	float ok[P / 16][4] = {}, ov[P / 16][4] = {};
	for (int h = kv * group; h < (kv + 1) * group; h++)
		for (int tile = next(state, -1, tiles); tile < tiles; tile = next(state, tile, tiles)) {
			int i0 = tile * SIDE;
			i64 at = ((i64)blockIdx.z * c.Hq + h) * c.Tq;
			__syncthreads(); // the last tile was used
			fetch<P, SIDE>(qs, head(q, c.Tq, c.Hq, h, c.D), i0);
			fetch<P, SIDE>(ys, head(dy, c.Tq, c.Hq, h, c.D), i0);
			copyCommit();
			copyWait<0>();
			__syncthreads();
			bool mixed = state[tile] == MIXED;
			if (mixed) disarm<P, SIDE>(qs, ys, bad);
			float s[2][4], d[2][4];
			scores<P>(s, qs, ks);
			scores<P>(d, ys, vs);
			for (int e = 0; e < 8; e++) {
				int i = threadIdx.x / 8 + e / 4 * 16, j = threadIdx.x % 8 + e % 4 * 8;
				float x = 0, w = 0;
				if (!mixed || c.sees(i0 + i, j0 + j)) {
					w = mixed && bad[i] ? NAN32 : expf(s[e / 4][e % 4] * c.scale - lse[at + i0 + i]);
					x = w * (d[e / 4][e % 4] - delta[at + i0 + i]);
				}
				p[i * SPITCH + j] = w;
				ds[i * SPITCH + j] = x;
			}
			__syncthreads();
			product<P>(ov, p + row, SPITCH, ys);
			product<P>(ok, ds + row, SPITCH, qs);
		}
	copyWait<0>();
	deliver<P>(head(dk, c.Tk, c.Hkv, kv, c.D), j0 + row, ok, c.scale);
	deliver<P>(head(dv, c.Tk, c.Hkv, kv, c.D), j0 + row, ov, 1);
}

#define Y(T, P) \
	extern "C" __global__ void __launch_bounds__(ATTENTION_THREADS) attention_dkv_##T##_##P(T *dk, T *dv, const T *dy, const f32 *lse, \
		const f32 *delta, const T *q, const T *k, const T *v, PARAMETERS) { \
		dkv<P>(dk, dv, dy, lse, delta, q, k, v, SEQUENCE); \
	}
#define X(P) Y(f32, P) Y(bf16, P)
WIDTHS(X)
