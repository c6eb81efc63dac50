package computetest

import "math"

var dropoutCases = []oneCase{
	{"Dropout follows its counter, row by row", func(e *env) {
		const seed, p, rows, cols = 12345, 0.25, 41, 203
		x, ids := e.acts(rows*cols), make([]int32, rows)
		for i := range ids {
			ids[i] = int32(i*i) - 7
		}
		want, kept := make([]float32, len(x)), 0
		for i, v := range x {
			if dropped(seed, uint32(ids[i/cols]), uint32(i%cols)) >= p {
				want[i] = v * float32(1/(1-p))
				kept++
			}
		}
		if share := float64(kept) / float64(len(x)); !(math.Abs(share-(1-p)) < 0.02) {
			e.Errorf("%.3f of the inputs are kept, want %.3f", share, 1-p)
		}
		y := e.unset(rows, cols)
		e.b.Dropout(y, e.act(x, rows, cols), e.i32(ids), seed, p)
		e.near("dropout", y, wide(want), rounding)
		y = e.act(x, rows, cols)
		e.b.Dropout(y, y, e.i32(ids), seed, p)
		e.near("dropout in place", y, wide(want), rounding)
	}},
}

// dropped is the uniform number of an input, in [0, 1): SplitMix64 of its place in the stream.
func dropped(seed uint64, id, col uint32) float64 {
	z := seed + (uint64(id)<<32+uint64(col)+1)*0x9E3779B97F4A7C15
	z = (z ^ z>>30) * 0xBF58476D1CE4E5B9
	z = (z ^ z>>27) * 0x94D049BB133111EB
	return float64((z^z>>31)>>40) / (1 << 24)
}
