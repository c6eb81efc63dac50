package computetest

import (
	"fmt"
	"math"

	"github.com/splora/splora/model/compute"
	"github.com/splora/splora/model/sparse"
	"github.com/splora/splora/model/tensor"
)

// keptCases check a backend's compute.SparseLinear, if it has one, against float64 and against its own composed form.
var keptCases = []oneCase{
	{"The products over kept weights are those of the masked merge", func(e *env) {
		for k := range masks {
			for i, s := range []keptShape{{5, 60, 80, 4}, {1, 13, 22, 3}, {17, 130, 65, 16}, {70, 20, 531, 5}, {190, 1, 64, 9}, {3, 300, 1, 5}, {270, 20, 40, 17}, {60, 30, 60, 130}, {200, 300, 132, 9}} {
				if k == 1 || k == 5 || (i+k)%4 == 0 { // 2:4 and a random half see all shapes
					e.kept([]tensor.DType{tensor.F32, tensor.BF16, tensor.F16}[(i+k)%3], s, k, float32(i%3)/2)
				}
			}
		}
	}},
	{"The products over kept weights skip empty rows and columns", func(e *env) {
		const out, in = 70, 130
		mask := make([]uint64, out*sparse.Words(in))
		for i := range out {
			if i%3 == 1 {
				mask[i*sparse.Words(in)+i%2] = 1<<uint(i%64) | 1<<5
			}
		}
		v := e.normal(out * in)
		w, err := sparse.Pack(tensor.Of(v).Reshape(out, in), mask, sparse.Pattern{})
		if err != nil {
			e.Fatal(err)
		}
		kept := make([]bool, out*in)
		for i := range kept {
			kept[i] = mask[i/in*sparse.Words(in)+i%in/64]>>(i%in%64)&1 == 1
		}
		e.keptProducts(e.weight(w), kept, wide(v), keptShape{37, out, in, 2}, 1, "empty rows")
	}},
	{"The products over kept weights see no NaN where M is 0, unless W̃ stands whole", func(e *env) {
		l, ok := e.b.(compute.SparseLinear)
		const n, out, in, r = 20, 66, 70, 2
		w, kept, _ := e.sparse(tensor.F32, out, in, 6) // so few that every backend walks
		if e.exactly("kept", e.f32([]float32{1}, 1, 1), []float32{1}); !ok || l.KeptSlot(w, tensor.F32) >= out*in {
			return
		}
		x, b := e.normal(n*in), e.normal(out*r)
		for i := range n {
			x[i*in+3] = float32(math.NaN())
		}
		y := e.nans(n, out)
		l.KeptForward(y, e.f32(x, n, in), e.nans(out, in), w, e.f32(b, out, r), e.f32(e.normal(r*in), r, in), 2, 0)
		for i, v := range e.down("y", y) {
			if finite(v) == kept[i%out*in+3] {
				e.Fatalf("y[%d,%d] is %v, M = %v", i/out, i%out, v, kept[i%out*in+3])
			}
		}
	}},
}

// keptShape is N rows against [out,in] with rank r.
type keptShape struct{ n, out, in, r int }

func (e *env) kept(dt tensor.DType, s keptShape, k int, beta float32) {
	e.Helper()
	if w, kept, values := e.sparse(dt, s.out, s.in, k); !w.Dense() {
		e.keptProducts(w, kept, values, s, beta, fmt.Sprintf("%s %+v mask %+v β %v", dt, s, masks[k], beta))
	}
}

// keptProducts checks y, dx, dA and dB on one weight.
func (e *env) keptProducts(w *sparse.Weight, kept []bool, values []float64, s keptShape, beta float32, what string) {
	e.Helper()
	l, ok := e.b.(compute.SparseLinear)
	if !ok {
		e.exactly("no SparseLinear", e.f32([]float32{0}, 1, 1), []float32{0})
		return
	}
	const scale = 0.75
	x, dy, a, b := e.normal(s.n*s.in), e.normal(s.n*s.out), e.normal(s.r*s.in), e.normal(s.out*s.r)
	merged := gemm64(wide(b), wide(a), s.out, s.in, s.r, false, false)
	for i := range merged {
		merged[i] = values[i] + scale*merged[i]
		if !kept[i] {
			merged[i], values[i] = 0, 0
		}
	}
	xt, dyt, at, bt, slot := e.f32(x, s.n, s.in), e.f32(dy, s.n, s.out), e.f32(a, s.r, s.in), e.f32(b, s.out, s.r), e.nans(s.out, s.in)
	for _, m := range []struct {
		b, a tensor.Tensor
		w    []float64
	}{{bt, at, merged}, {tensor.Tensor{}, tensor.Tensor{}, values}} {
		y0, dx0 := e.normal(s.n*s.out), e.normal(s.n*s.in)
		y, dx := e.nans(s.n, s.out), e.nans(s.n, s.in)
		if beta != 0 {
			y, dx = e.f32(y0, s.n, s.out), e.f32(dx0, s.n, s.in)
		}
		l.KeptForward(y, xt, slot, w, m.b, m.a, scale, beta)
		e.near("y "+what, y, plus(gemm64(wide(x), m.w, s.n, s.out, s.in, false, true), y0, beta), rounding)
		l.KeptInput(dx, dyt, slot, w, m.b, m.a, scale, beta)
		e.near("dx "+what, dx, plus(gemm64(wide(dy), m.w, s.n, s.in, s.out, false, false), dx0, beta), rounding)
	}
	g := gemm64(wide(dy), wide(x), s.out, s.in, s.n, true, false)
	for i := range g {
		g[i] *= scale
		if !kept[i] {
			g[i] = 0
		}
	}
	da0, db0 := e.normal(s.r*s.in), e.normal(s.out*s.r)
	da, db := e.f32(da0, s.r, s.in), e.f32(db0, s.out, s.r)
	l.KeptAdapter(da, db, dyt, xt, slot, w, bt, at, scale)
	e.near("dA "+what, da, plus(gemm64(wide(b), g, s.r, s.in, s.out, true, false), da0, 1), rounding)
	e.near("dB "+what, db, plus(gemm64(g, wide(a), s.out, s.r, s.in, false, true), db0, 1), rounding)
}

// plus is v + β·w.
func plus(v []float64, w []float32, beta float32) []float64 {
	for i := range v {
		v[i] += float64(beta) * float64(w[i])
	}
	return v
}
