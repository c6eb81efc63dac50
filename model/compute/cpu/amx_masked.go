package cpu

import (
	"fmt"
	"math"
	"math/bits"
	"unsafe"

	"github.com/splora/splora/model/compute/cpu/internal/amx"
	"github.com/splora/splora/model/sparse"
	"github.com/splora/splora/model/tensor"
)

// The products of a masked linear on tiles. A dense W̃ or G never stands in memory:
//
//	y, dx   a panel of W̃ is merged where its product wants it: s·B·A comes from the unit, into it go the kept values, 0 where M is 0
//	G       a block is masked where the product left it, and multiplied at once: into dB's sums by Aᵀ, into dA's by Bᵀ
//
// Sums of dA over so many outputs, and of dB over so many inputs as a piece has, stand in memory and are added in order at the end.
//
// With bfloat16 activations W̃ and G are rounded to bfloat16 once, as they are in the slot, and so are A and B where they meet G.

// mergeCols are the inputs merged at a time, in panels or steps: as many as the packed weight has its own starts for. panelGap keeps panels that
// are written in turns out of each other's way: apart by a power of two they would share a few places of the first cache.
const (
	mergeCols = sparse.Block / amx.Rows
	panelGap  = 96
)

// maskedBuffers are scratch memory; they grow to what the largest layer needs and stay.
type maskedBuffers struct {
	scaled       []float32 // s·B
	half         []uint16  // A and B, rounded
	a, b         []uint16  // packed
	partA, partB []float32
	none         []uint64 // an empty row of the mask
}

// maskedScratch is a worker's.
type maskedScratch struct {
	sums            []float32 // s·B·A, and later the sums of dB
	asRows, asPairs []uint16  // G
	block           []float32 // a block of dA
	words, values   [2]unsafe.Pointer
}

// masks reports whether products of a masked linear go by tiles for activations like x.
func (b *Backend) masks(w *sparse.Weight, dt tensor.DType) bool {
	return b.unit.Row[0][0] != nil && !w.Dense() && (dt == tensor.BF16 || w.Density() > walkBelow)
}

// walkBelow is the density up to which the walk over kept weights is faster than tiles in float32.
const walkBelow = 0.35

// masked panics unless the operands of a product fit.
func masked(op string, x, y tensor.Tensor, w *sparse.Weight, bm, am tensor.Tensor) {
	if x.DType != tensor.F32 && x.DType != tensor.BF16 {
		panic(fmt.Sprintf("cpu: %s: activations are %s", op, x.DType))
	}
	want(op, "x", x, x.DType, y.Rows, w.In)
	want(op, "y", y, x.DType, x.Rows, w.Out)
	if !am.Absent() || !bm.Absent() {
		want(op, "a", am, tensor.F32, am.Rows, w.In)
		want(op, "b", bm, tensor.F32, w.Out, am.Rows)
	}
}

// merger makes panels of W̃ = M ⊙ (W + s·B·A), of rows (outputs) or of columns (inputs).
type merger struct {
	u       *unit
	w       *sparse.Weight
	b, a    unitSide // s·B and A, in parts; without an adapter r is 0
	r       int
	columns bool
	parts   int
	none    unsafe.Pointer
}

// setMerger packs s·B and A.
func (b *Backend) setMerger(m *merger, w *sparse.Weight, bm, am tensor.Tensor, s float32, columns bool, dt tensor.DType) {
	*m = merger{u: &b.unit, w: w, r: am.Rows, columns: columns, parts: partsOf(dt), none: b.noneKept()}
	if m.r == 0 {
		m.parts = min(m.parts, partsOf(w.Values.DType))
		return
	}
	b.masked.scaled = sized(&b.masked.scaled, bm.Len())
	for i, v := range bm.Float32() {
		b.masked.scaled[i] = s * v
	}
	m.b = unitSide{side: side{t: tensor.Of(b.masked.scaled).Reshape(w.Out, m.r), rows: w.Out}, parts: 3}
	m.a = unitSide{side: side{t: am, along: true, rows: w.In}, parts: 3, pairs: true}
	b.packBefore(&m.b, &b.masked.b, m.r, m.r)
	b.packBefore(&m.a, &b.masked.a, m.r, m.r)
}

// noneKept is the mask of mergeCols panels of a row that is not there.
func (b *Backend) noneKept() unsafe.Pointer {
	b.masked.none = sized(&b.masked.none, mergeCols/2)
	return unsafe.Pointer(&b.masked.none[0])
}

// sum leaves s·B·A of output panel p and n input panels from q on in the worker's blocks, whose address it gives; nil without an adapter.
func (g *merger) sum(w *worker, p, q, n int) unsafe.Pointer {
	if g.r == 0 {
		return nil
	}
	w.masked.sums = aligned(w.masked.sums, mergeCols*amx.Block)
	s, c := &w.unit.strip, unsafe.Pointer(&w.masked.sums[0])
	a, b := g.b.at(p, 0, g.r), g.a.at(q, 0, g.r)
	*s = amx.Strip{N: n, K: steps(g.r), A: unsafe.Pointer(&a[0]), B: unsafe.Pointer(&b[0]), BStep: 2 * len(b), C: c, Next: unsafe.Pointer(&a[0])}
	g.u.Strip[1][1][1][3](s)
	return c
}

// rowOf is where row i of a block's panel stands.
func rowOf(c unsafe.Pointer, i int) unsafe.Pointer {
	if c == nil {
		return nil
	}
	return unsafe.Add(c, i/16*2048+i%16*64)
}

// bitsAt is the word of 32 columns of row i from j on; j is a multiple of 32.
func (g *merger) bitsAt(i, j int) unsafe.Pointer {
	return unsafe.Add(unsafe.Pointer(&g.w.RowBits(i)[0]), j/8)
}

// valuesAt is where the kept values of row i from column j on begin.
func (g *merger) valuesAt(i, j int) unsafe.Pointer {
	n := g.w.Start(i, j/sparse.Block)
	for _, word := range g.w.RowBits(i)[j/sparse.Block*sparse.Block/64 : j/64] {
		n += bits.OnesCount64(word)
	}
	return valuesAt(g.w.Values, n)
}

// panels sets dst to panels [p, p+n) of columns, k the outputs, or to panel p of rows, k the inputs: elements [k0, k0+kc) in pairs.
func (g *merger) panels(w *worker, dst []uint16, p, n, k0, kc int) {
	w.work.Merged += kc * n * amx.Rows
	if g.columns {
		g.down(w, dst, p, n, k0, kc)
		return
	}
	f, step := g.u.Row[format(g.w.Values.DType)][g.parts/2], g.parts*amx.Part/2
	for s := 0; s < steps(kc); s += mergeCols { // their sums stay in the first cache
		n, k := min(mergeCols, steps(kc)-s), k0+s*amx.Rows
		c := g.sum(w, p, k/amx.Rows, n)
		for i := range min(amx.Rows, g.w.Out-p*amx.Rows) {
			row := p*amx.Rows + i
			f(unsafe.Pointer(&dst[s*step+i*amx.Rows]), rowOf(c, i), g.bitsAt(row, k), g.valuesAt(row, k), n)
		}
	}
	g.u.Turn(unsafe.Pointer(&dst[0]), 2*g.parts*steps(kc))
}

// down sets panels of columns, a pair of rows at a time.
func (g *merger) down(w *worker, dst []uint16, p, n, k0, kc int) {
	f, size := g.u.Pair[format(g.w.Values.DType)][g.parts/2], steps(kc)*g.parts*amx.Part+2*panelGap
	words, values := &w.masked.words, &w.masked.values
	for step := range steps(kc) {
		c := g.sum(w, k0/amx.Rows+step, p, n)
		for i := 0; i < amx.Rows; i += 2 {
			for h := range 2 {
				row := k0 + step*amx.Rows + i + h
				words[h], values[h] = g.none, nil
				if row < g.w.Out {
					words[h], values[h] = g.bitsAt(row, p*amx.Rows), g.valuesAt(row, p*amx.Rows)
				}
			}
			f(unsafe.Pointer(&dst[step*g.parts*amx.Part/2+i/2*amx.Rows]), size, rowOf(c, i), words, values, n)
		}
	}
}

// unitMasked sets y = x·op(W̃) + β·y: op(W̃) is W̃ᵀ, or W̃ itself by columns.
func (b *Backend) unitMasked(y, x tensor.Tensor, w *sparse.Weight, bm, am tensor.Tensor, s, beta float32, columns bool) {
	if y.Len() == 0 {
		return
	}
	t := &b.tasks.unit
	*t = b.newMasked(y, x, beta, columns)
	t.merge = &b.tasks.merger
	b.setMerger(t.merge, w, bm, am, s, columns, x.DType)
	t.moving.parts = t.merge.parts
	b.runUnit(t)
}

// newMasked is that task without its merger, nothing packed.
func (b *Backend) newMasked(y, x tensor.Tensor, beta float32, columns bool) unitTask {
	t := b.newMerged(y, x, beta)
	if t.fixed.parts > 1 {
		t.kc, t.span = unitK3, unitSpan
	}
	if columns {
		t.group, t.together = roundUp(t.group, mergeCols), mergeCols
	}
	return t
}

// newMerged is a task of y = x·op(W̃) + β·y, of which W̃ moves, without what makes its panels.
func (b *Backend) newMerged(y, x tensor.Tensor, beta float32) unitTask {
	t := unitTask{u: &b.unit, dst: y, alpha: 1, beta: beta, k: x.Cols, kc: unitK, span: math.MaxInt, together: 1}
	t.fixed = unitSide{side: side{t: x, rows: x.Rows}, parts: partsOf(x.DType)}
	t.moving = unitSide{side: side{rows: y.Cols}, parts: t.fixed.parts, pairs: true}
	t.group = t.groupOf(b.pool.threads())
	return t
}

// expect has values fetched of which the panels from m on are made, for elements from k0 on, while panel now is multiplied.
func (g *merger) expect(s *amx.Strip, now, m, k0, kc int) {
	size := g.w.Values.DType.Size()
	row := int(g.w.Density()*float64(g.w.In)) * size
	if g.columns { // a line in two: the processor fetches pairs of them
		if k0 += now % mergeCols * kc / mergeCols; k0 < g.w.Out {
			if at := g.valuesAt(k0, m*amx.Rows); at != nil {
				s.Next, s.Apart, s.PerStep = at, 128, row
			}
		}
		return
	}
	if k0 < g.w.In {
		if at := g.valuesAt(m*amx.Rows, k0); at != nil {
			part := int(g.w.Density()*amx.Rows) * size
			s.Next, s.Apart, s.PerStep, s.PerPanel = at, row, part, 2*row-steps(kc)*part
		}
	}
}

// merged is moving panel m of a masked weight; together panels are made at a time.
func (t *unitTask) merged(w *worker, m, k0, kc int) []uint16 {
	n, step := t.moving.size(kc), t.moving.size(kc)
	if t.together > 1 {
		step += panelGap
	}
	w.unit.panel = aligned(w.unit.panel, t.together*step)
	if m%t.together == 0 {
		t.merge.panels(w, w.unit.panel, m, min(t.together, t.moving.panels()-m), k0, kc)
	}
	return w.unit.panel[m%t.together*step:][:n]
}
