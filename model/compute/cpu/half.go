package cpu

import (
	"math"

	"github.com/splora/splora/model/tensor"
)

// bf16 is the upper half of a float32.
func fromBF16(u uint16) float32 { return math.Float32frombits(uint32(u) << 16) }

// toBF16 rounds to nearest even; NaN stays NaN.
func toBF16(f float32) uint16 {
	u := math.Float32bits(f)
	if f != f {
		return uint16(u>>16) | 0x40
	}
	return uint16((u + 0x7fff + u>>16&1) >> 16)
}

// fromF16 widens IEEE binary16 exactly.
func fromF16(h uint16) float32 {
	sign, exp, frac := uint32(h>>15)<<31, uint32(h>>10&0x1f), uint32(h&0x3ff)
	switch exp {
	case 0: // ±0 and subnormals: frac·2⁻²⁴
		f := float32(frac) * 0x1p-24
		return math.Float32frombits(math.Float32bits(f) | sign)
	case 0x1f:
		return math.Float32frombits(sign | 0x7f800000 | frac<<13)
	}
	return math.Float32frombits(sign | (exp+112)<<23 | frac<<13)
}

// toF16 rounds to nearest even; what is too large becomes Inf.
func toF16(f float32) uint16 {
	u := math.Float32bits(f)
	sign, abs := uint16(u>>16&0x8000), u&0x7fffffff
	switch {
	case abs > 0x7f800000:
		return sign | 0x7e00 | uint16(abs>>13&0x3ff)
	case abs >= 0x477ff000: // ≥ 65520 rounds to Inf
		return sign | 0x7c00
	case abs < 0x38800000: // below 2⁻¹⁴: a multiple of 2⁻²⁴, rounded by the addition of 0.5
		return sign | uint16(math.Float32bits(math.Float32frombits(abs)+0.5)-math.Float32bits(0.5))
	}
	return sign | uint16((abs-112<<23+0xfff+abs>>13&1)>>13)
}

// widen is widen, by a kernel where there is one.
func (v vec) widen(dst []float32, src tensor.Tensor, i int) {
	n := 0
	if f := v.Widen[format(src.DType)]; f != nil && len(dst) > 0 {
		n = v.whole(len(dst))
		f(n, ptr(dst), element(src, i))
	}
	widen(dst[n:], src, i+n)
}

// narrow is narrow, by a kernel where there is one.
func (v vec) narrow(dst tensor.Tensor, i int, src []float32) {
	if dst.DType == tensor.BF16 {
		v.narrowBF16(dst.Uint16()[i:i+len(src)], src)
		return
	}
	narrow(dst, i, src)
}

// widen sets dst to the elements of src from index i on, as float32.
func widen(dst []float32, src tensor.Tensor, i int) {
	switch src.DType {
	case tensor.F32:
		copy(dst, src.Float32()[i:])
	case tensor.BF16:
		for k, u := range src.Uint16()[i : i+len(dst)] {
			dst[k] = fromBF16(u)
		}
	case tensor.F16:
		for k, u := range src.Uint16()[i : i+len(dst)] {
			dst[k] = fromF16(u)
		}
	}
}

// narrow sets the elements of dst from index i on to src, rounded to nearest even.
func narrow(dst tensor.Tensor, i int, src []float32) {
	switch dst.DType {
	case tensor.F32:
		copy(dst.Float32()[i:i+len(src)], src)
	case tensor.BF16:
		for k, d := 0, dst.Uint16()[i:i+len(src)]; k < len(d); k++ {
			d[k] = toBF16(src[k])
		}
	case tensor.F16:
		for k, d := 0, dst.Uint16()[i:i+len(src)]; k < len(d); k++ {
			d[k] = toF16(src[k])
		}
	}
}
