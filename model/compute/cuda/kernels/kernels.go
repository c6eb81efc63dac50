// Package kernels is the arithmetic of the NVIDIA backend: CUDA C++ in .cu files, each beside the PTX that was generated from it.
//
// kernels.h declares every kernel with its formula, its parameters in order and its launch. The PTX is of ISA 7.8 for compute_80:
// every driver since CUDA 11.8 compiles it for the GPU it finds. internal/gen writes it, and registers.txt: what the assembler makes of it.
//
// The same sources are compiled for the host by ../hostgpu, where tests run them: barriers, shuffles, tensor cores and asynchronous copies
// behave as documented, so arithmetic, indices and bounds are checked. Speed, and what a GPU does beyond its documents, are not.
package kernels

import "embed"

//go:embed *.ptx
var files embed.FS

// Modules are the names of the compiled files.
var Modules = [...]string{"elementwise", "rows", "norm", "loss", "update", "gemm", "merge", "compress", "spmm", "adapter", "attention", "attention_dq", "attention_dkv"}

// PTX is the text of a module, by its name in Modules. It ends in a zero byte, as cuModuleLoadData wants it.
func PTX(module string) []byte {
	b, err := files.ReadFile(module + ".ptx")
	if err != nil {
		panic("kernels: no module " + module)
	}
	return append(b, 0)
}
