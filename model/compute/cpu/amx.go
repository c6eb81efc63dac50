package cpu

import (
	"math"
	"unsafe"

	"github.com/splora/splora/model/compute/cpu/internal/amx"
	"github.com/splora/splora/model/tensor"
)

// Products on a unit for bfloat16: tiles (amx), or pairs in vector registers (avx512bf16). One side is packed beforehand,
// the other panel by panel by the thread that multiplies it, unless it was made in panels (keptInputHalf): a panel then goes from memory to the
// first cache once, and is not written back. Sums run in k, block by block, in blocks that stay in the second cache, and dst is written once, rounded
// there and only there.
//
// A float32 has three parts, and a product of two of them is as accurate as float32 multiply-adds (see package amx), but for numbers
// below 2⁻¹⁰⁸, and it does not tell Inf from NaN.
const (
	unitK      = 512  // inner elements of a block
	unitK3     = 128  // with float32
	unitSpan   = 1024 // of a sum in float32: each step rounds six times, a longer one would lose more than multiply-adds do
	unitPanels = 16   // panels of a block of the side packed beforehand, and the most of the other side
)

// leastK is the number of inner elements from which products of float32 are faster on tiles.
const leastK = 48

// unit is what multiplies bfloat16; without Kernels there is none.
type unit struct {
	*amx.Kernels
	amx.Packing
	amx.Masking
}

// unitScratch is a worker's: the panel that it packed, the sums that stand, and the arguments of the kernel.
type unitScratch struct {
	panel  []uint16
	blocks []float32
	strip  amx.Strip
}

// unitFor is the unit of an instruction set.
func unitFor(isa string) unit {
	switch isa {
	case "amx":
		return unit{amx.Tiles(), amx.Pack(), amx.Mask()}
	case "avx512bf16":
		return unit{Kernels: amx.Pairs(), Packing: amx.Pack()}
	}
	return unit{}
}

// takes reports whether the unit is to multiply operands of the given types, k inner elements long.
func (u unit) takes(a, b tensor.DType, k int) bool {
	pa, pb := partsOf(a), partsOf(b)
	return k > 0 && u.multiplies(pa, pb) && (pa*pb < 9 || k >= leastK)
}

// multiplies reports whether the unit has products of operands of so many parts.
func (u unit) multiplies(pa, pb int) bool {
	return u.Kernels != nil && u.Strip[pa/2][pb/2][0][0] != nil
}

// partsOf is the number of bfloat16 that make an element.
func partsOf(dt tensor.DType) int {
	if dt == tensor.BF16 {
		return 1
	}
	return 3
}

// aligned is buf with room for n elements from a multiple of 64 bytes on; its content is lost when it grows.
func aligned[E any](buf []E, n int) []E {
	if cap(buf) >= n {
		return buf[:n]
	}
	var e E
	pad := 64 / int(unsafe.Sizeof(e))
	raw := make([]E, n+pad)
	skip := int(-uintptr(unsafe.Pointer(&raw[0]))&63) / int(unsafe.Sizeof(e))
	return raw[skip : skip+n : skip+n]
}

// unitTask multiplies the panels of moving, which a worker packs if they are not yet, with all of a block of fixed. A piece is a block of fixed
// and a group of moving panels.
type unitTask struct {
	u             *unit
	dst           tensor.Tensor
	alpha, beta   float32
	fixed, moving unitSide
	k, kc, group  int
	span          int // sums of so many inner elements go to dst, which they are added to

	// Of a masked linear: what makes the moving panels, together at a time, and what takes the blocks instead of dst.
	merge    *merger
	together int
	reduce   *reducer
}

func (t *unitTask) groups() int { return (t.moving.panels() + t.group - 1) / t.group }

func (t *unitTask) pieces() int {
	return t.groups() * ((t.fixed.panels() + unitPanels - 1) / unitPanels)
}

func (t *unitTask) do(w *worker, i, j int) {
	for ; i < j; i++ {
		f, m := i/t.groups()*unitPanels, i%t.groups()*t.group
		t.piece(w, f, min(f+unitPanels, t.fixed.panels()), m, min(m+t.group, t.moving.panels()))
	}
}

// piece computes fixed panels [f0, f1) by moving panels [m0, m1).
func (t *unitTask) piece(w *worker, f0, f1, m0, m1 int) {
	rows := f1 - f0
	if t.stand() {
		rows *= m1 - m0
	}
	w.unit.blocks = aligned(w.unit.blocks, rows*amx.Block)
	for k0 := 0; k0 < t.k; k0 += t.kc {
		kc := min(t.kc, t.k-k0)
		for m := m0; m < m1; m++ {
			c := w.unit.blocks[:(f1-f0)*amx.Block]
			if t.stand() {
				c = w.unit.blocks[(m-m0)*(f1-f0)*amx.Block:][:len(c)]
			}
			panel := t.panel(w, m, k0, kc)
			if next := (m/t.together + 1) * t.together; next < m1 {
				t.expect(&w.unit.strip, panel, m, next, k0, kc)
			} else {
				t.expect(&w.unit.strip, panel, m, m0, k0+kc, kc)
			}
			t.multiply(w, c, panel, f0, f1, m, k0, kc)
			switch {
			case t.reduce != nil && k0+kc == t.k:
				first := t.fixed.first / amx.Rows
				t.reduce.take(w, c, first+f0, first+f1, m, m == m0, m == m1-1)
			case t.reduce == nil && !t.stand():
				t.finish(w, f0, f1, k0, m, m+1)
			}
		}
		if t.reduce == nil && t.stand() && (k0+kc == t.k || (k0+kc)%t.span == 0) {
			t.finish(w, f0, f1, k0, m0, m1)
		}
	}
}

// finish adds the blocks of fixed panels [f0, f1) by moving panels [m0, m1), whose sums end with the block at k0, to dst: along its rows, which
// lie far apart.
func (t *unitTask) finish(w *worker, f0, f1, k0, m0, m1 int) {
	beta := t.beta
	if k0 >= t.span {
		beta = 1
	}
	if t.fixed.pairs {
		for m := m0; m < m1; m++ {
			t.store(w.unit.blocks[(m-m0)*(f1-f0)*amx.Block:], f0, f1, m, beta)
		}
		return
	}
	for f := f0; f < f1; f++ {
		for m := m0; m < m1; m++ {
			t.store(w.unit.blocks[((m-m0)*(f1-f0)+f-f0)*amx.Block:], f, f+1, m, beta)
		}
	}
}

// stand reports whether the sums of all of a piece stand at a time: where they need several blocks of k, and where storing them takes as
// long as multiplying.
func (t *unitTask) stand() bool { return t.k > t.kc || t.reduce == nil && t.k <= unitK3 }

// panel is moving panel m, packed.
func (t *unitTask) panel(w *worker, m, k0, kc int) []uint16 {
	if t.merge != nil {
		return t.merged(w, m, k0, kc)
	}
	if t.moving.packed != nil {
		return t.moving.at(m, k0, kc)
	}
	w.unit.panel = aligned(w.unit.panel, t.moving.size(kc))
	w.work.Packed += kc * amx.Rows
	t.moving.pack(&t.u.Packing, w.unit.panel, m, k0, kc)
	return w.unit.panel
}

// multiply adds to the blocks c, or sets them where a sum begins, the products of panel, which is moving panel m, and fixed panels [f0, f1).
func (t *unitTask) multiply(w *worker, c []float32, panel []uint16, f0, f1, m, k0, kc int) {
	last := f1
	if t.fixed.rowsAt(f1-1) <= amx.Rows/2 {
		last--
	}
	t.strips(w, c, panel, f0, last, m, k0, kc, 2)
	t.strips(w, c[(last-f0)*amx.Block:], panel, last, f1, m, k0, kc, 1)
}

// expect has moving panel m of the block at k0 fetched: two rows of it, or of k, at a time. Else it names the panel now.
func (t *unitTask) expect(s *amx.Strip, panel []uint16, now, m, k0, kc int) {
	s.Next, s.Apart, s.PerStep, s.PerPanel = unsafe.Pointer(&panel[0]), 0, 0, 0
	x := &t.moving
	if t.merge != nil {
		t.merge.expect(s, now, m, k0, kc)
		return
	}
	if x.packed != nil {
		return // panels follow each other
	}
	row, at := x.t.Cols*x.t.DType.Size(), x.index(m*amx.Rows, k0)
	switch {
	case k0 >= t.k || at >= x.t.Len():
	case x.along:
		s.Next, s.Apart, s.PerStep = element(x.t, at), row, 2*row
	default:
		s.Next, s.Apart, s.PerStep, s.PerPanel = element(x.t, at), row, amx.Rows*x.t.DType.Size(), 2*row-steps(kc)*amx.Rows*x.t.DType.Size()
	}
}

// strips is multiply for panels of which the first halves halves are used.
func (t *unitTask) strips(w *worker, c []float32, panel []uint16, f0, f1, m, k0, kc, halves int) {
	if f0 == f1 {
		return
	}
	fixed, step := unsafe.Pointer(&t.fixed.at(f0, k0, kc)[0]), 2*t.fixed.size(kc)
	w.work.Tiles += f1 - f0
	s := &w.unit.strip
	s.N, s.K, s.C, s.Add = f1-f0, steps(kc), unsafe.Pointer(&c[0]), k0%t.span
	moves, pa, pb, ha, hb := 0, t.fixed.parts, t.moving.parts, halves, (t.moving.rowsAt(m)+amx.Rows/2-1)/(amx.Rows/2)
	if t.fixed.pairs {
		moves, pa, pb, ha, hb = 1, pb, pa, hb, ha
		s.A, s.AStep, s.B, s.BStep = unsafe.Pointer(&panel[0]), 0, fixed, step
	} else {
		s.A, s.AStep, s.B, s.BStep = fixed, step, unsafe.Pointer(&panel[0]), 0
	}
	t.u.Strip[pa/2][pb/2][moves][hb-1+2*(ha-1)](s)
}

// store sets α·blocks + β·dst of fixed panels [f0, f1) by moving panel m.
func (t *unitTask) store(c []float32, f0, f1, m int, beta float32) {
	put := t.u.Store32
	if t.dst.DType == tensor.BF16 {
		put = t.u.Store16
	}
	for f := f0; f < f1; f++ {
		i, j, rows, cols := t.fixed.first+f*amx.Rows, m*amx.Rows, t.fixed.rowsAt(f), t.moving.rowsAt(m)
		if t.fixed.pairs {
			i, j, rows, cols = j, i, cols, rows
		}
		dst := element(t.dst, i*t.dst.Cols+j)
		put(dst, t.dst.Cols*t.dst.DType.Size(), unsafe.Pointer(&c[(f-f0)*amx.Block]), rows, cols, t.alpha, beta)
	}
}

// newUnit is the task of dst = α·op(a)·op(b) + β·dst, nothing packed. The side with fewer rows is fixed; of equals the right one, for then a
// thread stores few long runs.
func (b *Backend) newUnit(dst tensor.Tensor, alpha float32, am tensor.Tensor, ta bool, bm tensor.Tensor, tb bool, beta float32) unitTask {
	left := unitSide{side: side{t: am, along: ta, rows: dst.Rows}, parts: partsOf(am.DType)}
	right := unitSide{side: side{t: bm, along: !tb, rows: dst.Cols}, parts: partsOf(bm.DType), pairs: true}
	t := unitTask{u: &b.unit, dst: dst, alpha: alpha, beta: beta, fixed: left, moving: right, k: left.inner(), kc: unitK, span: math.MaxInt, together: 1}
	if left.parts+right.parts > 2 {
		t.kc = unitK3
	}
	if left.parts == 3 && right.parts == 3 && dst.DType == tensor.F32 {
		t.span = unitSpan
	}
	if right.rows <= left.rows {
		t.fixed, t.moving = right, left
	}
	t.group = t.groupOf(b.pool.threads())
	return t
}

// groupOf is the number of moving panels of a piece.
func (t *unitTask) groupOf(threads int) int {
	return max(1, min(unitPanels, t.moving.panels()/(4*threads)))
}

// unitGemm sets dst = α·op(a)·op(b) + β·dst.
func (b *Backend) unitGemm(dst tensor.Tensor, alpha float32, am tensor.Tensor, ta bool, bm tensor.Tensor, tb bool, beta float32) {
	t := &b.tasks.unit
	*t = b.newUnit(dst, alpha, am, ta, bm, tb, beta)
	b.runUnit(t)
}

// runUnit packs as many rows of the fixed side at a time as make work for all threads, and multiplies them. Each block of them meets the
// other side packed anew: that costs less than to bring packed panels from far away.
func (b *Backend) runUnit(t *unitTask) {
	all := t.fixed.rows
	step := t.atOnce(b.pool.threads())
	for ; t.fixed.first < all; t.fixed.first += step {
		t.fixed.rows = min(step, all-t.fixed.first)
		b.packBefore(&t.fixed, &b.gemm.fixed, t.k, t.kc)
		b.pool.run(t, t.pieces(), 1)
	}
}

// atOnce is that number of rows. No result depends on it.
func (t *unitTask) atOnce(threads int) int {
	blocks := (4*threads + t.groups() - 1) / t.groups()
	return blocks * unitPanels * amx.Rows
}
