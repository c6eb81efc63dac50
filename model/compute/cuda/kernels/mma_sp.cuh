// C [16,8] += A [16,32] · B [32,8], A with two kept ones of each four neighbours of a row, bfloat16 with float32 sums, by one warp: mma.sp.m16n8k32.
//
// Lane l has g = l/4, t = l%4. a is mma.cuh's, of the kept ones [16,16]: those of inputs 4t…4t+3 of rows g and g+8, then of 16+4t…16+4t+3.
//
//	b[0]: B[2t,2t+1][g]   b[1]: B[2t+8,2t+9][g]   b[2]: B[2t+16,2t+17][g]   b[3]: B[2t+24,2t+25][g]
//
// Metadata e: two bits for each kept one, its place among the four, the lower place first. Of each four lanes two hold them, which ones SELECTOR
// says: lane 2·SELECTOR inputs 0…15, lane 2·SELECTOR+1 inputs 16…31, of row g in the low half, of row g+8 in the high half.
//
// The places are in order, as mma.sp::ordered_metadata of PTX ISA 8.5 demands. Without that qualifier, which ISA 7.8 does not have, GPUs after Hopper
// may be much slower.
#pragma once
#include "mma.cuh"

template <int SELECTOR> __device__ __forceinline__ void mmaSparse(float (&c)[4], const u32 (&a)[4], const u32 (&b)[4], u32 e) {
#ifdef HOSTGPU
	hostgpu::mmaSparse(c, a, b, e, SELECTOR);
#else
	asm volatile("mma.sp.sync.aligned.m16n8k32.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9,%10,%11}, {%0,%1,%2,%3}, %12, %13;"
				 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
				 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "r"(b[2]), "r"(b[3]), "r"(e), "n"(SELECTOR));
#endif
}

// Tile is 16 rows and 64 inputs of a 2:4 matrix as two mma.sp take it, of inputs 0…31 with selector 0 and of 32…63 with selector 1: lane l's
// four registers and its metadata lie together. A matrix [out,in] is ⌈out/16⌉ rows of in/64 tiles; rows beyond out are zeros.
struct __align__(16) Tile {
	uint4 kept[2][32];
	u32 meta[32];
};
