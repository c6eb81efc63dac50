//go:build cuda

package cuda_test

import (
	"testing"

	"github.com/splora/splora/model/compute"
	"github.com/splora/splora/model/compute/cuda"
	"github.com/splora/splora/model/compute/cuda/cudatest"
	"github.com/splora/splora/model/sparse"
	"github.com/splora/splora/model/tensor"
)

func TestASurveySaysBeforehandWhatScratchMemoryAnOperationWants(t *testing.T) {
	b := cudatest.Open(t, cuda.Config{})
	s := b.Survey()
	var none tensor.Tensor
	small := compute.Attn{B: 2, Tq: 100, Tk: 100, Hq: 4, Hkv: 2, D: 8}
	if s.AttentionBackward(none, none, none, none, none, none, none, none, none, small); s.Scratch() != 0 {
		t.Errorf("%d bytes more for what fits", s.Scratch())
	}
	const out, in, r = 8, 72_000, 2 // parts of 16·72,000 numbers and more
	zero := func(dt tensor.DType, rows, cols int) tensor.Tensor {
		return tensor.Tensor{DType: dt, Rows: rows, Cols: cols, Mem: b.Alloc(rows * cols * dt.Size())}
	}
	w := &sparse.Weight{Out: out, In: in, Values: zero(tensor.BF16, 1, out*in)} // dense
	g, A, B, dA, dB := zero(tensor.BF16, out, in), zero(tensor.F32, r, in), zero(tensor.F32, out, r), zero(tensor.F32, r, in), zero(tensor.F32, out, r)
	b.Fill(g, 1)
	b.Fill(B, 0.5)
	if b.AdapterGradient(dA, dB, g, w, B, A, 1) {
		t.Error("a gradient whose parts do not fit the scratch memory is taken")
	}
	if !s.(compute.MaskedAdapter).AdapterGradient(dA, dB, g, w, B, A, 1) || s.Scratch() < 4*16*in {
		t.Errorf("%d bytes", s.Scratch())
	}
	planner := cuda.Planner{Processors: 16}.Survey()
	if planner.(compute.MaskedAdapter).AdapterGradient(dA, dB, g, w, B, A, 1); planner.Scratch() != s.Scratch() { // one row of blocks, on any GPU
		t.Errorf("%d bytes on the GPU that is there, %d as planned without", s.Scratch(), planner.Scratch())
	}
	before := usage(t, b).Used
	s.Reserve()
	if got := usage(t, b).Used - before; got < s.Scratch() && s.Scratch() != 0 {
		t.Errorf("%d bytes were reserved, %d are wanted", got, s.Scratch())
	}
	if again := b.Survey(); again.Scratch() != 0 {
		t.Errorf("a new survey wants %d bytes", again.Scratch())
	}
	if !b.AdapterGradient(dA, dB, g, w, B, A, 1) {
		t.Fatal("the gradient is not taken after all")
	}
	got := make([]float32, r*in)
	b.Download(tensor.Of(got).Mem.Host, dA)
	for i, v := range got {
		if v != out*0.5 {
			t.Fatalf("dA[%d,%d] is %v, want %v", i/in, i%in, v, out*0.5)
		}
	}
}
