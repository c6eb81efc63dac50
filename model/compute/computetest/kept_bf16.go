package computetest

import (
	"fmt"

	"github.com/splora/splora/model/compute"
	"github.com/splora/splora/model/tensor"
)

// keptHalfCases check the products of a masked linear with bfloat16 activations, where the backend has them, against float64 on the
// numbers as rounded; W̃ and G are rounded inside.
var keptHalfCases = []oneCase{
	{"The products of a masked linear with bfloat16 activations are those of the masked merge", func(e *env) {
		for k := range masks {
			for i, s := range []keptShape{{64, 96, 128, 16}, {33, 65, 70, 3}, {50, 300, 600, 4}, {530, 70, 90, 33}, {100, 600, 300, 9}, {100, 544, 288, 9}, {40, 67, 259, 70}, {37, 131, 192, 5}, {131, 67, 320, 70}, {1, 33, 64, 3}, {200, 600, 300, 9}, {130, 130, 520, 16}, {545, 258, 132, 3}} {
				if k == 1 || k == 5 || (i+k)%4 == 0 {
					e.keptHalf([]tensor.DType{tensor.F32, tensor.BF16, tensor.F16}[(i+k)%3], s, k, float32(i%3)/2)
				}
			}
		}
	}},
}

func (e *env) keptHalf(dt tensor.DType, s keptShape, k int, beta float32) {
	e.Helper()
	w, kept, values := e.sparse(dt, s.out, s.in, k)
	l, ok := e.b.(compute.SparseLinear)
	e.exactly("always", e.f32([]float32{1}, 1, 1), []float32{1})
	if !ok || w.Dense() || !l.WalksKept(w, tensor.BF16, s.n) {
		return
	}
	const scale = 0.75
	what := fmt.Sprintf("%s %+v mask %+v β %v", dt, s, masks[k], beta)
	x, xv := e.matrix(tensor.BF16, s.n, s.in, false)
	dy, dyv := e.matrix(tensor.BF16, s.n, s.out, false)
	a, av := e.matrix(tensor.F32, s.r, s.in, false)
	b, bv := e.matrix(tensor.F32, s.out, s.r, false)
	slot := e.rounded(e.nans(1, max(1, l.KeptSlot(w, tensor.BF16))))
	merged := gemm64(bv, av, s.out, s.in, s.r, false, false)
	for i := range merged {
		merged[i] = values[i] + scale*merged[i]
		if !kept[i] {
			merged[i], values[i] = 0, 0
		}
	}
	for _, m := range []struct {
		b, a tensor.Tensor
		w    []float64
	}{{b, a, merged}, {tensor.Tensor{}, tensor.Tensor{}, values}} {
		y, y0 := e.matrix(tensor.BF16, s.n, s.out, false)
		dx, dx0 := e.matrix(tensor.BF16, s.n, s.in, false)
		if beta == 0 {
			e.b.Copy(y, e.nans(s.n, s.out))
			e.b.Copy(dx, e.nans(s.n, s.in))
		}
		l.KeptForward(y, x, slot, w, m.b, m.a, scale, beta)
		e.nearHalf("y "+what, y, plus(gemm64(xv, m.w, s.n, s.out, s.in, false, true), narrowed(y0), beta), 2*half)
		l.KeptInput(dx, dy, slot, w, m.b, m.a, scale, beta)
		e.nearHalf("dx "+what, dx, plus(gemm64(dyv, m.w, s.n, s.in, s.out, false, false), narrowed(dx0), beta), 2*half)
	}
	g := gemm64(dyv, xv, s.out, s.in, s.n, true, false)
	for i := range g {
		g[i] *= scale
		if !kept[i] {
			g[i] = 0
		}
	}
	da, da0 := e.matrix(tensor.F32, s.r, s.in, false)
	db, db0 := e.matrix(tensor.F32, s.out, s.r, false)
	l.KeptAdapter(da, db, dy, x, slot, w, b, a, scale)
	e.near("dA "+what, da, plus(gemm64(bv, g, s.r, s.in, s.out, true, false), narrowed(da0), 1), 2*half)
	e.near("dB "+what, db, plus(gemm64(g, av, s.out, s.r, s.in, false, true), narrowed(db0), 1), 2*half)
}

// narrowed is v, whose numbers are float32s.
func narrowed(v []float64) []float32 {
	w := make([]float32, len(v))
	for i, x := range v {
		w[i] = float32(x)
	}
	return w
}
