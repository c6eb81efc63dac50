package main

import (
	"fmt"
	"time"

	"github.com/splora/splora/model/compute"
	"github.com/splora/splora/model/compute/cpu"
	"github.com/splora/splora/model/sparse"
	"github.com/splora/splora/model/tensor"
)

// Op is one operation of a step at one shape.
type Op struct {
	Name    string  `json:"op"`
	Shape   string  `json:"shape,omitempty"`
	Calls   int     `json:"calls"`             // in one step
	Seconds float64 `json:"s"`                 // all calls of one step together
	Work    float64 `json:"work_s"`            // the same in processor time, over all threads; a busy machine disturbs it less
	Flops   float64 `json:"flops,omitempty"`   // of one call, a multiply-add being 2; products count the zeros
	Bytes   float64 `json:"bytes,omitempty"`   // operands of one call
	Alone   float64 `json:"alone_s,omitempty"` // one call by itself, over and over, at its best
}

// tally is the CPU backend, and counts and times what it is asked to do.
type tally struct {
	*cpu.Backend
	ops   map[[2]string]*tallied
	order []*tallied
}

type tallied struct {
	Op
	spent time.Duration
	work  time.Duration
	again func() // the call once more: of products, merges and attention, whose operands outlive it
}

func newTally(b *cpu.Backend) *tally { return &tally{Backend: b, ops: map[[2]string]*tallied{}} }

// reset forgets what was counted.
func (t *tally) reset() { clear(t.ops); t.order = t.order[:0] }

// time runs and counts a call.
func (t *tally) time(name, shape string, flops float64, f func(), operands ...tensor.Tensor) *tallied {
	at, worked := time.Now(), processorTime()
	f()
	spent, work := time.Since(at), processorTime()-worked
	key := [2]string{name, shape}
	o := t.ops[key]
	if o == nil {
		o = &tallied{Op: Op{Name: name, Shape: shape, Flops: flops}}
		for _, x := range operands {
			o.Bytes += float64(x.Bytes())
		}
		t.ops[key] = o
		t.order = append(t.order, o)
	}
	o.Calls++
	o.spent += spent
	o.work += work
	return o
}

// steps gives what was counted over n steps, per step.
func (t *tally) steps(n int) []Op {
	var ops []Op
	for _, o := range t.order {
		o.Calls /= n
		o.Seconds, o.Work = o.spent.Seconds()/float64(n), o.work.Seconds()/float64(n)
		ops = append(ops, o.Op)
	}
	return ops
}

// alone times every product, merge and attention by itself: the best of some calls.
func (t *tally) alone() {
	for _, o := range t.order {
		for k := 0; o.again != nil && k < 6; k++ {
			at := time.Now()
			o.again()
			if s := time.Since(at).Seconds(); k == 1 || k > 1 && s < o.Alone {
				o.Alone = s
			}
		}
	}
}

func (t *tally) Gemm(dst tensor.Tensor, alpha float32, a tensor.Tensor, ta bool, b tensor.Tensor, tb bool, beta float32) {
	k := a.Cols
	if ta {
		k = a.Rows
	}
	shape := fmt.Sprintf("%dx%dx%d %c%c %s", dst.Rows, dst.Cols, k, "NT"[toInt(ta)], "NT"[toInt(tb)], b.DType)
	f := func() { t.Backend.Gemm(dst, alpha, a, ta, b, tb, beta) }
	t.time("gemm", shape, 2*float64(dst.Len())*float64(k), f, dst, a, b).again = f
}

func toInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// rank is the inner size of B·A, 0 without.
func rank(a tensor.Tensor) float64 { return float64(a.Rows) }

func weightShape(w *sparse.Weight) string { return fmt.Sprintf("%dx%d", w.Out, w.In) }

func (t *tally) Merge(dst tensor.Tensor, w *sparse.Weight, b, a tensor.Tensor, s float32) {
	f := func() { t.Backend.Merge(dst, w, b, a, s) }
	t.time("merge", weightShape(w), 2*float64(dst.Len())*rank(a), f, dst, w.Values, b, a).again = f
}

func (t *tally) Mask(dst tensor.Tensor, w *sparse.Weight) {
	f := func() { t.Backend.Mask(dst, w) }
	t.time("mask", weightShape(w), 0, f, dst, dst).again = f
}

func (t *tally) KeptForward(y, x, slot tensor.Tensor, w *sparse.Weight, b, a tensor.Tensor, s, beta float32) {
	f := func() { t.Backend.KeptForward(y, x, slot, w, b, a, s, beta) }
	t.time("kept y", fmt.Sprintf("%d, %s", x.Rows, weightShape(w)), t.masked(w, x.Rows, a), f, y, x, w.Values).again = f
}

func (t *tally) KeptInput(dx, dy, slot tensor.Tensor, w *sparse.Weight, b, a tensor.Tensor, s, beta float32) {
	f := func() { t.Backend.KeptInput(dx, dy, slot, w, b, a, s, beta) }
	t.time("kept dx", fmt.Sprintf("%d, %s", dy.Rows, weightShape(w)), t.masked(w, dy.Rows, a), f, dx, dy, w.Values).again = f
}

func (t *tally) KeptAdapter(da, db, dy, x, slot tensor.Tensor, w *sparse.Weight, b, a tensor.Tensor, s float32) {
	f := func() { t.Backend.KeptAdapter(da, db, dy, x, slot, w, b, a, s) }
	t.time("kept dA dB", fmt.Sprintf("%d, %s", dy.Rows, weightShape(w)), t.masked(w, dy.Rows, a)+2*float64(w.Out*w.In)*rank(a), f, dy, x).again = f
}

// masked is the work of a product with W̃, its merge included, zeros counted.
func (t *tally) masked(w *sparse.Weight, n int, a tensor.Tensor) float64 {
	return 2 * float64(w.Out) * float64(w.In) * (float64(n) + rank(a))
}

// pairs is the number of queries times the keys that they may see, over all heads.
func pairs(m compute.Attn) (n float64) {
	for i := range m.Tq {
		n += float64(max(0, m.Tk-m.Tq+i+1))
	}
	return n * float64(m.B*m.Hq)
}

func (t *tally) Attention(y, lse, q, k, v tensor.Tensor, m compute.Attn) {
	f := func() { t.Backend.Attention(y, lse, q, k, v, m) }
	t.time("attention", "", 4*pairs(m)*float64(m.D), f, y, q, k, v).again = f
}

func (t *tally) AttentionBackward(dq, dk, dv, dy, y, lse, q, k, v tensor.Tensor, m compute.Attn) {
	f := func() { t.Backend.AttentionBackward(dq, dk, dv, dy, y, lse, q, k, v, m) }
	t.time("attention backward", "", 10*pairs(m)*float64(m.D), f, dq, dk, dv, dy, y, q, k, v).again = f
}

func (t *tally) RMSNorm(y, rstd, x, w tensor.Tensor, eps float32) {
	t.time("norm", "", 0, func() { t.Backend.RMSNorm(y, rstd, x, w, eps) }, y, x)
}

func (t *tally) RMSNormBackward(dx, dy, x, w, rstd tensor.Tensor, beta float32) {
	t.time("norm backward", "", 0, func() { t.Backend.RMSNormBackward(dx, dy, x, w, rstd, beta) }, dx, dy, x)
}

func (t *tally) Rope(x, cos, sin, pos tensor.Tensor, heads int, sign float32) {
	t.time("rope", "", 0, func() { t.Backend.Rope(x, cos, sin, pos, heads, sign) }, x, x)
}

func (t *tally) Gate(h, g, u tensor.Tensor, act compute.Act) {
	t.time("gate", "", 0, func() { t.Backend.Gate(h, g, u, act) }, h, g, u)
}

func (t *tally) GateBackward(dg, du, dh, g, u tensor.Tensor, act compute.Act) {
	t.time("gate backward", "", 0, func() { t.Backend.GateBackward(dg, du, dh, g, u, act) }, dg, du, dh, g, u)
}

func (t *tally) CrossEntropy(loss, logits, target tensor.Tensor, grad bool) {
	t.time("loss", "", 0, func() { t.Backend.CrossEntropy(loss, logits, target, grad) }, logits, logits)
}

func (t *tally) Copy(dst, src tensor.Tensor) {
	t.time("copy", "", 0, func() { t.Backend.Copy(dst, src) }, dst, src)
}

func (t *tally) Fill(dst tensor.Tensor, v float32) {
	t.time("fill", "", 0, func() { t.Backend.Fill(dst, v) }, dst)
}

func (t *tally) Add(y, x tensor.Tensor) {
	t.time("add", "", 0, func() { t.Backend.Add(y, x) }, y, y, x)
}

func (t *tally) AddBias(y, bias tensor.Tensor) {
	t.time("add bias", "", 0, func() { t.Backend.AddBias(y, bias) }, y, y)
}

func (t *tally) Dropout(y, x, ids tensor.Tensor, seed uint64, p float32) {
	t.time("dropout", "", 0, func() { t.Backend.Dropout(y, x, ids, seed, p) }, y, x)
}

func (t *tally) Gather(dst, table, rows tensor.Tensor) {
	t.time("gather", "", 0, func() { t.Backend.Gather(dst, table, rows) }, dst, dst)
}

func (t *tally) Scatter(dst, src, rows tensor.Tensor) {
	t.time("scatter", "", 0, func() { t.Backend.Scatter(dst, src, rows) }, src, src)
}

func (t *tally) AdamW(p, g, m, v tensor.Tensor, o compute.AdamW) {
	t.time("adamw", "", 0, func() { t.Backend.AdamW(p, g, m, v, o) }, p, p, g, m, m, v, v)
}

func (t *tally) SumSquares(x tensor.Tensor) (sum float64) {
	t.time("sum of squares", "", 0, func() { sum = t.Backend.SumSquares(x) }, x)
	return sum
}
