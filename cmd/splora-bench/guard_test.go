package main

import (
	"math"
	"testing"

	"github.com/splora/splora/cmd/internal/train"
)

// The guard against regressions that does not depend on the machine's mood: how often a step merges, masks and multiplies, and how
// much, against what the formulas of the method need. A weight merged once more, a product too many or a block recomputed twice fails.

// needs are the calls of one operation and the multiply-adds of all of them, times two.
type needs struct {
	calls int
	flops float64
}

// stepNeeds is what a step of method needs. Of a block, w are the weights [out,in] of q, k, v, o, gate, up, down.
func stepNeeds(s shape, method, recompute string, r int) map[string]needs {
	c, f := float64(s.Hidden), float64(s.Inter)
	w := [7][2]float64{{c, c}, {c, c}, {c, c}, {c, c}, {f, c}, {f, c}, {c, f}}
	n, active := float64(s.Batch*s.Seq), float64(s.Batch*(s.Seq-1)) // a row's last token predicts nothing
	var forward, again, backward [7]int
	for j := range w {
		forward[j] = s.Layers
		if backward[j] = s.Layers; j < 3 {
			backward[j]-- // nobody wants the gradient of the first block's input
		}
		if recompute == "block" && j < 6 {
			again[j] = s.Layers - 1 // the last block's activations are kept, and no block's output is needed again
		}
	}
	need := map[string]needs{}
	add := func(op string, calls int, flops float64) {
		e := need[op]
		need[op] = needs{e.calls + calls, e.flops + float64(calls)*flops}
	}
	rank := float64(r)
	for j := range w {
		size := w[j][0] * w[j][1]
		through := forward[j] + again[j]
		add("gemm", through+backward[j], 2*n*size) // y, dx
		if out, in := 2*n*rank*w[j][0], 2*n*rank*w[j][1]; method == "lora" {
			add("merge", through+backward[j], 0)
			add("gemm", through, in)     // t = x·Aᵀ
			add("gemm", through, out)    // y += s·t·Bᵀ
			add("gemm", 2*s.Layers, out) // u = dy·B, dB
			add("gemm", backward[j], in) // dx += s·u·A
			add("gemm", 2*s.Layers, in)  // t, dA
			continue
		}
		add("merge", through+backward[j], 2*size*rank)
		add("mask", s.Layers, 0)
		add("gemm", s.Layers, 2*n*size)      // G
		add("gemm", 2*s.Layers, 2*rank*size) // dA, dB
	}
	add("gemm", 2, 2*active*c*float64(s.Vocab)) // logits, and their gradient
	heads := float64(s.Hidden / s.Heads)
	visible := float64(s.Batch*s.Heads) * float64(s.Seq) * float64(s.Seq+1) / 2
	passes := s.Layers
	if recompute == "block" {
		passes += s.Layers - 1
	}
	add("attention", passes, 4*heads*visible)
	add("attention backward", s.Layers, 10*heads*visible)
	return need
}

// counted is what a step is counted to take.
func counted(t *testing.T, c train.Config) map[string]needs {
	t.Helper()
	tr := &trainer{cfg: c, ops: true}
	defer tr.close()
	if err := tr.open(&Measurement{}); err != nil {
		t.Fatal(err)
	}
	tr.tally.reset() // what opening took
	if _, err := tr.step(0); err != nil {
		t.Fatal(err)
	}
	got := map[string]needs{}
	for _, o := range tr.tally.steps(1) {
		g := got[o.Name]
		got[o.Name] = needs{g.calls + o.Calls, g.flops + float64(o.Calls)*o.Flops}
	}
	return got
}

func TestAStepMergesMasksAndMultipliesAsOftenAsTheFormulasNeed(t *testing.T) {
	dir, s := tiny(t)
	for _, method := range []string{"splora", "lora"} {
		for _, recompute := range []string{"none", "block"} {
			c := tinyConfig(dir, s)
			c.Method, c.Recompute, c.Memory = method, recompute, "reuse"
			got := counted(t, c)
			for op, want := range stepNeeds(s, method, recompute, c.Rank) {
				g := got[op]
				if !(math.Abs(g.flops-want.flops) <= 1e-12*want.flops) || g.calls != want.calls {
					t.Errorf("%s %s: %s %+v, want %+v", method, recompute, op, g, want)
				}
			}
		}
	}
}

func TestWalkingKeptWeightsMergesAndDifferentiatesNoMoreOften(t *testing.T) {
	s, err := parseShape("128x70", 2, 97, 2)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := s.model(t.Context(), t.TempDir(), "0.7", "bfloat16")
	if err != nil {
		t.Fatal(err)
	}
	for _, recompute := range []string{"none", "block"} {
		c := tinyConfig(dir, s)
		c.Recompute, c.Memory = recompute, "fused"
		got, want := counted(t, c), stepNeeds(s, "splora", recompute, c.Rank)
		if n := got["merge"].calls + got["kept y"].calls + got["kept dx"].calls; n != want["merge"].calls {
			t.Errorf("%s: merged %d times, want %d", recompute, n, want["merge"].calls)
		}
		if n := got["mask"].calls + got["kept dA dB"].calls; n != want["mask"].calls {
			t.Errorf("%s: %d masked gradients, want %d", recompute, n, want["mask"].calls)
		}
	}
}
