package cpu

import (
	"math"
	"sync/atomic"

	"github.com/splora/splora/model/tensor"
)

// Attention by tiles: tileQ queries of one head against the spans of keys that they may see,
//
//	S = scale·Q·Kᵀ   P = exp(S − max)   y = P·V / ΣP,
//
// with the products of Gemm's kernels. A span's visibility is decided by the least and greatest position and document of tileK
// keys: what nobody sees is skipped, what everybody sees needs no mask. S holds tileQ rows, never T.
const (
	tileQ = 96
	tileK = 64
	fewQ  = 4 // fewer queries go row by row: decoding
)

// span is a run of keys that some query of a tile sees; mixed: not every query sees every key.
type span struct {
	key, n int
	mixed  bool
}

// bounds are the least and greatest position and document of a run of tokens.
type bounds struct{ pos0, pos1, doc0, doc1 int32 }

func boundsOf(pos, doc []int32) bounds {
	b := bounds{pos[0], pos[0], doc[0], doc[0]}
	for i, p := range pos {
		b.pos0, b.pos1 = min(b.pos0, p), max(b.pos1, p)
		b.doc0, b.doc1 = min(b.doc0, doc[i]), max(b.doc1, doc[i])
	}
	return b
}

// spans lists what queries [i0, i1) of row b see, and the number of its keys.
func (m *attn) spans(list []span, b, i0, i1 int) ([]span, int) {
	q := boundsOf(m.qpos[b*m.Tq+i0:b*m.Tq+i1], m.qdoc[b*m.Tq+i0:b*m.Tq+i1])
	list, sum := list[:0], 0
	for j, end := 0, m.keys(i1-1); j < end; j += tileK {
		n := min(tileK, end-j)
		k := boundsOf(m.kpos[b*m.Tk+j:b*m.Tk+j+n], m.kdoc[b*m.Tk+j:b*m.Tk+j+n])
		if m.hidden(q, k) {
			continue
		}
		list, sum = appendSpan(list, span{j, n, j+n > m.keys(i0) || !m.open(q, k)}), sum+n
	}
	return list, sum
}

// appendSpan joins neighbours of one kind.
func appendSpan(list []span, s span) []span {
	if n := len(list) - 1; n >= 0 && list[n].mixed == s.mixed && list[n].key+list[n].n == s.key {
		list[n].n += s.n
		return list
	}
	return append(list, s)
}

// hidden: no query sees any key.
func (m *attn) hidden(q, k bounds) bool {
	return k.doc1 < max(q.doc0, 0) || k.doc0 > q.doc1 || q.pos1 < k.pos0 || m.Window > 0 && int(q.pos0-k.pos1) >= m.Window
}

// open: every query sees every key that is not later than itself.
func (m *attn) open(q, k bounds) bool {
	one := q.doc0 >= 0 && q.doc0 == q.doc1 && k.doc0 == q.doc0 && k.doc1 == q.doc0
	return one && q.pos0 >= k.pos1 && (m.Window == 0 || int(q.pos1-k.pos0) < m.Window)
}

// hide sets to −∞ the scores of row b, query i, that are not visible.
func (m *attn) hide(w *worker, s []float32, b, i int, list []span) {
	for _, p := range list {
		if p.mixed {
			m.hideSpan(w, s[:p.n], b, i, p.key)
		}
		s = s[p.n:]
	}
}

// hideSpan is hide for the keys from j on.
func (m *attn) hideSpan(w *worker, s []float32, b, i, j int) {
	q, k, n := b*m.Tq+i, b*m.Tk+j, min(max(0, m.keys(i)-j), len(s))
	if m.qdoc[q] < 0 {
		n = 0
	}
	for c := n; c < len(s); c++ {
		s[c] = float32(math.Inf(-1))
	}
	if n == 0 {
		return
	}
	window := int32(math.MaxInt32)
	if m.Window > 0 {
		window = int32(min(m.Window, math.MaxInt32))
	}
	w.Hide(n, &s[0], &m.kpos[k], &m.kdoc[k], m.qpos[q], m.qdoc[q], window)
}

// blind reports whether a query sees no key at all.
func (m *attn) blind(b, i int) bool {
	if m.qdoc[b*m.Tq+i] < 0 {
		return true
	}
	for j := range m.keys(i) {
		if m.sees(b, i, j) {
			return false
		}
	}
	return true
}

// tiles is the number of query tiles.
func (m *attn) tiles() int { return (m.Tq + tileQ - 1) / tileQ }

// from is x from (token t of row b of T, head h of H) on, a matrix whose rows are tokens.
func (m *attn) from(x tensor.Tensor, b, t, T, h, H int) tensor.Tensor {
	return from(x, m.place(b, t, T, h, H))
}

// finiteTask finds out whether a square is not finite.
type finiteTask struct {
	list [5]act
	none atomic.Bool
}

// finite reports whether no product of an element with 0 is NaN: then what is hidden cannot leak through a tile's product. (It
// says no, too, when squares overflow; the loops that run then are right for every input.)
func (b *Backend) finite(list *[5]act) bool {
	t := &b.tasks.finite
	t.list = *list
	t.none.Store(false)
	n := 0
	for _, a := range t.list {
		n = max(n, a.len())
	}
	b.pool.run(t, n, flat)
	return !t.none.Load()
}

func (t *finiteTask) do(w *worker, i, j int) {
	for _, a := range t.list {
		for i, j := i, min(j, a.len()); i < j; {
			n := a.step(j - i)
			if s := w.dotActs(a, i, a, i, n); !(s <= math.MaxFloat32) {
				t.none.Store(true)
				return
			}
			i += n
		}
	}
}

// matrix is a piece of scratch as an operand.
func matrix(x []float32, cols int) tensor.Tensor {
	t := tensor.Of(x)
	t.Cols = cols
	return t
}

// from is a matrix from its element i on.
func from(x tensor.Tensor, i int) tensor.Tensor {
	x.Mem.Host = x.Mem.Host[i*x.DType.Size():]
	return x
}

// product sets c [m,n] = α·op(a)·op(b) + β·c on one thread.
func (w *worker) product(c []float32, ldc, m, n, k int, alpha float32, a tensor.Tensor, ta bool, b tensor.Tensor, tb bool, beta float32) {
	kern := w.Kernels
	grow(&w.a, roundUp(m, kern.MR)*min(k, blockK))
	grow(&w.b, roundUp(n, kern.NR)*min(k, blockK))
	left, right := side{a, ta, m, kern.MR}, side{b, !tb, n, kern.NR}
	for k0 := 0; k0 < k; k0 += blockK {
		kc := min(blockK, k-k0)
		p := packTask{kern, left, right, 0, 0, m, n, k0, kc, w.a, w.b}
		p.do(w, 0, p.count())
		t := tileTask{kern: kern, a: w.a, b: w.b, c: c, ldc: ldc, m: m, n: n, kc: kc, alpha: alpha, beta: beta}
		t.cut(1)
		t.do(w, 0, t.pieces())
		beta = 1
	}
}

// scores sets s [rows,n] = scale·q·kᵀ over the spans, −∞ where hidden.
func (m *attn) scores(w *worker, s []float32, n int, q, k tensor.Tensor, b, h, i0, i1 int, list []span) {
	kv, at := h*m.Hkv/m.Hq, 0
	for _, p := range list {
		w.product(s[at:], n, i1-i0, p.n, m.D, m.Scale, m.from(q, b, i0, m.Tq, h, m.Hq), false, m.from(k, b, p.key, m.Tk, kv, m.Hkv), true, 0)
		at += p.n
	}
	for i := i0; i < i1; i++ {
		m.hide(w, s[(i-i0)*n:(i-i0+1)*n], b, i, list)
	}
}

// tile computes queries [i0, i1) of head h.
func (t *attnTask) tile(w *worker, b, h, i0, i1 int) {
	list, n := t.spans(w.spans, b, i0, i1)
	w.spans = list
	s := w.scratch(tileQ * (n + 1))
	inv := s[tileQ*n:]
	t.scores(w, s, n, t.qt, t.kt, b, h, i0, i1, list)
	for i := i0; i < i1; i++ {
		row := s[(i-i0)*n : (i-i0+1)*n]
		inv[i-i0], t.lse[(b*t.Hq+h)*t.Tq+i] = t.softmax(w, row, b, i)
	}
	at, kv, beta := 0, h*t.Hkv/t.Hq, float32(0)
	y, ld := t.outRows(w, t.y, b, i0, h, i1-i0)
	for _, p := range list {
		w.product(y, ld, i1-i0, t.D, p.n, 1, matrix(s[at:], n), false, t.from(t.vt, b, p.key, t.Tk, kv, t.Hkv), false, beta)
		at, beta = at+p.n, 1
	}
	for i := i0; i < i1; i++ {
		row := y[(i-i0)*ld:][:t.D]
		if n == 0 {
			clear(row)
		}
		w.scale(row, inv[i-i0])
		w.put(t.y, t.place(b, i, t.Tq, h, t.Hq), row)
	}
}

// outRows is where head h of some queries from i on is made, for put: rows of D, ld apart.
func (m *attn) outRows(w *worker, a act, b, i, h, rows int) (x []float32, ld int) {
	if a.half() {
		return w.strip(1, rows*m.D), m.D
	}
	return a.f[m.place(b, i, m.Tq, h, m.Hq):], m.Hq * m.D
}

// softmax sets a row of scores to exp(s − max), and gives 1/Σ and lse. A query that sees nothing has weights 0.
func (t *attnTask) softmax(w *worker, s []float32, b, i int) (inv, lse float32) {
	m := w.max(s)
	if math.IsInf(float64(m), -1) && t.blind(b, i) {
		clear(s)
		return 0, m
	}
	sum := w.expSum(s, m)
	return float32(1 / sum), m + float32(math.Log(sum))
}
