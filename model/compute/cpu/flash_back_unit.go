package cpu

import (
	"math"
	"unsafe"

	"github.com/splora/splora/model/compute/cpu/internal/amx"
	"github.com/splora/splora/model/compute/cpu/internal/simd"
	"github.com/splora/splora/model/tensor"
)

// The backward of BF16 attention on a unit goes by the pairs and turns of flashBackTask, but all operands are packed once, before the first
// turn, and nothing between the products ever lies row by row: of a panel of 32 queries, S and dP are blocks as the unit stores them, from
// which one kernel makes the panels of P and dS that the next products read,
//
//	dQ += dS·K   dKᵀ += Qᵀ·dS   dVᵀ += dYᵀ·P
//
// and the sums are blocks, too, until they are rounded.
const (
	unitBlock  = 128 // queries, or keys, of a block
	unitAcross = unitBlock / amx.Rows
	unitHeads  = 4 // key/value heads, at most, whose operands stand packed at a time
	unitStep   = amx.Part / 2
)

// unitBackTask is flashBackTask on a unit; a piece is a block of a key/value head, or a whole one.
type unitBackTask struct {
	attnBack
	unitRound
	on   *unitBackBuffers
	turn int
}

// unitRound says which key/value heads, b·Hkv + kv, stand packed, and what is done with them; by heads number n is that of worker n.
type unitRound struct {
	of    [unitHeads]int
	stage flashStage
}

// byHeads reports whether each thread does heads by itself, which then stay in its second cache: where that leaves none without work for long. It adds
// the same numbers in the same order.
func (m *attn) byHeads(threads int) bool {
	heads := m.B * m.Hkv
	return threads <= unitHeads && (heads%threads == 0 || heads >= 4*threads)
}

// unitSets is the number of heads that stand packed at a time.
func (m *attn) unitSets(threads int) int {
	if m.byHeads(threads) {
		return threads
	}
	return min(unitHeads, m.B*m.Hkv)
}

// unitBackBuffers are the packed operands: panels of rows of q, dy, k, v, with D as inner elements, and by block those of their transposes,
// with tokens as inner elements; the sums; and the bounds of all panels of tokens.
type unitBackBuffers struct {
	q, dy, k, v, qT, dyT, kT []uint16
	dq, dk, dv               []float32
	lse, delta               []float32
	runs                     []bounds
}

func (m *attn) unitBlocks() int { return (max(m.Tq, m.Tk) + unitBlock - 1) / unitBlock }

// deep is the number of panels of D, and of their steps.
func (m *attn) deep() int { return steps(m.D) }

// tokens is the number of elements, of whole panels, of a head's tokens.
func (m *attn) tokens() int { return m.unitBlocks() * unitBlock * m.deep() * amx.Rows }

// unitBackSizes are the lengths of the buffers for so many key/value heads.
type unitBackSizes struct {
	half [7]int
	full [5]int
}

func (m *attn) unitBackSizes(heads int) unitBackSizes {
	n, rows := heads*m.tokens(), heads*m.group()*m.unitBlocks()*unitBlock
	q := n * m.group()
	return unitBackSizes{[7]int{q, q, n, n, q, q, n}, [5]int{q, n, n, rows, rows}}
}

func (u *unitBackBuffers) grow(s unitBackSizes) {
	for i, b := range [...]*[]uint16{&u.q, &u.dy, &u.k, &u.v, &u.qT, &u.dyT, &u.kT} {
		*b = aligned(*b, s.half[i])
	}
	for i, b := range [...]*[]float32{&u.dq, &u.dk, &u.dv, &u.lse, &u.delta} {
		*b = aligned(*b, s.full[i])
	}
}

// unitBackScratch is a worker's: the blocks of a panel of queries, and the weights of a pair.
type unitBackScratch struct {
	s, dp        []float32
	dsa, dsb, pb []uint16
	strip        amx.Strip
	weights      simd.FlashBack
}

func (u *unitBackScratch) grow() {
	u.s, u.dp = aligned(u.s, unitAcross*amx.Block), aligned(u.dp, unitAcross*amx.Block)
	u.dsa = aligned(u.dsa, unitAcross*unitStep)
	u.dsb, u.pb = aligned(u.dsb, unitAcross*unitAcross*unitStep), aligned(u.pb, unitAcross*unitAcross*unitStep)
}

// unitBackBytes is what grow makes of it.
const unitBackBytes = 4*2*unitAcross*amx.Block + 2*unitAcross*unitStep*(1+2*unitAcross)

// flashOnUnit reports whether attention of x goes this way.
func (b *Backend) flashOnUnit(x tensor.Tensor) bool {
	return x.DType == tensor.BF16 && b.kern.FlashBack != nil && b.unit.multiplies(1, 1)
}

func (b *Backend) backwardOnUnit(a attnBack) {
	b.tasks.unitBack = unitBackTask{attnBack: a, on: &b.unitBack}
	t := &b.tasks.unitBack
	t.on.grow(t.unitBackSizes(t.unitSets(b.pool.threads())))
	t.setRuns(&t.on.runs)
	b.rounds(t, &t.attn, &t.unitRound, func(heads int) {
		pieces := heads * t.unitBlocks()
		t.stage = flashBegin
		b.pool.run(t, pieces, 1)
		t.stage = flashPairs
		for t.turn = range t.unitBlocks() {
			b.pool.run(t, pieces, 1)
		}
		t.stage = flashEnd
		b.pool.run(t, pieces, 1)
	})
}

// rounds runs t, attention of m on a unit, by heads, or round by round of as many as stand packed.
func (b *Backend) rounds(t task, m *attn, r *unitRound, round func(heads int)) {
	all := m.B * m.Hkv
	if m.byHeads(b.pool.threads()) {
		r.stage = flashWhole
		b.pool.run(t, all, 1)
		return
	}
	for first := 0; first < all; first += unitHeads {
		for n := range r.of {
			r.of[n] = first + n
		}
		round(min(unitHeads, all-first))
	}
}

func (t *unitBackTask) do(w *worker, i, end int) {
	for ; i < end; i++ {
		n, k := i/t.unitBlocks(), i%t.unitBlocks()
		switch t.stage {
		case flashWhole:
			t.of[w.index] = i
			t.whole(w, w.index)
		case flashBegin:
			t.begin(w, n, k)
		case flashPairs:
			t.pair(w, n, (k+t.turn)%t.unitBlocks(), k)
		case flashEnd:
			t.end(w, n, k)
		}
	}
}

// whole does head n: key block by key block, the last one first, and for each its query blocks, from its own on. To a row that is the order of the
// turns, in which the blocks before a key block come last.
func (t *unitBackTask) whole(w *worker, n int) {
	blocks := t.unitBlocks()
	for k := range blocks {
		t.begin(w, n, k)
	}
	for k := blocks - 1; k >= 0; k-- {
		for q := k; q < blocks; q++ {
			t.pair(w, n, q, k)
		}
	}
	for k := blocks - 1; k >= 0; k-- {
		for q := range k {
			t.pair(w, n, q, k)
		}
	}
	for k := range blocks {
		t.end(w, n, k)
	}
}

// head is row b, key/value head kv of those that stand as number n.
func (r *unitRound) head(m *attn, n int) (b, kv int) { return r.of[n] / m.Hkv, r.of[n] % m.Hkv }

// tokensOf is block k of T tokens.
func tokensOf(k, T int) (from, to int) { return min(k*unitBlock, T), min((k+1)*unitBlock, T) }

// at is where block k of head n begins in a buffer of heads of tokens; its length is unitBlock·deep·32.
func (t *attn) at(n, k int) int { return n*t.tokens() + k*t.blockLen() }

func (t *attn) blockLen() int { return unitBlock * t.deep() * amx.Rows }

// begin packs block k of head n, and sets its sums to 0.
func (t *unitBackTask) begin(w *worker, n, k int) {
	b, kv := t.head(&t.attn, n)
	if j0, j1 := tokensOf(k, t.Tk); j0 < j1 {
		at := t.at(n, k)
		clear(t.on.dk[at : at+t.blockLen()])
		clear(t.on.dv[at : at+t.blockLen()])
		key, value := t.from(t.kt, b, j0, t.Tk, kv, t.Hkv), t.from(t.vt, b, j0, t.Tk, kv, t.Hkv)
		t.packRows(w, t.on.k[at:], key, j1-j0, true)
		t.packRows(w, t.on.v[at:], value, j1-j0, true)
		t.packTurned(w, t.on.kT[at:], key, j1-j0, true)
	}
	i0, i1 := tokensOf(k, t.Tq)
	for g := 0; i0 < i1 && g < t.group(); g++ {
		h, at := kv*t.group()+g, t.at(n*t.group()+g, k)
		clear(t.on.dq[at : at+t.blockLen()])
		q, dy := t.from(t.qt, b, i0, t.Tq, h, t.Hq), t.from(t.dyt, b, i0, t.Tq, h, t.Hq)
		t.packRows(w, t.on.q[at:], q, i1-i0, false)
		t.packRows(w, t.on.dy[at:], dy, i1-i0, false)
		t.packTurned(w, t.on.qT[at:], q, i1-i0, false)
		t.packTurned(w, t.on.dyT[at:], dy, i1-i0, false)
		t.numbers(w, n*t.group()+g, k, b, h)
	}
}

// packRows packs rows of x [rows, D], a panel for 32 of them; what is beyond is 0.
func (t *attn) packRows(w *worker, dst []uint16, x tensor.Tensor, rows int, pairs bool) {
	s, n := unitSide{side: side{t: x, rows: rows}, parts: 1, pairs: pairs}, t.deep()*unitStep
	for p := range s.panels() {
		panel := dst[p*n : (p+1)*n]
		if s.rowsAt(p) < amx.Rows {
			clear(panel)
		}
		s.pack(&w.beside.Packing, panel, p, 0, t.D)
	}
}

// packTurned packs xᵀ, a panel for 32 columns of x; a panel has room for a block of rows.
func (t *attn) packTurned(w *worker, dst []uint16, x tensor.Tensor, rows int, pairs bool) {
	s := unitSide{side: side{t: x, along: true, rows: t.D}, parts: 1, pairs: pairs}
	for p := range s.panels() {
		panel := dst[p*unitAcross*unitStep : (p+1)*unitAcross*unitStep]
		if s.rowsAt(p) < amx.Rows {
			clear(panel)
		}
		s.pack(&w.beside.Packing, panel[:s.size(rows)], p, 0, rows)
	}
}

// numbers sets lse and δ of block k of query head n of this round, h of row b; a query that sees nothing, or is not there, gets +Inf.
func (t *unitBackTask) numbers(w *worker, n, k, b, h int) {
	i0, i1 := tokensOf(k, t.Tq)
	at := (n*t.unitBlocks() + k) * unitBlock
	lse, delta := t.on.lse[at:at+unitBlock], t.on.delta[at:at+unitBlock]
	for r := range lse {
		lse[r], delta[r] = float32(math.Inf(1)), 0
	}
	for i := i0; i < i1; i++ {
		if l := t.lse[(b*t.Hq+h)*t.Tq+i]; !math.IsInf(float64(l), -1) || !t.blind(b, i) {
			lse[i-i0] = l
		}
		from := t.place(b, i, t.Tq, h, t.Hq)
		delta[i-i0] = w.dotActs(t.dy, from, t.y, from, t.D)
	}
}

// pair adds what query block qb and key block kb of head n give to each other.
func (t *unitBackTask) pair(w *worker, n, qb, kb int) {
	b, _ := t.head(&t.attn, n)
	i0, i1 := tokensOf(qb, t.Tq)
	j0, j1 := tokensOf(kb, t.Tk)
	if i0 == i1 || j0 >= min(j1, t.keys(i1-1)) {
		return
	}
	j1 = min(j1, t.keys(i1-1))
	q, k := t.bounds(b, i0, i1, j0, j1)
	if t.hidden(q, k) {
		return
	}
	u, across := &w.unitBack, steps(j1-j0)
	u.grow()
	for g := range t.group() {
		for i := i0; i < i1; i += amx.Rows {
			t.panel(w, n, g, qb, kb, i, min(i+amx.Rows, i1), j0, j1)
		}
		qh := n*t.group() + g
		for d := range t.deep() {
			at, from := t.at(n, kb)+d*unitAcross*amx.Block, t.at(qh, qb)+d*unitAcross*unitStep
			u.strip = amx.Strip{N: across, K: steps(i1 - i0), BStep: 2 * unitAcross * unitStep, Add: 1}
			t.multiply(w, &t.on.dk[at], &t.on.qT[from], &u.dsb[0])
			t.multiply(w, &t.on.dv[at], &t.on.dyT[from], &u.pb[0])
		}
	}
}

// setRuns finds the bounds of every panel of queries and of keys.
func (m *attn) setRuns(buf *[]bounds) {
	m.runs = sized(buf, m.B*(steps(m.Tq)+steps(m.Tk)))
	for b := range m.B {
		q, k := m.runsOf(b)
		for _, x := range []struct {
			runs     []bounds
			pos, doc []int32
			T        int
		}{{q, m.qpos, m.qdoc, m.Tq}, {k, m.kpos, m.kdoc, m.Tk}} {
			for p := range x.runs {
				from, to := b*x.T+p*amx.Rows, b*x.T+min((p+1)*amx.Rows, x.T)
				x.runs[p] = boundsOf(x.pos[from:to], x.doc[from:to])
			}
		}
	}
}

// runsOf are those of row b.
func (m *attn) runsOf(b int) (q, k []bounds) {
	n := steps(m.Tq) + steps(m.Tk)
	runs := m.runs[b*n : (b+1)*n]
	return runs[:steps(m.Tq)], runs[steps(m.Tq):]
}

// bounds are those of the panels of queries [i0, i1) and of keys [j0, j1) of row b; they may be a little wide where one of these ends within a panel.
func (m *attn) bounds(b, i0, i1, j0, j1 int) (q, k bounds) {
	qs, ks := m.runsOf(b)
	return join(qs[i0/amx.Rows : steps(i1)]), join(ks[j0/amx.Rows : steps(j1)])
}

// join is the bounds of all.
func join(list []bounds) bounds {
	all := list[0]
	for _, b := range list[1:] {
		all.pos0, all.pos1 = min(all.pos0, b.pos0), max(all.pos1, b.pos1)
		all.doc0, all.doc1 = min(all.doc0, b.doc0), max(all.doc1, b.doc1)
	}
	return all
}

// multiply runs the strip that w.unitBack has, but for its operands.
func (t *unitBackTask) multiply(w *worker, c *float32, a, b *uint16) {
	s := &w.unitBack.strip
	s.A, s.B, s.C = unsafe.Pointer(a), unsafe.Pointer(b), unsafe.Pointer(c)
	w.beside.Strip[0][0][1][3](s)
}

// panel makes the weights of queries [i, end) of query head g and keys [j0, j1), and adds to dq.
func (t *unitBackTask) panel(w *worker, n, g, qb, kb, i, end, j0, j1 int) {
	b, _ := t.head(&t.attn, n)
	u, deep, qh, p := &w.unitBack, t.deep(), n*t.group()+g, i%unitBlock/amx.Rows
	across := max(0, steps(min(j1, t.keys(end-1))-j0))
	for j := across; j < steps(j1-j0); j++ { // later than all of these queries
		clear(u.dsb[(j*unitAcross+p)*unitStep:][:unitStep])
		clear(u.pb[(j*unitAcross+p)*unitStep:][:unitStep])
	}
	if across == 0 {
		return
	}
	at, keys := t.at(qh, qb)+p*deep*unitStep, t.at(n, kb)
	u.strip = amx.Strip{N: across, K: deep, BStep: 2 * deep * unitStep}
	t.multiply(w, &u.s[0], &t.on.q[at], &t.on.k[keys])
	t.multiply(w, &u.dp[0], &t.on.dy[at], &t.on.v[keys])
	for j := range across {
		t.hideBlock(w, u.s[j*amx.Block:], b, i, end, j0+j*amx.Rows)
	}
	row := (qh*t.unitBlocks()+qb)*unitBlock + p*amx.Rows
	u.weights = simd.FlashBack{S: unsafe.Pointer(&u.s[0]), DP: unsafe.Pointer(&u.dp[0]), Lse: unsafe.Pointer(&t.on.lse[row]), Delta: unsafe.Pointer(&t.on.delta[row]),
		DSA: unsafe.Pointer(&u.dsa[0]), DSB: unsafe.Pointer(&u.dsb[p*unitStep]), PB: unsafe.Pointer(&u.pb[p*unitStep]), N: across, Step: 2 * unitAcross * unitStep, Scale: t.Scale}
	w.FlashBack(&u.weights)
	u.strip = amx.Strip{N: deep, K: across, BStep: 2 * unitAcross * unitStep, Add: 1}
	t.multiply(w, &t.on.dq[t.at(qh, qb)+p*deep*amx.Block], &u.dsa[0], &t.on.kT[keys])
}

// hideBlock sets to −∞ what is hidden of the block of scores of queries [i, end) and 32 keys from j on.
func (t *attn) hideBlock(w *worker, s []float32, b, i, end, j int) {
	if last := j + amx.Rows; last <= t.keys(i) {
		if q, k := t.bounds(b, i, end, j, last); t.open(q, k) {
			return
		}
	}
	for r := range end - i {
		row := s[r/16*512+r%16*16:]
		t.hideSpan(w, row[:16], b, i+r, j)
		t.hideSpan(w, row[256:272], b, i+r, j+16)
	}
}

// end rounds the sums of block k of head n.
func (t *unitBackTask) end(w *worker, n, k int) {
	b, kv := t.head(&t.attn, n)
	j0, j1 := tokensOf(k, t.Tk)
	for d := range t.deep() {
		for j := j0; j < j1; j += amx.Rows {
			at := t.at(n, k) + (d*unitAcross+(j-j0)/amx.Rows)*amx.Block
			to := t.place(b, j, t.Tk, kv, t.Hkv) + d*amx.Rows
			for _, x := range [...]struct {
				sum []float32
				dst act
			}{{t.on.dk, t.dk}, {t.on.dv, t.dv}} {
				block := x.sum[at : at+amx.Block]
				w.beside.Turn(unsafe.Pointer(&block[0]), 4)
				var tile [256]float32
				copy(tile[:], block[256:512])
				copy(block[256:512], block[512:768])
				copy(block[512:768], tile[:])
				t.store(w, x.dst.h[to:], block, j1-j, d, t.Hkv)
			}
		}
	}
	i0, i1 := tokensOf(k, t.Tq)
	for g := range t.group() {
		for i := i0; i < i1; i += amx.Rows {
			for d := range t.deep() {
				at := t.at(n*t.group()+g, k) + ((i-i0)/amx.Rows*t.deep()+d)*amx.Block
				t.store(w, t.dq.h[t.place(b, i, t.Tq, kv*t.group()+g, t.Hq)+d*amx.Rows:], t.on.dq[at:], i1-i, d, t.Hq)
			}
		}
	}
}

// store rounds a block, rows of it as far as there are, of panel d of D, to rows of H heads.
func (t *attn) store(w *worker, dst []uint16, block []float32, rows, d, H int) {
	w.beside.Store16(unsafe.Pointer(&dst[0]), 2*H*t.D, unsafe.Pointer(&block[0]), min(rows, amx.Rows), min(t.D-d*amx.Rows, amx.Rows), 1, 0)
}
