package cpu

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/splora/splora/model/sparse"
	"github.com/splora/splora/model/tensor"
)

// pruned is a random bfloat16 weight that keeps a fraction of its elements, unstructured; 0 means 2:4.
func pruned(in, out int, keep float64) *sparse.Weight {
	if keep == 0 {
		return halfKept(out, in)
	}
	mask := make([]uint64, out*sparse.Words(in))
	for i := range out * in {
		if rand.Float64() < keep {
			mask[i/in*sparse.Words(in)+i%in/64] |= 1 << (i % in % 64)
		}
	}
	w, err := sparse.Pack(random(tensor.BF16, out, in), mask, sparse.Pattern{})
	if err != nil {
		panic(err)
	}
	return w
}

// BenchmarkKept compares the products of a masked linear over its kept weights with those through the dense slot, merge and mask
// included; GFLOP/s count every weight, zeros included.
func BenchmarkKept(b *testing.B) {
	for _, isa := range ISAs() {
		for _, keep := range []float64{0, 0.3} {
			for _, s := range [][3]int{{512, 1024, 1024}, {512, 2048, 2048}, {64, 1024, 1024}, {128, 256, 704}, {512, 256, 256}, {512, 704, 256}} {
				for _, dt := range []tensor.DType{tensor.F32, tensor.BF16} {
					w := pruned(s[1], s[2], keep)
					b.Run(fmt.Sprintf("%s/keep%v/%s/T%d_%dx%d", isa, keep, dt, s[0], s[2], s[1]), func(b *testing.B) {
						benchKept(b, isa, dt, s[0], w)
					})
				}
			}
		}
	}
}

func benchKept(b *testing.B, isa string, dt tensor.DType, n int, w *sparse.Weight) {
	const r = 16
	dev := New(Config{ISA: isa, Threads: 1})
	defer dev.Close()
	if dt != tensor.F32 && !dev.WalksKept(w, dt, n) {
		b.Skip("not walked")
	}
	la, lb := random(tensor.F32, r, w.In), random(tensor.F32, w.Out, r)
	da, db := random(tensor.F32, r, w.In), random(tensor.F32, w.Out, r)
	x, y, slot, packed := random(dt, n, w.In), random(dt, n, w.Out), random(dt, w.Out, w.In), random(dt, 1, max(1, dev.KeptSlot(w, dt)))
	la16, lb16 := random(dt, r, w.In), random(dt, w.Out, r)
	flops := 2 * float64(n) * float64(w.In) * float64(w.Out)
	for _, op := range []struct {
		name string
		f    func()
	}{
		{"y/kept", func() { dev.KeptForward(y, x, packed, w, lb, la, 2, 0) }},
		{"y/slot", func() {
			dev.Merge(slot, w, lb, la, 2)
			dev.Gemm(y, 1, x, false, slot, true, 0)
		}},
		{"dx/kept", func() { dev.KeptInput(x, y, packed, w, lb, la, 2, 0) }},
		{"dx/slot", func() {
			dev.Merge(slot, w, lb, la, 2)
			dev.Gemm(x, 1, y, false, slot, false, 0)
		}},
		{"G/kept", func() { dev.KeptAdapter(da, db, y, x, packed, w, lb, la, 2) }},
		{"G/slot", func() {
			dev.Gemm(slot, 1, y, true, x, false, 0)
			dev.Mask(slot, w)
			dev.Gemm(da, 2, lb16, true, slot, false, 1)
			dev.Gemm(db, 2, slot, false, la16, true, 1)
		}},
		{"Gonly/kept", func() { dev.gradient(y, x, packed, w) }},
		{"Gonly/Gemm", func() { dev.Gemm(slot, 1, y, true, x, false, 0) }},
		{"yonly/kept", func() {
			t := dev.tiles(w, packed, dt)
			for c := range t.chunks() {
				t.place(c, w.Start(c*keptRows, 0))
			}
			dev.walk(y, x, t, 0)
		}},
		{"yonly/Gemm", func() { dev.Gemm(y, 1, x, false, slot, true, 0) }},
	} {
		b.Run(op.name, func(b *testing.B) {
			if op.name == "yonly/kept" && dt == tensor.BF16 && !dev.walksTwoOfFour(w) {
				b.Skip("y is dense")
			}
			dev.Fill(x, 0.5) // products of products would grow
			dev.Fill(y, 0.25)
			measure(b, 1, flops, op.f)
		})
	}
}
