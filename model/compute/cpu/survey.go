package cpu

import (
	"fmt"
	"reflect"
	"unsafe"

	"github.com/splora/splora/model/compute"
	"github.com/splora/splora/model/compute/cpu/internal/amx"
	"github.com/splora/splora/model/sparse"
	"github.com/splora/splora/model/tensor"
)

// survey is a backend that only measures: what the operations that it is given make of this backend's buffers, each of which
// grows to what the largest of them needs. The workers have buffers of their own, all alike.
type survey struct {
	compute.Dry
	b      *Backend
	shared need   // of the backend
	own    []need // of the workers
}

// need is bytes by buffer.
type need map[string]int

func (n need) at(buffer string, bytes int) { n[buffer] = max(n[buffer], bytes) }

func (n need) sum() (all int) {
	for _, bytes := range n {
		all += bytes
	}
	deep, panels := n["unitAhead.deep"], n["unitAhead.panels"] // not bytes
	if deep > 0 {
		all += unitAheadBytes(deep, panels) - deep - panels
	}
	return all
}

var (
	_ compute.Surveyor     = (*Backend)(nil)
	_ compute.SparseLinear = (*survey)(nil)
)

// Survey is a twin that adds up this backend's scratch memory.
func (b *Backend) Survey() compute.Survey {
	s := &survey{b: b, shared: need{}}
	for range b.pool.threads() {
		s.own = append(s.own, need{"worker": int(unsafe.Sizeof(worker{}))})
	}
	return s
}

// Name is the backend's own.
func (s *survey) Name() string { return s.b.Name() }

// Scratch is the sum over all buffers of all threads, in bytes.
func (s *survey) Scratch() int {
	all := s.shared.sum()
	for _, n := range s.own {
		all += n.sum()
	}
	return all
}

// Reserve makes the backend's buffers as large as that.
func (s *survey) Reserve() {
	b := s.b
	for name, buf := range map[string]*[]float32{"gemm.a": &b.gemm.a, "gemm.b": &b.gemm.b, "gemm.c": &b.gemm.c,
		"flash.dq": &b.flash.dq, "flash.dk": &b.flash.dk, "flash.dv": &b.flash.dv, "flash.delta": &b.flash.delta,
		"masked.scaled": &b.masked.scaled, "masked.partA": &b.masked.partA, "masked.partB": &b.masked.partB,
		"kept.x": &b.kept.x, "kept.y": &b.kept.y, "kept.a": &b.kept.a, "kept.b": &b.kept.b} {
		grow(buf, s.shared[name]/4)
	}
	b.gemm.fixed = aligned(b.gemm.fixed, s.shared["gemm.fixed"]/2)
	b.masked.a, b.masked.b = aligned(b.masked.a, s.shared["masked.a"]/2), aligned(b.masked.b, s.shared["masked.b"]/2)
	sized(&b.masked.half, s.shared["masked.half"]/2)
	sized(&b.masked.none, s.shared["masked.none"]/8)
	var sizes unitBackSizes
	for i := range sizes.half {
		sizes.half[i] = s.shared[fmt.Sprint("unitBack half ", i)] / 2
	}
	for i := range sizes.full {
		sizes.full[i] = s.shared[fmt.Sprint("unitBack full ", i)] / 4
	}
	b.unitBack.grow(sizes)
	sized(&b.unitBack.runs, s.shared["unitBack runs"]/int(unsafe.Sizeof(bounds{})))
	sized(&b.kept.starts, s.shared["kept.starts"]/4)
	sized(&b.kept.bits, s.shared["kept.bits"]/8)
	sized(&b.sums, s.shared["sums"]/8)
	for i, n := range s.own {
		w := &b.pool.workers[i]
		grow(&w.buf, n["buf"]/4)
		grow(&w.a, n["a"]/4)
		grow(&w.b, n["b"]/4)
		sized(&w.at, n["at"]/4)
		w.unit.panel, w.unit.blocks = aligned(w.unit.panel, n["unit.panel"]/2), aligned(w.unit.blocks, n["unit.blocks"]/4)
		m := &w.masked
		m.sums, m.block = aligned(m.sums, n["masked.sums"]/4), aligned(m.block, n["masked.block"]/4)
		m.asRows, m.asPairs = aligned(m.asRows, n["masked.g"]/4), aligned(m.asPairs, n["masked.g"]/4)
		if n["unitBack"] > 0 {
			w.unitBack.grow()
		}
		if n["unitAhead.deep"] > 0 {
			w.unitAhead.grow(n["unitAhead.deep"], n["unitAhead.panels"])
		}
		sized(&w.spans, n["spans"]/int(unsafe.Sizeof(span{})))
		x := &w.keys
		for name, buf := range map[string]*[]float32{"s": &x.s, "ds": &x.ds, "k": &x.k, "v": &x.v, "qCols": &x.qCols, "dyCols": &x.dyCols, "qRows": &x.qRows, "dyRows": &x.dyRows} {
			sized(buf, n["keys."+name]/4)
		}
		for k := range w.strips {
			grow(&w.strips[k], n[strip(k)]/4)
		}
	}
}

// each is what a worker needs for an operation of so many pieces: those that get none need nothing.
func (s *survey) each(pieces int, buffer string, bytes int) {
	for i := range min(pieces, len(s.own)) {
		s.own[i].at(buffer, bytes)
	}
}

func (s *survey) Gemm(dst tensor.Tensor, _ float32, a tensor.Tensor, ta bool, b tensor.Tensor, tb bool, _ float32) {
	m, n, k, kern := dst.Rows, dst.Cols, a.Cols, s.b.kern
	if ta {
		k = a.Rows
	}
	switch {
	case min(m, n, k) == 0:
	case s.b.isThin(dst, a, b, k) && !s.b.isDots(m, a, ta, tb):
		s.thin(s.b.newThin(dst, 1, a, ta, b, tb, 0))
	case m > fewRows && s.b.unit.takes(a.DType, b.DType, k):
		s.unit(s.b.newUnit(dst, 1, a, ta, b, tb, 0))
	case s.b.isHalfDots(dst, a, ta, tb):
		if a.DType != tensor.F32 {
			s.shared.at("gemm.a", 4*a.Len())
		}
		if dst.DType != tensor.F32 {
			s.shared.at("gemm.c", 4*dst.Len())
			s.each(m, "buf", 4*n)
		}
	case dst.DType == tensor.BF16:
		rows, cols := min(m, roundedRows), min(n, maxN)
		s.panels(rows, cols, k)
		s.shared.at("gemm.c", 4*rows*cols)
		s.each(m, "buf", 4*cols)
	case !s.b.isDots(m, a, ta, tb):
		s.panels(roundUp(min(m, maxM), kern.MR), min(n, maxN), k)
	}
}

// thin is a product with a thin side.
func (s *survey) thin(t thinTask) {
	kern, size := t.kern, min(t.size, t.long.rows)
	s.shared.at("gemm.b", 4*t.padded()*t.k)
	if t.turned {
		s.each(t.pieces(), "buf", 4*2*size*t.thin.rows)
	}
	switch {
	case t.long.along && t.long.rows%kern.Lanes != 0:
		s.each(t.pieces(), "b", 4*kern.Lanes*min(t.kc(), t.k))
	case !t.long.along && t.long.rows%kern.RowStep != 0:
		s.each(t.pieces(), "a", 4*kern.MR*min(t.kc(), t.k))
	}
}

// byKeys is float32 attention key by key: a block of keys at most, and what the backward has beside it.
func (s *survey) byKeys(pieces int, m *attn, keys int, back bool) {
	kern, rows := s.b.kern, min(tileQ, m.Tq)
	block := 4 * padded(kern, min(keys, m.Tk)) * tileQ
	cols, all := 4*roundUp(rows, kern.NR)*m.D, 4*roundUp(m.D, kern.NR)*rows
	s.each(pieces, "keys.s", block)
	s.each(pieces, "keys.qCols", cols)
	if m.Tk%kern.RowStep != 0 || (m.Tk-m.Tq)%kern.RowStep != 0 {
		s.each(pieces, "keys.k", 4*padded(kern, min(keys, m.Tk))*m.D)
		s.each(pieces, "keys.v", 4*padded(kern, min(keys, m.Tk))*m.D)
	}
	if back {
		s.each(pieces, "keys.ds", block)
		s.each(pieces, "keys.dyCols", cols)
		s.each(pieces, "keys.qRows", all)
		s.each(pieces, "keys.dyRows", all)
	}
}

// unit is a product on the matrix unit.
func (s *survey) unit(t unitTask) {
	t.fixed.rows = min(t.fixed.rows, t.atOnce(len(s.own)))
	rows := min(unitPanels, t.fixed.panels())
	if t.stand() {
		rows *= min(t.group, t.moving.panels())
	}
	s.shared.at("gemm.fixed", 2*t.fixed.size(t.k)*t.fixed.panels())
	if t.moving.packed == nil {
		panel := t.moving.size(min(t.k, t.kc))
		if t.together > 1 {
			panel = t.together * (panel + panelGap)
		}
		s.each(t.pieces(), "unit.panel", 2*panel)
	}
	s.each(t.pieces(), "unit.blocks", 4*rows*amx.Block)
}

// panels are the packed operands of a product that all threads share.
func (s *survey) panels(m, n, k int) {
	s.shared.at("gemm.a", 4*roundUp(m, s.b.kern.MR)*min(k, blockK))
	s.shared.at("gemm.b", 4*roundUp(n, s.b.kern.NR)*min(k, blockK))
}

// product is that of one thread.
func (s *survey) product(pieces, m, n, k int) {
	s.each(pieces, "a", 4*roundUp(m, s.b.kern.MR)*min(k, blockK))
	s.each(pieces, "b", 4*roundUp(n, s.b.kern.NR)*min(k, blockK))
}

// onUnit is attention's operands as they stand packed.
func (s *survey) onUnit(a *attn, sizes unitBackSizes) {
	s.shared.at("unitBack runs", int(unsafe.Sizeof(bounds{}))*a.B*(steps(a.Tq)+steps(a.Tk)))
	for i, n := range sizes.half {
		s.shared.at(fmt.Sprint("unitBack half ", i), 2*n)
	}
	for i, n := range sizes.full {
		s.shared.at(fmt.Sprint("unitBack full ", i), 4*n)
	}
}

// unitPieces is the number of pieces of attention on a unit, so many in a head.
func (s *survey) unitPieces(a *attn, ofHead int) int {
	if a.byHeads(s.b.pool.threads()) {
		return a.B * a.Hkv
	}
	return min(unitHeads, a.B*a.Hkv) * ofHead
}

// strips are the worker's lines [k, end) of n elements, for operands like x.
func (s *survey) strips(pieces int, x tensor.Tensor, k, end, n int) {
	for ; k < end && x.DType == tensor.BF16; k++ {
		s.each(pieces, strip(k), 4*max(n, lineLen))
	}
}

func strip(k int) string { return fmt.Sprint("strip ", k) }

func (s *survey) AddBias(y, _ tensor.Tensor)                { s.strips(y.Rows, y, 0, 1, 0) }
func (s *survey) Add(y, _ tensor.Tensor)                    { s.strips(y.Rows, y, 0, 2, 0) }
func (s *survey) Gate(h, _, _ tensor.Tensor, _ compute.Act) { s.strips(h.Rows, h, 0, 3, 0) }
func (s *survey) CrossEntropy(_, logits, _ tensor.Tensor, _ bool) {
	s.strips(logits.Rows, logits, 0, 1, logits.Cols)
}
func (s *survey) Gather(dst, _, _ tensor.Tensor)                  { s.strips(dst.Rows, dst, 0, 1, dst.Cols) }
func (s *survey) RMSNorm(y, _, _, _ tensor.Tensor, _ float32)     { s.strips(y.Rows, y, 0, 2, y.Cols) }
func (s *survey) Rope(x, _, _, _ tensor.Tensor, _ int, _ float32) { s.strips(x.Rows, x, 0, 1, x.Cols) }
func (s *survey) GateBackward(dg, _, _, _, _ tensor.Tensor, _ compute.Act) {
	s.strips(dg.Rows, dg, 0, 5, 0)
}

func (s *survey) RMSNormBackward(dx, _, _, _, _ tensor.Tensor, _ float32) {
	s.strips(dx.Rows, dx, 0, 3, dx.Cols)
}

func (s *survey) Dropout(y, _, _ tensor.Tensor, _ uint64, _ float32) {
	s.strips(y.Rows, y, 0, 2, y.Cols)
}

func (s *survey) Attention(y, _, _, _, _ tensor.Tensor, m compute.Attn) {
	if m.Tq < fewQ || s.b.kern.Name == "go" {
		s.strips(m.B*m.Hq*m.Tq, y, 0, 3, 0)
		s.each(m.B*m.Hq*m.Tq, "buf", 4*m.Tk)
		return
	}
	if s.b.flashOnUnit(y) {
		a := &attn{Attn: m}
		s.onUnit(a, a.unitAheadSizes(a.unitSets(s.b.pool.threads())))
		pieces := s.unitPieces(a, a.group()*steps(m.Tq))
		s.each(pieces, "unitAhead.deep", a.deep())
		s.each(pieces, "unitAhead.panels", steps(m.Tk))
		return
	}
	rows, pieces := min(tileQ, m.Tq), m.B*m.Hq*((m.Tq+tileQ-1)/tileQ)
	if a := (&attn{Attn: m}); a.byKeys(s.b.kern, y.DType) {
		s.byKeys(pieces, a, blockKeys, false)
		return
	}
	s.strips(pieces, y, 0, 3, rows*m.D)
	s.each(pieces, "spans", int(unsafe.Sizeof(span{}))*(m.Tk/tileK+1))
	s.each(pieces, "buf", 4*tileQ*(m.Tk+1))
	s.product(pieces, rows, m.Tk, m.D)
	s.product(pieces, rows, m.D, m.Tk)
}

func (s *survey) AttentionBackward(dq, _, _, _, _, _, _, _, _ tensor.Tensor, m compute.Attn) {
	if m.Tq < fewQ || s.b.kern.Name == "go" {
		s.strips(m.B*m.Hkv, dq, 0, 7, 0)
		s.strips(m.B*m.Hkv, dq, 2, 4, m.Tk*m.D)
		return
	}
	if s.b.flashOnUnit(dq) {
		a := &attn{Attn: m}
		s.onUnit(a, a.unitBackSizes(a.unitSets(s.b.pool.threads())))
		s.each(s.unitPieces(a, a.unitBlocks()), "unitBack", unitBackBytes)
		return
	}
	heads := min(flashHeads, m.B*m.Hkv)
	s.shared.at("flash.delta", 4*m.B*m.Hq*m.Tq)
	if dq.DType == tensor.BF16 {
		s.shared.at("flash.dq", 4*heads*m.Hq/m.Hkv*m.Tq*m.D)
		s.shared.at("flash.dk", 4*heads*m.Tk*m.D)
		s.shared.at("flash.dv", 4*heads*m.Tk*m.D)
	}
	rows, keys := min(tileQ, m.Tq), min(tileQ, m.Tk)
	pieces := heads * (&attn{Attn: m}).blocks()
	if a := (&attn{Attn: m}); a.byKeys(s.b.kern, dq.DType) {
		s.byKeys(pieces, a, tileQ, true)
		return
	}
	s.strips(pieces, dq, 0, 2, 0)
	s.each(pieces, "buf", 4*2*rows*keys)
	s.product(pieces, rows, keys, m.D)
	s.product(pieces, rows, m.D, keys)
	s.product(pieces, keys, m.D, rows)
}

func (s *survey) Merge(dst tensor.Tensor, w *sparse.Weight, _, a tensor.Tensor, _ float32) {
	s.strips(w.Out, dst, 0, 1, 0)
	t := mergeTask{w: w, r: a.Rows}
	s.each((w.Out+t.grain()-1)/t.grain(), "buf", 4*t.scratch(min(t.grain(), w.Out), chunk))
}

func (s *survey) SumSquares(x tensor.Tensor) float64 {
	s.shared.at("sums", 8*((x.Len()+flat-1)/flat))
	return 0
}

func (s *survey) WalksKept(w *sparse.Weight, x tensor.DType, n int) bool {
	return s.b.WalksKept(w, x, n)
}

func (s *survey) KeptSlot(w *sparse.Weight, x tensor.DType) int { return s.b.KeptSlot(w, x) }

// The products over kept weights need panels of all the inputs, and of the outputs where their gradient is formed.
func (s *survey) KeptForward(y, x, _ tensor.Tensor, w *sparse.Weight, b, a tensor.Tensor, scale, _ float32) {
	if s.b.masks(w, x.DType) {
		s.masked(y, x, w, a, false)
		return
	}
	if x.DType == tensor.BF16 && !s.b.walksTwoOfFour(w) {
		s.Gemm(y, 1, x, false, s.dense(w, x.DType, b, a, scale), true, 0)
		return
	}
	s.starts(w.Out, w.In)
	s.keptMerge(w.Out/keptRows+1, min(keptRows, w.Out), a.Rows)
	s.walk(y, x)
}

func (s *survey) KeptInput(dx, dy, _ tensor.Tensor, w *sparse.Weight, b, a tensor.Tensor, scale, _ float32) {
	if s.b.masks(w, dx.DType) {
		s.masked(dx, dy, w, a, true)
		return
	}
	if dx.DType == tensor.BF16 {
		s.keptInputHalf(dx, dy, w, b, a, scale)
		return
	}
	s.starts(w.In, w.Out)
	s.shared.at("kept.bits", 8*sparse.Words(w.Out)*w.In)
	t := keptTurnTask{mergeTask: mergeTask{r: a.Rows}}
	s.each(w.Out/64+1, "buf", 4*t.scratch())
	s.walk(dx, dy)
}

// keptMerge is a merge of packed values, so many rows in a piece, 64 columns at a time.
func (s *survey) keptMerge(pieces, rows, rank int) {
	t := mergeTask{r: rank}
	s.each(pieces, "at", 4*rows)
	s.each(pieces, "buf", 4*t.scratch(rows, 64))
}

// keptInputHalf is dx in bfloat16.
func (s *survey) keptInputHalf(dx, dy tensor.Tensor, w *sparse.Weight, b, a tensor.Tensor, scale float32) {
	if s.b.walksClasses(w, dy.Rows) {
		s.classes(dy, w, a.Rows)
		return
	}
	if !s.b.mergesPanels(w) {
		s.Gemm(dx, 1, dy, false, s.dense(w, dx.DType, b, a, scale), false, 0)
		return
	}
	t := keptPanelsTask{mergeTask: mergeTask{w: w}}
	s.keptMerge(t.pieces(), min(panelRows, w.Out), a.Rows)
	u := s.b.newMerged(dx, dy, 0)
	u.moving.packed = []uint16{} // in the slot
	s.unit(u)
}

// classes is dx by class.
func (s *survey) classes(dy tensor.Tensor, w *sparse.Weight, rank int) {
	t := classTask{mergeTask: mergeTask{w: w}, to: classes{out: w.Out, in: w.In}}
	rows := t.to.rows(0)
	s.keptMerge(t.pieces(), rows, rank)
	s.each(t.pieces(), "at", 4*(rows+2*roundUp(rows, 16)))
	s.each(t.pieces(), "a", 4*classWords)
	s.each(t.pieces(), "b", 4*classWords)
	n := roundUp(min(dy.Rows, keptTokens), classTokens)
	s.shared.at("kept.x", 2*n*w.Out)
	s.pairs(w.Out, classTokens)
	x := classWalkTask{walkSums{x: panels{n: n, wide: classTokens / 2, per: 2}}, t.to}
	s.each(x.pieces(), "buf", 4*x.scratch())
}

// dense is W̃ in the slot, merged.
func (s *survey) dense(w *sparse.Weight, dt tensor.DType, b, a tensor.Tensor, scale float32) tensor.Tensor {
	t := tensor.Tensor{DType: dt, Rows: w.Out, Cols: w.In}
	s.Merge(t, w, b, a, scale)
	return t
}

func (s *survey) KeptAdapter(_, _, dy, x, _ tensor.Tensor, w *sparse.Weight, _, a tensor.Tensor, _ float32) {
	if s.b.masks(w, x.DType) {
		s.maskedAdapter(dy, x, w, a)
		return
	}
	k, dots, per := &s.b.kern.Kept, s.b.kern.Kept.Dots[:], 1
	if x.DType == tensor.BF16 {
		dots, per = k.Half.Dots[:], 2
		s.pairs(x.Cols+dy.Cols, widest(dots)*k.Lanes*per)
	}
	s.starts(w.Out, w.In)
	wide := widest(dots) * k.Lanes
	n := roundUp(min(x.Rows, keptTokens), wide*per) / per
	s.shared.at("kept.x", 4*n*(64*sparse.Words(w.In)+1))
	s.shared.at("kept.y", 4*n*w.Out)
	t := keptReduceTask{g: tiles{rows: w.Out, cols: w.In}}
	if a.Rows > 0 {
		t.width = reduceWidth(k, min(a.Rows, len(k.Reduce)*k.Lanes)) * k.Lanes
	}
	s.shared.at("kept.a", 4*t.width*w.In)
	s.shared.at("kept.b", 4*t.groups()*w.In*t.width)
	s.each(t.groups(), "buf", 4*t.scratch())
	s.each(w.In/64+1, "buf", 4*2*64*t.width)
}

// masked is y = x·op(W̃) on tiles.
func (s *survey) masked(y, x tensor.Tensor, w *sparse.Weight, a tensor.Tensor, columns bool) {
	t, r := s.b.newMasked(y, x, 0, columns), a.Rows
	if y.Len() == 0 {
		return
	}
	if r == 0 {
		t.moving.parts = min(t.moving.parts, partsOf(w.Values.DType))
	}
	s.unit(t)
	s.shared.at("masked.none", 8*mergeCols/2)
	if r > 0 {
		s.shared.at("masked.scaled", 4*w.Out*r)
		s.shared.at("masked.b", panelBytes(w.Out, r, 3))
		s.shared.at("masked.a", panelBytes(w.In, r, 3))
		s.each(t.pieces(), "masked.sums", 4*mergeCols*amx.Block)
	}
}

// maskedAdapter is dA and dB on tiles.
func (s *survey) maskedAdapter(dy, x tensor.Tensor, w *sparse.Weight, a tensor.Tensor) {
	t, r, parts := s.b.newGradient(dy, x), a.Rows, partsOf(x.DType)
	if x.Rows == 0 || r == 0 {
		return
	}
	s.unit(t)
	if parts == 1 {
		s.shared.at("masked.half", 2*r*(w.In+w.Out))
	}
	s.shared.at("masked.b", panelBytes(r, w.Out, parts))
	s.shared.at("masked.a", panelBytes(r, w.In, parts))
	s.shared.at("masked.partA", 4*blocksOf(w.Out)*r*w.In)
	s.shared.at("masked.partB", 4*blocksOf(w.In)*r*w.Out)
	s.each(t.pieces(), "masked.sums", 4*((r+amx.Rows-1)/amx.Rows)*unitPanels*amx.Block)
	s.each(t.pieces(), "masked.g", 2*unitPanels*parts*amx.Part)
	s.each(t.pieces(), "masked.block", 4*amx.Block)
}

// panelBytes is a packed side of so many rows and inner elements.
func panelBytes(rows, k, parts int) int {
	s := unitSide{side: side{rows: rows}, parts: parts}
	return 2 * s.size(k) * s.panels()
}

// walk is y = x·tᵀ: x's panels and the sums.
func (s *survey) walk(y, x tensor.Tensor) {
	k := &s.b.kern.Kept
	wide, space := len(k.Walk)*k.Lanes, x.Cols
	if x.DType == tensor.BF16 {
		wide, space = len(k.Half.Walk)*k.Lanes, sixOf(x.Cols)
		s.pairs(x.Cols, wide)
	}
	t := walkTask{walkSums: walkSums{x: panels{wide: wide}}}
	s.shared.at("kept.x", 4*roundUp(min(x.Rows, keptTokens), wide)*space)
	s.each(y.Cols, "buf", 4*t.scratch())
}

// pairs is the filling of panels of so many tokens from pairs of cols columns.
func (s *survey) pairs(cols, tokens int) {
	t := pairTask{p: panels{wide: tokens, per: 1}}
	s.each(cols, "buf", 4*t.scratch())
}

// starts are those of a packed matrix [rows, cols].
func (s *survey) starts(rows, cols int) {
	s.shared.at("kept.starts", 4*((rows+keptRows-1)/keptRows)*sparse.Words(cols))
}

// Scratch is what the buffers have come to take so far, in bytes; a Survey says it beforehand. It looks at every slice that there is,
// so that a buffer that the survey does not know cannot hide.
func (b *Backend) Scratch() int {
	all, fields := 0, reflect.ValueOf(b).Elem()
	for i := range fields.NumField() {
		if fields.Type().Field(i).Name != "tasks" { // they refer to operands
			all += slicesOf(fields.Field(i))
		}
	}
	for i := range b.pool.workers {
		all += int(unsafe.Sizeof(worker{})) + slicesOf(reflect.ValueOf(&b.pool.workers[i]).Elem())
	}
	return all
}

// slicesOf adds up the memory of the slices in a value, not of what pointers lead to.
func slicesOf(v reflect.Value) (bytes int) {
	switch v.Kind() {
	case reflect.Slice:
		return v.Cap() * int(v.Type().Elem().Size())
	case reflect.Struct:
		for i := range v.NumField() {
			bytes += slicesOf(v.Field(i))
		}
	case reflect.Array:
		for i := range v.Len() {
			bytes += slicesOf(v.Index(i))
		}
	}
	return bytes
}
