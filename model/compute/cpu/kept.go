package cpu

import (
	"fmt"

	"github.com/splora/splora/model/compute"
	"github.com/splora/splora/model/compute/cpu/internal/amx"
	"github.com/splora/splora/model/sparse"
	"github.com/splora/splora/model/tensor"
)

// The products of a masked linear over its kept weights alone. Activations are transposed into panels, xᵀ [in][tokens], of which a block
// of 64 inputs stays in the first cache; one mask word is a row's part of such a block, and its bits are the indices. So a kept
// weight is one broadcast and one multiply-add per register of tokens, whatever the pattern, and a pruned one is nothing.
//
//	y  panels of 8 registers of tokens against W̃ packed block by block      dx  the same against W̃ᵀ
//	G  a row of dyᵀ stays in registers, one sum per kept position, sixteen of them folded into one register
//
// Beside the slot it takes scratch memory of its own, which grows to what the largest layer needs: panels of at most keptTokens tokens,
// 4·keptTokens·(in + out) bytes, one bit per weight for Mᵀ, and about 4·max(r, 16)·(in + out) bytes.
const (
	keptRows   = 64  // rows of W̃ that a piece of work takes
	keptTokens = 256 // tokens whose panels stand at a time
	keptCols   = 256 // columns merged at a time on the way to W̃ᵀ
)

var _ compute.SparseLinear = (*Backend)(nil)

// keptBuffers are scratch memory; they grow to what the largest layer needs and stay.
type keptBuffers struct {
	x, y   []float32 // panels
	starts []uint32
	bits   []uint64  // Mᵀ
	a, b   []float32 // Aᵀ and B, in panels
}

// tiles is a packed matrix, chunk of keptRows rows by chunk, in it block of 64 columns by block, in it row by row. The word of row i
// and block k is bits[i·step + k·block]; the values of chunk c and block k begin at starts[c·cs + k·ks].
type tiles struct {
	bits        []uint64
	step, block int
	starts      []uint32
	cs, ks      int
	values      []float32
	rows, cols  int
}

func (t *tiles) chunks() int { return (t.rows + keptRows - 1) / keptRows }
func (t *tiles) blocks() int { return sparse.Words(t.cols) }

// at is the address of the values of chunk c, block k, or of nothing when there are no more.
func (t *tiles) at(c, k int) *float32 {
	s := int(t.starts[c*t.cs+k*t.ks])
	if s >= len(t.values) {
		return nil
	}
	return &t.values[s]
}

// word is the address of the word of row i and block k.
func (t *tiles) word(i, k int) *uint64 { return &t.bits[i*t.step+k*t.block] }

// WalksKept reports whether the products over kept weights are faster than the dense ones through the slot. As measured with all three
// instruction sets: they are by a tenth to a half at 2:4, by half at 30 % kept and more below, and equal near 57 %, from 64 tokens and
// 128 inputs and outputs on. Smaller ones are merged and packed for too little work.
//
// On tiles they are masked instead, which saves the passes over the slot whatever the density; the walk is faster below walkBelow. From more
// rows than one block of panels has, W̃ is merged again for each block, and the way through the slot is faster: by 13 to 20 % at 1024
// and 2048 tokens.
func (b *Backend) WalksKept(w *sparse.Weight, x tensor.DType, n int) bool {
	if b.masks(w, x) {
		return n >= 32 && n <= unitPanels*amx.Rows && min(w.In, w.Out) >= 64
	}
	return x == tensor.F32 && !w.Dense() && w.Density() <= 0.55 && n >= 64 && min(w.In, w.Out) >= 128
}

// KeptSlot is the kept weights of a walk; on tiles W̃ and G stand nowhere.
func (b *Backend) KeptSlot(w *sparse.Weight, x tensor.DType) int {
	if b.masks(w, x) {
		return 0
	}
	return w.NNZ()
}

// kept panics unless the operands of a product fit.
func kept(op string, x, y, slot tensor.Tensor, w *sparse.Weight) {
	want(op, "x", x, tensor.F32, y.Rows, w.In)
	want(op, "y", y, tensor.F32, x.Rows, w.Out)
	if w.Dense() {
		panic(fmt.Sprintf("cpu: %s: the weight [%d,%d] is dense", op, w.Out, w.In))
	}
	if slot.DType != tensor.F32 || slot.Len() < w.NNZ() {
		panic(fmt.Sprintf("cpu: %s: slot is %s, for %d kept weights in float32", op, slot, w.NNZ()))
	}
}

// KeptForward sets y = x·W̃ᵀ + β·y.
func (b *Backend) KeptForward(y, x, slot tensor.Tensor, w *sparse.Weight, bm, am tensor.Tensor, s, beta float32) {
	if b.masks(w, x.DType) {
		masked("masked forward", x, y, w, bm, am)
		b.unitMasked(y, x, w, bm, am, s, beta, false)
		return
	}
	kept("kept forward", x, y, slot, w)
	b.tasks.keptMerge = keptMergeTask{mergeTask: newMerge("kept forward", w, bm, am, s), kern: &b.kern.Kept, t: b.tiles(w, slot)}
	t := &b.tasks.keptMerge
	b.pool.run(t, t.t.chunks(), 1)
	b.walk(y, x, t.t, beta)
}

// KeptInput sets dx = dy·W̃ + β·dx.
func (b *Backend) KeptInput(dx, dy, slot tensor.Tensor, w *sparse.Weight, bm, am tensor.Tensor, s, beta float32) {
	if b.masks(w, dx.DType) {
		masked("masked input", dx, dy, w, bm, am)
		b.unitMasked(dx, dy, w, bm, am, s, beta, true)
		return
	}
	kept("kept input", dx, dy, slot, w)
	b.tasks.keptTurn = keptTurnTask{mergeTask: newMerge("kept input", w, bm, am, s), kern: &b.kern.Kept, t: b.turned(w, slot)}
	t := &b.tasks.keptTurn
	b.pool.run(t, t.t.blocks(), 1)
	b.walk(dx, dy, t.t, beta)
}

// tiles lays out W̃, or G, in the slot; its starts are not set yet.
func (b *Backend) tiles(w *sparse.Weight, slot tensor.Tensor) tiles {
	t := tiles{bits: w.Mask(), step: w.Words(), block: 1, cs: w.Words(), ks: 1, values: slot.Float32()[:w.NNZ()], rows: w.Out, cols: w.In}
	t.starts = sized(&b.kept.starts, t.chunks()*t.blocks())
	return t
}

// turned lays out W̃ᵀ; its starts and bits are not set yet. All of a block of columns (64 rows of W̃) stands together.
func (b *Backend) turned(w *sparse.Weight, slot tensor.Tensor) tiles {
	t := tiles{step: 1, block: w.In, cs: 1, values: slot.Float32()[:w.NNZ()], rows: w.In, cols: w.Out}
	t.ks = t.chunks()
	t.starts = sized(&b.kept.starts, t.chunks()*t.blocks())
	t.bits = sized(&b.kept.bits, t.blocks()*w.In)
	return t
}

// sized gives n elements of *buf, which grows.
func sized[E any](buf *[]E, n int) []E {
	if cap(*buf) < n {
		*buf = make([]E, n)
	}
	return (*buf)[:n]
}
