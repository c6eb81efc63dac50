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
	return attn{m, m.QPos.Int32(), m.KPos.Int32(), m.QDoc.Int32(), m.KDoc.Int32()}
}

// sees reports whether query i of row b sees its key j; j is at most the query's own index.
func (m *attn) sees(b, i, j int) bool {
	q, k := b*m.Tq+i, b*m.Tk+j
	far := m.qpos[q] - m.kpos[k]
	return m.qdoc[q] >= 0 && m.kdoc[k] == m.qdoc[q] && far >= 0 && (m.Window == 0 || int(far) < m.Window)
}

// keys is the number of keys that may be visible to query i: no later one is.
func (m *attn) keys(i int) int { return max(0, m.Tk-m.Tq+i+1) }

// row is the D elements of (token t of row b of T, head h of H) in x.
func (m *attn) row(x []float32, b, t, T, h, H int) []float32 {
	at := ((b*T+t)*H + h) * m.D
	return x[at : at+m.D]
}

type attnTask struct {
	attn
	y, lse, q, k, v []float32
	qt, kt, vt      tensor.Tensor
	tiled           bool
}

// Attention sets y = softmax(scale·q·kᵀ, masked)·v and lse.
func (b *Backend) Attention(y, lse, q, k, v tensor.Tensor, m compute.Attn) {
	t := attnTask{attn: newAttn("attention", m)}
	t.want("attention", q, k, v)
	want("attention", "y", y, tensor.F32, m.B*m.Tq, m.Hq*m.D)
	want("attention", "lse", lse, tensor.F32, m.B*m.Hq, m.Tq)
	t.y, t.lse, t.q, t.k, t.v = y.Float32(), lse.Float32(), q.Float32(), k.Float32(), v.Float32()
	t.qt, t.kt, t.vt = q, k, v
	t.tiled = b.tiled(m.Tq, t.q, t.k, t.v)
	n, cost := m.B*m.Hq*m.Tq, 2*m.D*m.Tk
	if t.tiled {
		n, cost = m.B*m.Hq*t.tiles(), cost*tileQ
	}
	b.tasks.attn = t
	b.pool.run(&b.tasks.attn, n, grain(cost))
}

// tiled reports whether attention goes by tiles: enough queries, a vector kernel, and nothing that could leak from hidden keys.
func (b *Backend) tiled(tq int, list ...[]float32) bool {
	v := vec{b.kern}
	return tq >= fewQ && b.kern.Name != "go" && v.finite(list...)
}

func (t *attnTask) do(w *worker, i, j int) {
	for ; t.tiled && i < j; i++ {
		bh, q := i/t.tiles(), i%t.tiles()*tileQ
		t.tile(w, bh/t.Hq, bh%t.Hq, q, min(q+tileQ, t.Tq))
	}
	for ; i < j; i++ {
		bh, q := i/t.Tq, i%t.Tq
		t.lse[i] = t.query(w, bh/t.Hq, bh%t.Hq, q)
	}
}

// query sets y of query i of head h and returns its lse.
func (t *attnTask) query(w *worker, b, h, i int) float32 {
	q, y := t.row(t.q, b, i, t.Tq, h, t.Hq), t.row(t.y, b, i, t.Tq, h, t.Hq)
	kv, n := h*t.Hkv/t.Hq, t.keys(i)
	s := w.scratch(n)
	m := float32(math.Inf(-1))
	seen := 0
	for j := range n {
		if t.sees(b, i, j) {
			s[seen] = t.Scale * w.dot(q, t.row(t.k, b, j, t.Tk, kv, t.Hkv))
			m = max(m, s[seen])
			seen++
		}
	}
	clear(y)
	if seen == 0 {
		return float32(math.Inf(-1))
	}
	sum := w.expSum(s[:seen], m)
	seen = 0
	for j := range n {
		if t.sees(b, i, j) {
			w.axpy(y, s[seen]/float32(sum), t.row(t.v, b, j, t.Tk, kv, t.Hkv))
			seen++
		}
	}
	return m + float32(math.Log(sum))
}

type attnBackTask struct {
	attn
	dq, dk, dv, dy, y, lse, q, k, v []float32
	dyt, qt, kt, vt                 tensor.Tensor
	tiled                           bool
}

// AttentionBackward sets dq, dk, dv:  with p = exp(s − lse), s = scale·q·kᵀ and δ = dy·y,
//
//	dv_j = Σ_i p_ij·dy_i   ds_ij = p_ij·(dy_i·v_j − δ_i)   dq_i = scale·Σ_j ds_ij·k_j   dk_j = scale·Σ_i ds_ij·q_i
func (b *Backend) AttentionBackward(dq, dk, dv, dy, y, lse, q, k, v tensor.Tensor, m compute.Attn) {
	const op = "attentionbackward"
	t := attnBackTask{attn: newAttn(op, m)}
	t.want(op, q, k, v)
	t.want(op, dq, dk, dv)
	t.want(op, dy, k, v)
	t.want(op, y, k, v)
	want(op, "lse", lse, tensor.F32, m.B*m.Hq, m.Tq)
	t.dq, t.dk, t.dv = dq.Float32(), dk.Float32(), dv.Float32()
	t.dy, t.y, t.lse = dy.Float32(), y.Float32(), lse.Float32()
	t.q, t.k, t.v = q.Float32(), k.Float32(), v.Float32()
	t.dyt, t.qt, t.kt, t.vt = dy, q, k, v
	t.tiled = b.tiled(m.Tq, t.dy, t.y, t.q, t.k, t.v)
	b.tasks.attnBack = t
	b.pool.run(&b.tasks.attnBack, m.B*m.Hkv, 1)
}

func (t *attnBackTask) do(w *worker, i, j int) {
	for ; i < j; i++ {
		b, kv := i/t.Hkv, i%t.Hkv
		for k := range t.Tk {
			clear(t.row(t.dk, b, k, t.Tk, kv, t.Hkv))
			clear(t.row(t.dv, b, k, t.Tk, kv, t.Hkv))
		}
		group := t.Hq / t.Hkv
		for h := kv * group; h < (kv+1)*group; h++ {
			t.head(w, b, h, kv)
		}
	}
}

func (t *attnBackTask) head(w *worker, b, h, kv int) {
	for i := 0; t.tiled && i < t.Tq; i += tileQ {
		t.tile(w, b, h, kv, i, min(i+tileQ, t.Tq))
	}
	for i := 0; !t.tiled && i < t.Tq; i++ {
		t.query(w, b, h, kv, i)
	}
}

// query sets dq of query i of head h and adds its part to dk and dv.
func (t *attnBackTask) query(w *worker, b, h, kv, i int) {
	q, dq := t.row(t.q, b, i, t.Tq, h, t.Hq), t.row(t.dq, b, i, t.Tq, h, t.Hq)
	dy := t.row(t.dy, b, i, t.Tq, h, t.Hq)
	delta := w.dot(dy, t.row(t.y, b, i, t.Tq, h, t.Hq))
	lse := t.lse[(b*t.Hq+h)*t.Tq+i]
	clear(dq)
	for j := range t.keys(i) {
		if !t.sees(b, i, j) {
			continue
		}
		k, v := t.row(t.k, b, j, t.Tk, kv, t.Hkv), t.row(t.v, b, j, t.Tk, kv, t.Hkv)
		p := exp(t.Scale*w.dot(q, k) - lse)
		ds := t.Scale * p * (w.dot(dy, v) - delta)
		w.axpy(t.row(t.dv, b, j, t.Tk, kv, t.Hkv), p, dy)
		w.axpy(dq, ds, k)
		w.axpy(t.row(t.dk, b, j, t.Tk, kv, t.Hkv), ds, q)
	}
}

// want panics unless q, k and v fit the descriptor.
func (m *attn) want(op string, q, k, v tensor.Tensor) {
	want(op, "q", q, tensor.F32, m.B*m.Tq, m.Hq*m.D)
	want(op, "k", k, tensor.F32, m.B*m.Tk, m.Hkv*m.D)
	want(op, "v", v, tensor.F32, m.B*m.Tk, m.Hkv*m.D)
}
