package computetest

import (
	"fmt"
	"math"

	"github.com/splora/splora/model/compute"
	"github.com/splora/splora/model/tensor"
)

// layout says how positions and documents of a case lie.
type layout int

const (
	plain  layout = iota // one document, positions 0, 1, …
	packed               // several documents in a row, positions begin anew
	padded               // the last tokens are padding, and one in the middle
	unseen               // the keys belong to another document: no query sees any
	blank                // everything is padding
	stuck                // every position is 0: only the order hides
)

// attnCase is one shape of attention.
type attnCase struct {
	b, tq, tk, hq, hkv, d, window int
	layout                        layout
}

// attnSmall are checked by differences, attnShapes by the formulas that the differences have confirmed.
var attnSmall = []attnCase{
	{2, 5, 5, 2, 1, 4, 0, plain}, {1, 6, 6, 4, 2, 6, 0, packed}, {2, 7, 7, 2, 2, 4, 3, plain}, {1, 3, 7, 2, 1, 4, 0, plain},
	{2, 6, 6, 2, 2, 2, 0, padded}, {1, 4, 4, 2, 1, 4, 0, unseen}, {1, 2, 7, 2, 1, 4, 3, packed}, {1, 1, 1, 1, 1, 2, 0, plain},
}

var attnShapes = []attnCase{
	{2, 67, 67, 2, 1, 16, 0, plain}, {1, 101, 101, 2, 1, 32, 0, packed}, {1, 130, 130, 1, 1, 8, 17, plain}, {1, 110, 110, 2, 2, 8, 40, packed},
	{2, 13, 97, 4, 1, 24, 0, plain}, {1, 1, 130, 4, 2, 32, 0, plain}, {3, 1, 77, 2, 2, 8, 20, plain}, {2, 70, 70, 2, 1, 16, 0, padded},
	{1, 35, 35, 2, 1, 80, 0, plain}, {1, 36, 36, 3, 1, 128, 0, packed}, {1, 40, 40, 2, 1, 7, 0, plain}, {1, 20, 90, 2, 1, 32, 0, unseen},
	{1, 9, 140, 2, 1, 33, 0, packed}, {1, 130, 130, 1, 1, 8, 129, plain}, {1, 130, 130, 1, 1, 8, 34, plain}, {1, 70, 70, 1, 1, 8, 0, blank},
	{1, 100, 130, 1, 1, 8, 0, stuck}, {1, 5, 400, 1, 1, 8, 0, plain},
	{3, 40, 40, 4, 2, 16, 0, packed}, {9, 8, 8, 2, 2, 4, 0, plain}, {1, 260, 260, 2, 1, 20, 0, packed}, {1, 257, 257, 1, 1, 33, 130, padded},
}

var attentionCases = []oneCase{
	{"Attention is the softmax of what a query may see", func(e *env) {
		for _, c := range append(attnSmall, attnShapes...) {
			a := e.attention(c)
			y, lse, _, _, _ := a.run(e)
			wantY, wantL := a.forward64()
			e.near(fmt.Sprintf("%+v y", c), y, wantY, max(rounding, e.unit()))
			e.near(fmt.Sprintf("%+v lse", c), lse, wantL, rounding)
		}
	}},
	{"AttentionBackward is the gradient of Attention", func(e *env) {
		for _, c := range attnSmall {
			a := e.attention(c)
			loss := func() float64 {
				y, _ := a.forward64()
				return inner(y, a.dy)
			}
			dq, dk, dv := differences(a.q, loss), differences(a.k, loss), differences(a.v, loss)
			_, _, gq, gk, gv := a.run(e)
			e.gradient(fmt.Sprintf("%+v dq", c), gq, dq)
			e.gradient(fmt.Sprintf("%+v dk", c), gk, dk)
			e.gradient(fmt.Sprintf("%+v dv", c), gv, dv)
		}
	}},
	{"AttentionBackward over many tiles", func(e *env) {
		for _, c := range attnShapes {
			a := e.attention(c)
			y, _, gq, gk, gv := a.run(e)
			dq, dk, dv := a.backward64(wide(e.down("y", y)))
			tol := max(2*rounding, e.unit()) // probabilities and their gradient may be rounded, too
			e.near(fmt.Sprintf("%+v dq", c), gq, dq, tol)
			e.near(fmt.Sprintf("%+v dk", c), gk, dk, tol)
			e.near(fmt.Sprintf("%+v dv", c), gv, dv, tol)
		}
	}},
	{"Attention's written gradient agrees with differences", func(e *env) {
		for _, c := range attnSmall {
			a := e.attention(c)
			loss := func() float64 {
				y, _ := a.forward64()
				return inner(y, a.dy)
			}
			y, _ := a.forward64()
			dq, dk, dv := a.backward64(y)
			for i, pair := range [][2][]float64{{dq, differences(a.q, loss)}, {dk, differences(a.k, loss)}, {dv, differences(a.v, loss)}} {
				for j, w := range pair[1] {
					if !(math.Abs(pair[0][j]-w) <= 1e-8) {
						e.Fatalf("%+v gradient %d element %d: %v and %v", c, i, j, pair[0][j], w)
					}
				}
			}
			e.record = append(e.record, result{what: "none"})
		}
	}},
	{"Attention keeps NaN of a visible key, and ignores that of an invisible one", func(e *env) {
		for _, tk := range []int{9, 110} {
			a := e.attention(attnCase{1, tk, tk, 2, 1, 32, 0, plain})
			bad := tk / 2
			for i := range a.d {
				a.k[bad*a.d+i], a.v[bad*a.d+i] = math.NaN(), math.Inf(1)
			}
			y, _, dq, _, _ := a.run(e)
			gotY, gotQ := e.down("y", y), e.down("dq", dq)
			for i := range gotY {
				if row := i / (a.hq * a.d); finite(gotY[i]) != (row < bad) || finite(gotQ[i]) != (row < bad) {
					e.Fatalf("tk %d query %d: y %v dq %v", tk, row, gotY[i], gotQ[i])
				}
			}
		}
	}},
	{"Attention of very large scores does not overflow", func(e *env) {
		a := e.attention(attnCase{1, 100, 100, 2, 2, 16, 0, plain})
		for i := range a.q {
			a.q[i] = math.Round(a.q[i] * 40) // whole numbers: the float32 scores are exact
			a.k[i] = math.Round(a.k[i] * 40)
		}
		a.scale = 0.125
		y, lse, _, _, _ := a.run(e)
		wantY, wantL := a.forward64()
		e.near("y", y, wantY, max(rounding, e.unit()))
		e.near("lse", lse, wantL, rounding)
	}},
}

// gradient compares with differences, whose own error is about 1e-10 per element. In BF16 the y that the backward gets is rounded, too.
func (e *env) gradient(what string, got tensor.Tensor, want []float64) {
	e.Helper()
	var d, n float64
	for i, g := range e.down(what, got) {
		d += (float64(g) - want[i]) * (float64(g) - want[i])
		n += want[i] * want[i]
	}
	if !(math.Sqrt(d) <= max(2*rounding, 3*e.unit())*math.Sqrt(n)+1e-8) {
		e.Errorf("%s: error %.3g of %.3g", what, math.Sqrt(d), math.Sqrt(n))
	}
}

// attention64 is a case with its numbers; they are float32 numbers, kept in float64.
type attention64 struct {
	attnCase
	scale                  float64
	q, k, v, dy            []float64
	qpos, kpos, qdoc, kdoc []int32
}

func (e *env) attention(c attnCase) *attention64 {
	a := &attention64{attnCase: c, scale: float64(float32(1.3 / math.Sqrt(float64(c.d))))}
	a.q, a.dy = wide(e.acts(c.b*c.tq*c.hq*c.d)), wide(e.acts(c.b*c.tq*c.hq*c.d))
	a.k, a.v = wide(e.acts(c.b*c.tk*c.hkv*c.d)), wide(e.acts(c.b*c.tk*c.hkv*c.d))
	a.kpos, a.kdoc = make([]int32, c.b*c.tk), make([]int32, c.b*c.tk)
	for b := range c.b {
		a.lay(e, a.kpos[b*c.tk:(b+1)*c.tk], a.kdoc[b*c.tk:(b+1)*c.tk])
	}
	for b := range c.b { // the queries are the last tq of the keys
		a.qpos = append(a.qpos, a.kpos[(b+1)*c.tk-c.tq:(b+1)*c.tk]...)
		a.qdoc = append(a.qdoc, a.kdoc[(b+1)*c.tk-c.tq:(b+1)*c.tk]...)
	}
	if c.layout == unseen {
		for i := range a.qdoc {
			a.qdoc[i]++
		}
	}
	return a
}

// lay sets the positions and documents of one row of keys.
func (a *attention64) lay(e *env, pos, doc []int32) {
	for j := range pos {
		pos[j] = int32(j)
		switch a.layout {
		case blank:
			doc[j] = -1
		case stuck:
			pos[j] = 0
		case packed:
			if j > 0 {
				pos[j], doc[j] = pos[j-1]+1, doc[j-1]
				if e.rng.IntN(len(pos)/3+1) == 0 {
					pos[j], doc[j] = 0, doc[j]+1
				}
			}
		case padded:
			if j > len(pos)*3/4 || j == len(pos)/3 {
				doc[j] = -1
			}
		}
	}
}

func (a *attention64) sees(b, i, j int) bool {
	q, k := b*a.tq+i, b*a.tk+j
	d := int(a.qpos[q] - a.kpos[k])
	return j <= a.tk-a.tq+i && a.kdoc[k] == a.qdoc[q] && a.qdoc[q] >= 0 && d >= 0 && (a.window == 0 || d < a.window)
}

// weights is row i of the softmax, by definition, and its lse.
func (a *attention64) weights(b, h, i int) (p []float64, lse float64) {
	p = make([]float64, a.tk)
	most := math.Inf(-1)
	for j := range p {
		p[j] = math.Inf(-1)
		if a.sees(b, i, j) {
			p[j] = a.scale * inner(a.qAt(a.q, b, h, i), a.kAt(a.k, b, h, j))
			most = math.Max(most, p[j])
		}
	}
	var sum float64
	for j := range p {
		if a.sees(b, i, j) {
			p[j] = math.Exp(p[j] - most)
			sum += p[j]
		} else {
			p[j] = 0
		}
	}
	for j := range p {
		if sum != 0 {
			p[j] /= sum
		}
	}
	return p, most + math.Log(sum)
}

func (a *attention64) qAt(x []float64, b, h, i int) []float64 {
	at := ((b*a.tq+i)*a.hq + h) * a.d
	return x[at : at+a.d]
}

func (a *attention64) kAt(x []float64, b, h, j int) []float64 {
	at := ((b*a.tk+j)*a.hkv + h*a.hkv/a.hq) * a.d
	return x[at : at+a.d]
}

func (a *attention64) forward64() (y, lse []float64) {
	y, lse = make([]float64, len(a.q)), make([]float64, a.b*a.hq*a.tq)
	a.each(func(b, h, i int) {
		p, l := a.weights(b, h, i)
		lse[(b*a.hq+h)*a.tq+i] = l
		for j, w := range p {
			if w != 0 {
				add64(a.qAt(y, b, h, i), w, a.kAt(a.v, b, h, j))
			}
		}
	})
	return y, lse
}

// backward64 writes out the softmax's Jacobian: ds_j = p_j·(dp_j − Σ p·dp), dp_j = dy·v_j, Σ p·dp = dy·y.
func (a *attention64) backward64(y []float64) (dq, dk, dv []float64) {
	dq, dk, dv = make([]float64, len(a.q)), make([]float64, len(a.k)), make([]float64, len(a.v))
	a.each(func(b, h, i int) {
		p, _ := a.weights(b, h, i)
		dy, dp := a.qAt(a.dy, b, h, i), make([]float64, a.tk)
		for j := range p {
			dp[j] = inner(dy, a.kAt(a.v, b, h, j))
		}
		mean := inner(dy, a.qAt(y, b, h, i))
		for j, w := range p {
			ds := a.scale * w * (dp[j] - mean)
			add64(a.kAt(dv, b, h, j), w, dy)
			add64(a.qAt(dq, b, h, i), ds, a.kAt(a.k, b, h, j))
			add64(a.kAt(dk, b, h, j), ds, a.qAt(a.q, b, h, i))
		}
	})
	return dq, dk, dv
}

func (a *attention64) each(f func(b, h, i int)) {
	for b := range a.b {
		for h := range a.hq {
			for i := range a.tq {
				f(b, h, i)
			}
		}
	}
}

func add64(y []float64, s float64, x []float64) {
	for i, v := range x {
		y[i] += s * v
	}
}

// run computes forward and backward on the backend.
func (a *attention64) run(e *env) (y, lse, dq, dk, dv tensor.Tensor) {
	nq, nk, cq, ck := a.b*a.tq, a.b*a.tk, a.hq*a.d, a.hkv*a.d
	q, k, v, dy := e.act(narrow(a.q), nq, cq), e.act(narrow(a.k), nk, ck), e.act(narrow(a.v), nk, ck), e.act(narrow(a.dy), nq, cq)
	m := compute.Attn{B: a.b, Tq: a.tq, Tk: a.tk, Hq: a.hq, Hkv: a.hkv, D: a.d, Scale: float32(a.scale), Window: a.window,
		QPos: e.i32(a.qpos).Reshape(a.b, a.tq), KPos: e.i32(a.kpos).Reshape(a.b, a.tk),
		QDoc: e.i32(a.qdoc).Reshape(a.b, a.tq), KDoc: e.i32(a.kdoc).Reshape(a.b, a.tk)}
	y, lse = e.unset(nq, cq), e.nans(a.b*a.hq, a.tq)
	e.b.Attention(y, lse, q, k, v, m)
	dq, dk, dv = e.unset(nq, cq), e.unset(nk, ck), e.unset(nk, ck)
	e.b.AttentionBackward(dq, dk, dv, dy, y, lse, q, k, v, m)
	return y, lse, dq, dk, dv
}

func narrow(v []float64) []float32 {
	w := make([]float32, len(v))
	for i, x := range v {
		w[i] = float32(x)
	}
	return w
}
