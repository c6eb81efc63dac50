// c += a·b by one mma.sp of a warp, its operands from memory: what the stand-in's is tested with.
#include "mma_sp.cuh"

// a, b and c are lane l's four registers at 4·l; e is its metadata at l.
template <int SELECTOR> __device__ __forceinline__ void once(f32 *c, const u32 *a, const u32 *b, const u32 *e) {
	int l = threadIdx.x;
	f32 sum[4];
	u32 x[4], y[4];
	for (int k = 0; k < 4; k++) sum[k] = c[4 * l + k], x[k] = a[4 * l + k], y[k] = b[4 * l + k];
	mmaSparse<SELECTOR>(sum, x, y, e[l]);
	for (int k = 0; k < 4; k++) c[4 * l + k] = sum[k];
}

extern "C" __global__ void __launch_bounds__(THREADS) mma_sp_0(f32 *c, const u32 *a, const u32 *b, const u32 *e) { once<0>(c, a, b, e); }
extern "C" __global__ void __launch_bounds__(THREADS) mma_sp_1(f32 *c, const u32 *a, const u32 *b, const u32 *e) { once<1>(c, a, b, e); }
