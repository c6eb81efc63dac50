package computetest

import (
	"fmt"
	"math"

	"github.com/splora/splora/model/compute"
	"github.com/splora/splora/model/tensor"
)

// maskedCases check a backend's compute.MaskedAdapter, if it has one.
var maskedCases = []oneCase{
	{"AdapterGradient is s·Bᵀ·(M ⊙ G) and s·(M ⊙ G)·Aᵀ, and leaves G", func(e *env) {
		for i, s := range [][3]int{{5, 80, 4}, {130, 64, 16}, {257, 1040, 5}, {1, 8, 1}, {300, 520, 33}, {40, 136, 64}, {129, 264, 17}, {8, 2056, 2}} {
			for k := range masks {
				if k == 1 || k == 5 || (i+k)%4 == 0 {
					e.adapterGradient(s[0], s[1], s[2], k)
				}
			}
		}
	}},
	{"AdapterGradient sees nothing where M is 0", func(e *env) {
		l, ok := e.b.(compute.MaskedAdapter)
		const out, in, r = 20, 72, 3
		w, kept, _ := e.sparse(tensor.BF16, out, in, 1)
		if e.exactly("kept", e.f32([]float32{1}, 1, 1), []float32{1}); !ok {
			return
		}
		g := e.normal(out * in)
		for i := range g {
			if !kept[i] {
				g[i] = float32(math.NaN())
			}
		}
		g[in] = float32(math.Inf(1))
		da, db := e.f32(fill(r*in, 0), r, in), e.f32(fill(out*r, 0), out, r)
		if !l.AdapterGradient(da, db, e.act(g, out, in), w, e.f32(fill(out*r, 1), out, r), e.f32(fill(r*in, 1), r, in), 1) {
			return
		}
		for i, v := range e.down("da", da) {
			if finite(v) == (i%in == 0 && kept[in]) {
				e.Fatalf("dA[%d,%d] is %v", i/in, i%in, v)
			}
		}
		for i, v := range e.down("db", db) {
			if finite(v) == (i/r == 1 && kept[in]) {
				e.Fatalf("dB[%d,%d] is %v", i/r, i%r, v)
			}
		}
	}},
}

func (e *env) adapterGradient(out, in, r, k int) {
	e.Helper()
	w, kept, _ := e.sparse(tensor.BF16, out, in, k)
	l, ok := e.b.(compute.MaskedAdapter)
	what := fmt.Sprintf("[%d,%d] r %d mask %+v", out, in, r, masks[k])
	g, a, b := e.acts(out*in), e.normal(r*in), e.normal(out*r)
	da0, db0 := e.normal(r*in), e.normal(out*r)
	gt, da, db := e.act(g, out, in), e.f32(da0, r, in), e.f32(db0, out, r)
	const s = 0.75
	if !ok || !l.AdapterGradient(da, db, gt, w, e.f32(b, out, r), e.f32(a, r, in), s) {
		e.exactly("not offered "+what, da, da0)
		e.exactly("not offered "+what, db, db0)
		return
	}
	e.exactly("G "+what, gt, g)
	m := wide(g)
	for i := range m {
		m[i] *= s
		if !kept[i] {
			m[i] = 0
		}
	}
	e.near("dA "+what, da, plus(gemm64(wide(e.fit(b)), m, r, in, out, true, false), da0, 1), rounding)
	e.near("dB "+what, db, plus(gemm64(m, wide(e.fit(a)), out, r, in, false, true), db0, 1), rounding)
}
