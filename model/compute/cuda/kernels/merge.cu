// dst = M ⊙ (W + s·B·A), W expanded from its kept values as it is merged;   dst = M ⊙ dst.
//
// A block takes 128 rows and 256 inputs (one Block of starts). s·B·A in float32: for float32 dst by FMA; for bfloat16 dst by tensor cores.
#include "lowrank.cuh"

#define COLS 256

template <class S> struct Packed {
	const S *values;
	const u64 *bits;
	const u32 *starts;
	i64 out, in;
	int keep, group;
	bool vectors; // 8 neighbouring elements of a dense row, or the 4 kept ones of 8 of 2:4, may be loaded at once

	// start is the index of the first kept weight of row i at or after input k·256.
	__device__ __forceinline__ i64 start(i64 i, i64 k) const {
		i64 at = i * in + k * COLS;
		if (!bits) return at;
		return starts ? starts[i * ((in + COLS - 1) / COLS) + k] : at / group * keep;
	}
};

// Row is 64 inputs of one row: their mask, and where their values begin.
struct Row {
	u64 word;
	i64 at;
};

template <class S> __device__ __forceinline__ u64 word(const Packed<S> &w, i64 i, i64 j) {
	return w.bits && i < w.out && j < w.in ? w.bits[i * ((w.in + 63) / 64) + j / 64] : 0;
}

// emit sets dst_{i,j…j+7} = M ⊙ (W + sum); j is a multiple of 8.
template <class T, class S> __device__ __forceinline__ void emit(T *dst, const Packed<S> &w, const Row &r, i64 i, i64 j, float (&sum)[8]) {
	if (i >= w.out || j >= w.in) return;
	int c = (int)(j % 64), left = (int)(w.in - j < 8 ? w.in - j : 8);
	u32 kept = (1u << left) - 1;
	const S *v = w.values + r.at + c;
	if (w.bits) {
		v += __popcll(r.word & ((1ull << c) - 1)) - c;
		kept = (u32)(r.word >> c) & 0xff;
	}
	if (w.vectors && !w.bits) {
		float x[8];
		load(x, v);
#pragma unroll
		for (int e = 0; e < 8; e++) sum[e] += x[e];
	} else if (w.vectors) { // four kept ones
		struct __align__(4 * sizeof(S)) Kept {
			S x, y, z, w;
		} f = *(const Kept *)v;
		int n = 0;
#pragma unroll
		for (int e = 0; e < 8; e++) {
			float x = widen(n < 2 ? (n == 0 ? f.x : f.y) : (n == 2 ? f.z : f.w));
			bool in = kept >> e & 1;
			sum[e] = in ? sum[e] + x : 0;
			n += in;
		}
	} else {
#pragma unroll
		for (int e = 0; e < 8; e++) {
			if (kept >> e & 1)
				sum[e] += widen(*v++);
			else
				sum[e] = 0;
		}
	}
	dst += i * w.in + j;
	if (left == 8 && aligned(dst)) return store(dst, sum);
#pragma unroll
	for (int e = 0; e < 8; e++)
		if (e < left) narrow(dst[e], sum[e]);
}

// Merging in float32: lane = 8 inputs, a warp = 8 rows at a time, twice.
template <class S> __device__ __forceinline__ void merge(f32 *dst, const Packed<S> &w, const f32 *b, const f32 *a, int r, float s) {
	__shared__ __align__(16) float left[DEPTH][COLS], right[ROWS / 2][DEPTH + 1];
	int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
	i64 k = blockIdx.x, j0 = k * COLS;
	for (int half = 0; half < 2; half++) {
		i64 i0 = (i64)blockIdx.y * ROWS + half * (ROWS / 2);
		float sum[8][8];
#pragma unroll
		for (int e = 0; e < 64; e++) sum[e / 8][e % 8] = r == 0 ? -0.f : 0.f;
		for (int p0 = 0; p0 < r; p0 += DEPTH) {
			__syncthreads();
			for (int e = threadIdx.x; e < DEPTH * COLS; e += THREADS) {
				int p = p0 + e / COLS;
				i64 j = j0 + e % COLS;
				left[e / COLS][e % COLS] = p < r && j < w.in ? a[p * w.in + j] : 0;
			}
			for (int e = threadIdx.x; e < ROWS / 2 * DEPTH; e += THREADS)
				right[e / DEPTH][e % DEPTH] = scaled(b, i0 + e / DEPTH, w.out, p0 + e % DEPTH, r, s);
			__syncthreads();
			for (int p = 0; p < DEPTH && p0 + p < r; p++) {
				float x[8];
				load(x, &left[p][lane * 8]);
#pragma unroll
				for (int e = 0; e < 64; e++) sum[e / 8][e % 8] += right[warp * 8 + e / 8][p] * x[e % 8];
			}
		}
#pragma unroll
		for (int e = 0; e < 8; e++) {
			i64 i = i0 + warp * 8 + e;
			if (i >= w.out) break;
			Row row = {word(w, i, j0 + lane * 8), w.start(i, k) + (w.bits ? 0 : lane / 8 * 64)};
			for (int q = 0; q < lane / 8; q++) row.at += __popcll(word(w, i, j0 + q * 64));
			emit(dst, w, row, i, j0 + lane * 8, sum[e]);
		}
	}
}

// Merging in bfloat16: a warp = 16 rows; of 64 inputs at a time lane (g, t) holds, for two groups of 32, inputs 8t…8t+7 of rows g and
// g+8: the columns of four mma tiles are dealt so that column n of tile q is input 8(n/2) + 2q + n%2.
template <class S> __device__ __forceinline__ void merge(bf16 *dst, const Packed<S> &w, const f32 *b, const f32 *a, int r, float s) {
	__shared__ PartA ahi, alo;
	__shared__ PartB bhi, blo;
	int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;
	i64 k = blockIdx.x, i0 = (i64)blockIdx.y * ROWS, i1 = i0 + warp * 16 + g;
	Row row[2] = {{0, i1 < w.out ? w.start(i1, k) : 0}, {0, i1 + 8 < w.out ? w.start(i1 + 8, k) : 0}};
	for (int c0 = 0; c0 < COLS && k * COLS + c0 < w.in; c0 += 64) {
		i64 j0 = k * COLS + c0;
		float sum[2][4][4];
		lowRank(sum, ahi, alo, bhi, blo, b, a, w.out, w.in, r, s, i0, j0, c0 == 0, [](int e, int n) { return e / 4 * 32 + n / 2 * 8 + e % 4 * 2 + n % 2; });
		row[0].word = word(w, i1, j0);
		row[1].word = word(w, i1 + 8, j0);
#pragma unroll
		for (int e = 0; e < 4; e++) {
			float x[8];
#pragma unroll
			for (int q = 0; q < 8; q++) x[q] = sum[e / 2][q / 2][e % 2 * 2 + q % 2];
			emit(dst, w, row[e % 2], i1 + e % 2 * 8, j0 + e / 2 * 32 + t * 8, x);
		}
		row[0].at += w.bits ? __popcll(row[0].word) : 64;
		row[1].at += w.bits ? __popcll(row[1].word) : 64;
	}
}

template <class T, class S> __device__ void merge(T *dst, const S *values, const u64 *bits, const u32 *starts, const f32 *b, const f32 *a, i64 out,
	i64 in, int r, float s, int keep, int group) {
	bool even = in % 8 == 0 && aligned(values) && (!bits || (!starts && keep == 2 && group == 4));
	merge(dst, Packed<S>{values, bits, starts, out, in, keep, group, even}, b, a, r, s);
}

template <class T> __device__ void mask(T *dst, const u64 *bits, i64 out, i64 in) {
	i64 words = (in + 63) / 64;
	sweep(out * in, aligned(dst) && in % 8 == 0, [&](i64 i, auto w) {
		i64 j = i % in;
		u32 kept = (u32)(bits[i / in * words + j / 64] >> j % 64);
		const u32 all = (1u << w.n) - 1;
		if ((kept & all) == all) return;
		Vec<T, w.n> v = *(Vec<T, w.n> *)(dst + i);
		for (int k = 0; k < w.n; k++)
			if (!(kept >> k & 1)) v.x[k] = T{};
		*(Vec<T, w.n> *)(dst + i) = v;
	});
}

#define X(T, S) \
	extern "C" __global__ void __launch_bounds__(THREADS) merge_##T##_##S(T *dst, const S *values, const u64 *bits, const u32 *starts, \
		const f32 *b, const f32 *a, i64 out, i64 in, int r, float s, int keep, int group) { \
		merge<T, S>(dst, values, bits, starts, b, a, out, in, r, s, keep, group); \
	}
X(f32, f32)
X(f32, bf16)
X(f32, f16)
X(bf16, f32)
X(bf16, bf16)
X(bf16, f16)
#undef X

#define X(T) \
	extern "C" __global__ void __launch_bounds__(THREADS) mask_##T(T *dst, const u64 *bits, i64 out, i64 in) { mask(dst, bits, out, in); }
X(f32)
X(bf16)
