package cpu

import "github.com/splora/splora/model/tensor"

type dropTask struct {
	y, x  act
	ids   []int32
	cols  int
	seed  uint64
	limit uint64
	scale float32
}

// Dropout sets y = x ⊙ m/(1−p), m[i,j] = 0 where mix(seed + (ids[i]·2³² + j + 1)·γ) >> 40 < p·2²⁴ (SplitMix64), else 1.
func (b *Backend) Dropout(y, x, ids tensor.Tensor, seed uint64, p float32) {
	dt := like("dropout", "x", x)
	from, to := wantAct("dropout", "x", x, dt, x.Rows, x.Cols), wantAct("dropout", "y", y, dt, x.Rows, x.Cols)
	wantLen("dropout", "ids", ids, tensor.I32, x.Rows)
	b.tasks.drop = dropTask{to, from, ids.Int32(), x.Cols, seed, uint64(float64(p) * (1 << 24)), 1 / (1 - p)}
	b.pool.run(&b.tasks.drop, x.Rows, grain(8*x.Cols))
}

func (t *dropTask) do(w *worker, i, j int) {
	const gamma = 0x9E3779B97F4A7C15
	for ; i < j; i++ {
		x, y := w.in(0, t.x, i*t.cols, t.cols), w.out(1, t.y, i*t.cols, t.cols)
		at := t.seed + uint64(uint32(t.ids[i]))<<32*gamma
		n := 0
		if w.Dropout != nil && len(x) >= 8 {
			n = len(x) / 8 * 8
			w.Dropout(n, &y[0], &x[0], at, t.limit, t.scale)
			at += uint64(n) * gamma
		}
		for k, v := range x[n:] {
			at += gamma
			if mix(at)>>40 < t.limit {
				v = 0
			} else {
				v *= t.scale
			}
			y[n+k] = v
		}
		w.put(t.y, i*t.cols, y)
	}
}

func mix(z uint64) uint64 {
	z = (z ^ z>>30) * 0xBF58476D1CE4E5B9
	z = (z ^ z>>27) * 0x94D049BB133111EB
	return z ^ z>>31
}
