package cpu

import (
	"math"

	"github.com/splora/splora/model/compute"
	"github.com/splora/splora/model/tensor"
)

// attn is a compute.Attn with its positions and documents at hand.
type attn struct {
	compute.Attn
	qpos, kpos, qdoc, kdoc []int32
	runs                   []bounds // of panels of queries and keys, row by row; on a unit
}

// newAttn checks the descriptor.
func newAttn(op string, m compute.Attn) attn {
	if m.Hkv <= 0 || m.Hq%m.Hkv != 0 {
		panic("cpu: " + op + ": query heads are not a multiple of key/value heads")
	}
	want(op, "QPos", m.QPos, tensor.I32, m.B, m.Tq)
	want(op, "KPos", m.KPos, tensor.I32, m.B, m.Tk)
	want(op, "QDoc", m.QDoc, tensor.I32, m.B, m.Tq)
	want(op, "KDoc", m.KDoc, tensor.I32, m.B, m.Tk)
	return attn{Attn: m, qpos: m.QPos.Int32(), kpos: m.KPos.Int32(), qdoc: m.QDoc.Int32(), kdoc: m.KDoc.Int32()}
}

// sees reports whether query i of row b sees its key j; j is at most the query's own index.
func (m *attn) sees(b, i, j int) bool {
	q, k := b*m.Tq+i, b*m.Tk+j
	far := m.qpos[q] - m.kpos[k]
	return m.qdoc[q] >= 0 && m.kdoc[k] == m.qdoc[q] && far >= 0 && (m.Window == 0 || int(far) < m.Window)
}

// keys is the number of keys that may be visible to query i: no later one is.
func (m *attn) keys(i int) int { return max(0, m.Tk-m.Tq+i+1) }

// place is where (token t of row b of T, head h of H) begins in flat memory.
func (m *attn) place(b, t, T, h, H int) int { return ((b*T+t)*H + h) * m.D }

type attnTask struct {
	attn
	y, q, k, v act
	lse        []float32
	qt, kt, vt tensor.Tensor
	tiled      bool
}

// Attention sets y = softmax(scale·q·kᵀ, masked)·v and lse.
func (b *Backend) Attention(y, lse, q, k, v tensor.Tensor, m compute.Attn) {
	const op = "attention"
	t, dt := attnTask{attn: newAttn(op, m)}, like(op, "q", q)
	t.q, t.k, t.v = t.want(op, dt, q, k, v)
	t.y = wantAct(op, "y", y, dt, m.B*m.Tq, m.Hq*m.D)
	want(op, "lse", lse, tensor.F32, m.B*m.Hq, m.Tq)
	t.lse, t.qt, t.kt, t.vt = lse.Float32(), q, k, v
	t.tiled = b.tiled(m.Tq, &[5]act{t.q, t.k, t.v})
	if t.tiled && b.flashOnUnit(q) {
		b.aheadOnUnit(t)
		return
	}
	n, cost := m.B*m.Hq*m.Tq, 2*m.D*m.Tk
	if t.tiled {
		n, cost = m.B*m.Hq*t.tiles(), cost*tileQ
	}
	b.tasks.attn = t
	b.pool.run(&b.tasks.attn, n, grain(cost))
}

// tiled reports whether attention goes by tiles: enough queries, a vector kernel, and nothing that could leak from hidden keys.
func (b *Backend) tiled(tq int, list *[5]act) bool {
	return tq >= fewQ && b.kern.Name != "go" && b.finite(list)
}

func (t *attnTask) do(w *worker, i, j int) {
	for ; t.tiled && i < j; i++ {
		bh, q := i/t.tiles(), i%t.tiles()*tileQ
		if end := min(q+tileQ, t.Tq); t.byKeys(w.Kernels, t.qt.DType) {
			t.queries(w, bh/t.Hq, bh%t.Hq, q, end)
		} else {
			t.tile(w, bh/t.Hq, bh%t.Hq, q, end)
		}
	}
	for ; i < j; i++ {
		bh, q := i/t.Tq, i%t.Tq
		t.lse[i] = t.query(w, bh/t.Hq, bh%t.Hq, q)
	}
}

// query sets y of query i of head h and returns its lse.
func (t *attnTask) query(w *worker, b, h, i int) float32 {
	at := t.place(b, i, t.Tq, h, t.Hq)
	q, y := w.in(0, t.q, at, t.D), w.out(1, t.y, at, t.D)
	kv, n := h*t.Hkv/t.Hq, t.keys(i)
	s := w.scratch(n)
	m := float32(math.Inf(-1))
	seen := 0
	for j := range n {
		if t.sees(b, i, j) {
			s[seen] = t.Scale * w.dot(q, w.in(2, t.k, t.place(b, j, t.Tk, kv, t.Hkv), t.D))
			m = max(m, s[seen])
			seen++
		}
	}
	clear(y)
	lse := m
	if seen > 0 {
		sum := w.expSum(s[:seen], m)
		lse += float32(math.Log(sum))
		seen = 0
		for j := range n {
			if t.sees(b, i, j) {
				w.axpy(y, s[seen]/float32(sum), w.in(2, t.v, t.place(b, j, t.Tk, kv, t.Hkv), t.D))
				seen++
			}
		}
	}
	w.put(t.y, at, y)
	return lse
}

// attnBack is what both ways of the backward have.
type attnBack struct {
	attn
	dq, dk, dv, dy, y, q, k, v act
	lse                        []float32
	dyt, qt, kt, vt            tensor.Tensor
}

// AttentionBackward sets dq, dk, dv:  with p = exp(s − lse), s = scale·q·kᵀ and δ = dy·y,
//
//	dv_j = Σ_i p_ij·dy_i   ds_ij = p_ij·(dy_i·v_j − δ_i)   dq_i = scale·Σ_j ds_ij·k_j   dk_j = scale·Σ_i ds_ij·q_i
func (b *Backend) AttentionBackward(dq, dk, dv, dy, y, lse, q, k, v tensor.Tensor, m compute.Attn) {
	const op = "attentionbackward"
	t, dt := attnBack{attn: newAttn(op, m)}, like(op, "q", q)
	t.q, t.k, t.v = t.want(op, dt, q, k, v)
	t.dq, t.dk, t.dv = t.want(op, dt, dq, dk, dv)
	t.dy, _, _ = t.want(op, dt, dy, k, v)
	t.y, _, _ = t.want(op, dt, y, k, v)
	want(op, "lse", lse, tensor.F32, m.B*m.Hq, m.Tq)
	t.lse = lse.Float32()
	t.dyt, t.qt, t.kt, t.vt = dy, q, k, v
	if b.tiled(m.Tq, &[5]act{t.dy, t.y, t.q, t.k, t.v}) {
		if b.flashOnUnit(q) {
			b.backwardOnUnit(t)
		} else {
			b.backwardByTiles(t)
		}
		return
	}
	b.tasks.attnBack = attnBackTask{t}
	b.pool.run(&b.tasks.attnBack, m.B*m.Hkv, 1)
}

// attnBackTask goes query by query; a piece is a row's key/value head.
type attnBackTask struct{ attnBack }

// sum is where a head's part of dk or dv is summed over queries and heads: in place, or in float32 until it is rounded. Token j's is at
// v[j·ld].
type sum struct {
	v  []float32
	ld int
}

func (m *attn) sumOf(w *worker, k int, a act, b, kv int) sum {
	if a.half() {
		return sum{w.strip(k, m.Tk*m.D), m.D}
	}
	return sum{a.f[m.place(b, 0, m.Tk, kv, m.Hkv):], m.Hkv * m.D}
}

func (s sum) row(j, d int) []float32 { return s.v[j*s.ld : j*s.ld+d] }

func (t *attnBackTask) do(w *worker, i, j int) {
	for ; i < j; i++ {
		b, kv := i/t.Hkv, i%t.Hkv
		dk, dv := t.sumOf(w, 2, t.dk, b, kv), t.sumOf(w, 3, t.dv, b, kv)
		for k := range t.Tk {
			clear(dk.row(k, t.D))
			clear(dv.row(k, t.D))
		}
		group := t.Hq / t.Hkv
		for h := kv * group; h < (kv+1)*group; h++ {
			for i := range t.Tq {
				t.query(w, dk, dv, b, h, kv, i)
			}
		}
		for k := range t.Tk {
			at := t.place(b, k, t.Tk, kv, t.Hkv)
			w.put(t.dk, at, dk.row(k, t.D))
			w.put(t.dv, at, dv.row(k, t.D))
		}
	}
}

// query sets dq of query i of head h and adds its part to dk and dv.
func (t *attnBackTask) query(w *worker, dk, dv sum, b, h, kv, i int) {
	at := t.place(b, i, t.Tq, h, t.Hq)
	q, dq := w.in(0, t.q, at, t.D), w.out(1, t.dq, at, t.D)
	dy := w.in(4, t.dy, at, t.D)
	delta := w.dot(dy, w.in(5, t.y, at, t.D))
	lse := t.lse[(b*t.Hq+h)*t.Tq+i]
	clear(dq)
	for j := range t.keys(i) {
		if !t.sees(b, i, j) {
			continue
		}
		key := t.place(b, j, t.Tk, kv, t.Hkv)
		k, v := w.in(5, t.k, key, t.D), w.in(6, t.v, key, t.D)
		p := exp(t.Scale*w.dot(q, k) - lse)
		ds := t.Scale * p * (w.dot(dy, v) - delta)
		w.axpy(dv.row(j, t.D), p, dy)
		w.axpy(dq, ds, k)
		w.axpy(dk.row(j, t.D), ds, q)
	}
	w.put(t.dq, at, dq)
}

// want gives q, k and v; it panics unless they fit the descriptor.
func (m *attn) want(op string, dt tensor.DType, qt, kt, vt tensor.Tensor) (q, k, v act) {
	return wantAct(op, "q", qt, dt, m.B*m.Tq, m.Hq*m.D), wantAct(op, "k", kt, dt, m.B*m.Tk, m.Hkv*m.D), wantAct(op, "v", vt, dt, m.B*m.Tk, m.Hkv*m.D)
}
