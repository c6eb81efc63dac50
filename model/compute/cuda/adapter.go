//go:build cuda

package cuda

import (
	"github.com/splora/splora/model/compute"
	"github.com/splora/splora/model/sparse"
	"github.com/splora/splora/model/tensor"
)

var (
	_ compute.Surveyor      = (*Backend)(nil)
	_ compute.MaskedAdapter = (*Backend)(nil)
)

// Survey is a twin that adds up this backend's scratch memory.
func (b *Backend) Survey() compute.Survey {
	return &survey{name: b.name, processors: b.number, sparse: b.config.SparseCores, have: b.scratch.floats.Len(), reserve: func(n int) {
		b.scratch.floats = tensor.Tensor{DType: tensor.F32, Rows: 1, Cols: n, Mem: b.Alloc(4 * n)}
	}}
}

// AdapterGradient adds s·Bᵀ·(M ⊙ G) to da and s·(M ⊙ G)·Aᵀ to db in one reading of G: for BF16, ranks up to 64, and where the parts
// that the blocks leave fit the scratch memory.
func (b *Backend) AdapterGradient(da, db, g tensor.Tensor, w *sparse.Weight, bm, am tensor.Tensor, s float32) bool {
	const op = "adaptergradient"
	r := am.Rows
	want(op, "g", g, g.DType, w.Out, w.In)
	want(op, "da", da, tensor.F32, r, w.In)
	want(op, "db", db, tensor.F32, w.Out, r)
	want(op, "b", bm, tensor.F32, w.Out, r)
	want(op, "a", am, tensor.F32, r, w.In)
	wantWeight(op, w)
	l, ok := adapterGradient(g, w, r, b.number)
	parts := b.scratch.floats
	if !ok || l.PartA+l.PartB > parts.Len() {
		return false
	}
	partA, partB := parts.Window(0, 1, l.PartA), parts.Window(l.PartA, 1, l.PartB)
	b.launch(l.Module, kernelKey{op: l.Name}, l.Grid, l.Threads, l.Shared, ptr(partA), ptr(partB), ptr(g), uint64(w.Bits.Device), ptr(bm), ptr(am),
		num(w.Out), num(w.In), num(r), num(l.Stripe))
	b.sweep("adapter", kernelKey{op: "adapter_sum"}, r*(w.In+w.Out), ptr(da), ptr(db), ptr(partA), ptr(partB), num(w.Out), num(w.In), num(r), num(l.R),
		num(l.Grid[1]), num(l.Grid[0]), f32(s))
	return true
}
