//go:build cuda

package cuda

import (
	"fmt"

	"github.com/splora/splora/model/compute"
	"github.com/splora/splora/model/compute/cuda/kernels"
	"github.com/splora/splora/model/sparse"
	"github.com/splora/splora/model/tensor"
)

var _ compute.SparseLinear = (*Backend)(nil)

// WalksKept reports whether the sparse tensor cores take x·W̃ᵀ, where the configuration asks for them. Whether they are faster is not known
// before they have been measured.
func (b *Backend) WalksKept(w *sparse.Weight, x tensor.DType, _ int) bool {
	return b.config.SparseCores && twoOfFour(w, x)
}

// KeptSlot is W̃ whole, for dx, and G.
func (b *Backend) KeptSlot(w *sparse.Weight, x tensor.DType) int {
	return keptSlot(w, x, b.config.SparseCores)
}

// KeptForward sets y = x·W̃ᵀ + β·y: by the sparse tensor cores if they take it, W̃ compressed in the slot; else by W̃ whole.
func (b *Backend) KeptForward(y, x, slot tensor.Tensor, w *sparse.Weight, bm, am tensor.Tensor, s, beta float32) {
	b.wantKept("kept forward", x, y, slot, w)
	if !b.WalksKept(w, x.DType, x.Rows) || x.Mem.Device%16 != 0 {
		b.Gemm(y, 1, x, false, b.merged(slot, w, bm, am, s), true, beta)
		return
	}
	if y.Len() > 0 {
		b.compress(slot, w, bm, am, s)
		l := kernels.Spmm(x.Rows, w.Out)
		b.launch(l.Module, kernelKey{op: l.Name}, l.Grid, l.Threads, l.Shared, ptr(y), ptr(x), ptr(slot), num(x.Rows), num(w.Out), num(w.In), f32(beta))
	}
}

// compress merges a 2:4 weight into the slot as spmm takes it.
func (b *Backend) compress(slot tensor.Tensor, w *sparse.Weight, bm, am tensor.Tensor, s float32) {
	wantWeight("compress", w)
	r := b.wantFactors("compress", w, bm, am)
	l := kernels.Compress(w.Out, w.In)
	b.launch(l.Module, op1(l.Name, w.Values), l.Grid, l.Threads, l.Shared, ptr(slot), ptr(w.Values), uint64(w.Bits.Device), ptr(bm), ptr(am), num(w.Out),
		num(w.In), num(r), f32(s))
}

// KeptInput sets dx = dy·W̃ + β·dx by W̃ whole: along the outputs a row of 2:4 has no pattern.
func (b *Backend) KeptInput(dx, dy, slot tensor.Tensor, w *sparse.Weight, bm, am tensor.Tensor, s, beta float32) {
	b.wantKept("kept input", dx, dy, slot, w)
	b.Gemm(dx, 1, dy, false, b.merged(slot, w, bm, am, s), false, beta)
}

// merged is W̃ whole in the slot.
func (b *Backend) merged(slot tensor.Tensor, w *sparse.Weight, bm, am tensor.Tensor, s float32) tensor.Tensor {
	t := slot.Window(0, w.Out, w.In)
	b.Merge(t, w, bm, am, s)
	return t
}

// KeptAdapter adds to da += s·Bᵀ·G and db += s·G·Aᵀ, G whole in the slot.
func (b *Backend) KeptAdapter(da, db, dy, x, slot tensor.Tensor, w *sparse.Weight, bm, am tensor.Tensor, s float32) {
	b.wantKept("kept adapter", x, dy, slot, w)
	g := slot.Window(0, w.Out, w.In)
	b.Gemm(g, 1, dy, true, x, false, 0)
	if b.AdapterGradient(da, db, g, w, bm, am, s) {
		return
	}
	b.Mask(g, w)
	bm, am = b.halved(bm, am, g.DType)
	b.Gemm(da, s, bm, true, g, false, 1)
	b.Gemm(db, s, g, false, am, true, 1)
}

// halved are copies of B and A in the type of G, if that is not theirs and the scratch memory has room.
func (b *Backend) halved(bm, am tensor.Tensor, dt tensor.DType) (tensor.Tensor, tensor.Tensor) {
	if dt == tensor.F32 || halves(bm, am) > b.scratch.floats.Len() {
		return bm, am
	}
	room := tensor.Tensor{DType: dt, Rows: 1, Cols: 2 * b.scratch.floats.Len(), Mem: b.scratch.floats.Mem}
	bh, ah := room.Window(0, bm.Rows, bm.Cols), room.Window(even(bm.Len()), am.Rows, am.Cols)
	b.Copy(bh, bm)
	b.Copy(ah, am)
	return bh, ah
}

// wantKept panics unless the operands of a product fit.
func (b *Backend) wantKept(op string, x, y, slot tensor.Tensor, w *sparse.Weight) {
	wantAct(op, "x", x)
	want(op, "x", x, x.DType, y.Rows, w.In)
	want(op, "y", y, x.DType, x.Rows, w.Out)
	if n := b.KeptSlot(w, x.DType); slot.DType != x.DType || slot.Len() < n {
		panic(fmt.Sprintf("cuda: %s: slot is %s, for %d elements like x", op, slot, n))
	}
	wantLen(op, "slot", slot, x.DType, slot.Len())
}
