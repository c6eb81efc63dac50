package cpu

import (
	"fmt"

	"github.com/splora/splora/model/compute/cpu/internal/simd"
	"github.com/splora/splora/model/tensor"
)

// Blocks of a product: KC inner elements are packed at a time (a panel of op(b) stays in the first cache), MC rows and NC
// columns of op(a) and op(b) at most; a piece of work is about blockM × blockN of dst.
const (
	blockK = 256
	maxM   = 4096
	maxN   = 2048
	blockM = 144
	blockN = 256
	thin   = 64
)

// gemmBuffers are the packed operands; they grow to what the largest product needs and stay.
type gemmBuffers struct {
	a, b, c []float32
	fixed   []uint16 // of a unit for bfloat16
}

// side is op(a) or op(b)ᵀ: rows × k elements, packed in panels of `width` rows.
type side struct {
	t     tensor.Tensor
	along bool // element (row, k) stands at t[k, row]
	rows  int
	width int
}

// inner is the number of elements k.
func (s side) inner() int {
	if s.along {
		return s.t.Rows
	}
	return s.t.Cols
}

// Gemm sets dst [m,n] = α·op(a)·op(b) + β·dst, dst F32 or BF16. The sum over k is taken in order within a block of blockK, and the blocks are added in
// order, whatever the number of threads.
func (b *Backend) Gemm(dst tensor.Tensor, alpha float32, am tensor.Tensor, ta bool, bm tensor.Tensor, tb bool, beta float32) {
	m, n, k := gemmShape(dst, am, ta, bm, tb)
	if m == 0 || n == 0 {
		return
	}
	if b.isThin(dst, am, bm, k) && !b.isDots(m, am, ta, tb) {
		b.thin(dst, alpha, am, ta, bm, tb, beta)
		return
	}
	if m > fewRows && b.unit.takes(am.DType, bm.DType, k) {
		b.unitGemm(dst, alpha, am, ta, bm, tb, beta)
		return
	}
	if b.isHalfDots(dst, am, ta, tb) {
		b.halfDots(dst, alpha, am, bm, beta)
		return
	}
	if dst.DType == tensor.BF16 {
		b.gemmRounded(dst, alpha, am, ta, bm, tb, beta)
		return
	}
	if k == 0 {
		scaleBy(vec{b.kern}, dst.Float32(), beta)
		return
	}
	if b.isDots(m, am, ta, tb) {
		b.dots(dst, alpha, am, bm, beta)
		return
	}
	kern := b.kern
	grow(&b.gemm.a, roundUp(min(m, maxM), kern.MR)*min(k, blockK))
	grow(&b.gemm.b, roundUp(min(n, maxN), kern.NR)*min(k, blockK))
	left := side{t: am, along: ta, rows: m, width: kern.MR}
	right := side{t: bm, along: !tb, rows: n, width: kern.NR}
	rows, cols := atOnce(m, n)
	for j := 0; j < n; j += cols {
		for i := 0; i < m; i += rows {
			b.gemmBlock(kern, dst.Float32()[i*n+j:], n, alpha, beta, left, right, i, j, min(rows, m-i), min(cols, n-j))
		}
	}
}

// atOnce is the size of the blocks of dst. Against few columns a packed row is used little, and few are packed at a time, so that
// they are still in the second cache when they are; likewise few rows.
func atOnce(m, n int) (rows, cols int) {
	rows, cols = maxM, maxN
	if n <= thin {
		rows = 4 * blockM
	}
	if m <= thin {
		cols = 4 * blockN
	}
	return rows, cols
}

// gemmBlock computes the block c [m,n] of dst that begins at (i, j); rows of c are ldc apart.
func (b *Backend) gemmBlock(kern *simd.Kernels, c []float32, ldc int, alpha, beta float32, left, right side, i, j, m, n int) {
	k := left.inner()
	for k0 := 0; k0 < k; k0 += blockK {
		kc := min(blockK, k-k0)
		b.tasks.pack = packTask{kern, left, right, i, j, m, n, k0, kc, b.gemm.a, b.gemm.b}
		b.pool.run(&b.tasks.pack, b.tasks.pack.count(), grain((m+n)*kc/b.tasks.pack.count()))
		t := tileTask{kern: kern, a: b.gemm.a, b: b.gemm.b, c: c, ldc: ldc,
			m: m, n: n, kc: kc, alpha: alpha, beta: beta}
		t.cut(4 * b.pool.threads())
		if k0 > 0 {
			t.beta = 1
		}
		b.tasks.tiles = t
		b.pool.run(&b.tasks.tiles, t.pieces(), grain(t.pm*kern.MR*min(n, blockN)*kc/8))
	}
}

func gemmShape(dst, a tensor.Tensor, ta bool, b tensor.Tensor, tb bool) (m, n, k int) {
	m, k = a.Rows, a.Cols
	if ta {
		m, k = k, m
	}
	kb, n := b.Rows, b.Cols
	if tb {
		kb, n = n, kb
	}
	if k != kb {
		panic(fmt.Sprintf("cpu: gemm: inner sizes %d and %d of %s (transposed %v) and %s (transposed %v)", k, kb, a, ta, b, tb))
	}
	wantFloat("gemm", "a", a, a.Rows, a.Cols)
	wantFloat("gemm", "b", b, b.Rows, b.Cols)
	if dst.DType == tensor.BF16 {
		want("gemm", "dst", dst, tensor.BF16, m, n)
	} else {
		want("gemm", "dst", dst, tensor.F32, m, n)
	}
	return m, n, k
}

func scaleBy(v vec, x []float32, beta float32) {
	if beta == 0 {
		clear(x)
		return
	}
	v.scale(x, beta)
}

func roundUp(n, to int) int { return (n + to - 1) / to * to }

func grow(buf *[]float32, n int) {
	if len(*buf) < n {
		*buf = make([]float32, n)
	}
}

// tileTask multiplies packed panels into dst, in pieces of about blockM × blockN.
type tileTask struct {
	kern        *simd.Kernels
	a, b, c     []float32
	ldc         int
	m, n, kc    int
	alpha, beta float32
	pm, pn      int // panels of a piece
}

// cut sets the size of the pieces, about blockM × blockN of dst; lower ones, as long as there are fewer than that. No result depends on it.
func (t *tileTask) cut(least int) {
	t.pm, t.pn = max(1, blockM/t.kern.MR), max(1, blockN/t.kern.NR)
	for t.pm > 3 && t.pieces() < least {
		t.pm = (t.pm + 1) / 2
	}
}

// down is the number of pieces down a column of pieces: they are taken column by column, so that a column's part of b stays in the second
// cache.
func (t *tileTask) down() int { return (t.m + t.pm*t.kern.MR - 1) / (t.pm * t.kern.MR) }

func (t *tileTask) pieces() int {
	return (t.n + t.pn*t.kern.NR - 1) / (t.pn * t.kern.NR) * t.down()
}

func (t *tileTask) do(w *worker, i, j int) {
	rows, cols, down := t.pm*t.kern.MR, t.pn*t.kern.NR, t.down()
	for ; i < j; i++ {
		i0, j0 := i%down*rows, i/down*cols
		i1, j1 := min(i0+rows, t.m), min(j0+cols, t.n)
		for jr := j0; jr < j1; jr += t.kern.NR {
			for ir := i0; ir < i1; ir += t.kern.MR {
				t.tile(w, ir, jr)
			}
		}
	}
}

// tile computes the tile at (i, j), with the narrowest kernel that covers it; one that hangs over the edge goes by way of scratch.
func (t *tileTask) tile(w *worker, i, j int) {
	k := t.kern
	rows, cols := min(k.MR, t.m-i), min(k.NR, t.n-j)
	ri, ci := (rows-1)/k.RowStep, (cols-1)/k.Lanes
	w.work.Tiles++
	f, a, b, c := k.Tile[ri][ci], &t.a[i*t.kc], &t.b[j*t.kc], t.c[i*t.ldc+j:]
	p, ld := w.edgeOf(k, c, t.ldc, rows, cols, rows == (ri+1)*k.RowStep && cols == (ci+1)*k.Lanes, t.beta)
	f(t.kc, a, b, p, ld, t.alpha, t.beta)
	w.fromEdge(k, c, t.ldc, rows, cols, p)
}

// edgeOf is where a tile of c is made: in place if the kernel covers exactly that, else in scratch memory, which then has what β needs.
func (w *worker) edgeOf(k *simd.Kernels, c []float32, ldc, rows, cols int, covers bool, beta float32) (p *float32, ld int) {
	if covers {
		return &c[0], ldc
	}
	edge := w.edge[:k.MR*k.NR]
	for r := 0; beta != 0 && r < rows; r++ {
		copy(edge[r*k.NR:r*k.NR+cols], c[r*ldc:])
	}
	return &edge[0], k.NR
}

// fromEdge sets the tile of c from where it was made.
func (w *worker) fromEdge(k *simd.Kernels, c []float32, ldc, rows, cols int, p *float32) {
	if p == &c[0] {
		return
	}
	for r := range rows {
		copy(c[r*ldc:r*ldc+cols], w.edge[r*k.NR:])
	}
}
