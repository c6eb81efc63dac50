package cpu

import "math"

// The backward goes by pairs of a block of queries and one of keys, tile by tile of tileQ, of a key/value head and all its query heads:
//
//	P = exp(S − lse)   dS = scale·P ⊙ (dY·Vᵀ − δ)   dQ += dS·K   dK += dSᵀ·Q   dV += Pᵀ·dY        δ = Σ dY ⊙ Y
//
// In turn p, key block k meets query block k + p, modulo their number: so within a turn no two pairs add to the same rows, and the order of
// a row's sums is that of the turns, whatever the number of threads, and however few the heads are.
type flashBackTask struct {
	attnBack
	dqs, dks, dvs []float32 // where BF16 gradients are summed: [heads here][T][D]
	delta         []float32 // [B·Hq, Tq]
	first, heads  int       // the key/value heads of this round: b·Hkv + kv
	turn          int
	stage         flashStage
}

type flashStage uint8

const (
	flashBegin flashStage = iota // sums are 0, δ; on a unit operands are packed
	flashPairs
	flashEnd   // BF16: sums are rounded
	flashWhole // on a unit: all of them for a head, one after the other
)

// flashHeads is the number of key/value heads whose gradients are summed at a time: with BF16 they stand in float32 meanwhile.
const flashHeads = 16

// flashBuffers are scratch memory of the backward; they grow to what the largest call needs and stay.
type flashBuffers struct{ dq, dk, dv, delta []float32 }

func (b *Backend) backwardByTiles(a attnBack) {
	b.tasks.flashBack = flashBackTask{attnBack: a, delta: sized(&b.flash.delta, a.B*a.Hq*a.Tq)}
	t := &b.tasks.flashBack
	most := min(flashHeads, t.B*t.Hkv)
	if t.dq.half() {
		t.dqs = sized(&b.flash.dq, most*t.group()*t.Tq*t.D)
		t.dks, t.dvs = sized(&b.flash.dk, most*t.Tk*t.D), sized(&b.flash.dv, most*t.Tk*t.D)
	}
	for t.first = 0; t.first < t.B*t.Hkv; t.first += most {
		t.heads = min(most, t.B*t.Hkv-t.first)
		t.stage = flashBegin
		b.pool.run(t, t.heads*t.blocks(), 1)
		t.stage = flashPairs
		for t.turn = range t.blocks() {
			b.pool.run(t, t.heads*t.blocks(), 1)
		}
		if t.stage = flashEnd; t.dq.half() {
			b.pool.run(t, t.heads*t.blocks(), 1)
		}
	}
}

// group is the number of query heads of a key/value head.
func (m *attn) group() int { return m.Hq / m.Hkv }

// pairLen is the length of a block: several tiles, whose rows then are near when they are wanted again, unless few heads make few pieces.
func (m *attn) pairLen() int {
	switch heads := m.B * m.Hkv; {
	case heads >= 8:
		return 4 * tileQ
	case heads >= 4:
		return 2 * tileQ
	}
	return tileQ
}

// blocks is the number of blocks of queries, or of keys if they are more.
func (m *attn) blocks() int { return (max(m.Tq, m.Tk) + m.pairLen() - 1) / m.pairLen() }

// do does stage for block i%blocks of head i/blocks of this round.
func (t *flashBackTask) do(w *worker, i, end int) {
	for ; i < end; i++ {
		n, k := i/t.blocks(), i%t.blocks()
		j0, j1 := t.block(k, t.Tk)
		if t.stage == flashPairs {
			i0, i1 := t.block((k+t.turn)%t.blocks(), t.Tq)
			t.tilePairs(w, n, i0, i1, j0, j1)
			continue
		}
		i0, i1 := t.block(k, t.Tq)
		if t.stage == flashBegin {
			t.begin(w, n, i0, i1, j0, j1)
		} else {
			t.end(w, n, i0, i1, j0, j1)
		}
	}
}

// block is number k of those of n queries or keys.
func (m *attn) block(k, n int) (from, to int) {
	return min(k*m.pairLen(), n), min((k+1)*m.pairLen(), n)
}

// tilePairs does a pair of blocks.
func (t *flashBackTask) tilePairs(w *worker, n, i0, i1, j0, j1 int) {
	for j := j0; j < j1; j += tileQ {
		for i := i0; i < i1; i += tileQ {
			if t.byKeys(w.Kernels, t.qt.DType) {
				t.pairByKeys(w, n, i, min(i+tileQ, i1), j, min(j+tileQ, j1))
			} else {
				t.pair(w, n, i, min(i+tileQ, i1), j, min(j+tileQ, j1))
			}
		}
	}
}

// head is row b, key/value head kv of number n of this round.
func (t *flashBackTask) head(n int) (b, kv int) { return (t.first + n) / t.Hkv, (t.first + n) % t.Hkv }

// query is where the g-th query head of head n of this round sums dq.
func (t *flashBackTask) query(n, g int) sum {
	if t.dq.half() {
		return sum{t.dqs[(n*t.group()+g)*t.Tq*t.D:], t.D}
	}
	b, kv := t.head(n)
	return sum{t.dq.f[t.place(b, 0, t.Tq, kv*t.group()+g, t.Hq):], t.Hq * t.D}
}

// key is where head n of this round sums dk and dv.
func (t *flashBackTask) key(n int) (dk, dv sum) {
	if t.dq.half() {
		return sum{t.dks[n*t.Tk*t.D:], t.D}, sum{t.dvs[n*t.Tk*t.D:], t.D}
	}
	b, kv := t.head(n)
	at := t.place(b, 0, t.Tk, kv, t.Hkv)
	return sum{t.dk.f[at:], t.Hkv * t.D}, sum{t.dv.f[at:], t.Hkv * t.D}
}

// begin sets the sums to 0, and δ.
func (t *flashBackTask) begin(w *worker, n, i0, i1, j0, j1 int) {
	b, kv := t.head(n)
	dk, dv := t.key(n)
	for j := j0; j < j1; j++ {
		clear(dk.row(j, t.D))
		clear(dv.row(j, t.D))
	}
	for g := range t.group() {
		dq, h := t.query(n, g), kv*t.group()+g
		for i := i0; i < i1; i++ {
			clear(dq.row(i, t.D))
			at := t.place(b, i, t.Tq, h, t.Hq)
			t.delta[(b*t.Hq+h)*t.Tq+i] = w.dot(w.in(0, t.dy, at, t.D), w.in(1, t.y, at, t.D))
		}
	}
}

// end rounds the sums.
func (t *flashBackTask) end(w *worker, n, i0, i1, j0, j1 int) {
	b, kv := t.head(n)
	dk, dv := t.key(n)
	for j := j0; j < j1; j++ {
		at := t.place(b, j, t.Tk, kv, t.Hkv)
		w.put(t.dk, at, dk.row(j, t.D))
		w.put(t.dv, at, dv.row(j, t.D))
	}
	for g := range t.group() {
		dq := t.query(n, g)
		for i := i0; i < i1; i++ {
			w.put(t.dq, t.place(b, i, t.Tq, kv*t.group()+g, t.Hq), dq.row(i, t.D))
		}
	}
}

// pair adds what queries [i0, i1) and keys [j0, j1) give to each other.
func (t *flashBackTask) pair(w *worker, n, i0, i1, j0, j1 int) {
	b, kv := t.head(n)
	mixed, some := t.visible(b, i0, i1, j0, &j1)
	if !some {
		return
	}
	rows, keys, dk, dv := i1-i0, j1-j0, sum{}, sum{}
	dk, dv = t.key(n)
	k, v := t.from(t.kt, b, j0, t.Tk, kv, t.Hkv), t.from(t.vt, b, j0, t.Tk, kv, t.Hkv)
	s := w.scratch(2 * rows * keys)
	p, ds := s[:rows*keys], s[rows*keys:]
	for g := range t.group() {
		h := kv*t.group() + g
		q, dy, dq := t.from(t.qt, b, i0, t.Tq, h, t.Hq), t.from(t.dyt, b, i0, t.Tq, h, t.Hq), t.query(n, g)
		w.product(p, keys, rows, keys, t.D, t.Scale, q, false, k, true, 0)
		w.product(ds, keys, rows, keys, t.D, 1, dy, false, v, true, 0)
		for i := i0; i < i1; i++ {
			t.weights(w, p[(i-i0)*keys:][:keys], ds[(i-i0)*keys:][:keys], b, h, i, j0, mixed)
		}
		w.product(dq.v[i0*dq.ld:], dq.ld, rows, t.D, keys, 1, matrix(ds, keys), false, k, false, 1)
		w.product(dk.v[j0*dk.ld:], dk.ld, keys, t.D, rows, 1, matrix(ds, keys), true, q, false, 1)
		w.product(dv.v[j0*dv.ld:], dv.ld, keys, t.D, rows, 1, matrix(p, keys), true, dy, false, 1)
	}
}

// visible reports whether some of queries [i0, i1) sees some of keys [j0, j1), whose end it moves down to the last that may be visible; mixed: not
// every one sees every one.
func (t *attn) visible(b, i0, i1, j0 int, j1 *int) (mixed, some bool) {
	if i0 == i1 {
		return false, false
	}
	if *j1 = min(*j1, t.keys(i1-1)); *j1 <= j0 {
		return false, false
	}
	q := boundsOf(t.qpos[b*t.Tq+i0:b*t.Tq+i1], t.qdoc[b*t.Tq+i0:b*t.Tq+i1])
	k := boundsOf(t.kpos[b*t.Tk+j0:b*t.Tk+*j1], t.kdoc[b*t.Tk+j0:b*t.Tk+*j1])
	return *j1 > t.keys(i0) || !t.open(q, k), !t.hidden(q, k)
}

// weights sets p = exp(s − lse), 0 where hidden, and ds = scale·p ⊙ (dp − δ), in place of s and dp; the first key is number j.
func (t *flashBackTask) weights(w *worker, s, ds []float32, b, h, i, j int, mixed bool) {
	at := (b*t.Hq+h)*t.Tq + i
	lse := t.lse[at]
	if mixed {
		t.hideSpan(w, s, b, i, j)
	}
	if math.IsInf(float64(lse), -1) && t.blind(b, i) {
		clear(s)
	} else {
		w.expSum(s, lse)
	}
	w.softmaxBack(ds, s, t.delta[at], t.Scale)
}
