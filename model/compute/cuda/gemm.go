//go:build cuda

package cuda

import (
	"fmt"
	"math"

	"github.com/splora/splora/model/compute/cuda/internal/cublas"
	"github.com/splora/splora/model/tensor"
)

// Gemm sets dst [m,n] = α·op(a)·op(b) + β·dst: by cuBLAS where both operands are F32, or both are BF16, or the second one can be widened
// piece by piece; by a kernel otherwise.
func (b *Backend) Gemm(dst tensor.Tensor, alpha float32, x tensor.Tensor, tx bool, y tensor.Tensor, ty bool, beta float32) {
	m, n, k := gemmShape(dst, x, tx, y, ty)
	switch {
	case m == 0 || n == 0:
	case k > 0 && fast(dst, x, y) && max(m, n, k) <= math.MaxInt32:
		b.product(matrix(dst, false), alpha, matrix(x, tx), matrix(y, ty), beta, m, n, k)
	case k > 0 && widens(dst, x, y) && max(m, n, k) <= math.MaxInt32 && y.Cols <= b.scratch.floats.Len():
		b.widenedGemm(dst, alpha, x, tx, y, ty, beta, m, n, k)
	default:
		b.anyGemm(dst, alpha, x, tx, y, ty, beta, m, n, k)
	}
}

// fast reports whether cuBLAS takes these types.
func fast(dst, x, y tensor.Tensor) bool {
	return x.DType == y.DType && (x.DType == tensor.BF16 || x.DType == tensor.F32 && dst.DType == tensor.F32)
}

// product queues cuBLAS's.
func (b *Backend) product(dst cublas.Matrix, alpha float32, x, y cublas.Matrix, beta float32, m, n, k int) {
	b.queue("gemm", func() error {
		return b.q.Do(func() error { return b.blas.Gemm(dst, alpha, x, y, beta, m, n, k) })
	})
}

// widens reports whether the second operand is a weight in 16 bits, the others F32: a head or an embedding in float32 compute.
func widens(dst, x, y tensor.Tensor) bool {
	return dst.DType == tensor.F32 && x.DType == tensor.F32 && y.DType.Size() == 2
}

// widenedGemm takes as many rows of y at a time as the scratch memory holds in F32: they are columns of dst, or a part of the sum.
func (b *Backend) widenedGemm(dst tensor.Tensor, alpha float32, x tensor.Tensor, tx bool, y tensor.Tensor, ty bool, beta float32, m, n, k int) {
	step := b.scratch.floats.Len() / y.Cols
	d, a := matrix(dst, false), matrix(x, tx)
	for i := 0; i < y.Rows; i += step {
		rows := y.Slice(i, min(y.Rows, i+step))
		wide := b.scratch.floats.Window(0, rows.Rows, y.Cols)
		b.Copy(wide, rows)
		if ty {
			n, d.At = rows.Rows, dst.Mem.Device+uintptr(4*i)
		} else {
			k, a.At = rows.Rows, x.Mem.Device+uintptr(4*i*along(x, tx))
		}
		b.product(d, alpha, a, matrix(wide, ty), beta, m, n, k)
		if !ty {
			beta = 1
		}
	}
}

// along is the distance of neighbours along the sum of op(x)·….
func along(x tensor.Tensor, tx bool) int {
	if tx {
		return x.Cols
	}
	return 1
}

func matrix(t tensor.Tensor, trans bool) cublas.Matrix {
	kind := cublas.F32
	if t.DType == tensor.BF16 {
		kind = cublas.BF16
	}
	return cublas.Matrix{At: t.Mem.Device, Type: kind, LD: max(1, t.Cols), T: trans}
}

// anyGemm is for mixed types and empty sums.
func (b *Backend) anyGemm(dst tensor.Tensor, alpha float32, x tensor.Tensor, tx bool, y tensor.Tensor, ty bool, beta float32, m, n, k int) {
	const tile = 64
	grid := [3]int{(n + tile - 1) / tile, min((m+tile-1)/tile, math.MaxUint16), 1}
	b.launch("gemm", kernelKey{op: "gemm_any"}, grid, 256, 0, ptr(dst), kind(dst), f32(alpha), ptr(x), kind(x), flag(tx), ptr(y), kind(y), flag(ty),
		f32(beta), num(m), num(n), num(k))
}

// kind is a type as the kernels number it.
func kind(t tensor.Tensor) uint64 {
	return [...]uint64{tensor.F32: 0, tensor.BF16: 1, tensor.F16: 2}[t.DType]
}

func flag(set bool) uint64 {
	if set {
		return 1
	}
	return 0
}

func gemmShape(dst, a tensor.Tensor, ta bool, b tensor.Tensor, tb bool) (m, n, k int) {
	m, k = a.Rows, a.Cols
	if ta {
		m, k = k, m
	}
	kb, n := b.Rows, b.Cols
	if tb {
		kb, n = n, kb
	}
	if k != kb {
		panic(fmt.Sprintf("cuda: gemm: inner sizes %d and %d of %s (transposed %v) and %s (transposed %v)", k, kb, a, ta, b, tb))
	}
	wantFloat("gemm", "a", a, a.Rows, a.Cols)
	wantFloat("gemm", "b", b, b.Rows, b.Cols)
	wantAct("gemm", "dst", dst)
	want("gemm", "dst", dst, dst.DType, m, n)
	return m, n, k
}
