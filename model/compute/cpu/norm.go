package cpu

import (
	"fmt"
	"math"

	"github.com/splora/splora/model/tensor"
)

type normTask struct {
	y, x    act
	rstd, w []float32
	eps     float32
}

// RMSNorm sets y = x·rstd ⊙ w and rstd = 1/√(mean(x²)+eps) per row.
func (b *Backend) RMSNorm(y, rstd, x, w tensor.Tensor, eps float32) {
	const op = "rmsnorm"
	dt, c := like(op, "x", x), w.Len()
	wantLen(op, "w", w, tensor.F32, c)
	wantLen(op, "rstd", rstd, tensor.F32, x.Rows)
	b.tasks.norm = normTask{wantAct(op, "y", y, dt, x.Rows, c), wantAct(op, "x", x, dt, x.Rows, c), rstd.Float32(), w.Float32(), eps}
	b.pool.run(&b.tasks.norm, x.Rows, grain(4*x.Cols))
}

func (t *normTask) do(w *worker, i, j int) {
	c := len(t.w)
	for ; i < j; i++ {
		x, y := w.in(0, t.x, i*c, c), w.out(1, t.y, i*c, c)
		rstd := float32(1 / math.Sqrt(float64(w.dot(x, x))/float64(c)+float64(t.eps)))
		w.norm(y, x, t.w, rstd)
		w.put(t.y, i*c, y)
		t.rstd[i] = rstd
	}
}

type normBackTask struct {
	dx, dy, x act
	w, rstd   []float32
	beta      float32
}

// RMSNormBackward sets dx = rstd·(g − x·rstd²·mean(g ⊙ x)) + β·dx, g = dy ⊙ w, β 0 or 1.
func (b *Backend) RMSNormBackward(dx, dy, x, w, rstd tensor.Tensor, beta float32) {
	const op = "rmsnormbackward"
	dt, n, c := like(op, "x", x), x.Rows, w.Len()
	wantLen(op, "w", w, tensor.F32, c)
	wantLen(op, "rstd", rstd, tensor.F32, n)
	if beta != 0 && beta != 1 {
		panic(fmt.Sprintf("cpu: rmsnormbackward: beta %v, want 0 or 1", beta))
	}
	b.tasks.normBack = normBackTask{wantAct(op, "dx", dx, dt, n, c), wantAct(op, "dy", dy, dt, n, c), wantAct(op, "x", x, dt, n, c),
		w.Float32(), rstd.Float32(), beta}
	b.pool.run(&b.tasks.normBack, n, grain(6*c))
}

func (t *normBackTask) do(w *worker, i, j int) {
	c := len(t.w)
	for ; i < j; i++ {
		x, dy, rstd := w.in(0, t.x, i*c, c), w.in(1, t.dy, i*c, c), t.rstd[i]
		dx := w.out(2, t.dx, i*c, c)
		if t.beta != 0 {
			dx = w.in(2, t.dx, i*c, c)
		}
		mean := rstd * rstd * (w.dot3(dy, t.w, x) / float32(c))
		switch {
		case w.NormBack != nil && t.beta == 0:
			w.NormBack(c, &dx[0], &dy[0], &x[0], &t.w[0], rstd, mean)
		case w.NormBack != nil:
			w.NormBackAdd(c, &dx[0], &dy[0], &x[0], &t.w[0], rstd, mean)
		default:
			t.row(dx, dy, x, rstd, mean)
		}
		w.put(t.dx, i*c, dx)
	}
}

// row sets dx = rstd·(dy·w − x·mean) + β·dx.
func (t *normBackTask) row(dx, dy, x []float32, rstd, mean float32) {
	for k, w := range t.w {
		d := rstd * (dy[k]*w - x[k]*mean)
		if t.beta != 0 {
			d += dx[k]
		}
		dx[k] = d
	}
}

type ropeTask struct {
	x           act
	cos, sin    []float32
	pos         []int32
	heads, half int
	sign        float32
}

// Rope rotates x [N, heads·D] in place: (x_j, x_{j+D/2}) by the angle of (pos, j).
func (b *Backend) Rope(x, cos, sin, pos tensor.Tensor, heads int, sign float32) {
	want("rope", "cos", cos, tensor.F32, cos.Rows, cos.Cols)
	want("rope", "sin", sin, tensor.F32, cos.Rows, cos.Cols)
	wantLen("rope", "pos", pos, tensor.I32, x.Rows)
	a := wantAct("rope", "x", x, like("rope", "x", x), pos.Len(), heads*2*cos.Cols)
	b.tasks.rope = ropeTask{a, cos.Float32(), sin.Float32(), pos.Int32(), heads, cos.Cols, sign}
	b.pool.run(&b.tasks.rope, x.Rows, grain(4*x.Cols))
}

func (t *ropeTask) do(w *worker, i, j int) {
	d := 2 * t.half
	for ; i < j; i++ {
		p := int(t.pos[i]) * t.half
		cos, sin := t.cos[p:p+t.half], t.sin[p:p+t.half]
		row := w.in(0, t.x, i*t.heads*d, t.heads*d)
		for h := range t.heads {
			x := row[h*d : (h+1)*d]
			w.rotate(x[:t.half], x[t.half:], cos, sin, t.sign)
		}
		w.put(t.x, i*t.heads*d, row)
	}
}
