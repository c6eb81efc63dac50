package cpu

import (
	"fmt"

	"github.com/splora/splora/model/compute"
	"github.com/splora/splora/model/tensor"
)

// flat is the number of elements of a piece of an elementwise operation.
const flat = 1 << 14

type biasTask struct{ y, bias []float32 }

// AddBias adds bias [1,n] to every row of y [m,n].
func (b *Backend) AddBias(y, bias tensor.Tensor) {
	want("addbias", "y", y, tensor.F32, y.Rows, bias.Len())
	wantLen("addbias", "bias", bias, tensor.F32, bias.Len())
	b.tasks.bias = biasTask{y.Float32(), bias.Float32()}
	b.pool.run(&b.tasks.bias, y.Rows, grain(y.Cols))
}

func (t *biasTask) do(w *worker, i, j int) {
	n := len(t.bias)
	for ; i < j; i++ {
		w.add(t.y[i*n:(i+1)*n], t.bias)
	}
}

type addTask struct{ y, x []float32 }

// Add adds x to y, elementwise.
func (b *Backend) Add(y, x tensor.Tensor) {
	wantLen("add", "y", y, tensor.F32, x.Len())
	wantLen("add", "x", x, tensor.F32, x.Len())
	b.tasks.add = addTask{y.Float32(), x.Float32()}
	b.pool.run(&b.tasks.add, x.Len(), flat)
}

func (t *addTask) do(w *worker, i, j int) { w.add(t.y[i:j], t.x[i:j]) }

func wantSiLU(act compute.Act) {
	if act != compute.SiLU {
		panic(fmt.Sprintf("cpu: unknown activation %d", act))
	}
}

type gateTask struct{ h, g, u []float32 }

// Gate sets h = act(g) ⊙ u, silu(g) = g·σ(g).
func (b *Backend) Gate(h, g, u tensor.Tensor, act compute.Act) {
	wantSiLU(act)
	for _, t := range [...]tensor.Tensor{h, g, u} {
		wantLen("gate", "operand", t, tensor.F32, h.Len())
	}
	b.tasks.gate = gateTask{h.Float32(), g.Float32(), u.Float32()}
	b.pool.run(&b.tasks.gate, h.Len(), flat/4)
}

func (t *gateTask) do(w *worker, i, j int) {
	if w.Silu != nil {
		w.Silu(j-i, &t.h[i], &t.g[i], &t.u[i])
		return
	}
	for ; i < j; i++ {
		sg, _ := sigmoid(t.g[i])
		t.h[i] = t.g[i] * sg * t.u[i]
	}
}

type gateBackTask struct{ dg, du, dh, g, u []float32 }

// GateBackward sets dg = dh ⊙ u ⊙ silu'(g), du = dh ⊙ silu(g);  silu'(g) = σ·(1 + g·(1−σ)).
func (b *Backend) GateBackward(dg, du, dh, g, u tensor.Tensor, act compute.Act) {
	wantSiLU(act)
	for _, t := range [...]tensor.Tensor{dg, du, dh, g, u} {
		wantLen("gatebackward", "operand", t, tensor.F32, dg.Len())
	}
	b.tasks.gateBack = gateBackTask{dg.Float32(), du.Float32(), dh.Float32(), g.Float32(), u.Float32()}
	b.pool.run(&b.tasks.gateBack, dg.Len(), flat/4)
}

func (t *gateBackTask) do(w *worker, i, j int) {
	if w.SiluBack != nil {
		w.SiluBack(j-i, &t.dg[i], &t.du[i], &t.dh[i], &t.g[i], &t.u[i])
		return
	}
	for ; i < j; i++ {
		g, u, dh := t.g[i], t.u[i], t.dh[i]
		sg, rest := sigmoid(g)
		t.dg[i] = dh * u * (sg * (1 + g*rest))
		t.du[i] = dh * (g * sg)
	}
}

// sigmoid is σ(x) and 1 − σ(x) = e⁻ˣ·σ(x), which subtraction would cancel.
func sigmoid(x float32) (s, rest float32) {
	e := exp(-x)
	s = 1 / (1 + e)
	if rest = e * s; !(rest <= 1) {
		rest = 1 // ∞·0
	}
	return s, rest
}
