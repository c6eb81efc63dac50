package computetest

import (
	"fmt"
	"math"

	"github.com/splora/splora/model/tensor"
)

// half is the tolerance of a result that is rounded to bfloat16 once, norm-wise: half a unit in the last of 8 bits is 2⁻⁹ at most.
const half = 3e-3

// halfShapes are m, n, k around the sizes of a matrix unit's tiles (16, 32, 64), LoRA's thin ones, and inner sizes beyond its blocks.
var halfShapes = [][3]int{{1, 1, 1}, {1, 75, 130}, {2, 16, 33}, {16, 16, 32}, {32, 32, 64}, {17, 33, 31}, {31, 65, 97}, {16, 200, 70}, {130, 16, 45},
	{70, 90, 16}, {64, 128, 2}, {33, 1, 40}, {100, 47, 1100}, {150, 300, 20}, {530, 600, 33}, {5, 300, 64}, {47, 31, 2100}}

var gemmHalfCases = []oneCase{
	{"Gemm of bfloat16 sums in float32 and rounds once, if dst is bfloat16", func(e *env) {
		for i, s := range halfShapes {
			for v := range 4 {
				e.gemmHalf(s, v&1 != 0, v&2 != 0, tensor.BF16, tensor.BF16, 1.25, []float32{0, 1, -0.5}[(v+i)%3], v%2 == i%2)
				e.gemmHalf(s, v&1 != 0, v&2 != 0, tensor.BF16, tensor.BF16, 1, []float32{0, 1}[(v+i)%2], v%2 != i%2)
			}
		}
	}},
	{"Gemm with a bfloat16 dst widens mixed operands", func(e *env) {
		types := []tensor.DType{tensor.F32, tensor.BF16, tensor.F16}
		for i, s := range halfShapes {
			e.gemmHalf(s, i&1 != 0, i&2 != 0, types[i%3], types[(i+1)%3], 0.5, float32(i%2), true)
			e.gemmHalf(s, i&2 != 0, i&1 != 0, tensor.F32, tensor.F32, 0.5, float32(i%2), true)
		}
	}},
	{"Gemm of bfloat16 with nothing to sum scales dst", func(e *env) {
		for _, beta := range []float32{0, 1, 2} {
			dst, v := e.matrix(tensor.BF16, 3, 5, false)
			for i := range v {
				v[i] *= float64(beta)
			}
			a, b := up[uint16](e, tensor.BF16, nil, 3, 0), up[uint16](e, tensor.BF16, nil, 0, 5)
			e.b.Gemm(dst, 1, a, false, b, false, beta)
			e.nearHalf("k = 0", dst, v, 0)
		}
	}},
	{"Gemm of bfloat16 does not read dst with β = 0, and keeps NaN and Inf of its operands", func(e *env) {
		for i, s := range [][3]int{{1, 40, 9}, {14, 40, 9}, {40, 16, 300}, {33, 49, 65}} {
			m, n, k := s[0], s[1], s[2]
			a, b := e.normal(m*k), e.normal(k*n)
			a[(m-1)*k+k/2] = float32(math.NaN())
			b[n-1] = float32(math.Inf(1))
			clear(b[n : 2*n])
			dst := e.nans(m, n)
			if i%2 == 1 {
				dst = e.rounded(dst)
			}
			e.b.Gemm(dst, 1, e.rounded(e.f32(a, m, k)), false, e.rounded(e.f32(b, k, n)), false, 0)
			for i, g := range e.down("dst", dst) {
				if bad := i/n == m-1 || i%n == n-1; bad == finite(g) {
					e.Fatalf("%v: element [%d,%d] is %v", s, i/n, i%n, g)
				}
			}
		}
	}},
}

// gemmHalf checks one product whose operands are of the given types, and whose dst is BF16 or F32.
func (e *env) gemmHalf(s [3]int, ta, tb bool, da, db tensor.DType, alpha, beta float32, round bool) {
	e.Helper()
	m, n, k := s[0], s[1], s[2]
	a, av := e.matrix(da, m, k, ta)
	b, bv := e.matrix(db, k, n, tb)
	dt, tol := tensor.F32, rounding
	if round {
		dt, tol = tensor.BF16, half
	}
	dst, c := e.matrix(dt, m, n, false)
	if beta == 0 {
		e.b.Copy(dst, e.nans(m, n))
	}
	want := gemm64(av, bv, m, n, k, ta, tb)
	for i := range want {
		want[i] *= float64(alpha)
		if beta != 0 {
			want[i] += float64(beta) * c[i]
		}
	}
	e.b.Gemm(dst, alpha, a, ta, b, tb, beta)
	e.nearHalf(fmt.Sprintf("%v %v %v %s·%s→%s α %v β %v", s, ta, tb, da, db, dt, alpha, beta), dst, want, tol)
}

// rounded is t in BF16.
func (e *env) rounded(t tensor.Tensor) tensor.Tensor {
	h := up(e, tensor.BF16, make([]uint16, t.Len()), t.Rows, t.Cols)
	e.b.Copy(h, t)
	return h
}

// nearHalf is near for a tensor of any float type.
func (e *env) nearHalf(what string, got tensor.Tensor, want []float64, tol float64) {
	e.Helper()
	if d := distance(e.down(what, got), want); !(d <= tol) {
		e.Errorf("%s: relative error %.3g, tolerance %.3g", what, d, tol)
	}
}
