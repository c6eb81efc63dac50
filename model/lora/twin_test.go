package lora

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/splora/splora/model/compute"
	"github.com/splora/splora/model/compute/cpu"
	"github.com/splora/splora/model/sparse"
	"github.com/splora/splora/model/tensor"
)

// matrix is a float64 matrix: the slow twin of a tensor.
type matrix struct {
	rows, cols int
	v          []float64
}

func zeros(rows, cols int) matrix { return matrix{rows, cols, make([]float64, rows*cols)} }

func (m matrix) at(i, j int) *float64 { return &m.v[i*m.cols+j] }

// random gives numbers that float32 holds.
func random(r *rand.Rand, rows, cols int) matrix {
	m := zeros(rows, cols)
	for i := range m.v {
		m.v[i] = float64(float32(r.NormFloat64()))
	}
	return m
}

func (m matrix) tensor() tensor.Tensor {
	t := tensor.New(tensor.F32, m.rows, m.cols)
	for i, v := range m.v {
		t.Float32()[i] = float32(v)
	}
	return t
}

// times is a·bᵀ.
func times(a, b matrix) matrix {
	c := zeros(a.rows, b.rows)
	for i := range a.rows {
		for j := range b.rows {
			for k := range a.cols {
				*c.at(i, j) += *a.at(i, k) * *b.at(j, k)
			}
		}
	}
	return c
}

func (m matrix) t() matrix {
	c := zeros(m.cols, m.rows)
	for i := range m.rows {
		for j := range m.cols {
			*c.at(j, i) = *m.at(i, j)
		}
	}
	return c
}

// twin is a linear in float64, by the definition alone.
type twin struct {
	w, mask, a, b, bias matrix // bias [1,out]
	drop                matrix // what x is multiplied by on plain LoRA's path; no rows: nothing
	s                   float64
	method              Method
}

func (t *twin) forward(x matrix) matrix {
	ba, w := times(t.b, t.a.t()), zeros(t.w.rows, t.w.cols)
	for i := range w.v {
		w.v[i] = t.w.v[i] // pruned positions hold 0
		if t.method == SPLoRA {
			w.v[i] = t.mask.v[i] * (t.w.v[i] + t.s*ba.v[i])
		}
	}
	y := times(x, w)
	if t.method == LoRA {
		d := x
		if t.drop.rows > 0 {
			d = zeros(x.rows, x.cols)
			for i := range d.v {
				d.v[i] = x.v[i] * t.drop.v[i]
			}
		}
		for i, v := range times(d, ba).v {
			y.v[i] += t.s * v
		}
	}
	for i := range y.v {
		y.v[i] += t.bias.v[i%y.cols]
	}
	return y
}

// differences is the gradient of Σ dy ⊙ forward(x) with respect to p, by central differences.
func (t *twin) differences(p, x, dy matrix) matrix {
	g := zeros(p.rows, p.cols)
	loss := func() (s float64) {
		for i, v := range t.forward(x).v {
			s += v * dy.v[i]
		}
		return s
	}
	for i, v := range p.v {
		const h = 1e-4
		p.v[i] = v + h
		up := loss()
		p.v[i] = v - h
		g.v[i] = (up - loss()) / (2 * h)
		p.v[i] = v
	}
	return g
}

// layer is a Linear and its twin: [13, 22], rank 3, half of the weights kept, one kept weight 0.
func layer(t testing.TB, r *rand.Rand, method Method) (Linear, *twin) {
	t.Helper()
	const out, in, rank, s = 13, 22, 3, 1.75
	w, mask := random(r, out, in), zeros(out, in)
	bits := make([]uint64, out*sparse.Words(in))
	for i := range out {
		for j := range in {
			if r.IntN(2) == 0 || i == 0 && j == 0 {
				*mask.at(i, j) = 1
				bits[i*sparse.Words(in)+j/64] |= 1 << (j % 64)
			} else {
				*w.at(i, j) = 0
			}
		}
	}
	*w.at(0, 0) = 0
	packed, err := sparse.Pack(w.tensor(), bits, sparse.Pattern{})
	if err != nil {
		t.Fatal(err)
	}
	tw := &twin{w: w, mask: mask, a: random(r, rank, in), b: random(r, out, rank), bias: random(r, 1, out), s: s, method: method}
	l := Linear{Name: "test", W: packed, Bias: tw.bias.tensor(), Method: method, Scale: s,
		A: tw.a.tensor(), B: tw.b.tensor(), DA: tensor.New(tensor.F32, rank, in), DB: tensor.New(tensor.F32, out, rank)}
	return l, tw
}

func device(t testing.TB) compute.Device {
	be := cpu.New(cpu.Config{Threads: 2})
	t.Cleanup(func() { be.Close() })
	const slot, stack = 1 << 16, 1 << 20
	return compute.Device{Backend: be, Workspace: &compute.Workspace{
		Weight: compute.NewSlot(be.Alloc(slot), slot), Acts: compute.NewStack(be.Alloc(stack), stack)}}
}

// near checks ‖got − want‖₂ ≤ tol·‖want‖₂.
func near(t testing.TB, what string, got tensor.Tensor, want matrix, tol float64) {
	t.Helper()
	if got.Rows != want.rows || got.Cols != want.cols {
		t.Fatalf("%s is %s, want [%d,%d]", what, got, want.rows, want.cols)
	}
	var d, n float64
	for i, v := range got.Float32() {
		d += (float64(v) - want.v[i]) * (float64(v) - want.v[i])
		n += want.v[i] * want.v[i]
	}
	if e := math.Sqrt(d / n); !(e <= tol) {
		t.Errorf("%s: relative error %.1e, want at most %.1e", what, e, tol)
	}
}

// names makes n shapes of different sizes.
func names(n int) []Shape {
	var s []Shape
	for i := range n {
		s = append(s, Shape{Name: fmt.Sprintf("model.layers.%d.self_attn.q_proj", i), Out: 5 + i, In: 7 + 2*i})
	}
	return s
}
