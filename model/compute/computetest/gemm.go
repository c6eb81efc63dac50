package computetest

import (
	"fmt"
	"math"

	"github.com/splora/splora/model/tensor"
)

// gemmShapes are m, n, k: ones, odd sizes beside every tile's multiples, inner sizes beyond one block, LoRA's thin ones.
var gemmShapes = [][3]int{{1, 1, 1}, {1, 37, 300}, {3, 1, 64}, {5, 7, 2}, {13, 33, 257}, {24, 64, 31}, {29, 95, 100},
	{16, 70, 520}, {61, 16, 259}, {65, 97, 16}, {150, 40, 9}, {30, 520, 9}, {2, 33, 513}, {4, 200, 40}, {97, 290, 3}, {200, 33, 5}}

var gemmCases = []oneCase{
	{"Gemm is α·op(a)·op(b) + β·dst for all four orders", func(e *env) {
		for _, s := range gemmShapes {
			for v := range 4 {
				e.gemm(s, v&1 != 0, v&2 != 0, tensor.F32, tensor.F32, 1.25, []float32{0, 1, -0.5}[(v+s[0])%3])
			}
		}
	}},
	{"Gemm widens 16-bit operands", func(e *env) {
		types := []tensor.DType{tensor.F32, tensor.BF16, tensor.F16}
		for i, s := range gemmShapes {
			for v := range 4 {
				a, b := types[(i+v)%3], types[(i+v+1+v/2)%3]
				e.gemm(s, v&1 != 0, v&2 != 0, a, b, 1, 0)
			}
		}
	}},
	{"Gemm with nothing to sum scales dst", func(e *env) {
		v := e.normal(15)
		for _, beta := range []float32{0, 1, 2} {
			dst, want := e.f32(v, 3, 5), make([]float64, 15)
			for i := range v {
				want[i] = float64(beta * v[i])
			}
			e.b.Gemm(dst, 1, e.f32(nil, 3, 0), false, e.f32(nil, 0, 5), false, beta)
			e.near("k = 0", dst, want, 0)
		}
	}},
	{"Gemm with β = 0 does not read dst, and keeps NaN and Inf of its operands", func(e *env) {
		for _, s := range [][3]int{{1, 40, 9}, {14, 40, 9}, {40, 16, 300}} {
			m, n, k := s[0], s[1], s[2]
			a, b := e.normal(m*k), e.normal(k*n)
			a[(m-1)*k+k/2] = float32(math.NaN())
			b[n-1] = float32(math.Inf(1))
			clear(b[n : 2*n])
			dst := e.nans(m, n)
			e.b.Gemm(dst, 1, e.f32(a, m, k), false, e.f32(b, k, n), false, 0)
			for i, g := range e.down("dst", dst) {
				if bad := i/n == m-1 || i%n == n-1; bad == finite(g) {
					e.Fatalf("%v: element [%d,%d] is %v", s, i/n, i%n, g)
				}
			}
		}
	}},
}

func finite(f float32) bool { return !math.IsNaN(float64(f)) && !math.IsInf(float64(f), 0) }

func (e *env) gemm(s [3]int, ta, tb bool, da, db tensor.DType, alpha, beta float32) {
	e.Helper()
	m, n, k := s[0], s[1], s[2]
	a, av := e.matrix(da, m, k, ta)
	b, bv := e.matrix(db, k, n, tb)
	c := e.normal(m * n)
	dst := e.f32(c, m, n)
	if beta == 0 {
		dst = e.nans(m, n)
	}
	want := gemm64(av, bv, m, n, k, ta, tb)
	for i := range want {
		want[i] = float64(alpha)*want[i] + float64(beta)*float64(c[i])
	}
	e.b.Gemm(dst, alpha, a, ta, b, tb, beta)
	e.near(fmt.Sprintf("%v %v %v %s %s α %v β %v", s, ta, tb, da, db, alpha, beta), dst, want, rounding)
}

// matrix is a random op(x) [rows,cols] on the backend, and its numbers as stored.
func (e *env) matrix(dt tensor.DType, rows, cols int, trans bool) (tensor.Tensor, []float64) {
	if trans {
		rows, cols = cols, rows
	}
	v := e.normal(rows * cols)
	t := e.f32(v, rows, cols)
	if dt == tensor.F32 {
		return t, wide(v)
	}
	h := up(e, dt, make([]uint16, rows*cols), rows, cols)
	e.b.Copy(h, t)
	bits := make([]uint16, rows*cols)
	e.b.Download(bytesOf(bits), h)
	w := make([]float64, rows*cols)
	for i, u := range bits {
		w[i] = halfValue(dt, u)
	}
	return h, w
}

// gemm64 is op(a)·op(b) by definition.
func gemm64(a, b []float64, m, n, k int, ta, tb bool) []float64 {
	c := make([]float64, m*n)
	for i := range m {
		for p := range k {
			x := a[at(ta, i, p, m, k)]
			for j := range n {
				c[i*n+j] += x * b[at(tb, p, j, k, n)]
			}
		}
	}
	return c
}

// at is the index of element (i, j) of op(x) [m,n].
func at(trans bool, i, j, m, n int) int {
	if trans {
		return j*m + i
	}
	return i*n + j
}
