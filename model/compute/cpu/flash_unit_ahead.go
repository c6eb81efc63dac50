package cpu

import (
	"math"
	"unsafe"

	"github.com/splora/splora/model/compute/cpu/internal/amx"
	"github.com/splora/splora/model/compute/cpu/internal/simd"
	"github.com/splora/splora/model/tensor"
)

// The forward of BF16 attention on a unit: keys and values are packed once for all the queries of their heads; then, for a panel of 32
// queries, the scores of all the keys that they may see stand as blocks, from which the maxima are taken and the panel of weights is made,
//
//	S = Q·Kᵀ   P = exp(scale·S − max)   y = P·V / ΣP
type unitAheadTask struct {
	attn
	unitRound
	y          act
	lse        []float32
	qt, kt, vt tensor.Tensor
	on         *unitBackBuffers // k, and vᵀ in kT
}

// unitAheadScratch is a worker's: a panel of queries, its scores, weights and results, and what its rows have.
type unitAheadScratch struct {
	q, p    []uint16
	s, y    []float32
	lanes   []float32 // [32][16]
	row     [amx.Rows]float32
	strip   amx.Strip
	weights simd.FlashAhead
}

func (m *attn) unitAheadSizes(heads int) (s unitBackSizes) {
	s.half[2], s.half[6] = heads*m.tokens(), heads*m.tokens()
	return s
}

// grow makes room for panels of so many keys; unitAheadBytes is what that takes.
func (u *unitAheadScratch) grow(deep, panels int) {
	u.q, u.p = aligned(u.q, deep*unitStep), aligned(u.p, panels*unitStep)
	u.s, u.y = aligned(u.s, panels*amx.Block), aligned(u.y, deep*amx.Block)
	u.lanes = aligned(u.lanes, amx.Rows*16)
}

func unitAheadBytes(deep, panels int) int {
	return 2*(deep+panels)*unitStep + 4*(deep+panels)*amx.Block + 4*16*amx.Rows
}

func (b *Backend) aheadOnUnit(a attnTask) {
	b.tasks.unitAhead = unitAheadTask{attn: a.attn, y: a.y, lse: a.lse, qt: a.qt, kt: a.kt, vt: a.vt, on: &b.unitBack}
	t := &b.tasks.unitAhead
	t.on.grow(t.unitAheadSizes(t.unitSets(b.pool.threads())))
	t.setRuns(&t.on.runs)
	b.rounds(t, &t.attn, &t.unitRound, func(heads int) {
		t.stage = flashBegin
		b.pool.run(t, heads*t.unitBlocks(), 1)
		t.stage = flashPairs
		b.pool.run(t, heads*t.panels(), 1)
	})
}

// panels is the number of panels of queries of a key/value head.
func (t *unitAheadTask) panels() int { return t.group() * steps(t.Tq) }

func (t *unitAheadTask) do(w *worker, i, end int) {
	for ; i < end; i++ {
		switch t.stage {
		case flashWhole:
			t.of[w.index] = i
			for k := range t.unitBlocks() {
				t.pack(w, w.index, k)
			}
			for p := range t.panels() {
				t.panel(w, w.index, p)
			}
		case flashBegin:
			t.pack(w, i/t.unitBlocks(), i%t.unitBlocks())
		case flashPairs:
			t.panel(w, i/t.panels(), i%t.panels())
		}
	}
}

// pack packs block k of the keys and values of head n of this round; vᵀ has a panel for 32 columns of v, with all tokens as inner elements.
func (t *unitAheadTask) pack(w *worker, n, k int) {
	j0, j1 := tokensOf(k, t.Tk)
	if j0 == j1 {
		return
	}
	b, kv := t.head(&t.attn, n)
	t.packRows(w, t.on.k[t.at(n, k):], t.from(t.kt, b, j0, t.Tk, kv, t.Hkv), j1-j0, true)
	s := unitSide{side: side{t: t.from(t.vt, b, j0, t.Tk, kv, t.Hkv), along: true, rows: t.D}, parts: 1, pairs: true}
	for d := range t.deep() {
		panel := t.on.kT[t.at(n, 0)+d*t.wide()+k*unitAcross*unitStep:][:s.size(j1-j0)]
		if s.rowsAt(d) < amx.Rows {
			clear(panel)
		}
		s.pack(&w.beside.Packing, panel, d, 0, j1-j0)
	}
}

// wide is the length of a panel with all tokens as inner elements.
func (m *attn) wide() int { return m.unitBlocks() * unitAcross * unitStep }

// panel computes panel p of the queries of head n, query head by query head.
func (t *unitAheadTask) panel(w *worker, n, p int) {
	b, kv := t.head(&t.attn, n)
	g, i := p/steps(t.Tq), p%steps(t.Tq)*amx.Rows
	h, end, u, deep := kv*t.group()+g, min(i+amx.Rows, t.Tq), &w.unitAhead, t.deep()
	j0, j1 := t.seen(b, i, end)
	if j0 == j1 {
		for ; i < end; i++ {
			t.y.zero(t.place(b, i, t.Tq, h, t.Hq), t.D)
			t.lse[(b*t.Hq+h)*t.Tq+i] = float32(math.Inf(-1))
		}
		return
	}
	across := j1 - j0
	u.grow(deep, steps(t.Tk))
	t.packRows(w, u.q, t.from(t.qt, b, i, t.Tq, h, t.Hq), end-i, false)
	u.strip = amx.Strip{N: across, K: deep, A: unsafe.Pointer(&u.q[0]), B: unsafe.Pointer(&t.on.k[t.at(n, 0)+j0*deep*unitStep]), BStep: 2 * deep * unitStep, C: unsafe.Pointer(&u.s[0])}
	w.beside.Strip[0][0][1][3](&u.strip)
	for j := range across {
		t.hideBlock(w, u.s[j*amx.Block:], b, i, end, (j0+j)*amx.Rows)
	}
	t.weights(w, b, h, i, end, across)
	u.strip = amx.Strip{N: deep, K: across, A: unsafe.Pointer(&u.p[0]), B: unsafe.Pointer(&t.on.kT[t.at(n, 0)+j0*unitStep]), BStep: 2 * t.wide(), C: unsafe.Pointer(&u.y[0])}
	w.beside.Strip[0][0][1][3](&u.strip)
	w.FlashScale(deep, unsafe.Pointer(&u.y[0]), unsafe.Pointer(&u.row[0]))
	for d := range deep {
		t.store(w, t.y.h[t.place(b, i, t.Tq, h, t.Hq)+d*amx.Rows:], u.y[d*amx.Block:], end-i, d, t.Hq)
	}
}

// seen is from which panel of keys to before which queries [i, end) may see any.
func (t *unitAheadTask) seen(b, i, end int) (from, to int) {
	last := t.keys(end - 1)
	for to = steps(last); from < to; from++ {
		q, k := t.bounds(b, i, end, from*amx.Rows, min((from+1)*amx.Rows, last))
		if !t.hidden(q, k) {
			return from, to
		}
	}
	return to, to
}

// weights makes the panel of weights from the blocks of scores, sets lse, and leaves in u.row what y is to be multiplied by.
func (t *unitAheadTask) weights(w *worker, b, h, i, end, across int) {
	u := &w.unitAhead
	w.FlashMax(across, unsafe.Pointer(&u.s[0]), unsafe.Pointer(&u.lanes[0]))
	for r := range u.row {
		m := u.lanes[r*16]
		for _, x := range u.lanes[r*16+1 : r*16+16] {
			m = max(m, x)
		}
		u.row[r] = t.Scale * m
		if r >= end-i || math.IsInf(float64(m), -1) && t.blind(b, i+r) {
			u.row[r] = float32(math.Inf(1)) // weights 0
		}
	}
	u.weights = simd.FlashAhead{S: unsafe.Pointer(&u.s[0]), P: unsafe.Pointer(&u.p[0]), M: unsafe.Pointer(&u.row[0]), Sums: unsafe.Pointer(&u.lanes[0]), N: across, Scale: t.Scale}
	w.FlashExp(&u.weights)
	for r := range end - i {
		var sum float64
		for _, x := range u.lanes[r*16 : r*16+16] {
			sum += float64(x)
		}
		lse := &t.lse[(b*t.Hq+h)*t.Tq+i+r]
		if math.IsInf(float64(u.row[r]), 1) {
			*lse, u.row[r] = float32(math.Inf(-1)), 0
			continue
		}
		*lse, u.row[r] = u.row[r]+float32(math.Log(sum)), float32(1/sum)
	}
	clear(u.row[end-i:])
}
