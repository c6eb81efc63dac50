package cpu

import "github.com/splora/splora/model/tensor"

// packTask packs the panels of both sides: panel p holds dst[k·width + r] = row p·width + r at k, short panels filled up
// with 0, everything widened to float32.
type packTask struct {
	left, right side
	i, j, m, n  int
	k0, kc      int
	a, b        []float32
}

func (t *packTask) panels() (left, right int) {
	return (t.m + t.left.width - 1) / t.left.width, (t.n + t.right.width - 1) / t.right.width
}

func (t *packTask) count() int {
	l, r := t.panels()
	return l + r
}

func (t *packTask) do(w *worker, i, j int) {
	l, _ := t.panels()
	for ; i < j; i++ {
		if i < l {
			t.left.pack(w, t.a, t.i, t.m, i, t.k0, t.kc)
		} else {
			t.right.pack(w, t.b, t.j, t.n, i-l, t.k0, t.kc)
		}
	}
}

// pack sets panel p of the rows [first, first+rows), inner elements [k0, k0+kc).
func (s side) pack(w *worker, dst []float32, first, rows, p, k0, kc int) {
	r0, n := p*s.width, min(s.width, rows-p*s.width)
	dst = dst[r0*kc : (r0+s.width)*kc]
	if n < s.width {
		clear(dst)
	}
	if s.along {
		packAlong(dst, s.t, first+r0, n, s.width, k0, kc)
	} else {
		packAcross(dst, s.t, first+r0, n, s.width, k0, kc, w.scratch(kc))
	}
}

// packAlong packs rows that lie along the memory: (row, k) at t[k, row].
func packAlong(dst []float32, t tensor.Tensor, row, n, width, k0, kc int) {
	for k := range kc {
		widen(dst[k*width:k*width+n], t, (k0+k)*t.Cols+row)
	}
}

// packAcross packs rows that lie across it: (row, k) at t[row, k].
func packAcross(dst []float32, t tensor.Tensor, row, n, width, k0, kc int, line []float32) {
	for r := range n {
		widen(line, t, (row+r)*t.Cols+k0)
		for k, v := range line {
			dst[k*width+r] = v
		}
	}
}
