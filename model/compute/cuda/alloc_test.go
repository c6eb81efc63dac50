//go:build cuda

package cuda_test

import (
	"strings"
	"testing"

	"github.com/splora/splora/model/compute"
	"github.com/splora/splora/model/compute/cuda"
	"github.com/splora/splora/model/compute/cuda/cudatest"
	"github.com/splora/splora/model/sparse"
	"github.com/splora/splora/model/tensor"
)

// TestQueueingAnOperationAllocatesNothing: a step queues thousands of operations, and the host must stay ahead of the device. Attention, which is
// queued a few times a layer, may build the name of its kernel and a list of its arguments.
func TestQueueingAnOperationAllocatesNothing(t *testing.T) {
	b := cudatest.Open(t, cuda.Config{SparseCores: true})
	act := func(rows, cols int) tensor.Tensor {
		return tensor.Tensor{DType: tensor.BF16, Rows: rows, Cols: cols, Mem: b.Alloc(2 * rows * cols)}
	}
	f32 := func(rows, cols int) tensor.Tensor {
		return tensor.Tensor{DType: tensor.F32, Rows: rows, Cols: cols, Mem: b.Alloc(4 * rows * cols)}
	}
	i32 := func(rows, cols int) tensor.Tensor {
		return tensor.Tensor{DType: tensor.I32, Rows: rows, Cols: cols, Mem: b.Alloc(4 * rows * cols)}
	}
	x, y, z := act(4, 64), act(4, 64), act(4, 64)
	norm, rstd, rows := f32(1, 64), f32(1, 4), i32(1, 4)
	w := &sparse.Weight{Out: 64, In: 64, Pattern: sparse.Pattern{N: 2, M: 4}, Values: act(1, 64*32), Bits: b.Alloc(64 * 8)}
	slot, A, B := act(64, 64), f32(2, 64), f32(64, 2)
	p := f32(1, 100)
	at := compute.Attn{B: 1, Tq: 4, Tk: 4, Hq: 1, Hkv: 1, D: 64, Scale: 1, QPos: rows, KPos: rows, QDoc: rows, KDoc: rows}
	for name, f := range map[string]func(){
		"Add": func() { b.Add(x, y) }, "Copy": func() { b.Copy(x, y) }, "Fill": func() { b.Fill(x, 1) },
		"Gather": func() { b.Gather(x, y, rows) }, "RMSNorm": func() { b.RMSNorm(x, rstd, y, norm, 1e-5) },
		"Gate": func() { b.Gate(x, y, z, compute.SiLU) }, "GateBackward": func() { b.GateBackward(x, y, z, x, y, compute.SiLU) },
		"Merge": func() { b.Merge(slot, w, B, A, 1) }, "Mask": func() { b.Mask(slot, w) }, "Gemm": func() { b.Gemm(x, 1, y, false, slot, true, 0) },
		"KeptForward": func() { b.KeptForward(x, y, slot, w, B, A, 1, 0) },
		"Attention":   func() { b.Attention(x, rstd, y, y, z, at) }, "AttentionBackward": func() { b.AttentionBackward(x, y, z, x, x, rstd, x, x, x, at) },
		"AdamW": func() { b.AdamW(p, p, p, p, compute.AdamW{Bias1: 1, Bias2: 1}) },
	} {
		f()
		limit := 0.0
		if strings.HasPrefix(name, "Attention") {
			limit = 12
		}
		if n := testing.AllocsPerRun(10, f); !(n <= limit) {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
	if err := b.Sync(); err != nil {
		t.Error(err)
	}
}
