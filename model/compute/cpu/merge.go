package cpu

import (
	"math"
	"math/bits"

	"github.com/splora/splora/model/sparse"
	"github.com/splora/splora/model/tensor"
)

type mergeTask struct {
	dst  []float32
	w    *sparse.Weight
	b, a []float32
	r    int
	s    float32
}

// Merge sets dst = M ⊙ (W + s·B·A); with absent a and b it only expands W. Pruned positions are exactly +0, whatever
// s·B·A is there.
func (b *Backend) Merge(dst tensor.Tensor, w *sparse.Weight, bm, am tensor.Tensor, s float32) {
	want("merge", "dst", dst, tensor.F32, w.Out, w.In)
	t := mergeTask{dst: dst.Float32(), w: w, s: s}
	if !am.Absent() || !bm.Absent() {
		t.r = am.Rows
		want("merge", "b", bm, tensor.F32, w.Out, t.r)
		want("merge", "a", am, tensor.F32, t.r, w.In)
		t.b, t.a = bm.Float32(), am.Float32()
	}
	b.tasks.merge = t
	b.pool.run(&b.tasks.merge, w.Out, grain(w.In*(t.r+2)))
}

func (t *mergeTask) do(_ *worker, i, j int) {
	for ; i < j; i++ {
		t.row(i)
	}
}

// row sets dst_i = s·b_i·A, then keeps and adds W where M is, and puts 0 elsewhere. The sum begins at −0, which leaves a −0
// of W as it is when nothing is merged into it.
func (t *mergeTask) row(i int) {
	n := t.w.In
	dst := t.dst[i*n : (i+1)*n]
	for j := range dst {
		dst[j] = t.zero()
	}
	for k := range t.r {
		c := t.s * t.b[i*t.r+k]
		for j, a := range t.a[k*n : (k+1)*n] {
			dst[j] += c * a
		}
	}
	at := t.w.Start(i, 0)
	for k := 0; k < n; k += 64 {
		at += addKept(dst[k:min(k+64, n)], rowBits(t.w, i, k/64), t.w.Values, at)
	}
}

func (t *mergeTask) zero() float32 {
	if t.r == 0 {
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
	dst []float32
	w   *sparse.Weight
}

// Mask sets dst = M ⊙ dst; pruned positions become exactly +0, whatever they held.
func (b *Backend) Mask(dst tensor.Tensor, w *sparse.Weight) {
	want("mask", "dst", dst, tensor.F32, w.Out, w.In)
	if w.Dense() {
		return
	}
	b.tasks.mask = maskTask{dst.Float32(), w}
	b.pool.run(&b.tasks.mask, w.Out, grain(w.In))
}

func (t *maskTask) do(_ *worker, i, j int) {
	n := t.w.In
	for ; i < j; i++ {
		row := t.dst[i*n : (i+1)*n]
		for k := range row {
			if rowBits(t.w, i, k/64)>>(k%64)&1 == 0 {
				row[k] = 0
			}
		}
	}
}

// rowBits is word k of row i of the mask; a dense row has its first In bits set.
func rowBits(w *sparse.Weight, i, k int) uint64 {
	if w.Dense() {
		return ^uint64(0) >> max(0, 64*(k+1)-w.In)
	}
	return w.RowBits(i)[k]
}
