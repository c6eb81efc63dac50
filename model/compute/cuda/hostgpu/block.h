// block.h runs one kernel, block by block.
#pragma once
#include "cuda_host.h"

namespace hostgpu {

const Kernel *find(const char *name);
// launch runs all blocks, one after the other; shared is dynamic shared memory in bytes. Only one launch runs at a time.
void launch(const Kernel &k, Dim3 grid, Dim3 block, size_t shared, void **params);

} // namespace hostgpu
