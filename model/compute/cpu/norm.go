package cpu

import (
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

func (t *normTask) do(_ *worker, i, j int) {
	c := len(t.w)
	for ; i < j; i++ {
		x, y := t.x[i*c:(i+1)*c], t.y[i*c:(i+1)*c]
		rstd := float32(1 / math.Sqrt(dot(x, x)/float64(c)+float64(t.eps)))
		for k, w := range t.w {
			y[k] = x[k] * rstd * w
		}
		t.rstd[i] = rstd
	}
}

type normBackTask struct {
	dx, dy, x, w, rstd []float32
	beta               float32
}

// RMSNormBackward sets dx = rstd·(g − x·rstd²·mean(g ⊙ x)) + β·dx, g = dy ⊙ w.
func (b *Backend) RMSNormBackward(dx, dy, x, w, rstd tensor.Tensor, beta float32) {
	c := w.Len()
	want("rmsnormbackward", "x", x, tensor.F32, x.Rows, c)
	want("rmsnormbackward", "dx", dx, tensor.F32, x.Rows, c)
	want("rmsnormbackward", "dy", dy, tensor.F32, x.Rows, c)
	wantLen("rmsnormbackward", "w", w, tensor.F32, c)
	wantLen("rmsnormbackward", "rstd", rstd, tensor.F32, x.Rows)
	b.tasks.normBack = normBackTask{dx.Float32(), dy.Float32(), x.Float32(), w.Float32(), rstd.Float32(), beta}
	b.pool.run(&b.tasks.normBack, x.Rows, grain(6*c))
}

func (t *normBackTask) do(_ *worker, i, j int) {
	c := len(t.w)
	for ; i < j; i++ {
		x, dy, dx, rstd := t.x[i*c:(i+1)*c], t.dy[i*c:(i+1)*c], t.dx[i*c:(i+1)*c], t.rstd[i]
		var gx float64
		for k, w := range t.w {
			gx += float64(dy[k] * w * x[k])
		}
		mean := rstd * rstd * float32(gx/float64(c))
		for k, w := range t.w {
			d := rstd * (dy[k]*w - x[k]*mean)
			if t.beta != 0 {
				d += t.beta * dx[k]
			}
			dx[k] = d
		}
	}
}

func dot(x, y []float32) float64 {
	var s float64
	for k, v := range x {
		s += float64(v) * float64(y[k])
	}
	return s
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

func (t *ropeTask) do(_ *worker, i, j int) {
	for ; i < j; i++ {
		p := int(t.pos[i]) * t.half
		cos, sin := t.cos[p:p+t.half], t.sin[p:p+t.half]
		for h := range t.heads {
			at := (i*t.heads + h) * 2 * t.half
			rotate(t.x[at:at+t.half], t.x[at+t.half:at+2*t.half], cos, sin, t.sign)
		}
	}
}

func rotate(a, b, cos, sin []float32, sign float32) {
	for k := range a {
		c, s := cos[k], sign*sin[k]
		a[k], b[k] = a[k]*c-b[k]*s, b[k]*c+a[k]*s
	}
}
