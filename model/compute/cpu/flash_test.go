package cpu

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/splora/splora/model/compute"
	"github.com/splora/splora/model/tensor"
)

// attention is one call with everything it takes; of rows b, the documents are cut in the middle.
type attentionCall struct {
	compute.Attn
	dt          tensor.DType
	q, k, v, dy tensor.Tensor
}

func newAttentionCall(dt tensor.DType, b, t, hq, hkv, d, window int) *attentionCall {
	c := &attentionCall{dt: dt}
	pos, doc := tensor.New(tensor.I32, b, t), tensor.New(tensor.I32, b, t)
	for i := range pos.Int32() {
		half := i % t * 2 / t
		pos.Int32()[i], doc.Int32()[i] = int32(i%t-half*((t+1)/2)), int32(half)
	}
	c.Attn = compute.Attn{B: b, Tq: t, Tk: t, Hq: hq, Hkv: hkv, D: d, Scale: 0.3, Window: window, QPos: pos, KPos: pos, QDoc: doc, KDoc: doc}
	r := rand.New(rand.NewPCG(8, uint64(t)))
	for _, x := range []*tensor.Tensor{&c.q, &c.dy} {
		*x = normal(r, dt, b*t, hq*d)
	}
	c.k, c.v = normal(r, dt, b*t, hkv*d), normal(r, dt, b*t, hkv*d)
	return c
}

func normal(r *rand.Rand, dt tensor.DType, rows, cols int) tensor.Tensor {
	t, v := tensor.New(dt, rows, cols), make([]float32, rows*cols)
	for i := range v {
		v[i] = float32(r.NormFloat64())
	}
	narrow(t, 0, v)
	return t
}

// on gives y, lse, dq, dk and dv of backend b.
func (c attentionCall) on(b *Backend) []tensor.Tensor {
	like := func(t tensor.Tensor) tensor.Tensor { return tensor.New(c.dt, t.Rows, t.Cols) }
	y, lse, dq, dk, dv := like(c.q), tensor.New(tensor.F32, c.B*c.Hq, c.Tq), like(c.q), like(c.k), like(c.v)
	b.Attention(y, lse, c.q, c.k, c.v, c.Attn)
	b.AttentionBackward(dq, dk, dv, c.dy, y, lse, c.q, c.k, c.v, c.Attn)
	return []tensor.Tensor{y, lse, dq, dk, dv}
}

// distance is ‖a−b‖₂/‖b‖₂.
func distance(a, b tensor.Tensor) float64 {
	var d, n float64
	u, v := make([]float32, a.Len()), make([]float32, b.Len())
	widen(u, a, 0)
	widen(v, b, 0)
	for i := range u {
		d += float64(u[i]-v[i]) * float64(u[i]-v[i])
		n += float64(v[i]) * float64(v[i])
	}
	return math.Sqrt(d / n)
}

func TestAttentionOverManyBlocksIsThatQueryByQueryOnAnyNumberOfThreads(t *testing.T) {
	loops := New(Config{ISA: "go", Threads: 2})
	defer loops.Close()
	names := []string{"y", "lse", "dq", "dk", "dv"}
	for _, s := range [][6]int{{1, 290, 2, 1, 8, 0}, {1, 211, 1, 1, 16, 100}, {3, 103, 6, 6, 4, 0}} {
		for _, dt := range []tensor.DType{tensor.F32, tensor.BF16} {
			c := newAttentionCall(dt, s[0], s[1], s[2], s[3], s[4], s[5])
			want, tol := c.on(loops), map[tensor.DType]float64{tensor.F32: 3e-6, tensor.BF16: 5e-3}[dt]
			for _, isa := range ISAs()[:len(ISAs())-1] {
				var first []tensor.Tensor
				for _, threads := range []int{1, 2, 5} {
					b := New(Config{ISA: isa, Threads: threads})
					got := c.on(b)
					b.Close()
					if first == nil {
						first = got
					}
					for i := range got {
						what := fmt.Sprintf("%v %s %s with %d threads: %s", s, dt, isa, threads, names[i])
						if d := distance(got[i], want[i]); !(d <= tol) {
							t.Errorf("%s: distance %.2g of the loops'", what, d)
						}
						if !bytes.Equal(got[i].Mem.Host, first[i].Mem.Host) {
							t.Errorf("%s differs from that of one thread", what)
						}
					}
				}
			}
		}
	}
}

func TestABackwardWithOneHeadIsCutIntoAsManyPiecesAsItHasBlocks(t *testing.T) {
	b := New(Config{ISA: ISAs()[0], Threads: 1})
	defer b.Close()
	if b.kern.Name == "go" {
		t.Skip("this machine has no vector kernels")
	}
	c := newAttentionCall(tensor.F32, 1, 4*tileQ, 1, 1, 16, 0)
	c.on(b)
	if f := &b.tasks.flashBack; f.heads*f.blocks() != 4 {
		t.Errorf("%d pieces a turn, want 4", f.heads*f.blocks())
	}
}
