package cpu

import (
	"github.com/splora/splora/model/compute/cpu/internal/simd"
	"github.com/splora/splora/model/tensor"
)

// A thin product has a side of few rows: the adapters' r, or a token or two. Of the other, long side each element is used that often only, so
// packing it would cost as much as multiplying it: it is read where it stands, once, and the thin side alone is packed.
//
//	rows      long [n,k]:  c [n,few] = long·thinᵀ, twelve rows of long at a time
//	columns   long [k,n]:  c [few,n] = thin·long, runs of columns
//
// Where dst wants the other order, c is made in scratch memory and transposed.
const (
	few       = 32  // rows of the thin side
	thinRows  = 96  // of the long side, in a piece
	thinCols  = 512 // columns of it, at most
	thinK     = 256 // inner elements at a time, by rows
	thinKCols = 32  // and by columns: so many runs of thinCols stay in the first caches
)

// thinTask multiplies; a piece is some rows or columns of the long side.
type thinTask struct {
	kern        *simd.Kernels
	long, thin  side // thin in panels, packed as the other operand of the kernel
	packed      []float32
	dst         tensor.Tensor
	turned      bool // dst is cᵀ
	k, size     int  // size: of a piece; no result depends on it
	alpha, beta float32
}

// isThin reports whether a product goes that way.
func (b *Backend) isThin(dst, am, bm tensor.Tensor, k int) bool {
	f32 := dst.DType == tensor.F32 && am.DType == tensor.F32 && bm.DType == tensor.F32
	return f32 && b.kern.Rows[0][0] != nil && min(dst.Rows, dst.Cols) <= few && max(dst.Rows, dst.Cols) > few && k > 0
}

// thin sets dst [m,n] = α·op(a)·op(b) + β·dst.
func (b *Backend) thin(dst tensor.Tensor, alpha float32, am tensor.Tensor, ta bool, bm tensor.Tensor, tb bool, beta float32) {
	b.tasks.thin = b.newThin(dst, alpha, am, ta, bm, tb, beta)
	t := &b.tasks.thin
	t.packed = sized(&b.gemm.b, t.padded()*t.k)
	b.tasks.thinPack = thinPackTask{t}
	kc := t.kc()
	b.pool.run(&b.tasks.thinPack, (t.k+kc-1)/kc, grain(kc*t.thin.rows))
	b.pool.run(t, t.pieces(), grain(t.size*t.thin.rows*t.k/8))
}

// newThin is a thin product whose thin side is not packed yet.
func (b *Backend) newThin(dst tensor.Tensor, alpha float32, am tensor.Tensor, ta bool, bm tensor.Tensor, tb bool, beta float32) thinTask {
	left := side{t: am, along: ta, rows: dst.Rows}
	right := side{t: bm, along: !tb, rows: dst.Cols}
	t := thinTask{kern: b.kern, long: left, thin: right, dst: dst, k: left.inner(), alpha: alpha, beta: beta}
	if right.rows > left.rows {
		t.long, t.thin = right, left
	}
	// By rows, c is [long, thin] and the thin side is packed as op(b); by columns [thin, long], and as op(a).
	t.turned, t.thin.width, t.size = t.long.along == (right.rows <= left.rows), b.kern.NR, thinRows
	if t.long.along {
		t.size = min(thinCols, roundUp(max(1, t.long.rows/(2*b.pool.threads())), b.kern.NR))
		panels := (t.thin.rows + b.kern.MR - 1) / b.kern.MR // of equal width
		t.thin.width = roundUp((t.thin.rows+panels-1)/panels, b.kern.RowStep)
	}
	return t
}

func (t *thinTask) pieces() int { return (t.long.rows + t.size - 1) / t.size }

// kc is the number of inner elements of a block.
func (t *thinTask) kc() int {
	if t.long.along {
		return thinKCols
	}
	return thinK
}

// thinPackTask packs the thin side, a block of k in each piece.
type thinPackTask struct{ *thinTask }

func (t *thinPackTask) do(w *worker, i, j int) {
	for ; i < j; i++ {
		k0 := i * t.kc()
		p := packTask{kern: t.kern, k0: k0, kc: min(t.kc(), t.k-k0)}
		for q := 0; q*t.thin.width < t.thin.rows; q++ {
			p.panel(w, t.thin, t.packed[k0*t.padded():], 0, t.thin.rows, q)
		}
	}
}

// padded is the number of the thin side's rows in whole panels.
func (t *thinTask) padded() int { return roundUp(t.thin.rows, t.thin.width) }

func (t *thinTask) do(w *worker, i, j int) {
	for ; i < j; i++ {
		first := i * t.size
		n := min(t.size, t.long.rows-first)
		if t.turned {
			t.turn(w, first, n)
			continue
		}
		c, ld := t.dst.Float32(), t.dst.Cols
		if t.long.along {
			t.columns(w, c[first:], ld, first, n, t.alpha, t.beta)
		} else {
			t.byRows(w, c[first*ld:], ld, first, n, t.alpha, t.beta)
		}
	}
}

// turn makes c of n rows of the long side in scratch memory, and sets dst = α·cᵀ + β·dst there.
func (t *thinTask) turn(w *worker, first, n int) {
	rows, cols := t.thin.rows, n // of c
	if !t.long.along {
		rows, cols = n, t.thin.rows
	}
	buf := w.scratch(2 * rows * cols)
	c, turned := buf[:rows*cols], buf[rows*cols:]
	at := first
	if t.long.along {
		t.columns(w, c, cols, first, n, t.alpha, 0)
		at *= t.dst.Cols
	} else {
		t.byRows(w, c, cols, first, n, t.alpha, 0)
	}
	across(w, turned, rows, c, cols, 0, cols)
	for j := range cols {
		row, src := t.dst.Float32()[at+j*t.dst.Cols:][:rows], turned[j*rows:][:rows]
		switch t.beta {
		case 0:
			copy(row, src)
		case 1:
			w.add(row, src)
		default:
			w.scale(row, t.beta)
			w.add(row, src)
		}
	}
}

// byRows computes c [n, thin] from rows [first, first+n) of the long side. The last few, when they are no whole tile, are packed.
func (t *thinTask) byRows(w *worker, c []float32, ldc, first, n int, alpha, beta float32) {
	k := t.kern
	long, lda := t.long.t.Float32(), t.long.t.Cols
	for k0 := 0; k0 < t.k; k0 += thinK {
		kc := min(thinK, t.k-k0)
		b := t.packed[k0*t.padded():]
		for i := 0; i < n; {
			rows := min(k.MR, (n-i)/k.RowStep*k.RowStep)
			if rows == 0 {
				t.rest(w, c[i*ldc:], ldc, first+i, n-i, k0, kc, alpha, beta)
				break
			}
			for j := 0; j < t.thin.rows; j += k.NR {
				cols := min(k.NR, t.thin.rows-j)
				ci := (cols - 1) / k.Lanes
				w.work.Tiles++
				at := c[i*ldc+j:]
				p, ld := w.edgeOf(k, at, ldc, rows, cols, cols == (ci+1)*k.Lanes, beta)
				k.Rows[rows/k.RowStep-1][ci](kc, &long[(first+i)*lda+k0], lda, &b[j*kc], p, ld, alpha, beta)
				w.fromEdge(k, at, ldc, rows, cols, p)
			}
			i += rows
		}
		beta = 1
	}
}

// rest is byRows for fewer rows than a tile has.
func (t *thinTask) rest(w *worker, c []float32, ldc, first, n, k0, kc int, alpha, beta float32) {
	grow(&w.a, t.kern.MR*kc)
	p := packTask{kern: t.kern, k0: k0, kc: kc}
	p.panel(w, side{t: t.long.t, rows: t.long.rows, width: t.kern.MR}, w.a, first, n, 0)
	m := tileTask{kern: t.kern, a: w.a, b: t.packed[k0*t.padded():], c: c, ldc: ldc, m: n, n: t.thin.rows, kc: kc, alpha: alpha, beta: beta}
	m.cut(1)
	m.do(w, 0, m.pieces())
}

// columns computes c [thin, n] from columns [first, first+n) of the long side. The last few, when they are no whole register, are packed.
func (t *thinTask) columns(w *worker, c []float32, ldc, first, n int, alpha, beta float32) {
	k := t.kern
	long, ldb := t.long.t.Float32(), t.long.t.Cols
	for k0 := 0; k0 < t.k; k0 += thinKCols {
		kc := min(thinKCols, t.k-k0)
		a := t.packed[k0*t.padded():]
		for j := 0; j < n; {
			cols := min(k.NR, (n-j)/k.Lanes*k.Lanes)
			if cols == 0 {
				t.last(w, c[j:], ldc, first+j, n-j, k0, kc, alpha, beta)
				break
			}
			for i := 0; i < t.thin.rows; i += t.thin.width {
				rows := min(t.thin.width, t.thin.rows-i)
				ri := (rows - 1) / k.RowStep
				w.work.Tiles++
				at := c[i*ldc+j:]
				p, ld := w.edgeOf(k, at, ldc, rows, cols, rows == (ri+1)*k.RowStep, beta)
				k.Columns[ri][cols/k.Lanes-1](kc, &a[i*kc], t.thin.width, &long[k0*ldb+first+j], ldb, p, ld, alpha, beta)
				w.fromEdge(k, at, ldc, rows, cols, p)
			}
			j += cols
		}
		beta = 1
	}
}

// last is columns for fewer columns than a register has: packed, a register wide.
func (t *thinTask) last(w *worker, c []float32, ldc, first, n, k0, kc int, alpha, beta float32) {
	k := t.kern
	grow(&w.b, k.Lanes*kc)
	p := packTask{kern: k, k0: k0, kc: kc}
	p.panel(w, side{t: t.long.t, along: true, rows: t.long.rows, width: k.Lanes}, w.b, first, n, 0)
	for i := 0; i < t.thin.rows; i += t.thin.width {
		rows := min(t.thin.width, t.thin.rows-i)
		w.work.Tiles++
		p, ld := w.edgeOf(k, c[i*ldc:], ldc, rows, n, false, beta)
		k.Columns[(rows-1)/k.RowStep][0](kc, &t.packed[k0*t.padded()+i*kc], t.thin.width, &w.b[0], k.Lanes, p, ld, alpha, beta)
		w.fromEdge(k, c[i*ldc:], ldc, rows, n, p)
	}
}
