package cpu

import (
	"math"

	"github.com/splora/splora/model/compute"
	"github.com/splora/splora/model/tensor"
)

type adamTask struct {
	p, g, m, v []float32
	o          compute.AdamW
}

// AdamW sets m = β1·m + (1−β1)·ĝ, v = β2·v + (1−β2)·ĝ², p = p·(1 − lr·wd) − lr·(m/Bias1)/(√(v/Bias2)+eps), ĝ = Scale·g.
func (b *Backend) AdamW(p, g, m, v tensor.Tensor, o compute.AdamW) {
	for _, t := range [...]tensor.Tensor{p, g, m, v} {
		wantLen("adamw", "operand", t, tensor.F32, p.Len())
	}
	b.tasks.adam = adamTask{p.Float32(), g.Float32(), m.Float32(), v.Float32(), o}
	b.pool.run(&b.tasks.adam, p.Len(), flat/2)
}

func (t *adamTask) do(w *worker, i, j int) {
	o := &t.o
	if w.Adam != nil {
		w.Adam(j-i, &t.p[i], &t.g[i], &t.m[i], &t.v[i], o.Scale, o.Beta1, 1-o.Beta1, o.Beta2, 1-o.Beta2,
			1-o.LR*o.WeightDecay, o.LR/o.Bias1, 1/o.Bias2, o.Eps)
		return
	}
	for ; i < j; i++ {
		g := o.Scale * t.g[i]
		m := o.Beta1*t.m[i] + (1-o.Beta1)*g
		v := o.Beta2*t.v[i] + (1-o.Beta2)*g*g
		root := float32(math.Sqrt(float64(v / o.Bias2)))
		t.p[i] = t.p[i]*(1-o.LR*o.WeightDecay) - o.LR*(m/o.Bias1)/(root+o.Eps)
		t.m[i], t.v[i] = m, v
	}
}

type squaresTask struct {
	x    []float32
	sums []float64
}

// SumSquares is Σ x² in float64: of pieces, then of the pieces in order.
func (b *Backend) SumSquares(x tensor.Tensor) float64 {
	wantLen("sumsquares", "x", x, tensor.F32, x.Len())
	n := (x.Len() + flat - 1) / flat
	if cap(b.sums) < n {
		b.sums = make([]float64, n)
	}
	b.tasks.squares = squaresTask{x.Float32(), b.sums[:n]}
	b.pool.run(&b.tasks.squares, x.Len(), flat)
	var s float64
	for _, v := range b.sums[:n] {
		s += v
	}
	return s
}

func (t *squaresTask) do(w *worker, i, j int) {
	x, sum := t.x[i:j], 0.0
	if n := len(x) / (2 * w.Lanes) * 2 * w.Lanes; w.Squares != nil && n > 0 {
		sum, x = w.Squares(n, &x[0]), x[n:]
	}
	t.sums[i/flat] = sum + dot64(x, x)
}
