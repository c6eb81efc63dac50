package cpu

import (
	"math/bits"

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
		i0, i1 := c*keptRows, min((c+1)*keptRows, t.t.rows)
		at := sized(&w.at, t.t.blocks())
		copy(at, t.t.place(c, t.w.Start(i0, 0)))
		coef := w.scratch((i1-i0)*t.r + chunk)
		line := coef[(i1-i0)*t.r:]
		coef = coef[:(i1-i0)*t.r]
		t.coefs(coef, i0)
		for k := 0; k < t.t.cols; k += chunk {
			line := line[:min(chunk, t.t.cols-k)]
			for i := i0; i < i1; i++ {
				t.part(w, line, i, k, coef[(i-i0)*t.r:(i-i0+1)*t.r])
				t.kern.Compress((len(line)+63)/64, &t.t.values0()[0], &at[k/64], &line[0], t.t.word(i, k/64))
			}
		}
	}
}

// values0 are the values, never without a first one.
func (t *tiles) values0() []float32 {
	if len(t.values) == 0 {
		return make([]float32, 1)
	}
	return t.values
}

// place sets and gives the starts of chunk c, whose first value is number n.
func (t *tiles) place(c, n int) []uint32 {
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
	return s
}

// keptTurnTask sets t to W̃ᵀ, packed; a piece is 64 rows of W̃, which are a block of columns of t.
type keptTurnTask struct {
	mergeTask
	kern *simd.Kept
	t    tiles
}

func (t *keptTurnTask) do(w *worker, k, end int) {
	for ; k < end; k++ {
		i0, i1 := 64*k, min(64*(k+1), t.w.Out)
		buf := w.scratch(64 * (t.r + 2*keptCols))
		coef, rows, cols := buf[:(i1-i0)*t.r], buf[64*t.r:][:64*keptCols], buf[64*(t.r+keptCols):]
		t.coefs(coef, i0)
		n := t.w.Start(i0, 0)
		for j := 0; j < t.w.In; j += keptCols {
			width := min(keptCols, t.w.In-j)
			for i := i0; i < i1; i++ {
				t.part(w, rows[(i-i0)*width:][:width], i, j, coef[(i-i0)*t.r:(i-i0+1)*t.r])
			}
			across(w, cols, 64, tensor.Of(rows[:(i1-i0)*width]).Reshape(i1-i0, width))
			t.turnBits(i0, i1, j, width)
			n = t.pack(cols, k, j, width, n)
		}
	}
}

// pack packs rows [j, j+n) of block k of W̃ᵀ, whose first value is number at; it returns the number behind the last.
func (t *keptTurnTask) pack(cols []float32, k, j, n, at int) int {
	for end := j + n; j < end; j += keptRows {
		t.t.starts[j/keptRows*t.t.cs+k*t.t.ks] = uint32(at)
		words := t.t.bits[k*t.t.block+j:][:min(keptRows, end-j)]
		count := 0
		for _, m := range words {
			count += bits.OnesCount64(m)
		}
		if count > 0 {
			t.kern.Compress(len(words), &t.t.values[at], nil, &cols[0], &words[0])
		}
		at += count
		cols = cols[64*len(words):]
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

// across transposes src [n,k], k ≤ keptCols: dst[j·step + i] = src[i,j].
func across(w *worker, dst []float32, step int, src tensor.Tensor) {
	for i := 0; i < src.Rows; i += w.Lanes {
		packAcross(w, w.Kernels, dst[i:], src, i, min(w.Lanes, src.Rows-i), step, 0, src.Cols)
	}
}
