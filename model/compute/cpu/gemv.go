package cpu

import "github.com/splora/splora/model/tensor"

// fewRows of a against the rows of b are dot products: packing b would cost more than multiplying by it.
const fewRows = 3

// dotTask sets dst [m,n] = α·a·bᵀ + β·dst, row j of b at a time.
type dotTask struct {
	dst, a      []float32
	b           tensor.Tensor
	m, n        int
	alpha, beta float32
}

// isDots reports whether a product goes by dot products.
func (b *Backend) isDots(m int, a tensor.Tensor, ta, tb bool) bool {
	return m <= fewRows && !ta && tb && a.DType == tensor.F32 && b.kern.Name != "go"
}

func (b *Backend) dots(dst tensor.Tensor, alpha float32, am, bm tensor.Tensor, beta float32) {
	b.tasks.dots = dotTask{dst.Float32(), am.Float32(), bm, dst.Rows, dst.Cols, alpha, beta}
	b.pool.run(&b.tasks.dots, dst.Cols, grain(am.Len()))
}

func (t *dotTask) do(w *worker, i, j int) {
	k := t.b.Cols
	for ; i < j; i++ {
		for r := range t.m {
			s := t.alpha * w.dotAt(t.a[r*k:(r+1)*k], t.b, i*k)
			if c := &t.dst[r*t.n+i]; t.beta == 0 {
				*c = s
			} else {
				*c = s + t.beta**c
			}
		}
	}
}
