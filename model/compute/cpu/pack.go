package cpu

import (
	"unsafe"

	"github.com/splora/splora/model/compute/cpu/internal/simd"
	"github.com/splora/splora/model/tensor"
)

// packTask packs the panels of both sides: panel p holds dst[k·width + r] = row p·width + r at k, widened to float32. What a
// short panel holds beyond its rows is unspecified: it only reaches elements that are not stored.
type packTask struct {
	kern        *simd.Kernels
	left, right side
	i, j, m, n  int
	k0, kc      int
	a, b        []float32
}

// together is the number of panels that are packed as one item: of rows that lie along the memory, whose runs are then read whole.
const together = 8

// items is the number of items of a side with the given rows.
func (s side) items(rows int) int { return (rows + together*s.width - 1) / (together * s.width) }

func (t *packTask) count() int { return t.left.items(t.m) + t.right.items(t.n) }

func (t *packTask) do(w *worker, i, j int) {
	l := t.left.items(t.m)
	for ; i < j; i++ {
		if i < l {
			t.item(w, t.left, t.kern.PanelsA, t.a, t.i, t.m, i*together)
		} else {
			t.item(w, t.right, t.kern.PanelsB, t.b, t.j, t.n, (i-l)*together)
		}
	}
}

// item packs the panels [p, p+together) of the rows [first, first+rows) of s, as far as there are any.
func (t *packTask) item(w *worker, s side, fast [3]simd.Panels, dst []float32, first, rows, p int) {
	end := min(p+together, (rows+s.width-1)/s.width)
	if f, full := fast[format(s.t.DType)], min(end, rows/s.width); s.along && f != nil && full > p {
		w.work.Packed += (full - p) * s.width * t.kc
		f(&dst[p*s.width*t.kc], s.width*t.kc, element(s.t, t.k0*s.t.Cols+first+p*s.width), s.t.Cols, t.kc, full-p)
		p = full
	}
	for ; p < end; p++ {
		t.panel(w, s, dst, first, rows, p)
	}
}

// panel packs panel p of the rows [first, first+rows) of s.
func (t *packTask) panel(w *worker, s side, dst []float32, first, rows, p int) {
	r0 := p * s.width
	n := min(s.width, rows-r0)
	dst = dst[r0*t.kc : (r0+s.width)*t.kc]
	w.work.Packed += len(dst)
	lanes := t.kern.Lanes
	for g := 0; g < n; g += lanes {
		n := min(lanes, n-g)
		if s.along {
			packAlong(t.kern, dst[g:], s.t, first+r0+g, n, s.width, t.k0, t.kc)
		} else {
			packAcross(w, t.kern, dst[g:], s.t, first+r0+g, n, s.width, t.k0, t.kc)
		}
	}
}

// packAlong packs n rows that lie along the memory: (row, k) at t[k, row].
func packAlong(kern *simd.Kernels, dst []float32, t tensor.Tensor, row, n, width, k0, kc int) {
	along := kern.Along[format(t.DType)]
	if along == nil || kern.Lanes == 8 && n < 8 && t.DType != tensor.F32 {
		for k := range kc {
			widen(dst[k*width:k*width+n], elements(t, (k0+k)*t.Cols+row, n), 0)
		}
		return
	}
	along(&dst[0], width, element(t, k0*t.Cols+row), t.Cols, kc, n)
}

// packAcross packs n rows that lie across it: (row, k) at t[row, k].
func packAcross(w *worker, kern *simd.Kernels, dst []float32, t tensor.Tensor, row, n, width, k0, kc int) {
	done := 0
	if f := kern.Transpose[format(t.DType)]; f != nil && kc >= kern.Lanes {
		f(&dst[0], width, element(t, row*t.Cols+k0), t.Cols, kc/kern.Lanes, n)
		done = kc / kern.Lanes * kern.Lanes
	}
	line := w.line[:kc-done]
	for r := 0; len(line) > 0 && r < n; r++ {
		widen(line, elements(t, (row+r)*t.Cols+k0+done, len(line)), 0)
		for k, v := range line {
			dst[(done+k)*width+r] = v
		}
	}
}

// elements are n elements of t's memory from index i on; an operand's last row may be cut short, so that Len says nothing.
func elements(t tensor.Tensor, i, n int) tensor.Tensor {
	t.Mem.Host = t.Mem.Host[i*t.DType.Size():]
	t.Rows, t.Cols = 1, n
	return t
}

// element is the address of element i.
func element(t tensor.Tensor, i int) unsafe.Pointer {
	return unsafe.Pointer(&t.Mem.Host[i*t.DType.Size()])
}

func format(dt tensor.DType) simd.Format {
	switch dt {
	case tensor.BF16:
		return simd.BF16
	case tensor.F16:
		return simd.F16
	}
	return simd.F32
}
