package cpu

import (
	"math"
	"unsafe"

	"github.com/splora/splora/model/compute/cpu/internal/simd"
	"github.com/splora/splora/model/tensor"
)

// vec are the loops over contiguous floats: a vector kernel where there is one, else the formula.
type vec struct{ *simd.Kernels }

// add sets y += x.
func (v vec) add(y, x []float32) {
	if v.Add != nil {
		v.Add(len(x), ptr(y[:len(x)]), ptr(x))
		return
	}
	for k, a := range x {
		y[k] += a
	}
}

// axpy sets y += s·x.
func (v vec) axpy(y []float32, s float32, x []float32) {
	if v.Axpy != nil {
		v.Axpy(len(x), ptr(y[:len(x)]), ptr(x), s)
		return
	}
	for k, a := range x {
		y[k] += s * a
	}
}

// scale sets x *= s.
func (v vec) scale(x []float32, s float32) {
	if v.Scale != nil {
		v.Scale(len(x), ptr(x), s)
		return
	}
	for k := range x {
		x[k] *= s
	}
}

// dot is Σ x·y.
func (v vec) dot(x, y []float32) float32 {
	if v.Dot[simd.F32] != nil {
		return v.Dot[simd.F32](len(x), ptr(x), unsafe.Pointer(ptr(y[:len(x)])))
	}
	return float32(dot64(x, y))
}

// dotAt is Σ x·w, w the elements of a tensor from index i on.
func (v vec) dotAt(x []float32, w tensor.Tensor, i int) float32 {
	n, f := len(x), v.Dot[format(w.DType)]
	if f == nil {
		n = 0
	} else if v.Lanes == 8 && w.DType != tensor.F32 {
		n = n / 8 * 8
	}
	var s float32
	if n > 0 {
		s = f(n, ptr(x), element(w, i))
	}
	for k := n; k < len(x); k++ {
		var e [1]float32
		widen(e[:], w, i+k)
		s += x[k] * e[0]
	}
	return s
}

// dot3 is Σ x·y·z.
func (v vec) dot3(x, y, z []float32) float32 {
	if v.Dot3 != nil {
		return v.Dot3(len(x), ptr(x), ptr(y[:len(x)]), ptr(z[:len(x)]))
	}
	var s float64
	for k, a := range x {
		s += float64(a * y[k] * z[k])
	}
	return float32(s)
}

// max is the greatest element; NaNs do not count here, they come back through exp.
func (v vec) max(x []float32) float32 {
	if v.Max != nil {
		return v.Max(len(x), ptr(x))
	}
	m := float32(math.Inf(-1))
	for _, a := range x {
		if a > m {
			m = a
		}
	}
	return m
}

// expSum sets x = exp(x − m) and returns Σ x.
func (v vec) expSum(x []float32, m float32) float64 {
	const piece = 4096 // of a float32 sum
	var sum float64
	for ; v.ExpSum != nil && len(x) > 0; x = x[min(piece, len(x)):] {
		sum += float64(v.ExpSum(min(piece, len(x)), ptr(x), m))
	}
	for k, a := range x {
		x[k] = exp(a - m)
		sum += float64(x[k])
	}
	return sum
}

// softmaxBack sets d = s·p·(d − delta).
func (v vec) softmaxBack(d, p []float32, delta, s float32) {
	if v.SoftmaxBack != nil {
		v.SoftmaxBack(len(d), ptr(d), ptr(p[:len(d)]), delta, s)
		return
	}
	for k := range d {
		d[k] = s * p[k] * (d[k] - delta)
	}
}

// norm sets y = x·rstd·w.
func (v vec) norm(y, x, w []float32, rstd float32) {
	if v.Norm != nil {
		v.Norm(len(w), ptr(y[:len(w)]), ptr(x[:len(w)]), ptr(w), rstd)
		return
	}
	for k, a := range w {
		y[k] = x[k] * rstd * a
	}
}

// rotate sets (a, b) = (a·cos − b·sin, b·cos + a·sin), sin times sign.
func (v vec) rotate(a, b, cos, sin []float32, sign float32) {
	if v.Rotate != nil {
		v.Rotate(len(a), ptr(a), ptr(b[:len(a)]), ptr(cos[:len(a)]), ptr(sin[:len(a)]), sign)
		return
	}
	for k := range a {
		c, s := cos[k], sign*sin[k]
		a[k], b[k] = a[k]*c-b[k]*s, b[k]*c+a[k]*s
	}
}

// ptr is where a slice begins, also of an empty one.
func ptr(x []float32) *float32 { return unsafe.SliceData(x) }

func dot64(x, y []float32) float64 {
	var s float64
	for k, v := range x {
		s += float64(v) * float64(y[k])
	}
	return s
}

func exp(x float32) float32 { return float32(math.Exp(float64(x))) }
