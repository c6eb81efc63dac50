//go:build amd64

package amx

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"unsafe"
)

func aligned[E any](n int) []E {
	var e E
	size := int(unsafe.Sizeof(e))
	raw := make([]E, n+64/size)
	skip := int(-uintptr(unsafe.Pointer(&raw[0]))&63) / size
	return raw[skip : skip+n]
}

func fromBF16(u uint16) float32 { return math.Float32frombits(uint32(u) << 16) }

func normals(r *rand.Rand, n int) []float32 {
	v := make([]float32, n)
	for i := range v {
		v[i] = float32(r.NormFloat64() * math.Exp2(float64(r.IntN(40)-20)))
	}
	return v
}

func TestThreePartsAddUpToTheNumber(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	numbers := []float32{0, 1, -1, math.MaxFloat32, -math.MaxFloat32, 3.39e38, 1.0039062, 0x1.00fffep0, 0x1.ffffffp0, 1e-30}
	for range 20000 {
		numbers = append(numbers, math.Float32frombits(r.Uint32()))
	}
	for _, x := range numbers {
		p := Split(x)
		if x != x {
			if fromBF16(p[0]) == fromBF16(p[0]) || p[1] != 0 || p[2] != 0 {
				t.Errorf("NaN %#x: parts %x", math.Float32bits(x), p)
			}
			continue
		}
		sum := float64(fromBF16(p[0])) + float64(fromBF16(p[1])) + float64(fromBF16(p[2]))
		if tiny := math.Abs(float64(x)) < 0x1p-108; sum != float64(x) && !tiny || !(math.Abs(sum-float64(x)) <= 0x1p-133) && !math.IsInf(sum, 0) {
			t.Errorf("%v (%#x): parts %x sum to %v", x, math.Float32bits(x), p, sum)
		}
	}
}

// packed is a panel by the careful form: op(x)(row, k) of a float32 matrix, in parts.
func packed(at func(row, k int) float32, rows, k, parts int, pairs bool) []uint16 {
	dst := aligned[uint16]((k + 31) / 32 * parts * Part / 2)
	for i := range rows {
		for j := range k {
			for p, u := range Split(at(i, j)) {
				if p < parts {
					dst[Index(i, j, p, parts, pairs)] = u
				}
			}
		}
	}
	return dst
}

var panels = [][2]int{{32, 64}, {32, 1}, {1, 32}, {7, 33}, {17, 95}, {32, 130}, {16, 31}, {31, 2}}

func TestPackingLaysOutPanelsAsTheirIndexSays(t *testing.T) {
	if !vectors() {
		t.Skip("no AVX-512 here")
	}
	r := rand.New(rand.NewPCG(2, 2))
	k := Pack()
	for _, s := range panels {
		rows, n := s[0], s[1]
		for _, parts := range []int{1, 3} {
			for _, pairs := range []bool{false, true} {
				for _, along := range []bool{false, true} {
					stride := n + 3
					if along {
						stride = rows + 3
					}
					v := normals(r, stride*max(rows, n))
					at := func(i, j int) float32 { return v[i*stride+j] }
					if along {
						at = func(i, j int) float32 { return v[j*stride+i] }
					}
					if parts == 1 {
						for i := range v {
							v[i] = fromBF16(Split(v[i])[0])
						}
					}
					want := packed(at, rows, n, parts, pairs)
					got := aligned[uint16](len(want))
					for i := range got {
						got[i] = 0x7fff
					}
					if odd := put(k, got, v, stride, rows, n, parts, along); odd != 0 {
						t.Fatalf("%v parts %d: finite numbers are reported as not finite", s, parts)
					}
					if along != pairs {
						k.Turn(unsafe.Pointer(&got[0]), len(got)/512)
					}
					compare(t, fmt.Sprintf("%v parts %d pairs %v along %v", s, parts, pairs, along), got, want, rows, n, parts, pairs)
				}
			}
		}
	}
}

// put packs by the kernels.
func put(k Packing, dst []uint16, v []float32, stride, rows, n, parts int, along bool) int {
	d := unsafe.Pointer(&dst[0])
	if parts == 1 {
		h := make([]uint16, len(v))
		for i, x := range v {
			h[i] = Split(x)[0]
		}
		if along {
			k.Along16(d, unsafe.Pointer(&h[0]), 2*stride, rows, n)
		} else {
			k.Rows16(d, unsafe.Pointer(&h[0]), 2*stride, rows, n)
		}
		return 0
	}
	if along {
		return k.Along32(d, unsafe.Pointer(&v[0]), 4*stride, rows, n)
	}
	return k.Rows32(d, unsafe.Pointer(&v[0]), 4*stride, rows, n)
}

func compare(t *testing.T, what string, got, want []uint16, rows, n, parts int, pairs bool) {
	t.Helper()
	for i := range rows {
		for j := range (n + 31) / 32 * 32 {
			for p := range parts {
				at := Index(i, j, p, parts, pairs)
				if g, w := fromBF16(got[at]), fromBF16(want[at]); g != w {
					t.Fatalf("%s: row %d element %d part %d is %v, want %v", what, i, j, p, g, w)
				}
			}
		}
	}
}

func TestPackingReportsWhatIsNotFinite(t *testing.T) {
	if !vectors() {
		t.Skip("no AVX-512 here")
	}
	k := Pack()
	for _, bad := range []uint32{0x7f800000, 0xff800000, 0x7fffffff, 0x7f800001, 0xffc00000, 0x7f7fffff} {
		for _, at := range []int{0, 15, 16, 39, 40*33 - 1} {
			v := make([]float32, 33*40)
			v[at] = math.Float32frombits(bad)
			dst := aligned[uint16](2 * 3 * Part)
			if put(k, dst, v, 40, 32, 40, 3, false) == 0 != (at >= 32*40) {
				t.Errorf("rows: %#x at %d", bad, at)
			}
			if put(k, dst, v, 40, 32, 33, 3, true) == 0 != (at%40 >= 32) {
				t.Errorf("along: %#x at %d", bad, at)
			}
		}
	}
}

func TestAStripIsTheSumOfTheProductsOfParts(t *testing.T) {
	for _, unit := range []*Kernels{Tiles(), Pairs()} {
		if unit == nil {
			t.Log("a unit is missing here")
			continue
		}
		r := rand.New(rand.NewPCG(3, 3))
		for _, pa := range []int{1, 3} {
			for _, pb := range []int{1, 3} {
				for moves, list := range unit.Strip[pa/2][pb/2] {
					for h, f := range list {
						if f != nil {
							strip(t, fmt.Sprintf("%s %d×%d parts, halves %d, moves %d", unit.Name, pa, pb, h, moves), r, f, pa, pb, 16*(1+h/2), 16*(1+h%2))
						}
					}
				}
			}
		}
	}
}

func strip(t *testing.T, what string, r *rand.Rand, f func(*Strip), pa, pb, rows, cols int) {
	const n, steps = 3, 2
	const k = 32 * steps
	var a, b []uint16
	var av, bv [n][]float32
	for i := range n {
		av[i], bv[i] = simple(r, rows*k, pa), simple(r, cols*k, pb)
		a = append(a, packed(func(row, j int) float32 { return av[i][row*k+j] }, rows, k, pa, false)...)
		b = append(b, packed(func(col, j int) float32 { return bv[i][col*k+j] }, cols, k, pb, true)...)
	}
	a, b = append(aligned[uint16](len(a))[:0], a...), append(aligned[uint16](len(b))[:0], b...)
	for add := range 2 {
		for _, fixed := range []int{0, 1, 2} {
			c := aligned[float32](n * Block)
			for i := range c {
				c[i] = float32(i)
			}
			s := Strip{N: n, K: steps, A: unsafe.Pointer(&a[0]), AStep: steps * pa * Part, B: unsafe.Pointer(&b[0]), BStep: steps * pb * Part,
				C: unsafe.Pointer(&c[0]), Add: add}
			switch fixed {
			case 1:
				s.AStep = 0
			case 2:
				s.BStep = 0
			}
			f(&s)
			for p := range n {
				x, y := av[p], bv[p]
				switch fixed {
				case 1:
					x = av[0]
				case 2:
					y = bv[0]
				}
				for i := range rows {
					for j := range cols {
						at := p*Block + (i/16*2+j/16)*256 + i%16*16 + j%16
						want := float64(add * at)
						size := math.Abs(want)
						for l := range k {
							v := float64(x[i*k+l]) * float64(y[j*k+l])
							want += v
							size += math.Abs(v)
						}
						if d := math.Abs(float64(c[at]) - want); !(d <= 1e-6*size) {
							t.Fatalf("%s: panel %d element (%d,%d) is %v, want %v", what, p, i, j, c[at], want)
						}
					}
				}
			}
		}
	}
}

// simple are numbers of one part or of three.
func simple(r *rand.Rand, n, parts int) []float32 {
	v := make([]float32, n)
	for i := range v {
		v[i] = float32(r.NormFloat64())
		if parts == 1 {
			v[i] = fromBF16(Split(v[i])[0])
		}
	}
	return v
}
