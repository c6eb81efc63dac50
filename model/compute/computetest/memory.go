package computetest

import (
	"math"

	"github.com/splora/splora/model/tensor"
)

var memoryCases = []oneCase{
	{"Fill and Copy keep bits", func(e *env) {
		v := append(e.normal(70_001), float32(math.Inf(-1)), float32(math.Copysign(0, -1)), math.SmallestNonzeroFloat32)
		src, dst := e.f32(v, 1, len(v)), e.nans(1, len(v))
		e.b.Copy(dst, src)
		e.exactly("copy", dst, v)
		e.b.Fill(dst, 2.5)
		e.exactly("fill", dst, fill(len(v), 2.5))
	}},
	{"Copy widens every 16-bit float exactly", func(e *env) {
		all := make([]uint16, 1<<16)
		for i := range all {
			all[i] = uint16(i)
		}
		for _, dt := range []tensor.DType{tensor.BF16, tensor.F16} {
			src, dst := up(e, dt, all, 256, 256), e.nans(256, 256)
			e.b.Copy(dst, src)
			for i, g := range e.down(dt.String(), dst) {
				if w := halfValue(dt, uint16(i)); float64(g) != w && (g == g || w == w) || math.Signbit(float64(g)) != math.Signbit(w) && w == w {
					e.Fatalf("%s %#x widens to %v, want %v", dt, i, g, w)
				}
			}
			back := up(e, dt, make([]uint16, 1<<16), 256, 256)
			e.b.Copy(back, dst)
			for i, g := range e.downHalf(dt.String()+" back", back) {
				if w := halfValue(dt, uint16(i)); w == w && g != uint16(i) {
					e.Fatalf("%s %#x comes back as %#x", dt, i, g)
				}
			}
		}
	}},
	{"Copy rounds to the nearest, ties to even, and keeps NaN", func(e *env) {
		v := e.roundingInputs()
		for _, dt := range []tensor.DType{tensor.BF16, tensor.F16} {
			dst := up(e, dt, make([]uint16, len(v)), 1, len(v))
			e.b.Copy(dst, e.f32(v, 1, len(v)))
			for i, g := range e.downHalf(dt.String(), dst) {
				got, want := halfValue(dt, g), roundHalf(dt, float64(v[i]))
				if got != want && (got == got || want == want) || math.Signbit(got) != math.Signbit(want) && want == want {
					e.Fatalf("%v rounds to %s %v, want %v", v[i], dt, got, want)
				}
			}
		}
	}},
	{"Copy between the 16-bit types rounds once", func(e *env) {
		v := []uint16{0x3f80, 0x4049, 0xbf81, 0x3300, 0x3381, 0x4780, 0xff80, 0} // bfloat16
		dst := up(e, tensor.F16, make([]uint16, len(v)), 1, len(v))
		e.b.Copy(dst, up(e, tensor.BF16, v, 1, len(v)))
		for i, g := range e.downHalf("bf16 to f16", dst) {
			if got, want := halfValue(tensor.F16, g), roundHalf(tensor.F16, halfValue(tensor.BF16, v[i])); got != want {
				e.Errorf("bfloat16 %#x gives %v, want %v", v[i], got, want)
			}
		}
	}},
}

// rowCases move activations.
var rowCases = []oneCase{
	{"Fill sets every element", func(e *env) {
		dst := e.unset(3, 23_001)
		e.b.Fill(dst, 0.3)
		e.exactly("fill", dst, fill(3*23_001, 0.3))
	}},
	{"Gather and Scatter move rows, and skip negative ones", func(e *env) {
		const rows, c = 7, 33
		table := e.normal(rows * c)
		bf := e.rounded(e.f32(table, rows, c))
		pick := []int32{6, -1, 0, 3, 3}
		want := make([]float32, len(pick)*c)
		for i, r := range pick {
			if r >= 0 {
				copy(want[i*c:(i+1)*c], table[int(r)*c:])
			}
		}
		half := make([]float32, len(want))
		for i, v := range want {
			half[i] = float32(roundHalf(tensor.BF16, float64(v)))
		}
		for i, t := range []tensor.Tensor{e.f32(table, rows, c), bf} {
			dst := e.unset(len(pick), c)
			e.b.Gather(dst, t, e.i32(pick))
			e.exactly("gather "+t.DType.String(), dst, [][]float32{want, half}[i])
		}
		dst := e.act(fill(rows*c, 9), rows, c)
		e.b.Scatter(dst, e.act(table[:4*c], 4, c), e.i32([]int32{5, -1, 0, 2}))
		want = fill(rows*c, 9)
		copy(want[5*c:6*c], table)
		copy(want[:c], table[2*c:])
		copy(want[2*c:3*c], table[3*c:])
		e.exactly("scatter", dst, want)
	}},
}

// halfValue is the number that 16 bits stand for, by the definition of the format.
func halfValue(dt tensor.DType, u uint16) float64 {
	frac, bias := 7, 127
	if dt == tensor.F16 {
		frac, bias = 10, 15
	}
	sign, exp, f := 1.0, int(u&0x7fff)>>frac, float64(int(u)&(1<<frac-1))
	if u>>15 == 1 {
		sign = -1
	}
	switch {
	case exp == 1<<(15-frac)-1 && f == 0:
		return math.Inf(int(sign))
	case exp == 1<<(15-frac)-1:
		return math.NaN()
	case exp == 0:
		return math.Copysign(math.Ldexp(f, 1-bias-frac), sign)
	}
	return sign * math.Ldexp(1+math.Ldexp(f, -frac), exp-bias)
}

// roundHalf is the nearest number of the format, ties to even.
func roundHalf(dt tensor.DType, x float64) float64 {
	digits, low, limit := 8, -126, math.Ldexp(2-0x1p-8, 127)
	if dt == tensor.F16 {
		digits, low, limit = 11, -14, 65520
	}
	if x == 0 || x != x || math.IsInf(x, 0) {
		return x
	}
	_, exp := math.Frexp(x)
	unit := math.Ldexp(1, max(exp-1, low)-digits+1)
	if math.Abs(x) >= limit {
		return math.Inf(int(math.Copysign(1, x)))
	}
	return math.Copysign(math.RoundToEven(x/unit)*unit, x)
}

// roundingInputs has every exponent, ties and their neighbours, and what is not a number.
func (e *env) roundingInputs() []float32 {
	v := []float32{0, float32(math.Copysign(0, -1)), float32(math.Inf(1)), float32(math.Inf(-1)), float32(math.NaN()),
		math.MaxFloat32, 65504, 65519.996, 65520, 0x1p-24, 0x1p-25, 0x1.000002p-25, math.SmallestNonzeroFloat32}
	for range 5000 {
		u := e.rng.Uint32()
		switch e.rng.IntN(3) {
		case 0:
			u = u&^0xffff | 0x8000 // a tie of bfloat16
		case 1:
			u = u&^0x1fff | 0x1000 // a tie of float16
		}
		v = append(v, math.Float32frombits(u), math.Float32frombits(u+1), math.Float32frombits(u-1),
			math.Float32frombits(u&0x80ffffff|0x38000000)) // near float16's subnormals
	}
	return v
}
