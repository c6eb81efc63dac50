// kernels.h declares every kernel of this folder: its formula, its parameters in order, its launch.
//
// Parameters are pointers (8 bytes), i64 (8), u64 (8), int (4) and float (4); a slot of 8 bytes with the value in its low bytes
// serves each. bf16 and f16 are 16-bit storage. A name ends in its types: _f32 or _bf16 is the activations' type (compute's "one type
// in one call"), and where two stand, dst comes first. Tensors are row-major and contiguous, sizes may exceed 2³¹ elements, and
// no pointer needs more alignment than its element; 16-byte aligned rows are faster.
//
// Launch. Every block is one-dimensional, of THREADS = 256 threads unless the comment says otherwise. "grid: sweep" is any number of
// blocks: elements are taken in strides of the grid; min(⌈n/2048⌉, 16·SMs) is a good number (at least 1). "grid: rows" is exactly one
// block per row on x; every x grid is below 2³¹. Dynamic shared memory is 0 unless the comment gives it (in bytes; more
// than 48 KiB needs CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES). Nothing is launched for an empty tensor. Results depend on neither
// the number of blocks nor the time: there are no atomics.
#pragma once
#include "types.cuh"
#define K extern "C" __global__ void
#define BOTH(X) X(f32) X(bf16)
#define PAIRS(X) X(f32, f32) X(f32, bf16) X(f32, f16) X(bf16, f32) X(bf16, bf16) X(bf16, f16)

// ---- elementwise.cu --------------------------------------------------------------------------------------------------------

// dst = v.  grid: sweep of n.
#define X(T) K fill_##T(T *dst, i64 n, float v);
BOTH(X)
#undef X

// dst = src, rounded to nearest even.  grid: sweep of n.
K copy_f32_bf16(f32 *dst, const bf16 *src, i64 n);
K copy_f32_f16(f32 *dst, const f16 *src, i64 n);
K copy_bf16_f32(bf16 *dst, const f32 *src, i64 n);
K copy_bf16_f16(bf16 *dst, const f16 *src, i64 n);
K copy_f16_f32(f16 *dst, const f32 *src, i64 n);
K copy_f16_bf16(f16 *dst, const bf16 *src, i64 n);

// y += x.  grid: sweep of n.
#define X(T) K add_##T(T *y, const T *x, i64 n);
BOTH(X)
#undef X

// y [rows,cols] += bias [cols].  grid: sweep of rows·cols.
#define X(T) K addbias_##T(T *y, const f32 *bias, i64 rows, i64 cols);
BOTH(X)
#undef X

// y = x ⊙ m·scale, m_ij = 0 where mix(seed + (ids_i·2³² + j + 1)·γ) >> 40 < limit;  limit = ⌊p·2²⁴⌋, scale = 1/(1−p).
// grid: sweep of rows·cols.
#define X(T) K dropout_##T(T *y, const T *x, const int *ids, i64 rows, i64 cols, u64 seed, u64 limit, float scale);
BOTH(X)
#undef X

// h = g·σ(g) ⊙ u.  grid: sweep of n.
#define X(T) K silu_##T(T *h, const T *g, const T *u, i64 n);
BOTH(X)
#undef X

// dg = dh ⊙ u ⊙ σ·(1 + g·(1−σ)), du = dh ⊙ g·σ.  grid: sweep of n.
#define X(T) K silu_back_##T(T *dg, T *du, const T *dh, const T *g, const T *u, i64 n);
BOTH(X)
#undef X

// ---- rows.cu ---------------------------------------------------------------------------------------------------------------

// dst [n,c]: dst_i = table[rows_i], zeros where rows_i < 0.  grid: rows (n).
#define X(T, S) K gather_##T##_##S(T *dst, const S *table, const int *rows, i64 n, i64 c);
PAIRS(X)
#undef X

// dst[rows_i] = src_i [n,c], rows_i < 0 is skipped.  grid: rows (n).
#define X(T) K scatter_##T(T *dst, const T *src, const int *rows, i64 n, i64 c);
BOTH(X)
#undef X

// x [n, heads·2·half] rotated in place by the angles of pos; cos, sin [maxPos, half].  grid: rows (n).
#define X(T) K rope_##T(T *x, const f32 *cos, const f32 *sin, const int *pos, i64 n, int heads, int half, float sign);
BOTH(X)
#undef X

// ---- norm.cu ---------------------------------------------------------------------------------------------------------------

// rstd_i = 1/√(mean(x_i²)+eps), y = x·rstd ⊙ w;  x [n,c].  grid: rows (n).
#define X(T) K rmsnorm_##T(T *y, f32 *rstd, const T *x, const f32 *w, i64 n, i64 c, float eps);
BOTH(X)
#undef X

// g = dy ⊙ w;  dx = rstd·(g − x·rstd²·mean(g ⊙ x)) + β·dx, β 0 or 1.  grid: rows (n).
#define X(T) K rmsnorm_back_##T(T *dx, const T *dy, const T *x, const f32 *w, const f32 *rstd, i64 n, i64 c, float beta);
BOTH(X)
#undef X

// ---- loss.cu ---------------------------------------------------------------------------------------------------------------

// loss_i = lse(x_i) − x_i[target_i];  with grad ≠ 0: x = softmax(x) − onehot(target);  x [n,v].  grid: rows (n), 512 threads.
#define X(T) K crossentropy_##T(f32 *loss, T *x, const int *target, i64 n, i64 v, int grad);
BOTH(X)
#undef X

// ---- update.cu -------------------------------------------------------------------------------------------------------------

// ĝ = scale·g, m = β1·m + (1−β1)·ĝ, v = β2·v + (1−β2)·ĝ², p = p·(1 − lr·wd) − lr·(m/bias1)/(√(v/bias2)+eps).  grid: sweep of n.
K adamw_f32(f32 *p, const f32 *g, f32 *m, f32 *v, i64 n, float lr, float beta1, float beta2, float eps, float wd, float bias1, float bias2,
	float scale);

// part_b = Σ x² of the b-th of SUMSQUARES_BLOCKS strided pieces, in float64.  grid: exactly SUMSQUARES_BLOCKS blocks.
#define SUMSQUARES_BLOCKS 512
K sumsquares_f32(double *part, const f32 *x, i64 n);
// sum = Σ part [SUMSQUARES_BLOCKS].  grid: 1.
K sumsquares_final(double *sum, const double *part);

// ---- gemm.cu ---------------------------------------------------------------------------------------------------------------

// dst [m,n] = α·op(a)·op(b) + β·dst, for type pairs and sizes that cuBLAS does not take: types 0 f32, 1 bf16, 2 f16, mixed as they
// come; ta, tb ≠ 0 transpose; k may be 0.  grid: x = ⌈n/64⌉, y = ⌈m/64⌉ (y at most 65535: more rows are taken in strides).
K gemm_any(void *dst, int dstType, float alpha, const void *a, int aType, int ta, const void *b, int bType, int tb, float beta, i64 m, i64 n,
	i64 k);

// ---- merge.cu --------------------------------------------------------------------------------------------------------------
// A packed weight is values [nnz] of type S, bits (u64, words = ⌈in/64⌉ per row; 0: dense) and starts (u32, ⌈in/256⌉ per row and one
// more; 0: computed from keep:group, as 2:4, or dense).

// dst [out,in] = M ⊙ (W + s·B·A), b [out,r], a [r,in] F32;  r = 0: dst = W.  grid: x = ⌈in/256⌉, y = ⌈out/128⌉, so out is
// below 2²³.
#define X(T, S) \
	K merge_##T##_##S(T *dst, const S *values, const u64 *bits, const u32 *starts, const f32 *b, const f32 *a, i64 out, i64 in, int r, float s, \
		int keep, int group);
PAIRS(X)
#undef X

// dst [out,in] = M ⊙ dst.  grid: sweep of out·in. Not launched for a dense weight.
#define X(T) K mask_##T(T *dst, const u64 *bits, i64 out, i64 in);
BOTH(X)
#undef X

// ---- compress.cu, spmm.cu ----------------------------------------------------------------------------------------------------
// y = x·W̃ᵀ by the sparse tensor cores, of a 2:4 weight with in a multiple of 64. W̃ stands as ⌈out/16⌉·(in/64) tiles of 1152 bytes
// (mma_sp.cuh's Tile: 16 rows and 64 inputs, the kept ones in bfloat16 and two bits for each one's place), 16-byte aligned.
struct Tile;

// dst = M ⊙ (W + s·B·A), with the bits that merge rounds to; values, bits, b and a as merge has them;  r = 0: dst = W.
// grid: x = ⌈in/256⌉, y = ⌈out/128⌉, so out is below 2²³.
#define X(S) K compress_##S(Tile *dst, const S *values, const u64 *bits, const f32 *b, const f32 *a, i64 out, i64 in, int r, float s);
X(f32) X(bf16) X(f16)
#undef X

// y [n,out] = x·W̃ᵀ + β·y, x [n,in] 16-byte aligned; β = 0 does not read y.  grid: x = ⌈n/128⌉, y = ⌈out/128⌉, 128 threads, shared memory:
// three stages of eight tiles and of 128 rows of 64 inputs (launch.go's Spmm).
K spmm_bf16(bf16 *y, const bf16 *x, const Tile *w, i64 n, i64 out, i64 in, float beta);

// ---- adapter.cu ------------------------------------------------------------------------------------------------------------
// The masked gradient of an adapter of rank r ≤ 64 in one reading of G [out,in], which stays as it is: instead of mask and two products.
// launch.go's Adapter gives R = 16, 32 or 64 ≥ r, the stripe (rows of a block, a multiple of 128), the grid, shared memory, and the sizes of
// partA [stripes,R,in] and partB [columns,out,R].

// The parts of Bᵀ·(M ⊙ G) and (M ⊙ G)·Aᵀ; b [out,r], a [r,in] are rounded to bfloat16; bits 0: dense; g is 16-byte aligned,
// in a multiple of 8.  grid: x = columns, y = stripes.
#define X(R) \
	K adapter_bf16_##R(f32 *partA, f32 *partB, const bf16 *g, const u64 *bits, const f32 *b, const f32 *a, i64 out, i64 in, int r, i64 stripe);
X(16) X(32) X(64)
#undef X

// da [r,in] += s·Σ partA, db [out,r] += s·Σ partB, in order.  grid: sweep of r·(in+out).
K adapter_sum(f32 *da, f32 *db, const f32 *partA, const f32 *partB, i64 out, i64 in, int r, int R, int stripes, int columns, float s);

// ---- attention.cu, attention_dq.cu, attention_dkv.cu -------------------------------------------------------------------------
// Query i of row b sees key j iff j ≤ Tk − Tq + i, doc_j = doc_i ≥ 0, 0 ≤ pos_i − pos_j, and (window = 0 or pos_i − pos_j < window).
// q, y, dy, dq [B·Tq, Hq·D];  k, v, dk, dv [B·Tk, Hkv·D];  lse, delta [B·Hq, Tq];  qpos, qdoc [B,Tq];  kpos, kdoc [B,Tk].
// A name ends in the largest head dimension P that it takes: 64, 80, 96, 128, 256; any D ≤ P is right, D a multiple of 8 with 16-byte aligned
// tensors is fast. scale > 0. launch.go's Heads chooses P and gives grid, threads and shared memory; the tiles behind it are, queries × keys:
//
//	             forward                     dq                          dkv
//	bf16  ≤ 96   128 × 64                    128 × 32, two stages        64 × 64 (P = 64), 32 × 64, two stages
//	bf16  128    128 × 32                    128 × 32, two stages        32 × 64, two stages
//	bf16  256    64 × 64                     64 × 32, two stages         32 × 64, two stages; a block writes half of the columns
//	f32          32 × 32                     32 × 32                     32 × 32
//
// Shared memory: rows of (P + 16 bytes) for q and k, v (forward), for q, dy and stages of k, v (dq), for k, v and stages of q, dy (dkv), then
// what a kernel needs beside them, and a byte for each tile that a block goes over.
#define HEADS(X) X(f32, 64) X(f32, 80) X(f32, 96) X(f32, 128) X(f32, 256) X(bf16, 64) X(bf16, 80) X(bf16, 96) X(bf16, 128) X(bf16, 256)

// y = softmax(scale·q·kᵀ, masked)·v, lse.  A query that sees nothing: y = 0, lse = −∞.  grid: x over tiles of queries, y = Hq, z = B.
#define X(T, P) \
	K attention_##T##_##P(T *y, f32 *lse, const T *q, const T *k, const T *v, const int *qpos, const int *kpos, const int *qdoc, const int *kdoc, \
		int Tq, int Tk, int Hq, int Hkv, int D, float scale, int window);
HEADS(X)
#undef X

// delta = rowsum(dy ∘ y) per head.  grid: x = ⌈B·Tq·Hq/8⌉: one warp per (row, head). It comes before dq and dkv.
#define X(T) K attention_delta_##T(f32 *delta, const T *dy, const T *y, i64 B, int Tq, int Hq, int D);
BOTH(X)
#undef X

// dq = scale·dS·K.  grid: x over tiles of queries, y = Hq, z = B.
#define X(T, P) \
	K attention_dq_##T##_##P(T *dq, const T *dy, const f32 *lse, const f32 *delta, const T *q, const T *k, const T *v, const int *qpos, \
		const int *kpos, const int *qdoc, const int *kdoc, int Tq, int Tk, int Hq, int Hkv, int D, float scale, int window);
HEADS(X)
#undef X

// dv = Pᵀ·dY, dk = scale·dSᵀ·Q, summed over the query heads of a key head in order.  grid: x over tiles of keys (P = 256 bf16:
// twice), y = Hkv, z = B.
#define X(T, P) \
	K attention_dkv_##T##_##P(T *dk, T *dv, const T *dy, const f32 *lse, const f32 *delta, const T *q, const T *k, const T *v, const int *qpos, \
		const int *kpos, const int *qdoc, const int *kdoc, int Tq, int Tk, int Hq, int Hkv, int D, float scale, int window);
HEADS(X)
#undef X

#undef K
