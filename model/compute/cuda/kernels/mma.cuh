// C [16,8] += A [16,16] · B [16,8], bfloat16 with float32 sums, by one warp: mma.sync.m16n8k16; and what feeds it.
//
// Lane l has g = l/4, t = l%4. Registers hold pairs, the lower index in the low half:
//
//	a[0]: A[g][2t,2t+1]  a[1]: A[g+8][2t,2t+1]  a[2]: A[g][2t+8,2t+9]  a[3]: A[g+8][2t+8,2t+9]
//	b0: B[2t,2t+1][g]    b1: B[2t+8,2t+9][g]    c[0,1]: C[g][2t,2t+1]  c[2,3]: C[g+8][2t,2t+1]
#pragma once
#include "types.cuh"

#ifdef HOSTGPU
__device__ __forceinline__ void mma(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) { hostgpu::mma(c, a, b0, b1); }
__device__ __forceinline__ void ldmatrix(u32 (&r)[4], const void *p) { hostgpu::ldmatrix(r, p, false); }
__device__ __forceinline__ void ldmatrixTrans(u32 (&r)[4], const void *p) { hostgpu::ldmatrix(r, p, true); }
__device__ __forceinline__ void copyAsync(void *dst, const void *src, bool in) { hostgpu::copyAsync(dst, src, in); }
__device__ __forceinline__ void copyCommit() { hostgpu::copyCommit(); }
template <int N> __device__ __forceinline__ void copyWait() { hostgpu::copyWait(N); }
__device__ __forceinline__ float exp2fast(float x) { return exp2f(x); }
#else
__device__ __forceinline__ void mma(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
	asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
				 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
				 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
__device__ __forceinline__ u32 sharedAddress(const void *p) { return (u32)__cvta_generic_to_shared(p); }
// ldmatrix loads four 8×8 matrices of 16-bit elements; lane l gives the address of row l%8 of matrix l/8. Lane l receives of
// matrix i the pair at row l/4, columns 2(l%4) and 2(l%4)+1, in r[i]; of its transpose with ldmatrixTrans.
__device__ __forceinline__ void ldmatrix(u32 (&r)[4], const void *p) {
	asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
				 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
				 : "r"(sharedAddress(p))
				 : "memory");
}
__device__ __forceinline__ void ldmatrixTrans(u32 (&r)[4], const void *p) {
	asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
				 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
				 : "r"(sharedAddress(p))
				 : "memory");
}
// copyAsync copies 16 bytes to shared memory, or puts zeros there; both addresses are 16-byte aligned. copyWait<N> waits until at
// most N of the thread's committed groups are under way.
__device__ __forceinline__ void copyAsync(void *dst, const void *src, bool in) {
	asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(sharedAddress(dst)), "l"(src), "r"(in ? 16 : 0) : "memory");
}
__device__ __forceinline__ void copyCommit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int N> __device__ __forceinline__ void copyWait() { asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory"); }
__device__ __forceinline__ float exp2fast(float x) {
	float y;
	asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
	return y;
}
#endif

// A tile [N, P] in shared memory has rows of P elements and 16 bytes more, so that eight rows' 16 bytes lie in different banks.
template <class T, int P> struct Pitch {
	enum { n = P + 16 / (int)sizeof(T) };
};

// fragA is A [16,16] at (row, k) of a tile whose rows are A's rows.
template <int P> __device__ __forceinline__ void fragA(u32 (&a)[4], const bf16 *tile, int row, int k) {
	int l = threadIdx.x % 32;
	ldmatrix(a, tile + (row + l / 8 % 2 * 8 + l % 8) * Pitch<bf16, P>::n + k + l / 16 * 8);
}

// fragB is B [16,16] of a tile whose rows are B's columns: columns n…n+15, depth k…k+15. b[0], b[1] are of the first eight columns.
template <int P> __device__ __forceinline__ void fragB(u32 (&b)[4], const bf16 *tile, int n, int k) {
	int l = threadIdx.x % 32;
	ldmatrix(b, tile + (n + l / 16 * 8 + l % 8) * Pitch<bf16, P>::n + k + l / 8 % 2 * 8);
}

// fragBT is B [16,16] of a tile whose rows are B's rows.
template <int P> __device__ __forceinline__ void fragBT(u32 (&b)[4], const bf16 *tile, int k, int n) {
	int l = threadIdx.x % 32;
	ldmatrixTrans(b, tile + (k + l / 8 % 2 * 8 + l % 8) * Pitch<bf16, P>::n + n + l / 16 * 8);
}

// fragAT is A [16,16] of a tile whose rows are A's columns: depth k…k+15, A's rows row…row+15.
template <int P> __device__ __forceinline__ void fragAT(u32 (&a)[4], const bf16 *tile, int k, int row) {
	int l = threadIdx.x % 32;
	ldmatrixTrans(a, tile + (k + l / 16 * 8 + l % 8) * Pitch<bf16, P>::n + row + l / 8 % 2 * 8);
}
