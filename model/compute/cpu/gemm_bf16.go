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
