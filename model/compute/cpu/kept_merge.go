package cpu

import (
	"math/bits"
	"unsafe"

	"github.com/splora/splora/model/compute/cpu/internal/simd"
	"github.com/splora/splora/model/tensor"
)

// keptMergeTask sets t to W̃ = M ⊙ (W + s·B·A), packed; a piece is a chunk of rows.
type keptMergeTask struct {
	mergeTask
	kern *simd.Kept
	t    tiles
}

func (t *keptMergeTask) do(w *worker, c, end int) {
	for ; c < end; c++ {
		i0 := c * keptRows
		rows := min(keptRows, t.t.rows-i0)
		coef, a := t.factors(w, i0, rows, 64)
		at := t.starts(w, i0, rows, 0)
		t.t.place(c, int(at[0]))
		m := &w.keptMerge
		*m = t.kept(rows, at, coef, a)
		for k := range t.t.blocks() {
			if m.Dst = unsafe.Pointer(t.t.at(c, k)); m.Dst == nil {
				break // nothing is kept from here on
			}
			m.Bits = t.t.word(i0, k)
			t.columns(a, 64*k, 64)
			w.mergeKept(t.kern, t.w.Values, t.t.values.DType)
			w.work.Merged += rows * min(64, t.t.cols-64*k)
		}
	}
}

// starts are the numbers of the first values that n rows from i on keep in or after block k.
func (t *mergeTask) starts(w *worker, i, n, k int) []uint32 {
	at := sized(&w.at, n)
	for j := range at {
		at[j] = uint32(t.w.Start(i+j, k))
	}
	return at
}

// kept are the arguments of a packed merge of n rows, without its destination and the rows' bits.
func (t *mergeTask) kept(n int, at []uint32, coef, a []float32) simd.KeptMerge {
	return simd.KeptMerge{Rows: n, Step: t.w.Words(), Values: valuesAt(t.w.Values, 0), At: &at[0], Coef: ptr(coef), A: ptr(a), R: t.r}
}

// mergeKept does w.keptMerge, of a weight's values, into float32 or bfloat16; without a kernel row by row.
func (w *worker) mergeKept(k *simd.Kept, values tensor.Tensor, dst tensor.DType) {
	m, f := &w.keptMerge, format(values.DType)
	switch {
	case dst == tensor.BF16:
		k.MergeHalf[f](m)
	case k.Merge[f] == nil:
		w.mergeKeptRows(k, values)
	case m.Wide != nil:
		k.MergeWide(m)
	default:
		k.Merge[f](m)
	}
}

func (w *worker) mergeKeptRows(k *simd.Kept, values tensor.Tensor) {
	m, dst := &w.keptMerge, (*float32)(w.keptMerge.Dst)
	line, packed := w.line[:64], w.line[64:128]
	for i, n := 0, 0; i < m.Rows; i++ {
		for j := range line {
			line[j] = zeroOf(m.R)
		}
		combine(w, line, floats(m.Coef, i*m.R, m.R), floats(m.A, 0, 64*m.R))
		if m.Wide != nil {
			w.add(line, floats(m.Wide, 64*i, 64))
		}
		word := (*uint64)(unsafe.Add(unsafe.Pointer(m.Bits), 8*i*m.Step))
		out := floats(dst, n, bits.OnesCount64(*word))
		n += len(out)
		if len(out) == 0 {
			continue
		}
		k.Compress(&out[0], &line[0], *word)
		if m.Wide == nil {
			at := (*uint32)(unsafe.Add(unsafe.Pointer(m.At), 4*i))
			w.widen(packed[:len(out)], values, int(*at))
			w.add(out, packed[:len(out)])
			*at += uint32(len(out))
		}
	}
}

// place sets the starts of chunk c, whose first value is number n.
func (t *tiles) place(c, n int) {
	s := t.starts[c*t.blocks() : (c+1)*t.blocks()]
	clear(s)
	for i := c * keptRows; i < min((c+1)*keptRows, t.rows); i++ {
		for k, m := range t.bits[i*t.step:][:len(s)] {
			s[k] += uint32(bits.OnesCount64(m))
		}
	}
	for k, count := range s {
		s[k] = uint32(n)
		n += int(count)
	}
}

// keptTurnTask sets t to W̃ᵀ = Mᵀ ⊙ (Wᵀ + Aᵀ·s·Bᵀ), packed; a piece is 64 rows of W̃, which are a block of columns of t.
type keptTurnTask struct {
	mergeTask
	kern *simd.Kept
	t    tiles
}

// scratch is the floats that a piece takes: keptCols columns of W and of its transpose, as many rows of Aᵀ, and of s·B its rows and their transpose.
func (t *keptTurnTask) scratch() int { return 64*2*keptCols + (keptCols+64+64)*t.r }

func (t *keptTurnTask) do(w *worker, k, end int) {
	for ; k < end; k++ {
		i0, i1 := 64*k, min(64*(k+1), t.w.Out)
		buf := w.scratch(t.scratch())
		wide, turned, rest := buf[:64*keptCols], buf[64*keptCols:][:64*keptCols], buf[64*2*keptCols:]
		a, b, rows := rest[:keptCols*t.r], rest[keptCols*t.r:][:64*t.r], rest[(keptCols+64)*t.r:][:(i1-i0)*t.r]
		t.coefs(w, rows, i0)
		clear(b) // beyond the last row
		across(w, b, 64, rows, t.r, 0, t.r)
		n := t.w.Start(i0, 0)
		for j := 0; j < t.w.In; j += keptCols {
			width := min(keptCols, t.w.In-j)
			for i := i0; i < i1; i++ {
				t.part(w, wide[(i-i0)*width:][:width], i, j, nil, nil)
			}
			across(w, turned, 64, wide[:(i1-i0)*width], width, 0, width)
			across(w, a, t.r, t.a, t.w.In, j, width)
			t.turnBits(i0, i1, j, width)
			next := t.place(k, j, width, n)
			if next > n {
				w.keptMerge = simd.KeptMerge{Rows: width, Dst: valuesAt(t.t.values, n), Bits: t.t.word(j, k), Step: 1, Wide: &turned[0], Coef: ptr(a), A: ptr(b), R: t.r}
				w.mergeKept(t.kern, t.w.Values, t.t.values.DType)
			}
			n = next
		}
	}
}

// place sets the starts of rows [j, j+n) of block k of W̃ᵀ, whose first value is number at; it gives the number behind the last.
func (t *keptTurnTask) place(k, j, n, at int) int {
	for end := j + n; j < end; j += keptRows {
		t.t.starts[j/keptRows*t.t.cs+k*t.t.ks] = uint32(at)
		for _, m := range t.t.bits[k*t.t.block+j:][:min(keptRows, end-j)] {
			at += bits.OnesCount64(m)
		}
	}
	return at
}

// turnBits sets rows [j, j+n) of block i0/64 of Mᵀ.
func (t *keptTurnTask) turnBits(i0, i1, j, n int) {
	var m [64]uint64
	words := t.w.Words()
	mask := t.w.Mask()[i0*words : i1*words]
	for ; n > 0; j, n = j+64, n-64 {
		for i := range i1 - i0 {
			m[i] = mask[i*words+j/64]
		}
		clear(m[i1-i0:])
		turn64(&m)
		copy(t.t.bits[i0/64*t.t.block+j:][:min(64, n)], m[:])
	}
}

// turn64 transposes 64×64 bits: halves of ever smaller squares change places (Warren, Hacker's Delight, 7-3).
func turn64(m *[64]uint64) {
	low := uint64(1<<32 - 1)
	for h := 32; h > 0; h, low = h/2, low^low<<(h/2) {
		for i := 0; i < 64; i += 2 * h {
			for k := i; k < i+h; k++ {
				a, b := &m[k&63], &m[(k+h)&63] // & 63 spares the checks
				x := (*a>>(h&63) ^ *b) & low
				*a ^= x << (h & 63)
				*b ^= x
			}
		}
	}
}

// across transposes columns [j, j+n) of src, whose rows have cols elements: dst[(k−j)·step + i] = src[i,k].
func across(w *worker, dst []float32, step int, src []float32, cols, j, n int) {
	if len(src) == 0 {
		return
	}
	t := tensor.Of(src).Reshape(len(src)/cols, cols)
	for i := 0; i < t.Rows; i += w.Lanes {
		for k := 0; k < n; k += blockK {
			packAcross(w, w.Kernels, dst[k*step+i:], t, i, min(w.Lanes, t.Rows-i), step, j+k, min(blockK, n-k))
		}
	}
}
