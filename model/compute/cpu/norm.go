package cpu

import (
	"fmt"
	"math"

	"github.com/splora/splora/model/tensor"
)

type normTask struct {
	y, rstd, x, w []float32
	eps           float32
}

// RMSNorm sets y = x·rstd ⊙ w and rstd = 1/√(mean(x²)+eps) per row.
func (b *Backend) RMSNorm(y, rstd, x, w tensor.Tensor, eps float32) {
	want("rmsnorm", "x", x, tensor.F32, x.Rows, w.Len())
	want("rmsnorm", "y", y, tensor.F32, x.Rows, w.Len())
	wantLen("rmsnorm", "w", w, tensor.F32, w.Len())
	wantLen("rmsnorm", "rstd", rstd, tensor.F32, x.Rows)
	b.tasks.norm = normTask{y.Float32(), rstd.Float32(), x.Float32(), w.Float32(), eps}
	b.pool.run(&b.tasks.norm, x.Rows, grain(4*x.Cols))
}

func (t *normTask) do(w *worker, i, j int) {
	c := len(t.w)
	for ; i < j; i++ {
		x, y := t.x[i*c:(i+1)*c], t.y[i*c:(i+1)*c]
		rstd := float32(1 / math.Sqrt(float64(w.dot(x, x))/float64(c)+float64(t.eps)))
		w.norm(y, x, t.w, rstd)
		t.rstd[i] = rstd
	}
}

type normBackTask struct {
	dx, dy, x, w, rstd []float32
	beta               float32
}

// RMSNormBackward sets dx = rstd·(g − x·rstd²·mean(g ⊙ x)) + β·dx, g = dy ⊙ w, β 0 or 1.
func (b *Backend) RMSNormBackward(dx, dy, x, w, rstd tensor.Tensor, beta float32) {
	c := w.Len()
	want("rmsnormbackward", "x", x, tensor.F32, x.Rows, c)
	want("rmsnormbackward", "dx", dx, tensor.F32, x.Rows, c)
	want("rmsnormbackward", "dy", dy, tensor.F32, x.Rows, c)
	wantLen("rmsnormbackward", "w", w, tensor.F32, c)
	wantLen("rmsnormbackward", "rstd", rstd, tensor.F32, x.Rows)
	if beta != 0 && beta != 1 {
		panic(fmt.Sprintf("cpu: rmsnormbackward: beta %v, want 0 or 1", beta))
	}
	b.tasks.normBack = normBackTask{dx.Float32(), dy.Float32(), x.Float32(), w.Float32(), rstd.Float32(), beta}
	b.pool.run(&b.tasks.normBack, x.Rows, grain(6*c))
}

func (t *normBackTask) do(w *worker, i, j int) {
	c := len(t.w)
	for ; i < j; i++ {
		x, dy, dx, rstd := t.x[i*c:(i+1)*c], t.dy[i*c:(i+1)*c], t.dx[i*c:(i+1)*c], t.rstd[i]
		mean := rstd * rstd * (w.dot3(dy, t.w, x) / float32(c))
		switch {
		case w.NormBack != nil && t.beta == 0:
			w.NormBack(c, &dx[0], &dy[0], &x[0], &t.w[0], rstd, mean)
		case w.NormBack != nil:
			w.NormBackAdd(c, &dx[0], &dy[0], &x[0], &t.w[0], rstd, mean)
		default:
			t.row(dx, dy, x, rstd, mean)
		}
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
	x, cos, sin []float32
	pos         []int32
	heads, half int
	sign        float32
}

// Rope rotates x [N, heads·D] in place: (x_j, x_{j+D/2}) by the angle of (pos, j).
func (b *Backend) Rope(x, cos, sin, pos tensor.Tensor, heads int, sign float32) {
	want("rope", "x", x, tensor.F32, pos.Len(), heads*2*cos.Cols)
	want("rope", "cos", cos, tensor.F32, cos.Rows, cos.Cols)
	want("rope", "sin", sin, tensor.F32, cos.Rows, cos.Cols)
	wantLen("rope", "pos", pos, tensor.I32, x.Rows)
	b.tasks.rope = ropeTask{x.Float32(), cos.Float32(), sin.Float32(), pos.Int32(), heads, cos.Cols, sign}
	b.pool.run(&b.tasks.rope, x.Rows, grain(4*x.Cols))
}

func (t *ropeTask) do(w *worker, i, j int) {
	for ; i < j; i++ {
		p := int(t.pos[i]) * t.half
		cos, sin := t.cos[p:p+t.half], t.sin[p:p+t.half]
		for h := range t.heads {
			at := (i*t.heads + h) * 2 * t.half
			w.rotate(t.x[at:at+t.half], t.x[at+t.half:at+2*t.half], cos, sin, t.sign)
		}
	}
}
