package computetest

import (
	"fmt"
	"math"

	"github.com/splora/splora/model/sparse"
	"github.com/splora/splora/model/tensor"
)

// masks are the shapes of M: pattern and, when it is unstructured, the kept fraction; dense keeps all.
var masks = []struct {
	p     sparse.Pattern
	keep  float64
	dense bool
}{{dense: true}, {p: sparse.Pattern{N: 2, M: 4}}, {p: sparse.Pattern{N: 1, M: 4}}, {p: sparse.Pattern{N: 4, M: 8}}, {p: sparse.Pattern{N: 3, M: 5}},
	{keep: 0.5}, {keep: 0.1}, {keep: 0.95}, {keep: 0}}

var mergeCases = []oneCase{
	{"Merge is M ⊙ (W + s·B·A), and exactly +0 where M is 0", func(e *env) {
		for _, dt := range []tensor.DType{tensor.F32, tensor.BF16, tensor.F16} {
			for _, s := range [][3]int{{1, 60, 1}, {5, 80, 4}, {7, 340, 16}, {2, 1040, 5}, {9, 120, 33}, {2, 256, 0}} {
				for k := range masks {
					e.merge(dt, s[0], s[1], s[2], k)
				}
			}
		}
	}},
	{"Merge of an odd width", func(e *env) {
		for _, in := range []int{1, 15, 63, 65, 257, 331} {
			for _, k := range []int{0, 5, 6, 8} {
				e.merge(tensor.BF16, 7, in, 3, k)
			}
		}
	}},
	{"Merge and Mask keep NaN where M is 1 and nothing where it is 0", func(e *env) {
		const out, in, r = 6, 300, 2
		for k := range masks {
			w, kept, _ := e.sparse(tensor.F32, out, in, k)
			b := e.normal(out * r)
			b[0], b[2*r] = float32(math.NaN()), float32(math.Inf(1))
			dst := e.unset(out, in)
			e.b.Merge(dst, w, e.f32(b, out, r), e.f32(fill(r*in, 1e30), r, in), 3)
			e.nanWhereKept("merge", dst, kept, in, func(i int) bool { return i == 0 || i == 2 })
			dst = e.unset(out, in)
			e.b.Mask(dst, w)
			e.nanWhereKept("mask", dst, kept, in, func(int) bool { return true })
		}
	}},
	{"Mask keeps the bits where M is 1", func(e *env) {
		for k := range masks {
			for _, in := range []int{60, 260, 1040} {
				w, kept, _ := e.sparse(tensor.BF16, 5, in, k)
				v := e.acts(5 * in)
				v[3] = float32(math.Copysign(0, -1))
				want := make([]float32, len(v))
				for i := range v {
					if kept[i] {
						want[i] = v[i]
					}
				}
				dst := e.act(v, 5, in)
				e.b.Mask(dst, w)
				e.exactly(fmt.Sprint("mask ", k, in), dst, want)
			}
		}
	}},
}

func (e *env) nanWhereKept(what string, t tensor.Tensor, kept []bool, in int, bad func(row int) bool) {
	e.Helper()
	for i, g := range e.down(what, t) {
		if !kept[i] && math.Float32bits(g) != 0 {
			e.Fatalf("%s: pruned element [%d,%d] is %v, want +0", what, i/in, i%in, g)
		}
		if kept[i] && finite(g) == bad(i/in) {
			e.Fatalf("%s: kept element [%d,%d] is %v", what, i/in, i%in, g)
		}
	}
}

// merge checks Merge with the adapters (r = 0: without) on mask k.
func (e *env) merge(dt tensor.DType, out, in, r, k int) {
	e.Helper()
	w, kept, values := e.sparse(dt, out, in, k)
	a, b := e.normal(r*in), e.normal(out*r)
	const s = 0.75
	sum := gemm64(wide(b), wide(a), out, in, r, false, false)
	for i := range sum {
		sum[i] = values[i] + s*sum[i]
		if !kept[i] {
			sum[i] = 0
		}
	}
	var bt, at tensor.Tensor
	if r > 0 {
		at, bt = e.f32(a, r, in), e.f32(b, out, r)
	}
	dst := e.unset(out, in)
	e.b.Merge(dst, w, bt, at, s)
	what := fmt.Sprintf("%s [%d,%d] r %d mask %+v", dt, out, in, r, masks[k])
	e.near(what, dst, sum, rounding)
	for i, g := range e.down(what, dst) {
		if !kept[i] && math.Float32bits(g) != 0 {
			e.Fatalf("%s: pruned element %d is %v, want +0", what, i, g)
		}
		if r == 0 && kept[i] && math.Float32bits(g) != math.Float32bits(e.fit([]float32{float32(values[i])})[0]) {
			e.Fatalf("%s: expanded element %d is %v, want %v", what, i, g, values[i])
		}
	}
}

// sparse is a random weight under mask k with kept zeros of both signs: packed, its mask and its values.
func (e *env) sparse(dt tensor.DType, out, in, k int) (*sparse.Weight, []bool, []float64) {
	e.Helper()
	kept := e.mask(out, in, k)
	v := e.normal(out * in)
	for i := range v {
		switch {
		case i%11 == 0:
			v[i] = 0
		case i%13 == 0:
			v[i] = float32(math.Copysign(0, -1))
		}
		if dt != tensor.F32 {
			v[i] = float32(roundHalf(dt, float64(v[i])))
		}
	}
	dense := tensor.Of(v).Reshape(out, in)
	if dt != tensor.F32 {
		t := up(e, dt, make([]uint16, len(v)), out, in)
		e.b.Copy(t, e.f32(v, out, in))
		dense = tensor.New(dt, out, in)
		e.b.Download(dense.Mem.Host, t)
	}
	w, err := sparse.Pack(dense, maskBits(kept, out, in, masks[k].dense), e.pattern(in, k))
	if err != nil {
		e.Fatal(err)
	}
	return e.weight(w), kept, wide(v)
}

// pattern is mask k's; where M does not divide the row it is unstructured.
func (e *env) pattern(in, k int) sparse.Pattern {
	if p := masks[k].p; p.M != 0 && in%p.M == 0 {
		return p
	}
	return sparse.Pattern{}
}

func (e *env) mask(out, in, k int) []bool {
	kept := make([]bool, out*in)
	p := e.pattern(in, k)
	for i := range kept {
		kept[i] = masks[k].dense || e.rng.Float64() < masks[k].keep
	}
	for i := 0; p.M != 0 && i < len(kept); i += p.M {
		for n, j := range e.rng.Perm(p.M) {
			kept[i+j] = n < p.N
		}
	}
	return kept
}

// maskBits packs a mask, a row at a time; nil when dense.
func maskBits(kept []bool, out, in int, dense bool) []uint64 {
	if dense {
		return nil
	}
	words := (in + 63) / 64
	m := make([]uint64, out*words)
	for i, k := range kept {
		if k {
			m[i/in*words+i%in/64] |= 1 << (i % in % 64)
		}
	}
	return m
}
