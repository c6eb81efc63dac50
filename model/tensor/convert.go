package tensor

import "math"

// FromBF16 widens a bfloat16, exactly.
func FromBF16(h uint16) float32 { return math.Float32frombits(uint32(h) << 16) }

// ToBF16 rounds to the nearest bfloat16, ties to even; a NaN stays a (quiet) NaN.
func ToBF16(f float32) uint16 {
	u := math.Float32bits(f)
	if u&0x7fffffff > 0x7f800000 {
		return uint16(u>>16) | 0x40
	}
	return uint16((u + 0x7fff + u>>16&1) >> 16)
}

// FromF16 widens an IEEE half, exactly.
func FromF16(h uint16) float32 {
	sign, e, m := uint32(h&0x8000)<<16, uint32(h>>10&0x1f), uint32(h&0x3ff)
	switch e {
	case 0: // zero or subnormal: m·2⁻²⁴
		f := float32(m) * (1.0 / (1 << 24))
		return math.Float32frombits(sign | math.Float32bits(f))
	case 0x1f:
		return math.Float32frombits(sign | 0x7f800000 | m<<13)
	}
	return math.Float32frombits(sign | (e+112)<<23 | m<<13)
}

// ToF16 rounds to the nearest IEEE half, ties to even; beyond 65504 it is ±Inf, and a NaN stays a (quiet) NaN.
func ToF16(f float32) uint16 {
	u := math.Float32bits(f)
	sign, u := uint16(u>>16&0x8000), u&0x7fffffff
	switch {
	case u > 0x7f800000:
		return sign | 0x7e00 | uint16(u>>13&0x3ff)
	case u >= 0x477ff000: // rounds to 2¹⁶ or more
		return sign | 0x7c00
	case u < 0x38800000: // below 2⁻¹⁴: units of 2⁻²⁴, rounded by the adder
		return sign | uint16(math.Float32bits(math.Float32frombits(u)+0.5)-math.Float32bits(0.5))
	}
	return sign | uint16((u-112<<23+0xfff+u>>13&1)>>13)
}

// Widen sets dst = src as float32, exactly; src is a host tensor of F32, BF16 or F16 with len(dst) elements.
func Widen(dst []float32, src Tensor) {
	switch dst = dst[:src.Len()]; src.DType {
	case F32:
		copy(dst, src.Float32())
	case BF16:
		for i, h := range src.Uint16() {
			dst[i] = FromBF16(h)
		}
	case F16:
		for i, h := range src.Uint16() {
			dst[i] = FromF16(h)
		}
	default:
		panic("tensor: " + src.DType.String() + " widened to float32")
	}
}

// Narrow sets dst = src rounded to dst's type (F32, BF16, F16), nearest, ties to even.
func Narrow(dst Tensor, src []float32) {
	switch src = src[:dst.Len()]; dst.DType {
	case F32:
		copy(dst.Float32(), src)
	case BF16:
		out := dst.Uint16()
		for i, f := range src {
			out[i] = ToBF16(f)
		}
	case F16:
		out := dst.Uint16()
		for i, f := range src {
			out[i] = ToF16(f)
		}
	default:
		panic("tensor: float32 narrowed to " + dst.DType.String())
	}
}
