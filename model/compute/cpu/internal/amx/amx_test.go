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

func TestMaskedKernelsKeepWhatTheBitsSay(t *testing.T) {
	if Tiles() == nil {
		t.Skip("no tiles here")
	}
	r := rand.New(rand.NewPCG(4, 4))
	k := Mask()
	const rows, cols, words = 26, 96, 3
	bits := make([]uint32, rows*words)
	for i := range bits {
		bits[i] = [...]uint32{r.Uint32(), r.Uint32() & r.Uint32(), 0, ^uint32(0)}[r.IntN(4)]
	}
	keeps := func(i, j int) bool { return bits[i*words+j/32]>>(j%32)&1 == 1 }
	blocks := aligned[float32](words * Block)
	sums := normals(r, len(blocks))
	copy(blocks, sums)
	sum := func(i, j int) float32 { return sums[j/32*Block+(i/16*2+j%32/16)*256+i%16*16+j%16] }
	for format, name := range []string{"F32", "BF16", "F16"} {
		var wide []float32
		var starts []int
		for i := range rows {
			starts = append(starts, len(wide))
			for j := range cols {
				if keeps(i, j) {
					wide = append(wide, float32(r.IntN(2000)-1000)/8)
				}
			}
		}
		data, size := stored(wide, format)
		for parts := 1; parts <= 3; parts += 2 {
			for _, c := range []unsafe.Pointer{nil, unsafe.Pointer(&blocks[0])} {
				at := func(i, j int) float32 {
					if !keeps(i, j) {
						return 0
					}
					n := starts[i]
					for l := range j {
						if keeps(i, l) {
							n++
						}
					}
					if c == nil {
						return wide[n]
					}
					return wide[n] + sum(i, j)
				}
				what := fmt.Sprintf("%s parts %d sums %v", name, parts, c != nil)
				got := aligned[uint16](words * parts * Part / 2)
				for i := range rows {
					var row unsafe.Pointer
					if c != nil {
						row = unsafe.Add(c, i/16*2048+i%16*64)
					}
					k.Row[format][parts/2](unsafe.Pointer(&got[Index(i, 0, 0, parts, false)]), row, unsafe.Pointer(&bits[i*words]), unsafe.Add(data, starts[i]*size), words)
				}
				merged(t, "row "+what, got, at, rows, cols, parts, func(i, j, p int) int { return Index(i, j, p, parts, false) })
				for i := 0; i < rows; i += 2 {
					var row unsafe.Pointer
					if c != nil {
						row = unsafe.Add(c, i/16*2048+i%16*64)
					}
					two := [2]unsafe.Pointer{unsafe.Pointer(&bits[i*words]), unsafe.Pointer(&bits[(i+1)*words])}
					values := [2]unsafe.Pointer{unsafe.Add(data, starts[i]*size), unsafe.Add(data, starts[i+1]*size)}
					k.Pair[format][parts/2](unsafe.Pointer(&got[Index(0, i, 0, parts, true)]), parts*Part, row, &two, &values, words)
				}
				merged(t, "pair "+what, got, at, rows, cols, parts, func(i, j, p int) int { return j/32*parts*Part/2 + Index(j%32, i, p, parts, true) })
			}
		}
	}
	for parts := 1; parts <= 3; parts += 2 {
		asRows, asPairs := aligned[uint16](parts*Part/2), aligned[uint16](parts*Part/2)
		for b := range words {
			k.Block[parts/2](unsafe.Pointer(&asRows[0]), unsafe.Pointer(&asPairs[0]), unsafe.Pointer(&blocks[b*Block]), unsafe.Pointer(&bits[b]), 4*words, rows)
			at := func(i, j int) float32 {
				if i >= rows || !keeps(i, 32*b+j) {
					return 0
				}
				return sum(i, 32*b+j)
			}
			merged(t, "block as rows", asRows, at, 32, 32, parts, func(i, j, p int) int { return Index(i, j, p, parts, false) })
			merged(t, "block as pairs", asPairs, at, 32, 32, parts, func(i, j, p int) int { return Index(j, i, p, parts, true) })
		}
	}
}

// stored is v in a format, with the size of an element; its numbers are exact in all of them.
func stored(v []float32, format int) (unsafe.Pointer, int) {
	if format == 0 {
		return unsafe.Pointer(&v[0]), 4
	}
	h := make([]uint16, len(v))
	for i, x := range v {
		if h[i] = Split(x)[0]; format == 2 {
			h[i] = 0
			if u := math.Float32bits(x); x != 0 {
				h[i] = uint16(u>>16&0x8000) | uint16((u>>23&255-112)<<10|u>>13&0x3ff)
			}
		}
		if format == 1 {
			v[i] = fromBF16(h[i])
		}
	}
	return unsafe.Pointer(&h[0]), 2
}

// merged compares parts, or one rounded part to nearest even, with what is to be there.
func merged(t *testing.T, what string, got []uint16, want func(i, j int) float32, rows, cols, parts int, index func(i, j, p int) int) {
	t.Helper()
	for i := range rows {
		for j := range cols {
			x := want(i, j)
			if parts == 1 {
				u := math.Float32bits(x)
				if g, w := got[index(i, j, 0)], uint16((u+0x7fff+u>>16&1)>>16); g != w {
					t.Fatalf("%s: (%d,%d) is %v, want %v", what, i, j, fromBF16(g), fromBF16(w))
				}
				continue
			}
			for p, w := range Split(x) {
				if g := got[index(i, j, p)]; fromBF16(g) != fromBF16(w) {
					t.Fatalf("%s: (%d,%d) part %d is %v, want %v", what, i, j, p, fromBF16(g), fromBF16(w))
				}
			}
		}
	}
}
