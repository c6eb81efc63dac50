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
// With bfloat16 and AVX512_BF16 a multiply-add takes a pair: in y at 2:4 the two kept weights of four, where the panel has all six pairs of four
// inputs side by side; in dx at 2:4 two outputs that keep the same inputs; and in G, whatever the pattern, a pair of tokens. Sums are float32. y and
// dx of other patterns are dense products.
//
// Beside the slot it takes scratch memory of its own, which grows to what the largest layer needs: panels of at most keptTokens tokens,
// 4·keptTokens·(in + out) bytes (6·keptTokens·in in pairs), one bit per weight for Mᵀ, and parts of dA, one for each reduceRows outputs, 4·in bytes
// for each rank.
const (
	keptRows   = 64  // rows of a chunk of W̃
	keptTokens = 512 // tokens whose panels stand at a time
	keptCols   = 256 // columns merged at a time on the way to W̃ᵀ
)

var _ compute.SparseLinear = (*Backend)(nil)

// keptBuffers are scratch memory; they grow to what the largest layer needs and stay.
type keptBuffers struct {
	x, y   []float32 // panels
	starts []uint32
	bits   []uint64  // Mᵀ
	a, b   []float32 // Aᵀ in a panel, and parts of dA
}

// tiles is a packed matrix, chunk of keptRows rows by chunk, in it block of 64 columns by block, in it row by row. The word of row i
// and block k is bits[i·step + k·block]; the values of chunk c and block k begin at starts[c·cs + k·ks].
type tiles struct {
	bits        []uint64
	step, block int
	starts      []uint32
	cs, ks      int
	values      tensor.Tensor // [1, kept], F32, or BF16 where pairs are walked
	rows, cols  int
}

func (t *tiles) chunks() int { return (t.rows + keptRows - 1) / keptRows }
func (t *tiles) blocks() int { return sparse.Words(t.cols) }

// at is the address of the values of chunk c, block k, or of nothing when there are no more.
func (t *tiles) at(c, k int) *float32 {
	return (*float32)(valuesAt(t.values, int(t.starts[c*t.cs+k*t.ks])))
}

// word is the address of the word of row i and block k.
func (t *tiles) word(i, k int) *uint64 { return &t.bits[i*t.step+k*t.block] }

// WalksKept reports whether the products over kept weights are faster than the dense ones through the slot. As measured with all three
// instruction sets: they are by a tenth to a half at 2:4, by half at 30 % kept and more below, and equal near 57 %, from 64 tokens and
// 128 inputs and outputs on. Smaller ones are merged and packed for too little work. With bfloat16 y at 2:4 is by two fifths, G by half
// at half kept and more below, and dx by 3 to 25 %, for W̃ goes straight into panels, and at 2:4 by a third to a half (see walksClasses); y of other
// patterns is the dense one.
//
// On tiles they are masked instead, which saves the passes over the slot whatever the density; the walk is faster below walkBelow. From more
// rows than one block of panels has, W̃ is merged again for each block, and the way through the slot is faster: by 13 to 20 % at 1024
// and 2048 tokens.
func (b *Backend) WalksKept(w *sparse.Weight, x tensor.DType, n int) bool {
	if b.masks(w, x) {
		return n >= 32 && n <= unitPanels*amx.Rows && min(w.In, w.Out) >= 64
	}
	there := x == tensor.F32 || b.walksPairs(w)
	return there && !w.Dense() && w.Density() <= 0.55 && n >= 64 && min(w.In, w.Out) >= 128
}

// walksPairs reports whether G of bfloat16 activations can be formed at the kept positions alone. The panels are made from pairs of inputs and of
// outputs.
func (b *Backend) walksPairs(w *sparse.Weight) bool {
	return b.kern.Kept.Half.PairRows != nil && w.In%4 == 0 && w.Out%2 == 0
}

// walksTwoOfFour reports whether y of bfloat16 activations, too, takes the kept weights alone: of each four inputs a pair.
func (b *Backend) walksTwoOfFour(w *sparse.Weight) bool {
	return b.walksPairs(w) && w.Pattern == sparse.Pattern{N: 2, M: 4}
}

// walksClasses reports whether dx of n bfloat16 activations takes the kept weights alone, too: by class. Sorting them pays from 128 tokens on: 4 %
// there, 12 at 192, a third at 512; it costs 14 at 96. Fewer outputs than 64 would take more of the slot by class than W̃ does.
func (b *Backend) walksClasses(w *sparse.Weight, n int) bool {
	return b.walksTwoOfFour(w) && n >= 128 && w.Out >= 64
}

// KeptSlot is the kept weights of a walk; on tiles W̃ and G stand nowhere. With bfloat16 it is W̃ whole, for dx (by class it takes less), or G packed
// in float32.
func (b *Backend) KeptSlot(w *sparse.Weight, x tensor.DType) int {
	switch {
	case b.masks(w, x):
		return 0
	case x == tensor.BF16:
		return max(w.Out*w.In, 2*w.NNZ())
	}
	return w.NNZ()
}

// wantKept panics unless the operands of a product fit.
func (b *Backend) wantKept(op string, x, y, slot tensor.Tensor, w *sparse.Weight) {
	want(op, "x", x, like(op, "x", x), y.Rows, w.In)
	want(op, "y", y, x.DType, x.Rows, w.Out)
	if w.Dense() {
		panic(fmt.Sprintf("cpu: %s: the weight [%d,%d] is dense", op, w.Out, w.In))
	}
	if x.DType == tensor.BF16 && !b.walksPairs(w) {
		panic(fmt.Sprintf("cpu: %s: no walk over the weight [%d,%d] in bfloat16", op, w.Out, w.In))
	}
	if slot.DType != x.DType || slot.Len() < b.KeptSlot(w, x.DType) {
		panic(fmt.Sprintf("cpu: %s: slot is %s, for %d elements like x", op, slot, b.KeptSlot(w, x.DType)))
	}
}

// KeptForward sets y = x·W̃ᵀ + β·y.
func (b *Backend) KeptForward(y, x, slot tensor.Tensor, w *sparse.Weight, bm, am tensor.Tensor, s, beta float32) {
	if b.masks(w, x.DType) {
		masked("masked forward", x, y, w, bm, am)
		b.unitMasked(y, x, w, bm, am, s, beta, false)
		return
	}
	b.wantKept("kept forward", x, y, slot, w)
	if x.DType == tensor.BF16 && !b.walksTwoOfFour(w) {
		b.Gemm(y, 1, x, false, b.dense(w, slot, bm, am, s), true, beta)
		return
	}
	b.tasks.keptMerge = keptMergeTask{mergeTask: newMerge("kept forward", w, bm, am, s), kern: &b.kern.Kept, t: b.tiles(w, slot, x.DType)}
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
	b.wantKept("kept input", dx, dy, slot, w)
	if dx.DType == tensor.BF16 {
		b.keptInputHalf(dx, dy, slot, w, bm, am, s, beta)
		return
	}
	b.tasks.keptTurn = keptTurnTask{mergeTask: newMerge("kept input", w, bm, am, s), kern: &b.kern.Kept, t: b.turned(w, slot)}
	t := &b.tasks.keptTurn
	b.pool.run(t, t.t.blocks(), 1)
	b.walk(dx, dy, t.t, beta)
}

// dense is W̃ as it stands dense in the slot.
func (b *Backend) dense(w *sparse.Weight, slot, bm, am tensor.Tensor, s float32) tensor.Tensor {
	dst := as(slot, slot.DType, w.Out, w.In)
	b.Merge(dst, w, bm, am, s)
	return dst
}

// as is the beginning of t's memory as another matrix.
func as(t tensor.Tensor, dt tensor.DType, rows, cols int) tensor.Tensor {
	t.Mem.Host = t.Mem.Host[:rows*cols*dt.Size()]
	t.DType, t.Rows, t.Cols = dt, rows, cols
	return t
}

// tiles lays out W̃, or G, in the slot, its values of the given type; its starts are not set yet.
func (b *Backend) tiles(w *sparse.Weight, slot tensor.Tensor, dt tensor.DType) tiles {
	t := tiles{bits: w.Mask(), step: w.Words(), block: 1, cs: w.Words(), ks: 1, values: as(slot, dt, 1, w.NNZ()), rows: w.Out, cols: w.In}
	t.starts = sized(&b.kept.starts, t.chunks()*t.blocks())
	return t
}

// turned lays out W̃ᵀ; its starts and bits are not set yet. All of a block of columns (64 rows of W̃) stands together.
func (b *Backend) turned(w *sparse.Weight, slot tensor.Tensor) tiles {
	t := tiles{step: 1, block: w.In, cs: 1, values: as(slot, tensor.F32, 1, w.NNZ()), rows: w.In, cols: w.Out}
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
