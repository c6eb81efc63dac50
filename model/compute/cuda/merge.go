//go:build cuda

package cuda

import (
	"fmt"
	"math"

	"github.com/splora/splora/model/compute/cuda/kernels"
	"github.com/splora/splora/model/sparse"
	"github.com/splora/splora/model/tensor"
)

// Merge sets dst = M ⊙ (W + s·B·A), in one pass over dst; with absent a and b it only expands W.
func (b *Backend) Merge(dst tensor.Tensor, w *sparse.Weight, bm, am tensor.Tensor, s float32) {
	wantAct("merge", "dst", dst)
	want("merge", "dst", dst, dst.DType, w.Out, w.In)
	wantWeight("merge", w)
	r := b.wantFactors("merge", w, bm, am)
	if dst.Len() == 0 {
		return
	}
	starts := uint64(w.Starts.Device)
	if w.Computed() {
		starts = 0
	}
	grid := [3]int{(w.In + sparse.Block - 1) / sparse.Block, min((w.Out+mergeRows-1)/mergeRows, math.MaxUint16), 1}
	b.launch("merge", op2("merge", dst, w.Values), grid, kernels.Threads, 0, ptr(dst), ptr(w.Values), uint64(w.Bits.Device), starts, ptr(bm), ptr(am),
		num(w.Out), num(w.In), num(r), f32(s), num(w.Pattern.N), num(w.Pattern.M))
}

// wantFactors panics unless B and A fit the weight or are absent; it gives their rank.
func (b *Backend) wantFactors(op string, w *sparse.Weight, bm, am tensor.Tensor) int {
	if am.Absent() && bm.Absent() {
		return 0
	}
	want(op, "b", bm, tensor.F32, w.Out, am.Rows)
	want(op, "a", am, tensor.F32, am.Rows, w.In)
	return am.Rows
}

// mergeRows is the number of rows that a block of merge takes at a time.
const mergeRows = 128

// Mask sets dst = M ⊙ dst; pruned positions become exactly +0, whatever they held.
func (b *Backend) Mask(dst tensor.Tensor, w *sparse.Weight) {
	wantAct("mask", "dst", dst)
	want("mask", "dst", dst, dst.DType, w.Out, w.In)
	wantWeight("mask", w)
	if !w.Dense() {
		b.sweep("merge", op1("mask", dst), dst.Len(), ptr(dst), uint64(w.Bits.Device), num(w.Out), num(w.In))
	}
}

// wantWeight panics unless the packed weight is on the device.
func wantWeight(op string, w *sparse.Weight) {
	wantFloat(op, "values", w.Values, w.Values.Rows, w.Values.Cols)
	if !w.Dense() && (w.Bits.Device == 0 || !w.Computed() && w.Starts.Device == 0) {
		panic(fmt.Sprintf("cuda: %s: the mask of a weight [%d,%d] is not on the device", op, w.Out, w.In))
	}
}
