package cpu

import (
	"fmt"
	"unsafe"

	"github.com/splora/splora/model/compute/cpu/internal/simd"
	"github.com/splora/splora/model/tensor"
)

// act is an activation as flat memory: F32, or BF16, whose elements a loop over float32s meets in lines of a worker's scratch memory,
// widened before the formula and rounded, once, behind it. A line is short enough to stay in the first cache.
type act struct {
	f []float32
	h []uint16
}

// lineLen is the number of elements of a line of an operation that may stop anywhere.
const lineLen = 1024

func (a act) len() int { return len(a.f) + len(a.h) }

func (a act) half() bool { return a.h != nil }

// step is how far a loop over a's elements, n of them to go, may come at a time.
func (a act) step(n int) int {
	if a.half() {
		return min(n, lineLen)
	}
	return n
}

// like is the activation type of an operation: that of its first activation.
func like(op, name string, t tensor.Tensor) tensor.DType {
	if t.DType != tensor.F32 && t.DType != tensor.BF16 {
		panic(fmt.Sprintf("cpu: %s: %s is %s, want float32 or bfloat16", op, name, t))
	}
	return t.DType
}

// wantAct is want, and gives the activation.
func wantAct(op, name string, t tensor.Tensor, dt tensor.DType, rows, cols int) act {
	want(op, name, t, dt, rows, cols)
	return actOf(t)
}

// wantFlat is wantLen, and gives the activation.
func wantFlat(op, name string, t tensor.Tensor, dt tensor.DType, n int) act {
	wantLen(op, name, t, dt, n)
	return actOf(t)
}

func actOf(t tensor.Tensor) act {
	if t.DType == tensor.BF16 {
		if t.Len() == 0 {
			return act{h: []uint16{}}
		}
		return act{h: t.Uint16()}
	}
	return act{f: t.Float32()}
}

// in is elements [i, i+n) to read: in place, or widened into line k.
func (w *worker) in(k int, a act, i, n int) []float32 {
	if !a.half() {
		return a.f[i : i+n]
	}
	line := w.strip(k, n)
	w.widenBF16(line, a.h[i:i+n])
	return line
}

// out is where elements [i, i+n) are made: in place, or in line k, from where put takes them.
func (w *worker) out(k int, a act, i, n int) []float32 {
	if !a.half() {
		return a.f[i : i+n]
	}
	return w.strip(k, n)
}

// put rounds what was made in out's line.
func (w *worker) put(a act, i int, made []float32) {
	if a.half() {
		w.roundBF16(a.h[i:i+len(made)], made)
	}
}

// dotActs is Σ x·y over n elements, x from i on and y from j on; they may use lines 0 and 1.
func (w *worker) dotActs(x act, i int, y act, j, n int) float32 {
	if x.half() && w.DotHalf != nil && n > 0 {
		return w.DotHalf(n, unsafe.Pointer(&x.h[i : i+n][0]), unsafe.Pointer(&y.h[j : j+n][0]))
	}
	return w.dot(w.in(0, x, i, n), w.in(1, y, j, n))
}

// zero sets elements [i, i+n) to +0.
func (a act) zero(i, n int) {
	if a.half() {
		clear(a.h[i : i+n])
		return
	}
	clear(a.f[i : i+n])
}

// strip is line k of the worker, n elements of unspecified content.
func (w *worker) strip(k, n int) []float32 {
	if len(w.strips[k]) < n {
		w.strips[k] = make([]float32, max(n, lineLen))
	}
	return w.strips[k][:n]
}

// widenBF16 sets dst = src, exactly.
func (v vec) widenBF16(dst []float32, src []uint16) {
	n := 0
	if f := v.Widen[simd.BF16]; f != nil && len(src) > 0 {
		n = v.whole(len(src))
		f(n, ptr(dst[:len(src)]), unsafe.Pointer(&src[0]))
	}
	for k := n; k < len(src); k++ {
		dst[k] = fromBF16(src[k])
	}
}

// narrowBF16 sets dst = src, rounded to nearest even.
func (v vec) narrowBF16(dst []uint16, src []float32) {
	n := 0
	if v.NarrowBF16 != nil && len(src) > 0 {
		n = v.whole(len(src))
		v.NarrowBF16(n, unsafe.Pointer(&dst[:len(src)][0]), ptr(src))
	}
	for k := n; k < len(src); k++ {
		dst[k] = toBF16(src[k])
	}
}

// roundBF16 is narrowBF16, but numbers below 2⁻¹²⁶ may become 0.
func (v vec) roundBF16(dst []uint16, src []float32) {
	if v.RoundBF16 == nil || len(src) == 0 {
		v.narrowBF16(dst, src)
		return
	}
	v.RoundBF16(len(src), unsafe.Pointer(&dst[:len(src)][0]), ptr(src))
}

// whole is how many of n elements a kernel over 16-bit floats does: with 8 lanes it has no masked tail.
func (v vec) whole(n int) int {
	if v.Lanes == 8 {
		return n / 8 * 8
	}
	return n
}
