// S = scale·Q·Kᵀ by tiles of queries and keys; what the passes of attention have in common: who sees whom, tiles in shared memory.
//
// A tile of keys against a tile of queries is hidden (nobody sees anybody: skipped), open (everybody sees everybody: no mask) or mixed.
// A NaN or infinity of a row that a mixed tile hides from a query must not reach it through 0·NaN: in mixed tiles such rows become
// zeros in shared memory, and the score of who sees them becomes NaN.
#pragma once
#include "mma.cuh"

enum { HIDDEN, MIXED, OPEN };

#define ATTENTION_THREADS 128
#define EXTRA 1024 // bytes of shared memory beside tiles: lse, delta [64], bad [64]

struct Call {
	const int *qpos, *kpos, *qdoc, *kdoc; // of this sequence
	int Tq, Tk, Hq, Hkv, D;
	float scale;
	int window;

	__device__ __forceinline__ bool sees(int i, int j) const {
		if (i >= Tq || j >= Tk || j > Tk - Tq + i) return false;
		int doc = qdoc[i], far = qpos[i] - kpos[j];
		return doc >= 0 && kdoc[j] == doc && far >= 0 && (window == 0 || far < window);
	}
};

__device__ __forceinline__ Call sequence(const int *qpos, const int *kpos, const int *qdoc, const int *kdoc, int Tq, int Tk, int Hq, int Hkv, int D,
	float scale, int window) {
	i64 b = blockIdx.z;
	return Call{qpos + b * Tq, kpos + b * Tk, qdoc + b * Tq, kdoc + b * Tk, Tq, Tk, Hq, Hkv, D, scale, window};
}

// Bounds are the least and greatest position and document of tokens [t0, t1).
struct Bounds {
	int pos0, pos1, doc0, doc1;
};

// bounds is called by whole warps; all lanes receive it.
__device__ __forceinline__ Bounds bounds(const int *pos, const int *doc, int t0, int t1) {
	Bounds b = {0x7fffffff, (int)0x80000000, 0x7fffffff, (int)0x80000000};
	for (int t = t0 + threadIdx.x % 32; t < t1; t += 32) {
		b.pos0 = min(b.pos0, pos[t]);
		b.pos1 = max(b.pos1, pos[t]);
		b.doc0 = min(b.doc0, doc[t]);
		b.doc1 = max(b.doc1, doc[t]);
	}
	return Bounds{__reduce_min_sync(0xffffffff, b.pos0), __reduce_max_sync(0xffffffff, b.pos1), __reduce_min_sync(0xffffffff, b.doc0),
		__reduce_max_sync(0xffffffff, b.doc1)};
}

__device__ __forceinline__ int stateOf(const Bounds &q, const Bounds &k, int window) {
	if (k.doc1 < max(q.doc0, 0) || k.doc0 > q.doc1 || q.pos1 < k.pos0 || (window > 0 && q.pos0 - k.pos1 >= window)) return HIDDEN;
	bool one = q.doc0 >= 0 && q.doc0 == q.doc1 && k.doc0 == q.doc0 && k.doc1 == q.doc0;
	return one && q.pos0 >= k.pos1 && (window == 0 || q.pos1 - k.pos0 < window) ? OPEN : MIXED;
}

// plan sets state of every tile that a block goes over: tiles of keys for the queries from i0 on, or, with over Queries, the other way.
enum Over { Keys, Queries };
template <Over O, int TQ, int TK> __device__ __forceinline__ int plan(u8 *state, const Call &c, int from) {
	int n = O == Keys ? (c.Tk + TK - 1) / TK : (c.Tq + TQ - 1) / TQ;
	int i0 = from, i1 = min(i0 + TQ, c.Tq), j0 = from, j1 = min(j0 + TK, c.Tk);
	Bounds q, k;
	if (O == Keys) {
		q = bounds(c.qpos, c.qdoc, i0, i1);
		n = min(n, max(0, c.Tk - c.Tq + i1 + TK - 1) / TK); // no key is later than its query
	} else
		k = bounds(c.kpos, c.kdoc, j0, j1);
	for (int t = threadIdx.x / 32; t < n; t += ATTENTION_THREADS / 32) {
		if (O == Keys) {
			j0 = t * TK, j1 = min(j0 + TK, c.Tk);
			k = bounds(c.kpos, c.kdoc, j0, j1);
		} else {
			i0 = t * TQ, i1 = min(i0 + TQ, c.Tq);
			q = bounds(c.qpos, c.qdoc, i0, i1);
		}
		int s = stateOf(q, k, c.window), late = c.Tk - c.Tq; // key j is not later than query i: j ≤ late + i
		if (j0 > late + i1 - 1) s = HIDDEN;
		if (s == OPEN && (j1 - 1 > late + i0 || i1 - i0 < TQ || j1 - j0 < TK)) s = MIXED;
		if (threadIdx.x % 32 == 0) state[t] = s;
	}
	__syncthreads();
	return n;
}

// next is the first tile after t that is not hidden; n: none.
__device__ __forceinline__ int next(const u8 *state, int t, int n) {
	do t++;
	while (t < n && state[t] == HIDDEN);
	return t;
}

// Rows are the tokens of one head of one sequence: element (t, d) is at p[t·stride + d].
template <class T> struct Rows {
	T *p;
	i64 stride;
	int n, D;
	bool vectors;
};

template <class T> __device__ __forceinline__ Rows<T> head(T *x, int n, int H, int h, int D) {
	T *p = x + ((i64)blockIdx.z * n * H + h) * D;
	return Rows<T>{p, (i64)H * D, n, D, aligned(x) && D % (16 / (int)sizeof(T)) == 0};
}

// fetch sets a tile to rows [t0, t0+N), zeros beyond the last row and D. It is complete after copyWait and a barrier.
template <int P, int N, class T> __device__ __forceinline__ void fetch(T *tile, const Rows<const T> &x, int t0) {
	const int V = 16 / (int)sizeof(T), C = P / V;
	if (x.vectors) {
#pragma unroll
		for (int e = threadIdx.x; e < N * C; e += ATTENTION_THREADS) {
			int t = t0 + e / C, d = e % C * V;
			bool in = t < x.n && d < x.D;
			copyAsync(tile + e / C * Pitch<T, P>::n + d, in ? x.p + t * x.stride + d : x.p, in);
		}
	} else {
		for (int e = threadIdx.x; e < N * P; e += ATTENTION_THREADS) {
			int t = t0 + e / P, d = e % P;
			tile[e / P * Pitch<T, P>::n + d] = t < x.n && d < x.D ? x.p[t * x.stride + d] : T{};
		}
	}
}

__device__ __forceinline__ bool finite(f32 x) { return (__float_as_uint(x) & 0x7f800000) != 0x7f800000; }
__device__ __forceinline__ bool finite(bf16 x) { return (x.bits & 0x7f80) != 0x7f80; }

// disarm looks for rows with a NaN or an infinity in either tile, makes them zeros in both, and marks them in bad. All threads call it.
template <int P, int N, class T> __device__ __noinline__ void disarm(T *x, T *y, u8 *bad) {
	const int W = Pitch<T, P>::n;
	if (threadIdx.x < N) bad[threadIdx.x] = 0;
	__syncthreads();
	for (int e = threadIdx.x; e < N * P; e += ATTENTION_THREADS)
		if (!finite(x[e / P * W + e % P]) || !finite(y[e / P * W + e % P])) bad[e / P] = 1;
	__syncthreads();
	for (int e = threadIdx.x; e < N * P; e += ATTENTION_THREADS)
		if (bad[e / P]) x[e / P * W + e % P] = y[e / P * W + e % P] = T{};
	__syncthreads();
}

// ---- bfloat16 on tensor cores: a warp's fragments of tiles in shared memory ----

// scores sets s [16·M, 8·N] = X·Yᵀ: 16·M rows of tile x from row on, 8·N rows of tile y. A piece of Y is loaded once for all M.
template <int P, int M, int N> __device__ __forceinline__ void scores(float (&s)[M][N][4], const bf16 *x, int row, const bf16 *y) {
#pragma unroll
	for (int e = 0; e < M * N * 4; e++) s[e / (N * 4)][e / 4 % N][e % 4] = 0;
#pragma unroll
	for (int k = 0; k < P; k += 16) {
		u32 a[M][4], b[4];
#pragma unroll
		for (int m = 0; m < M; m++) fragA<P>(a[m], x, row + m * 16, k);
#pragma unroll
		for (int n = 0; n < N; n += 2) {
			fragB<P>(b, y, n * 8, k);
#pragma unroll
			for (int m = 0; m < M; m++) {
				mma(s[m][n], a[m], b[0], b[1]);
				mma(s[m][n + 1], a[m], b[2], b[3]);
			}
		}
	}
}

// product adds to o [16·M, 8·C] the product of p [16·M, 8·N], rounded to bfloat16, with columns c0… of tile y, whose rows are p's columns.
template <int P, int M, int N, int C> __device__ __forceinline__ void product(float (&o)[M][C][4], const float (&p)[M][N][4], const bf16 *y, int c0) {
#pragma unroll
	for (int n = 0; n < N; n += 2) {
		u32 a[M][4], b[4];
#pragma unroll
		for (int m = 0; m < M; m++)
#pragma unroll
			for (int e = 0; e < 4; e++) a[m][e] = pack(p[m][n + e / 2][e % 2 * 2], p[m][n + e / 2][e % 2 * 2 + 1]);
#pragma unroll
		for (int c = 0; c < C; c += 2) {
			fragBT<P>(b, y, n * 8, c0 + c * 8);
#pragma unroll
			for (int m = 0; m < M; m++) {
				mma(o[m][c], a[m], b[0], b[1]);
				mma(o[m][c + 1], a[m], b[2], b[3]);
			}
		}
	}
}

// deliver stores a warp's o [16, 8·C], times the factors of its rows g and g+8, at rows t0… and columns c0… of x; it goes through tile, of
// which row… is the warp's own.
template <int P, int C> __device__ __forceinline__ void deliver(const Rows<bf16> &x, int t0, int c0, bf16 *tile, int row, const float (&o)[C][4],
	float f0, float f1) {
	const int W = Pitch<bf16, P>::n;
	int l = threadIdx.x % 32, g = l / 4, t = l % 4;
	bf16 *mine = tile + row * W;
	__syncwarp();
#pragma unroll
	for (int c = 0; c < C; c++) {
		*(u32 *)(mine + g * W + c * 8 + 2 * t) = pack(o[c][0] * f0, o[c][1] * f0);
		*(u32 *)(mine + (g + 8) * W + c * 8 + 2 * t) = pack(o[c][2] * f1, o[c][3] * f1);
	}
	__syncwarp();
	if (x.vectors) {
		for (int e = l; e < 16 * C; e += 32) {
			int i = t0 + e / C, d = e % C * 8;
			if (i < x.n && c0 + d < x.D) *(uint4 *)(x.p + i * x.stride + c0 + d) = *(const uint4 *)(mine + e / C * W + d);
		}
	} else {
		for (int e = l; e < 16 * C * 8; e += 32) {
			int i = t0 + e / (C * 8), d = e % (C * 8);
			if (i < x.n && c0 + d < x.D) x.p[i * x.stride + c0 + d] = mine[e / (C * 8) * W + d];
		}
	}
	__syncwarp();
}

// ---- float32: the same by FMA. Thread (ty, tx) = (tid/8, tid%8) holds s of rows ty, ty+16 and columns tx + 8n. ----

#define SIDE 32 // queries and keys of a tile
#define SPITCH 36

template <int P> __device__ __forceinline__ void scores(float (&s)[2][4], const f32 *x, const f32 *y) {
	const int W = Pitch<f32, P>::n;
	int ty = threadIdx.x / 8, tx = threadIdx.x % 8;
#pragma unroll
	for (int e = 0; e < 8; e++) s[e / 4][e % 4] = 0;
	for (int d = 0; d < P; d += 4) {
		float a[2][4], b[4][4];
#pragma unroll
		for (int r = 0; r < 2; r++) load(a[r], (const Four *)(x + (ty + r * 16) * W + d));
#pragma unroll
		for (int n = 0; n < 4; n++) load(b[n], (const Four *)(y + (tx + n * 8) * W + d));
#pragma unroll
		for (int e = 0; e < 32; e++) s[e / 16][e / 4 % 4] += a[e / 16][e % 4] * b[e / 4 % 4][e % 4];
	}
}

// Thread (row, part) = (tid/4, tid%4) holds o of one row and columns 16c + 4·part…+3: it adds Σ_j p_j·y_j, p [SIDE].
template <int P> __device__ __forceinline__ void product(float (&o)[P / 16][4], const f32 *p, int step, const f32 *y) {
	const int W = Pitch<f32, P>::n;
	for (int j = 0; j < SIDE; j++) {
		float w = p[j * step];
#pragma unroll
		for (int c = 0; c < P / 16; c++) {
			float v[4];
			load(v, (const Four *)(y + j * W + c * 16 + threadIdx.x % 4 * 4));
#pragma unroll
			for (int e = 0; e < 4; e++) o[c][e] += w * v[e];
		}
	}
}

template <int P> __device__ __forceinline__ void deliver(const Rows<f32> &x, int t, const float (&o)[P / 16][4], float f) {
	if (t >= x.n) return;
#pragma unroll
	for (int c = 0; c < P / 16; c++)
#pragma unroll
		for (int e = 0; e < 4; e++) {
			int d = c * 16 + threadIdx.x % 4 * 4 + e;
			if (d < x.D) x.p[t * x.stride + d] = o[c][e] * f;
		}
}

#define PARAMETERS const int *qpos, const int *kpos, const int *qdoc, const int *kdoc, int Tq, int Tk, int Hq, int Hkv, int D, float scale, int window
#define SEQUENCE sequence(qpos, kpos, qdoc, kdoc, Tq, Tk, Hq, Hkv, D, scale, window)
#define WIDTHS(X) X(64) X(80) X(96) X(128) X(256)
