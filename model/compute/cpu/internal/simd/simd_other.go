//go:build !amd64 && !arm64

package simd

// For gives nil: only amd64 and arm64 have kernels.
func For(string) *Kernels { return nil }
