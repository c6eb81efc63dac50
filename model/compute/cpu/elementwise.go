package cpu

import (
	"fmt"

	"github.com/splora/splora/model/compute"
	"github.com/splora/splora/model/tensor"
)

// flat is the number of elements of a piece of an elementwise operation.
const flat = 1 << 14

type biasTask struct {
	y    act
	bias []float32
}

// AddBias adds bias [1,n] to every row of y [m,n].
func (b *Backend) AddBias(y, bias tensor.Tensor) {
	wantLen("addbias", "bias", bias, tensor.F32, bias.Len())
	b.tasks.bias = biasTask{wantAct("addbias", "y", y, like("addbias", "y", y), y.Rows, bias.Len()), bias.Float32()}
	b.pool.run(&b.tasks.bias, y.Rows, grain(y.Cols))
}

func (t *biasTask) do(w *worker, i, j int) {
	n := len(t.bias)
	for ; i < j; i++ {
		for k, c := 0, 0; k < n; k += c {
			c = t.y.step(n - k)
			y := w.in(0, t.y, i*n+k, c)
			w.add(y, t.bias[k:k+c])
			w.put(t.y, i*n+k, y)
		}
	}
}

type addTask struct{ y, x act }

// Add adds x to y, elementwise.
func (b *Backend) Add(y, x tensor.Tensor) {
	dt := like("add", "y", y)
	b.tasks.add = addTask{wantFlat("add", "y", y, dt, x.Len()), wantFlat("add", "x", x, dt, x.Len())}
	b.pool.run(&b.tasks.add, x.Len(), flat)
}

func (t *addTask) do(w *worker, i, j int) {
	for n := 0; i < j; i += n {
		n = t.y.step(j - i)
		y := w.in(0, t.y, i, n)
		w.add(y, w.in(1, t.x, i, n))
		w.put(t.y, i, y)
	}
}

func wantSiLU(act compute.Act) {
	if act != compute.SiLU {
		panic(fmt.Sprintf("cpu: unknown activation %d", act))
	}
}

type gateTask struct{ h, g, u act }

// Gate sets h = act(g) ⊙ u, silu(g) = g·σ(g).
func (b *Backend) Gate(h, g, u tensor.Tensor, act compute.Act) {
	wantSiLU(act)
	dt, n := like("gate", "operand", h), h.Len()
	b.tasks.gate = gateTask{wantFlat("gate", "operand", h, dt, n), wantFlat("gate", "operand", g, dt, n), wantFlat("gate", "operand", u, dt, n)}
	b.pool.run(&b.tasks.gate, n, flat/4)
}

func (t *gateTask) do(w *worker, i, j int) {
	for n := 0; i < j; i += n {
		n = t.h.step(j - i)
		h := w.out(0, t.h, i, n)
		w.silu(h, w.in(1, t.g, i, n), w.in(2, t.u, i, n))
		w.put(t.h, i, h)
	}
}

// silu sets h = silu(g)·u.
func (v vec) silu(h, g, u []float32) {
	if v.Silu != nil {
		v.Silu(len(h), ptr(h), ptr(g[:len(h)]), ptr(u[:len(h)]))
		return
	}
	for k, a := range g[:len(h)] {
		sg, _ := sigmoid(a)
		h[k] = a * sg * u[k]
	}
}

type gateBackTask struct{ dg, du, dh, g, u act }

// GateBackward sets dg = dh ⊙ u ⊙ silu'(g), du = dh ⊙ silu(g);  silu'(g) = σ·(1 + g·(1−σ)).
func (b *Backend) GateBackward(dg, du, dh, g, u tensor.Tensor, act compute.Act) {
	wantSiLU(act)
	dt, n := like("gatebackward", "operand", dg), dg.Len()
	b.tasks.gateBack = gateBackTask{
		wantFlat("gatebackward", "operand", dg, dt, n), wantFlat("gatebackward", "operand", du, dt, n),
		wantFlat("gatebackward", "operand", dh, dt, n), wantFlat("gatebackward", "operand", g, dt, n), wantFlat("gatebackward", "operand", u, dt, n)}
	b.pool.run(&b.tasks.gateBack, n, flat/4)
}

func (t *gateBackTask) do(w *worker, i, j int) {
	for n := 0; i < j; i += n {
		n = t.dg.step(j - i)
		dg, du := w.out(0, t.dg, i, n), w.out(1, t.du, i, n)
		w.siluBack(dg, du, w.in(2, t.dh, i, n), w.in(3, t.g, i, n), w.in(4, t.u, i, n))
		w.put(t.dg, i, dg)
		w.put(t.du, i, du)
	}
}

// siluBack sets dg = dh·u·silu'(g), du = dh·silu(g).
func (v vec) siluBack(dg, du, dh, g, u []float32) {
	if v.SiluBack != nil {
		n := len(dg)
		v.SiluBack(n, ptr(dg), ptr(du[:n]), ptr(dh[:n]), ptr(g[:n]), ptr(u[:n]))
		return
	}
	for k := range dg {
		g, u, dh := g[k], u[k], dh[k]
		sg, rest := sigmoid(g)
		dg[k] = dh * u * (sg * (1 + g*rest))
		du[k] = dh * (g * sg)
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
