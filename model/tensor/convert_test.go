package tensor

import (
	"math"
	"testing"
)

// half is the value of IEEE half bits, from the definition.
func half(u uint16) float64 {
	m, e := float64(u&0x3ff), int(u>>10&31)
	f := math.Ldexp(1+m/1024, e-15)
	if e == 0 {
		f = math.Ldexp(m, -24)
	} else if e == 31 && m == 0 {
		f = math.Inf(1)
	} else if e == 31 {
		f = math.NaN()
	}
	if u>>15 == 1 {
		return -f
	}
	return f
}

func TestEveryHalfAndEveryBF16WidensExactlyAndComesBack(t *testing.T) {
	for i := range 1 << 16 {
		u := uint16(i)
		f, want := FromF16(u), half(u)
		if float64(f) != want && !(f != f && want != want) {
			t.Fatalf("f16 %#x is %v, want %v", u, f, want)
		}
		if back := ToF16(f); back != u && !(f != f && back&0x7c00 == 0x7c00 && back&0x3ff != 0) {
			t.Fatalf("f16 %#x comes back as %#x", u, back)
		}
		b := FromBF16(u)
		if math.Float32bits(b) != uint32(u)<<16 {
			t.Fatalf("bf16 %#x is %v", u, b)
		}
		if back := ToBF16(b); back != u && !(b != b && back&0x7f80 == 0x7f80 && back&0x7f != 0) {
			t.Fatalf("bf16 %#x comes back as %#x", u, back)
		}
	}
}

// TestRoundingIsToNearestEven compares with the nearest neighbour found in float64: between two adjacent halves (or
// bfloat16s) lo and hi, the midpoint goes to the even one and its float32 neighbours go to their side.
func TestRoundingIsToNearestEven(t *testing.T) {
	for i := 0; i < 0x7bff; i++ {
		check(t, ToF16, uint16(i), float32(half(uint16(i))), float32(half(uint16(i+1))))
	}
	for i := 0; i < 0x7f7f; i++ {
		check(t, ToBF16, uint16(i), FromBF16(uint16(i)), FromBF16(uint16(i+1)))
	}
	for _, c := range []struct {
		f float32
		u uint16
	}{{65504, 0x7bff}, {65519.99, 0x7bff}, {65520, 0x7c00}, {1e30, 0x7c00}, {-65520, 0xfc00}, {1e-30, 0}, {-1e-30, 0x8000}} {
		if got := ToF16(c.f); got != c.u {
			t.Errorf("f16 of %v is %#x, want %#x", c.f, got, c.u)
		}
	}
	if got := ToBF16(math.MaxFloat32); got != 0x7f80 {
		t.Errorf("bf16 of the largest float32 is %#x, want Inf", got)
	}
}

func check(t *testing.T, to func(float32) uint16, lo uint16, a, b float32) {
	t.Helper()
	mid := float32((float64(a) + float64(b)) / 2) // exact: float32 has bits to spare
	below, above := math.Nextafter32(mid, a), math.Nextafter32(mid, b)
	if to(mid) != lo+lo&1 || below != a && to(below) != lo || above != b && to(above) != lo+1 || to(-mid) != (lo+lo&1)|0x8000 {
		t.Fatalf("between %v and %v: %#x %#x %#x around %#x", a, b, to(below), to(mid), to(above), lo)
	}
}

func TestWideningAndNarrowingAMatrix(t *testing.T) {
	src := []float32{1, -2.5, 0, 3e-5}
	for _, dt := range []DType{F32, BF16, F16} {
		x := New(dt, 2, 2)
		Narrow(x, src)
		back := make([]float32, 4)
		Widen(back, x)
		for i, v := range src {
			if !(math.Abs(float64(back[i]-v)) <= math.Abs(float64(v))/128) {
				t.Errorf("%v: %v comes back as %v", dt, v, back[i])
			}
		}
	}
}
