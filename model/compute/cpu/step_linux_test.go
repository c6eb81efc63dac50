package cpu

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/splora/splora/model/compute"
	"github.com/splora/splora/model/tensor"
)

// shape is a model's: one block and the head's loss, one micro-batch of T tokens.
type shape struct{ T, C, F, Hq, Hkv, D, V, R int }

// stepTimes times one training step's operations by kind, and keeps each kind's best step: a busy neighbour empties the caches.
type stepTimes struct {
	*Backend
	spent, best map[string]time.Duration
	kinds       []string
}

func newStepTimes(isa string) *stepTimes {
	return &stepTimes{Backend: New(Config{ISA: isa, Threads: 1}), spent: map[string]time.Duration{}, best: map[string]time.Duration{}}
}

// next ends a step.
func (x *stepTimes) next() {
	for k, d := range x.spent {
		if b, ok := x.best[k]; !ok || d < b {
			x.best[k] = d
		}
	}
	clear(x.spent)
}

func (x *stepTimes) time(kind string, f func()) {
	start := threadTime()
	f()
	if !slices.Contains(x.kinds, kind) {
		x.kinds = append(x.kinds, kind)
	}
	x.spent[kind] += threadTime() - start
}

// linear runs a masked linear's forward twice (recompute) and its backward.
func (x *stepTimes) linear(t, in, out, r int) {
	w := halfKept(out, in)
	a, b := random(tensor.F32, r, in), random(tensor.F32, out, r)
	xs, y, slot := random(tensor.F32, t, in), random(tensor.F32, t, out), random(tensor.F32, out, in)
	da, db := tensor.New(tensor.F32, r, in), tensor.New(tensor.F32, out, r)
	for range 2 {
		x.time("merge", func() { x.Merge(slot, w, b, a, 2) })
		x.time("gemm y", func() { x.Gemm(y, 1, xs, false, slot, true, 0) })
	}
	x.time("merge", func() { x.Merge(slot, w, b, a, 2) })
	x.time("gemm dx", func() { x.Gemm(xs, 1, y, false, slot, false, 0) })
	x.time("gemm G", func() { x.Gemm(slot, 1, y, true, xs, false, 0) })
	x.time("mask", func() { x.Mask(slot, w) })
	x.time("gemm dA dB", func() {
		x.Gemm(da, 2, b, true, slot, false, 1)
		x.Gemm(db, 2, slot, false, a, true, 1)
	})
}

func (x *stepTimes) block(s shape) {
	q, kv := s.Hq*s.D, s.Hkv*s.D
	for _, l := range [][2]int{{s.C, q}, {s.C, kv}, {s.C, kv}, {q, s.C}, {s.C, s.F}, {s.C, s.F}, {s.F, s.C}} {
		x.linear(s.T, l[0], l[1], s.R)
	}
	x.attention(s, q, kv)
	h, y, w, rstd := random(tensor.F32, s.T, s.C), random(tensor.F32, s.T, s.C), random(tensor.F32, 1, s.C), random(tensor.F32, 1, s.T)
	x.time("norm", func() {
		for range 4 {
			x.RMSNorm(y, rstd, h, w, 1e-5)
		}
		for range 2 {
			x.RMSNormBackward(y, h, h, w, rstd, 1)
		}
	})
	x.time("add", func() {
		for range 4 {
			x.Add(y, h)
		}
	})
	g, u, dh := random(tensor.F32, s.T, s.F), random(tensor.F32, s.T, s.F), random(tensor.F32, s.T, s.F)
	x.time("gate", func() {
		for range 2 {
			x.Gate(dh, g, u, compute.SiLU)
		}
		x.GateBackward(g, u, dh, g, u, compute.SiLU)
	})
}

func (x *stepTimes) attention(s shape, cq, ckv int) {
	q, y, dy := random(tensor.F32, s.T, cq), random(tensor.F32, s.T, cq), random(tensor.F32, s.T, cq)
	k, v := random(tensor.F32, s.T, ckv), random(tensor.F32, s.T, ckv)
	dq, dk, dv, lse := random(tensor.F32, s.T, cq), random(tensor.F32, s.T, ckv), random(tensor.F32, s.T, ckv), random(tensor.F32, s.Hq, s.T)
	pos, doc := tensor.New(tensor.I32, 1, s.T), tensor.New(tensor.I32, 1, s.T)
	for i := range pos.Int32() {
		pos.Int32()[i] = int32(i)
	}
	m := compute.Attn{B: 1, Tq: s.T, Tk: s.T, Hq: s.Hq, Hkv: s.Hkv, D: s.D, Scale: 0.2, QPos: pos, KPos: pos, QDoc: doc, KDoc: doc}
	x.time("attention", func() {
		x.Attention(y, lse, q, k, v, m)
		x.Attention(y, lse, q, k, v, m)
	})
	x.time("attention bwd", func() { x.AttentionBackward(dq, dk, dv, dy, y, lse, q, k, v, m) })
	cos, sin := random(tensor.F32, s.T, s.D/2), random(tensor.F32, s.T, s.D/2)
	x.time("rope", func() {
		for range 3 {
			x.Rope(q, cos, sin, pos, s.Hq, 1)
			x.Rope(k, cos, sin, pos, s.Hkv, 1)
		}
	})
}

func (x *stepTimes) head(s shape) {
	h, table, logits, loss := random(tensor.F32, s.T, s.C), random(tensor.BF16, s.V, s.C), random(tensor.F32, s.T, s.V), tensor.New(tensor.F32, 1, s.T)
	target := tensor.New(tensor.I32, 1, s.T)
	x.time("gemm head", func() { x.Gemm(logits, 1, h, false, table, true, 0) })
	x.time("loss", func() { x.CrossEntropy(loss, logits, target, true) })
	x.time("gemm head", func() { x.Gemm(h, 1, logits, false, table, false, 0) })
}

// BenchmarkStep shows where the time of a training step goes: one block and the head.
func BenchmarkStep(b *testing.B) {
	for _, s := range []shape{{512, 256, 704, 8, 4, 32, 4096, 16}, {512, 2048, 5632, 32, 4, 64, 8192, 16}} {
		for _, isa := range ISAs()[:len(ISAs())-1] {
			b.Run(fmt.Sprintf("%s/C%d", isa, s.C), func(b *testing.B) {
				x := newStepTimes(isa)
				defer x.Close()
				runtime.LockOSThread()
				defer runtime.UnlockOSThread()
				for range b.N {
					x.block(s)
					x.head(s)
					x.next()
				}
				x.print()
			})
		}
	}
}

func (x *stepTimes) print() {
	var all time.Duration
	for _, d := range x.best {
		all += d
	}
	w := tabwriter.NewWriter(os.Stderr, 0, 4, 2, ' ', 0)
	for _, k := range x.kinds {
		fmt.Fprintf(w, "\t%s\t%v\t%.1f %%\n", k, x.best[k], 100*float64(x.best[k])/float64(all))
	}
	fmt.Fprintf(w, "\tall\t%v\t\n", all)
	w.Flush()
}

func BenchmarkAttention(b *testing.B) {
	for _, isa := range ISAs()[:len(ISAs())-1] {
		for _, s := range []shape{{256, 0, 0, 8, 4, 32, 0, 0}, {512, 0, 0, 8, 4, 32, 0, 0}, {1024, 0, 0, 8, 2, 64, 0, 0}} {
			b.Run(fmt.Sprintf("%s/T%dD%d", isa, s.T, s.D), func(b *testing.B) {
				x := newStepTimes(isa)
				defer x.Close()
				runtime.LockOSThread()
				defer runtime.UnlockOSThread()
				for range b.N {
					x.attention(s, s.Hq*s.D, s.Hkv*s.D)
					x.next()
				}
				x.print()
			})
		}
	}
}
