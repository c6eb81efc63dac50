package cpu

import (
	"math"
	"math/bits"
	"unsafe"

	"github.com/splora/splora/model/sparse"
	"github.com/splora/splora/model/tensor"
)

type mergeTask struct {
	dst  act
	w    *sparse.Weight
	b, a []float32
	r    int
	s    float32
}

// Merge sets dst = M ⊙ (W + s·B·A); with absent a and b it only expands W. Pruned positions are exactly +0, whatever
// s·B·A is there.
func (b *Backend) Merge(dst tensor.Tensor, w *sparse.Weight, bm, am tensor.Tensor, s float32) {
	t := newMerge("merge", w, bm, am, s)
	t.dst = wantAct("merge", "dst", dst, like("merge", "dst", dst), w.Out, w.In)
	b.tasks.merge = t
	b.pool.run(&b.tasks.merge, w.Out, t.grain())
}

// mergeRows is the least number of rows that are merged at a time, for which a chunk of A is copied once.
const mergeRows = 32

// grain is the number of rows of a piece. No result depends on it.
func (t *mergeTask) grain() int { return max(mergeRows, grain(t.w.In*(t.r+2))) }

// scratch is the floats that a piece takes: s·B of its rows and so many columns of A.
func (t *mergeTask) scratch(rows, cols int) int { return (rows + cols) * t.r }

// factors are s·B of rows rows from i on, and room for cols columns of A.
func (t *mergeTask) factors(w *worker, i, rows, cols int) (coef, a []float32) {
	buf := w.scratch(t.scratch(rows, cols))
	coef, a = buf[:rows*t.r], buf[rows*t.r:]
	t.coefs(w, coef, i)
	return coef, a
}

// newMerge is a merge without its destination.
func newMerge(op string, w *sparse.Weight, bm, am tensor.Tensor, s float32) mergeTask {
	t := mergeTask{w: w, s: s}
	if !am.Absent() || !bm.Absent() {
		t.r = am.Rows
		want(op, "b", bm, tensor.F32, w.Out, t.r)
		want(op, "a", am, tensor.F32, t.r, w.In)
		t.b, t.a = bm.Float32(), am.Float32()
	}
	return t
}

// coefs sets dst to s·B of the rows from i on, as many as fit.
func (t *mergeTask) coefs(w *worker, dst []float32, i int) {
	copy(dst, t.b[i*t.r:])
	w.scale(dst, t.s)
}

// chunk is the number of columns merged at a time, so that the chunk's part of A stays in the first cache.
const chunk = 2 * sparse.Block

func (t *mergeTask) do(w *worker, i, j int) {
	coef, near := t.factors(w, i, j-i, chunk)
	for k := 0; k < t.w.In; k += chunk {
		n := min(chunk, t.w.In-k)
		a := t.columns(near, k, n)
		for row := i; row < j; row++ {
			at, c := row*t.w.In+k, coef[(row-i)*t.r:(row-i+1)*t.r]
			if t.dst.half() && w.MergeHalf[0] != nil {
				t.partHalf(w, t.dst.h[at:at+n], row, k, c, a)
				continue
			}
			dst := w.out(0, t.dst, at, n)
			t.part(w, dst, row, k, c, a)
			w.put(t.dst, at, dst)
		}
	}
}

// columns copies columns [k, k+n) of A, 0 beyond the last: its rows, mostly a multiple of 4 KiB apart, would drive each other out of the
// first cache.
func (t *mergeTask) columns(buf []float32, k, n int) []float32 {
	a, have := buf[:n*t.r], min(n, t.w.In-k)
	for p := range t.r {
		copy(a[p*n:], t.a[p*t.w.In+k:][:have])
		clear(a[p*n+have : (p+1)*n])
	}
	return a
}

// partHalf is part into BF16, where there is a kernel.
func (t *mergeTask) partHalf(w *worker, dst []uint16, i, k int, coef, a []float32) {
	w.work.Merged += len(dst)
	bits, values := t.operands(i, k)
	w.MergeHalf[format(t.w.Values.DType)](len(dst), &dst[0], bits, values, ptr(coef), ptr(a), len(dst), len(coef))
}

// operands are where the row's bits (nil: all kept) and kept values begin, for columns from k on.
func (t *mergeTask) operands(i, k int) (bits *uint64, values unsafe.Pointer) {
	if !t.w.Dense() {
		bits = &t.w.RowBits(i)[k/64]
	}
	return bits, valuesAt(t.w.Values, t.w.Start(i, k/sparse.Block))
}

// part sets columns [k, k+len(dst)) of row i: dst = Σ_p coef_p·a_p, a [r, len(dst)], then keeps and adds W where M is, and puts 0 elsewhere.
func (t *mergeTask) part(w *worker, dst []float32, i, k int, coef, a []float32) {
	n := len(dst)
	w.work.Merged += n
	if f := w.Merge[format(t.w.Values.DType)]; f != nil {
		bits, values := t.operands(i, k)
		f(n, &dst[0], bits, values, ptr(coef), ptr(a), n, len(coef))
		return
	}
	at := t.w.Start(i, k/sparse.Block)
	for j := range dst {
		dst[j] = zeroOf(len(coef))
	}
	combine(w, dst, coef, a)
	j, at := t.expand(w, dst, i, k, at)
	for ; j < n; j += 64 {
		at += addKept(dst[j:min(j+64, n)], rowBits(t.w, i, (k+j)/64), t.w.Values, at)
	}
}

// combine adds Σ_p coef_p·a_p, a [len(coef), len(dst)].
func combine(w *worker, dst, coef, a []float32) {
	n, done := len(dst), 0
	if w.Combine != nil && len(coef) > 0 && n >= 32 {
		w.Combine(n/32, &dst[0], &coef[0], &a[0], n, len(coef))
		done = n / 32 * 32
	}
	for p, c := range coef {
		w.axpy(dst[done:], c, a[p*n:][done:n])
	}
}

// expand does addKept for as many whole words of columns [k, k+len(dst)) as there are, and values after them that may be read; it
// returns how far it came in dst and in the values.
func (t *mergeTask) expand(w *worker, dst []float32, i, k, at int) (int, int) {
	f, n := w.Expand[format(t.w.Values.DType)], len(dst)/64
	if f == nil || n == 0 || at+64*n+7 > t.w.NNZ() {
		return 0, at
	}
	row := w.ones[:n]
	if !t.w.Dense() {
		row = t.w.RowBits(i)[k/64:][:n]
	}
	f(n, &dst[0], &row[0], valuesAt(t.w.Values, at))
	for _, b := range row {
		at += bits.OnesCount64(b)
	}
	return 64 * n, at
}

// valuesAt is the address of value i, or of nothing when no more are kept.
func valuesAt(v tensor.Tensor, i int) unsafe.Pointer {
	if i >= v.Len() {
		return nil
	}
	return element(v, i)
}

// zeroOf is where a sum of r terms begins: −0 where there are none, which leaves a −0 of W as it is.
func zeroOf(r int) float32 {
	if r == 0 {
		return float32(math.Copysign(0, -1))
	}
	return 0
}

// addKept adds the values from index at on to the kept positions of dst (at most 64), sets the others to +0, and returns the number
// of kept ones.
func addKept(dst []float32, kept uint64, values tensor.Tensor, at int) int {
	var v [64]float32
	n := bits.OnesCount64(kept)
	widen(v[:n], values, at)
	k := 0
	for j := range dst {
		if kept>>j&1 == 0 {
			dst[j] = 0
			continue
		}
		dst[j] += v[k]
		k++
	}
	return n
}

type maskTask struct {
	dst act
	w   *sparse.Weight
}

// Mask sets dst = M ⊙ dst; pruned positions become exactly +0, whatever they held.
func (b *Backend) Mask(dst tensor.Tensor, w *sparse.Weight) {
	a := wantAct("mask", "dst", dst, like("mask", "dst", dst), w.Out, w.In)
	if w.Dense() {
		return
	}
	b.tasks.mask = maskTask{a, w}
	b.pool.run(&b.tasks.mask, w.Out, grain(w.In))
}

func (t *maskTask) do(w *worker, i, j int) {
	n := t.w.In
	for ; i < j; i++ {
		if t.dst.half() {
			w.maskBF16(t.dst.h[i*n:(i+1)*n], t.w.RowBits(i))
		} else {
			w.mask(t.dst.f[i*n:(i+1)*n], t.w.RowBits(i))
		}
	}
}

// mask sets row = M ⊙ row.
func (v vec) mask(row []float32, bits []uint64) {
	if v.Mask != nil {
		v.Mask(len(row), &row[0], &bits[0])
		return
	}
	whole := 0
	if v.MaskWords != nil && len(row) >= 64 {
		v.MaskWords(len(row)/64, &row[0], &bits[0])
		whole = len(row) / 64 * 64
	}
	for k := whole; k < len(row); k++ {
		if bits[k/64]>>(k%64)&1 == 0 {
			row[k] = 0
		}
	}
}

// maskBF16 is mask of a BF16 row.
func (v vec) maskBF16(row []uint16, bits []uint64) {
	if v.MaskBF16 != nil {
		v.MaskBF16(len(row), &row[0], &bits[0])
		return
	}
	for k := range row {
		row[k] &= -uint16(bits[k/64] >> (k % 64) & 1)
	}
}

// rowBits is word k of row i of the mask; a dense row has its first In bits set.
func rowBits(w *sparse.Weight, i, k int) uint64 {
	if w.Dense() {
		return ^uint64(0) >> max(0, 64*(k+1)-w.In)
	}
	return w.RowBits(i)[k]
}
