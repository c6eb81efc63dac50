package cpu

import "github.com/splora/splora/model/tensor"

// roundedRows is the number of rows of a bfloat16 dst that are computed in float32 at a time.
const roundedRows = 512

// gemmRounded sets dst [m,n], BF16, to α·op(a)·op(b) + β·dst, computed in float32 and rounded once at the end, by way of a float32
// copy of a block of it.
func (b *Backend) gemmRounded(dst tensor.Tensor, alpha float32, am tensor.Tensor, ta bool, bm tensor.Tensor, tb bool, beta float32) {
	m, n, k := gemmShape(dst, am, ta, bm, tb)
	left := side{t: am, along: ta, rows: m, width: b.kern.MR}
	right := side{t: bm, along: !tb, rows: n, width: b.kern.NR}
	rows, cols := min(m, roundedRows), min(n, maxN)
	grow(&b.gemm.a, roundUp(rows, b.kern.MR)*min(k, blockK))
	grow(&b.gemm.b, roundUp(cols, b.kern.NR)*min(k, blockK))
	grow(&b.gemm.c, rows*cols)
	for j := 0; j < n; j += cols {
		for i := 0; i < m; i += rows {
			t := roundTask{dst: dst, i: i, j: j, n: min(cols, n-j), c: b.gemm.c, beta: beta}
			mb := min(rows, m-i)
			if k == 0 {
				clear(t.c[:mb*t.n])
			} else {
				b.gemmBlock(b.kern, t.c, t.n, alpha, 0, left, right, i, j, mb, t.n)
			}
			b.tasks.round = t
			b.pool.run(&b.tasks.round, mb, grain(t.n))
		}
	}
}

// roundTask sets rows of the block at (i, j) of dst, n columns wide, to c + β·dst, rounded.
type roundTask struct {
	dst  tensor.Tensor
	i, j int
	n    int
	c    []float32
	beta float32
}

func (t *roundTask) do(w *worker, i, end int) {
	old := w.scratch(t.n)
	for ; i < end; i++ {
		row, at := t.c[i*t.n:(i+1)*t.n], (t.i+i)*t.dst.Cols+t.j
		if t.beta != 0 {
			w.widen(old, t.dst, at)
			w.axpy(row, t.beta, old)
		}
		w.narrow(t.dst, at, row)
	}
}

// isHalfDots reports whether a product with bfloat16 goes by dot products.
func (b *Backend) isHalfDots(dst, a tensor.Tensor, ta, tb bool) bool {
	half := dst.DType == tensor.BF16 || a.DType == tensor.BF16
	a.DType = tensor.F32
	return half && a.Cols > 0 && b.isDots(dst.Rows, a, ta, tb)
}

// halfDots sets dst = α·a·bᵀ + β·dst by dot products, for dst or a of bfloat16: a is widened, and dst rounded.
func (b *Backend) halfDots(dst tensor.Tensor, alpha float32, am, bm tensor.Tensor, beta float32) {
	if am.DType != tensor.F32 {
		b.gemm.a = sized(&b.gemm.a, am.Len())
		wide := tensor.Of(b.gemm.a[:am.Len()]).Reshape(am.Rows, am.Cols)
		b.Copy(wide, am)
		am = wide
	}
	if dst.DType == tensor.F32 {
		b.dots(dst, alpha, am, bm, beta)
		return
	}
	grow(&b.gemm.c, dst.Len())
	b.dots(tensor.Of(b.gemm.c[:dst.Len()]).Reshape(dst.Rows, dst.Cols), alpha, am, bm, 0)
	b.tasks.round = roundTask{dst: dst, n: dst.Cols, c: b.gemm.c, beta: beta}
	b.pool.run(&b.tasks.round, dst.Rows, 1)
}
