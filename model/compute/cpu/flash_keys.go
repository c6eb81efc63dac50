package cpu

import (
	"math"

	"github.com/splora/splora/model/compute/cpu/internal/simd"
	"github.com/splora/splora/model/tensor"
)

// Float32 attention holds a block of scores key by key, Sᵀ [keys][tileQ]. All its products then read an operand of the kernels where it
// stands, and nothing of the size of the scores is packed:
//
//	Sᵀ = scale·K·Qᵀ     rows of K, Qᵀ in panels          Y  += P·V       columns: Pᵀ as it is, runs of V
//	dPᵀ = V·dYᵀ         rows of V, dYᵀ in panels         dQ += dS·K      columns: dSᵀ as it is, runs of K
//	dV += Pᵀ·dY, dK += dSᵀ·Q     rows of Pᵀ and dSᵀ
//
// What is one number for each query (maximum, lse, δ) is a vector along a row. Forward, a tile of queries takes blocks of keys one after the
// other, with a running maximum (Milakov & Gimelshein 2018; Dao et al. 2022).
const blockKeys = 2 * tileQ // forward

// corner says which part of a block counts by the order alone: query i, of rows, is ahead of the keys from i + shift + 1 on.
type corner struct{ rows, keys, shift int }

// cornerOf is that of queries from i0 on and keys from j0 on.
func (m *attn) cornerOf(i0, rows, j0, keys int) corner {
	return corner{rows, keys, m.Tk - m.Tq + i0 - j0}
}

// from is the first query that key j may be visible to; to is the end of the keys that may be visible to query i.
func (c corner) from(j int) int { return min(max(j-c.shift, 0), c.rows) }
func (c corner) to(i int) int   { return min(max(i+c.shift+1, 0), c.keys) }

// keyScratch is a worker's: rows of K and V side by side, operands in panels, and a number for each query.
type keyScratch struct {
	s, ds, k, v                  [](float32)
	qCols, dyCols, qRows, dyRows []float32 // Qᵀ and dYᵀ; Q and dY
	max, before, sum, lse        [tileQ]float32
}

// byKeys reports whether attention of float32 goes this way.
func (m *attn) byKeys(k *simd.Kernels, dt tensor.DType) bool {
	return dt == tensor.F32 && k.Rows[0][0] != nil && m.D%k.Lanes == 0 && m.D <= blockK
}

// padded is the number of rows of a block that kernels may touch.
func padded(k *simd.Kernels, keys int) int { return roundUp(keys, k.MR) }

// keyRows is rows [j, j+n) of x, a key/value head's, and how far apart they are: where they stand, or, where the kernels would read
// a few more, copied into *buf.
func (m *attn) keyRows(w *worker, buf *[]float32, x act, b, kv, j, n int) (rows []float32, ld int) {
	if n%w.RowStep == 0 {
		return x.f[m.place(b, j, m.Tk, kv, m.Hkv):], m.Hkv * m.D
	}
	dst := sized(buf, padded(w.Kernels, n)*m.D)
	for i := range n {
		copy(dst[i*m.D:(i+1)*m.D], x.f[m.place(b, j+i, m.Tk, kv, m.Hkv):])
	}
	return dst, m.D
}

// panels packs all panels of s, kc inner elements.
func (w *worker) panels(buf *[]float32, s side, kc int) []float32 {
	dst := sized(buf, roundUp(s.rows, s.width)*kc)
	p := packTask{kern: w.Kernels, kc: kc}
	for q := 0; q*s.width < s.rows; q++ {
		p.panel(w, s, dst, 0, s.rows, q)
	}
	return dst
}

// queryCols is xᵀ of some queries in panels, queryRows x itself; x begins with the first of them.
func (m *attn) queryCols(w *worker, buf *[]float32, x tensor.Tensor, n int) []float32 {
	return w.panels(buf, side{t: x, rows: n, width: w.NR}, m.D)
}

func (m *attn) queryRows(w *worker, buf *[]float32, x tensor.Tensor, n int) []float32 {
	return w.panels(buf, side{t: x, along: true, rows: m.D, width: w.NR}, n)
}

// scoresOf sets s [keys][tileQ] = α·k·qᵀ, from each key's first query on, or before.
func (w *worker) scoresOf(s, k []float32, ldk int, q []float32, c corner, d int, alpha float32) {
	f := w.Kernels
	for j := 0; j < c.keys; j += f.MR {
		rows := min(f.MR, c.keys-j)
		for i := c.from(j) / f.NR * f.NR; i < c.rows; i += f.NR {
			w.work.Tiles++
			f.Rows[(rows-1)/f.RowStep][(min(f.NR, c.rows-i)-1)/f.Lanes](d, &k[j*ldk], ldk, &q[i*d], &s[j*tileQ+i], tileQ, alpha, 0)
		}
	}
}

// addToKeys adds s·x to rows of y, ld apart; s [keys][tileQ] is 0 before each key's first query, x are queries in panels.
func (w *worker) addToKeys(y []float32, ld int, s, x []float32, c corner, d int) {
	f := w.Kernels
	for j := 0; j < c.keys; j += f.MR {
		rows, from := min(f.MR, c.keys-j), c.from(j)
		for e := 0; e < d && from < c.rows; e += f.NR {
			cols := min(f.NR, d-e)
			w.work.Tiles++
			p, pd := w.edgeOf(f, y[j*ld+e:], ld, rows, cols, rows%f.RowStep == 0, 1)
			f.Rows[(rows-1)/f.RowStep][(cols-1)/f.Lanes](c.rows-from, &s[j*tileQ+from], tileQ, &x[e*c.rows+from*f.NR], p, pd, 1, 1)
			w.fromEdge(f, y[j*ld+e:], ld, rows, cols, p)
		}
	}
}

// addToQueries adds sᵀ·x to rows of y, ld apart, x [keys][d], rows ldx apart.
func (w *worker) addToQueries(y []float32, ld int, s, x []float32, ldx int, c corner, d int) {
	f := w.Kernels
	for i := 0; i < c.rows; i += f.MR {
		rows := min(f.MR, c.rows-i)
		keys := c.to(i + rows - 1)
		for e := 0; e < d && keys > 0; e += f.NR {
			cols := min(f.NR, d-e)
			w.work.Tiles++
			p, pd := w.edgeOf(f, y[i*ld+e:], ld, rows, cols, rows%f.RowStep == 0, 1)
			f.Columns[(rows-1)/f.RowStep][(cols-1)/f.Lanes](keys, &s[i], tileQ, &x[e], ldx, p, pd, 1, 1)
			w.fromEdge(f, y[i*ld+e:], ld, rows, cols, p)
		}
	}
}

// hideKey sets to −∞ the scores of key j of row b with queries from i on that do not see it; s begins with query i.
func (m *attn) hideKey(w *worker, s []float32, b, i, j int) {
	q, k := b*m.Tq+i, b*m.Tk+j
	if m.kdoc[k] < 0 {
		for c := range s {
			s[c] = float32(math.Inf(-1))
		}
		return
	}
	window := int32(math.MaxInt32)
	if m.Window > 0 {
		window = int32(min(m.Window, math.MaxInt32))
	}
	w.HideFrom(len(s), &s[0], &m.qpos[q], &m.qdoc[q], m.kpos[k], m.kdoc[k], window)
}

// queries computes queries [i0, i1) of head h.
func (t *attnTask) queries(w *worker, b, h, i0, i1 int) {
	rows, kv, x := i1-i0, h*t.Hkv/t.Hq, &w.keys
	y, ld := t.y.f[t.place(b, i0, t.Tq, h, t.Hq):], t.Hq*t.D
	for i := range rows {
		clear(y[i*ld:][:t.D])
		x.max[i], x.sum[i] = float32(math.Inf(-1)), 0
	}
	q := t.queryCols(w, &x.qCols, t.from(t.qt, b, i0, t.Tq, h, t.Hq), rows)
	for j0, end := 0, t.keys(i1-1); j0 < end; j0 += blockKeys {
		j1 := min(j0+blockKeys, end)
		mixed, some := t.visible(b, i0, i1, j0, &j1)
		if !some {
			continue
		}
		c := t.cornerOf(i0, rows, j0, j1-j0)
		s := sized(&x.s, padded(w.Kernels, c.keys)*tileQ)
		k, ldk := t.keyRows(w, &x.k, t.k, b, kv, j0, c.keys)
		v, ldv := t.keyRows(w, &x.v, t.v, b, kv, j0, c.keys)
		w.scoresOf(s, k, ldk, q, c, t.D, t.Scale)
		t.weigh(w, s, c, b, i0, j0, mixed)
		for i, f := range x.before[:rows] {
			if f != 1 {
				w.scale(y[i*ld:][:t.D], f)
			}
		}
		w.addToQueries(y, ld, s, v, ldv, c, t.D)
	}
	for i := range rows {
		lse := &t.lse[(b*t.Hq+h)*t.Tq+i0+i]
		if *lse = float32(math.Inf(-1)); x.sum[i] != 0 {
			w.scale(y[i*ld:][:t.D], 1/x.sum[i])
			*lse = x.max[i] + float32(math.Log(float64(x.sum[i])))
		}
	}
}

// weigh sets s to exp(s − max), the maximum being that of all keys so far, and takes the sums along; before is what the weights of the keys
// before are to be multiplied by.
func (t *attnTask) weigh(w *worker, s []float32, c corner, b, i0, j0 int, mixed bool) {
	x := &w.keys
	x.before = x.max
	for j := range c.keys {
		from := c.from(j)
		row := s[j*tileQ+from : j*tileQ+c.rows]
		if len(row) == 0 {
			continue
		}
		if mixed {
			t.hideKey(w, row, b, i0+from, j0+j)
		}
		w.MaxOf(len(row), &x.max[from], &row[0])
	}
	for i, m := range x.max[:c.rows] {
		x.lse[i] = max(m, -math.MaxFloat32) // of a query that sees nothing yet: its weights are exp(−∞) = 0
	}
	w.ExpOf(c.rows, &x.before[0], &x.lse[0])
	for i, f := range x.before[:c.rows] {
		x.sum[i] *= f
	}
	for j := range c.keys {
		from := c.from(j)
		clear(s[j*tileQ : j*tileQ+from])
		if n := c.rows - from; n > 0 {
			w.ExpAdd(n, &s[j*tileQ+from], &x.lse[from], &x.sum[from])
		}
	}
}

// pairByKeys is pair for float32.
func (t *flashBackTask) pairByKeys(w *worker, n, i0, i1, j0, j1 int) {
	b, kv := t.head(n)
	mixed, some := t.visible(b, i0, i1, j0, &j1)
	if !some {
		return
	}
	dk, dv := t.key(n)
	x, c := &w.keys, t.cornerOf(i0, i1-i0, j0, j1-j0)
	k, ldk := t.keyRows(w, &x.k, t.k, b, kv, j0, c.keys)
	v, ldv := t.keyRows(w, &x.v, t.v, b, kv, j0, c.keys)
	size := padded(w.Kernels, c.keys) * tileQ
	p, ds := sized(&x.s, size), sized(&x.ds, size)
	for g := range t.group() {
		h := kv*t.group() + g
		q, dy, dq := t.from(t.qt, b, i0, t.Tq, h, t.Hq), t.from(t.dyt, b, i0, t.Tq, h, t.Hq), t.query(n, g)
		w.scoresOf(p, k, ldk, t.queryCols(w, &x.qCols, q, c.rows), c, t.D, t.Scale)
		w.scoresOf(ds, v, ldv, t.queryCols(w, &x.dyCols, dy, c.rows), c, t.D, 1)
		t.weighBack(w, p, ds, c, b, h, i0, j0, mixed)
		w.addToQueries(dq.v[i0*dq.ld:], dq.ld, ds, k, ldk, c, t.D)
		w.addToKeys(dk.v[j0*dk.ld:], dk.ld, ds, t.queryRows(w, &x.qRows, q, c.rows), c, t.D)
		w.addToKeys(dv.v[j0*dv.ld:], dv.ld, p, t.queryRows(w, &x.dyRows, dy, c.rows), c, t.D)
	}
}

// weighBack sets p = exp(s − lse), 0 where hidden, and ds = scale·p ⊙ (dp − δ), in place of s and dp.
func (t *flashBackTask) weighBack(w *worker, s, ds []float32, c corner, b, h, i0, j0 int, mixed bool) {
	x, at := &w.keys, (b*t.Hq+h)*t.Tq+i0
	for i := range c.rows {
		if x.lse[i] = t.lse[at+i]; math.IsInf(float64(x.lse[i]), -1) && t.blind(b, i0+i) {
			x.lse[i] = float32(math.Inf(1))
		}
	}
	for j := range c.keys {
		from, n := c.from(j), c.rows-c.from(j)
		p, d := s[j*tileQ:][:c.rows], ds[j*tileQ:][:c.rows]
		clear(p[:from])
		clear(d[:from])
		if n == 0 {
			continue
		}
		if mixed {
			t.hideKey(w, p[from:], b, i0+from, j0+j)
		}
		w.ExpOf(n, &p[from], &x.lse[from])
		w.SoftmaxBackOf(n, &d[from], &p[from], &t.delta[at+from], t.Scale)
	}
}
