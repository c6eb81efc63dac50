package cpu

import (
	"math"
	"unsafe"

	"github.com/splora/splora/model/compute/cpu/internal/amx"
	"github.com/splora/splora/model/sparse"
	"github.com/splora/splora/model/tensor"
)

// reducer takes the blocks of dyᵀ·x as they come: G = M ⊙ of them goes into the sums of Bᵀ·G and of G·Aᵀ.
type reducer struct {
	u            *unit
	w            *sparse.Weight
	r, parts     int
	b, a         unitSide  // Bᵀ [r, out] as op(a), A [r, in] as op(b)ᵀ
	partA, partB []float32 // [blocks of outputs][r, in], [blocks of inputs][out, r]
}

// unitAdapter adds to da += s·Bᵀ·G and db += s·G·Aᵀ.
func (b *Backend) unitAdapter(da, db, dy, x tensor.Tensor, w *sparse.Weight, bm, am tensor.Tensor, s float32) {
	if x.Rows == 0 || am.Rows == 0 {
		return
	}
	t := &b.tasks.unit
	*t = b.newGradient(dy, x)
	t.reduce = &b.tasks.reducer
	b.setReducer(t.reduce, w, bm, am, x.DType)
	b.runUnit(t)
	b.addParts(da, t.reduce.partA, s)
	b.addParts(db, t.reduce.partB, s)
}

// newGradient is the task of dyᵀ·x, nothing packed; its pieces depend on the shape alone, for their sums are added up.
func (b *Backend) newGradient(dy, x tensor.Tensor) unitTask {
	parts := partsOf(x.DType)
	t := unitTask{u: &b.unit, k: x.Rows, kc: unitK, span: math.MaxInt, group: unitPanels, together: 1}
	t.fixed = unitSide{side: side{t: dy, along: true, rows: dy.Cols}, parts: parts}
	t.moving = unitSide{side: side{t: x, along: true, rows: x.Cols}, parts: parts, pairs: true}
	if parts > 1 {
		t.kc = unitK3
	}
	return t
}

// blocksOf is the number of pieces that so many rows make.
func blocksOf(rows int) int {
	return (rows + unitPanels*amx.Rows - 1) / (unitPanels * amx.Rows)
}

// setReducer packs Bᵀ and A.
func (b *Backend) setReducer(g *reducer, w *sparse.Weight, bm, am tensor.Tensor, dt tensor.DType) {
	buf := &b.masked
	if dt == tensor.BF16 {
		buf.half = sized(&buf.half, am.Len()+bm.Len())
		am, bm = b.halved(buf.half, am), b.halved(buf.half[am.Len():], bm)
	}
	*g = reducer{u: &b.unit, w: w, r: am.Rows, parts: partsOf(dt)}
	g.b = unitSide{side: side{t: bm, along: true, rows: g.r}, parts: g.parts}
	g.a = unitSide{side: side{t: am, rows: g.r}, parts: g.parts, pairs: true}
	b.packBefore(&g.b, &buf.b, w.Out, unitPanels*amx.Rows)
	b.packBefore(&g.a, &buf.a, w.In, amx.Rows)
	g.partA = sized(&buf.partA, blocksOf(w.Out)*g.r*w.In)
	g.partB = sized(&buf.partB, blocksOf(w.In)*g.r*w.Out)
}

// halved is x rounded into buf.
func (b *Backend) halved(buf []uint16, x tensor.Tensor) tensor.Tensor {
	h := tensor.Tensor{DType: tensor.BF16, Rows: x.Rows, Cols: x.Cols}
	h.Mem.Host = unsafe.Slice((*byte)(unsafe.Pointer(&buf[0])), 2*x.Len())
	b.Copy(h, x)
	return h
}

// take masks the blocks c of output panels [f0, f1) by input panel m, and multiplies them. first and last say which of the piece's input
// panels m is.
func (g *reducer) take(w *worker, c []float32, f0, f1, m int, first, last bool) {
	s, n := &w.masked, f1-f0
	step := g.parts * amx.Part / 2
	s.asRows, s.asPairs = aligned(s.asRows, unitPanels*step), aligned(s.asPairs, unitPanels*step)
	for f := f0; f < f1; f++ {
		i, at := f*amx.Rows, (f-f0)*step
		g.u.Block[g.parts/2](unsafe.Pointer(&s.asRows[at]), unsafe.Pointer(&s.asPairs[at]), unsafe.Pointer(&c[(f-f0)*amx.Block]),
			unsafe.Add(unsafe.Pointer(&g.w.RowBits(i)[0]), m*4), 8*g.w.Words(), min(amx.Rows, g.w.Out-i))
	}
	ranks := g.a.panels()
	s.sums = aligned(s.sums, ranks*unitPanels*amx.Block)
	for q := range ranks {
		g.addB(w, s.sums[q*unitPanels*amx.Block:], q, n, m, first)
		g.setA(w, q, f0, n, m)
		if last {
			g.storeB(s.sums[q*unitPanels*amx.Block:], q, f0, n, m)
		}
	}
}

// halves is how many halves of panel q of the ranks there are.
func (g *reducer) halves(q int) int { return (g.a.rowsAt(q) + amx.Rows/2 - 1) / (amx.Rows / 2) }

// addB adds G·Aᵀ of n output panels and input panel m to the sums, or sets them with the first, for the ranks of panel q.
func (g *reducer) addB(w *worker, sums []float32, q, n, m int, first bool) {
	a := g.a.at(q, m*amx.Rows, amx.Rows)
	s := &w.unit.strip
	*s = amx.Strip{N: n, K: 1, A: unsafe.Pointer(&w.masked.asRows[0]), AStep: g.parts * amx.Part, B: unsafe.Pointer(&a[0]), C: unsafe.Pointer(&sums[0]),
		Next: unsafe.Pointer(&a[0])}
	if !first {
		s.Add = 1
	}
	g.u.Strip[g.parts/2][g.parts/2][0][2+g.halves(q)-1](s)
}

// setA sets Bᵀ·G of n output panels from f0 on and input panel m, for the ranks of panel q.
func (g *reducer) setA(w *worker, q, f0, n, m int) {
	k0 := f0 * amx.Rows
	b := g.b.at(q, k0, min(unitPanels*amx.Rows, g.w.Out-k0))
	w.masked.block = aligned(w.masked.block, amx.Block)
	c := unsafe.Pointer(&w.masked.block[0])
	s := &w.unit.strip
	*s = amx.Strip{N: 1, K: n, A: unsafe.Pointer(&b[0]), B: unsafe.Pointer(&w.masked.asPairs[0]), C: c, Next: unsafe.Pointer(&b[0])}
	g.u.Strip[g.parts/2][g.parts/2][1][1+2*(g.halves(q)-1)](s)
	dst := &g.partA[(f0/unitPanels*g.r+q*amx.Rows)*g.w.In+m*amx.Rows]
	g.u.Store32(unsafe.Pointer(dst), 4*g.w.In, c, g.a.rowsAt(q), min(amx.Rows, g.w.In-m*amx.Rows), 1, 0)
}

// storeB sets the part of dB that a piece has summed up: n output panels from f0 on, the ranks of panel q, and the inputs up to panel m.
func (g *reducer) storeB(sums []float32, q, f0, n, m int) {
	for f := range n {
		i := (f0 + f) * amx.Rows
		dst := &g.partB[(m/unitPanels*g.w.Out+i)*g.r+q*amx.Rows]
		g.u.Store32(unsafe.Pointer(dst), 4*g.r, unsafe.Pointer(&sums[f*amx.Block]), min(amx.Rows, g.w.Out-i), g.a.rowsAt(q), 1, 0)
	}
}

// partsTask adds s·Σ parts to dst.
type partsTask struct {
	dst, parts []float32
	s          float32
}

func (b *Backend) addParts(dst tensor.Tensor, parts []float32, s float32) {
	b.tasks.parts = partsTask{dst.Float32(), parts, s}
	b.pool.run(&b.tasks.parts, (dst.Len()+flat-1)/flat, 1)
}

func (t *partsTask) do(w *worker, i, j int) {
	n := len(t.dst)
	at, end := i*flat, min(j*flat, n)
	for p := 0; p < len(t.parts); p += n {
		w.axpy(t.dst[at:end], t.s, t.parts[p+at:p+end])
	}
}
