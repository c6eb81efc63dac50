// A shadow of NVIDIA's cuda.h for gorgonia.org/cu v0.9.6. The 13.0 header renamed calls to versions with other arguments, or that a driver
// before 12.8 lacks; all drivers keep the old ones, whose prototypes these are. Put first by CGO_CFLAGS=-I<this folder> (.ci/cuda-env does).
#pragma once
#include_next <cuda.h>
#if CUDA_VERSION >= 13000
#undef cuCtxCreate
#undef cuMemAdvise
#undef cuMemPrefetchAsync
#undef cuGraphAddDependencies
#undef cuGraphGetEdges
#undef cuEventElapsedTime
CUresult CUDAAPI cuCtxCreate_v2(CUcontext *ctx, unsigned int flags, CUdevice dev);
#define cuCtxCreate cuCtxCreate_v2
CUresult CUDAAPI cuMemAdvise(CUdeviceptr ptr, size_t n, CUmem_advise advice, CUdevice dev);
CUresult CUDAAPI cuMemPrefetchAsync(CUdeviceptr ptr, size_t n, CUdevice to, CUstream stream);
CUresult CUDAAPI cuGraphAddDependencies(CUgraph g, const CUgraphNode *from, const CUgraphNode *to, size_t n);
CUresult CUDAAPI cuGraphGetEdges(CUgraph g, CUgraphNode *from, CUgraphNode *to, size_t *n);
CUresult CUDAAPI cuEventElapsedTime(float *ms, CUevent from, CUevent to);
#endif
