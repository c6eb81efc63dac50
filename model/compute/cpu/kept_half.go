package cpu

import (
	"unsafe"

	"github.com/splora/splora/model/compute/cpu/internal/amx"
	"github.com/splora/splora/model/compute/cpu/internal/simd"
	"github.com/splora/splora/model/sparse"
	"github.com/splora/splora/model/tensor"
)

// Panels of bfloat16 are made in two steps: pairs of neighbouring inputs, 32 bits wide, are transposed as if they were floats; then
//
//	for y   (a,b), (c,d) become the six pairs of the four inputs a, b, c, d
//	for G   (a,b) of two tokens become a pair of tokens of a, and one of b; dyᵀ stands so for dx by class, too

// sixOf is the number of rows of pairs for so many inputs.
func sixOf(inputs int) int { return inputs / 4 * 6 }

// pairTask fills panels from pairs of inputs, pairBlock inputs in each piece.
type pairTask struct {
	kern *simd.KeptHalf
	p    panels
	six  bool
}

// pairBlock is the number of inputs whose transposed pairs stand at a time, in the first cache.
const pairBlock = 64

func (t *pairTask) down() int { return (t.p.src.Cols + pairBlock - 1) / pairBlock }

func (t *pairTask) pieces() int { return t.p.count() * t.down() }

// scratch is the floats that a piece takes.
func (t *pairTask) scratch() int { return pairBlock / 2 * t.p.wide * t.p.per }

func (t *pairTask) do(w *worker, i, end int) {
	for ; i < end; i++ {
		p, q, k := &t.p, i/t.down(), i%t.down()*pairBlock
		n, width, kc := p.tokens(q), p.width(q)*p.per, min(pairBlock, p.src.Cols-k)
		turned := w.scratch(t.scratch())[:kc/2*width]
		if n < width {
			clear(turned)
		}
		pairs := as(p.src, tensor.F32, p.src.Rows, p.src.Cols/2)
		for g := 0; g < n; g += w.Lanes {
			packAcross(w, w.Kernels, turned[g:], pairs, p.first+q*p.wide*p.per+g, min(w.Lanes, n-g), width, k/2, kc/2)
		}
		w.work.Packed += kc * width
		if t.six {
			t.kern.SixPairs(kc/4, width/w.Lanes, &p.row(q, sixOf(k))[0], &turned[0])
		} else {
			t.kern.PairRows(kc/2, width/w.Lanes/2, &p.row(q, k)[0], &turned[0])
		}
	}
}

// fillPairs fills panels with the six pairs of each four inputs of src's rows [first, first+n).
func (b *Backend) fillPairs(src tensor.Tensor, first, n, wide, last int) panels {
	p := panels{src: src, first: first, n: n, wide: wide, last: last, space: sixOf(src.Cols), per: 1}
	return b.runPairs(&b.kept.x, p, true)
}

// fillTokens fills panels with pairs of src's rows [first, first+n), wide pairs in each.
func (b *Backend) fillTokens(buf *[]float32, src tensor.Tensor, first, n, wide, last, space int) panels {
	return b.runPairs(buf, panels{src: src, first: first, n: n, wide: wide, last: last, space: space, per: 2}, false)
}

func (b *Backend) runPairs(buf *[]float32, p panels, six bool) panels {
	p.dst = sized(buf, p.count()*p.wide*p.space)
	b.tasks.pairs = pairTask{&b.kern.Kept.Half, p, six}
	b.pool.run(&b.tasks.pairs, b.tasks.pairs.pieces(), 1)
	return p
}

// keptInputHalf is KeptInput in bfloat16.
func (b *Backend) keptInputHalf(dx, dy, slot tensor.Tensor, w *sparse.Weight, bm, am tensor.Tensor, s, beta float32) {
	if b.walksClasses(w, dy.Rows) {
		b.walkClasses(dx, dy, b.classes(slot, newMerge("kept input", w, bm, am, s)), beta)
		return
	}
	if !b.mergesPanels(w) {
		b.Gemm(dx, 1, dy, false, b.dense(w, slot, bm, am, s), false, beta)
		return
	}
	t := &b.tasks.unit
	*t = b.newMerged(dx, dy, beta)
	t.moving.packed = slot.Uint16()
	m := &b.tasks.keptPanel
	*m = keptPanelsTask{mergeTask: newMerge("kept input", w, bm, am, s), kern: &b.kern.Kept, to: t.moving}
	b.pool.run(m, m.pieces(), 1)
	b.runUnit(t)
}

// mergesPanels reports whether W̃ is merged into panels of a product of pairs: whole ones, which take no more room than its rows.
func (b *Backend) mergesPanels(w *sparse.Weight) bool {
	return b.unit.Kernels != nil && w.Out%amx.Rows == 0 && w.In%amx.Rows == 0
}

// keptPanelsTask sets the panels of a side, whose rows are the inputs and whose inner elements are the outputs, to W̃ = M ⊙ (W + s·B·A); a piece is
// panelRows outputs.
type keptPanelsTask struct {
	mergeTask
	kern *simd.Kept
	to   unitSide
}

// panelRows outputs take turns with a block of A, which stays in the first cache.
const panelRows = 4 * amx.Rows

func (t *keptPanelsTask) pieces() int { return (t.w.Out + panelRows - 1) / panelRows }

func (t *keptPanelsTask) do(w *worker, c, end int) {
	for ; c < end; c++ {
		i0 := c * panelRows
		rows := min(panelRows, t.w.Out-i0)
		coef, a := t.factors(w, i0, rows, 64)
		at := t.starts(w, i0, rows, 0)
		for j := 0; j < t.w.In; j += 64 {
			t.columns(a, j, 64)
			for i := 0; i < rows; i += amx.Rows {
				t.step(w, i0+i, j, at[i:], coef[i*t.r:], a)
			}
		}
	}
}

// step merges a step, outputs from i on, of the panels of 64 inputs from j on, of which the second one may not be there.
func (t *keptPanelsTask) step(w *worker, i, j int, at []uint32, coef, a []float32) {
	k0 := i / unitK * unitK
	kc, cols := min(unitK, t.w.Out-k0), min(64, t.w.In-j)
	w.work.Merged += amx.Rows * cols
	dst := t.to.at(j/amx.Rows, k0, kc)[(i-k0)/amx.Rows*amx.Part/2:]
	m := &w.keptMerge
	*m = t.kept(amx.Rows, at, coef, a)
	m.Dst, m.Bits = unsafe.Pointer(&dst[0]), &t.w.RowBits(i)[j/64]
	if cols > amx.Rows {
		m.Panel = 2 * t.to.size(kc)
	}
	t.kern.MergePairs[format(t.w.Values.DType)](m)
}
