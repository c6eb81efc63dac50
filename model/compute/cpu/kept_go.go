package cpu

import (
	"math/bits"
	"unsafe"

	"github.com/splora/splora/model/compute/cpu/internal/simd"
)

// keptLoops are the portable kernels over kept weights, and the twin of the others.
func keptLoops() simd.Kept {
	const lanes = 16
	k := simd.Kept{Lanes: lanes, Compress: compressGo}
	for n := range k.Walk {
		k.Walk[n] = func(rows int, y, x *float32, bits *uint64, step int, values *float32) {
			walkGo((n+1)*lanes, rows, y, x, bits, step, values)
		}
	}
	for n := range k.Dots {
		k.Dots[n] = func(rows int, dst, y, x *float32, bits *uint64, step, add int) {
			dotsGo((n+1)*lanes, rows, dst, y, x, bits, step, add)
		}
	}
	for n := range k.Reduce {
		k.Reduce[n] = func(m *simd.KeptReduce) { reduceGo((n+1)*lanes, m) }
	}
	return k
}

// wordAt is word i of bits.
func wordAt(bits *uint64, i int) uint64 {
	return *(*uint64)(unsafe.Add(unsafe.Pointer(bits), 8*i))
}

// floats are n floats from index i on.
func floats(p *float32, i, n int) []float32 {
	if n == 0 {
		return nil
	}
	return unsafe.Slice((*float32)(unsafe.Add(unsafe.Pointer(p), 4*i)), n)
}

func walkGo(n, rows int, y, x *float32, word *uint64, step int, values *float32) {
	at := 0
	for i := range rows {
		sum, m := floats(y, i*n, n), wordAt(word, i*step)
		for _, a := range floats(values, at, bits.OnesCount64(m)) {
			for t, b := range floats(x, bits.TrailingZeros64(m)*n, n) {
				sum[t] += a * b
			}
			m &= m - 1
			at++
		}
	}
}

func dotsGo(n, rows int, dst, y, x *float32, word *uint64, step, add int) {
	at := 0
	for i := range rows {
		m, a := wordAt(word, i*step), floats(y, i*n, n)
		out := floats(dst, at, bits.OnesCount64(m))
		at += len(out)
		for k := range out {
			s := dotGo(a, floats(x, bits.TrailingZeros64(m)*n, n))
			if add != 0 {
				s += out[k]
			}
			out[k] = s
			m &= m - 1
		}
	}
}

// dotGo is Σ a·b, in four partial sums; len(a) is a multiple of 4.
func dotGo(a, b []float32) float32 {
	var s0, s1, s2, s3 float32
	for ; len(a) >= 4 && len(b) >= 4; a, b = a[4:], b[4:] {
		s0 += a[0] * b[0]
		s1 += a[1] * b[1]
		s2 += a[2] * b[2]
		s3 += a[3] * b[3]
	}
	return s0 + s1 + (s2 + s3)
}

func reduceGo(n int, m *simd.KeptReduce) {
	at := 0
	for i := range m.Rows {
		word := wordAt(m.Bits, i*m.Step)
		sum, b := floats(m.DB, i*n, n), floats(m.B, i*n, n)
		for _, g := range floats(m.G, at, bits.OnesCount64(word)) {
			j := bits.TrailingZeros64(word)
			a, d := floats(m.A, j*n, n), floats(m.DA, j*n, n)
			for t := range sum {
				sum[t] += g * a[t]
				d[t] += g * b[t]
			}
			word &= word - 1
			at++
		}
	}
}

func compressGo(dst, src *float32, word uint64) {
	out := floats(dst, 0, bits.OnesCount64(word))
	for k := range out {
		out[k] = floats(src, bits.TrailingZeros64(word), 1)[0]
		word &= word - 1
	}
}
