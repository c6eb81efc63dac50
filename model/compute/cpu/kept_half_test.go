package cpu

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"unsafe"

	"github.com/splora/splora/model/compute/cpu/internal/amx"
	"github.com/splora/splora/model/compute/cpu/internal/simd"
	"github.com/splora/splora/model/sparse"
	"github.com/splora/splora/model/tensor"
)

// pairISAs are the instruction sets that walk pairs of bfloat16.
func pairISAs(t *testing.T) (isas []string) {
	for _, isa := range ISAs() {
		if kernels(isa).Kept.Half.PairRows != nil {
			isas = append(isas, isa)
		}
	}
	if isas == nil {
		t.Skip("no products of pairs of bfloat16 here")
	}
	return isas
}

// halves are n normal numbers of bfloat16, two in a float, and what they are.
func halves(r *rand.Rand, n int) (packed, wide []float32) {
	h := tensor.New(tensor.BF16, 1, n)
	narrow(h, 0, normals(r, n))
	wide = make([]float32, n)
	widen(wide, h, 0)
	return as(h, tensor.F32, 1, n/2).Float32(), wide
}

// half is bfloat16 number i of x.
func half(x []float32, i int) float32 {
	return fromBF16(unsafe.Slice((*uint16)(unsafe.Pointer(&x[0])), 2*len(x))[i])
}

// twoOfFour are n words of 2:4, of so many inputs.
func twoOfFour(r *rand.Rand, n, inputs int) []uint64 {
	words := make([]uint64, n)
	for i := range words {
		for g := range inputs / 4 {
			words[i] |= []uint64{3, 5, 6, 9, 10, 12}[r.IntN(6)] << (4 * g)
		}
	}
	return words
}

func TestSixPairsAreThoseOfFourInputs(t *testing.T) {
	for _, isa := range pairISAs(t) {
		r := rand.New(rand.NewPCG(4, 4))
		const groups, regs, lanes = 3, 2, 16
		const row = regs * lanes
		src, _ := halves(r, groups*2*row*2)
		dst := make([]float32, groups*6*row)
		kernels(isa).Kept.Half.SixPairs(groups, regs, &dst[0], &src[0])
		for g := range groups {
			for code, pair := range [][2]int{{0, 1}, {0, 2}, {1, 2}, {0, 3}, {1, 3}, {2, 3}} {
				for c := range row {
					for k, input := range pair {
						want := half(src, ((2*g+input/2)*row+c)*2+input%2)
						if got := half(dst, ((6*g+code)*row+c)*2+k); got != want {
							t.Fatalf("%s: group %d, pair %v, column %d: %v, want %v", isa, g, pair, c, got, want)
						}
					}
				}
			}
		}
	}
}

func TestAWalkOfTwoOfFourIsItsSum(t *testing.T) {
	for _, isa := range pairISAs(t) {
		r := rand.New(rand.NewPCG(4, 5))
		k := &kernels(isa).Kept
		const rows, step = 7, 2
		for _, inputs := range []int{64, 40} { // 40: where a row ends
			words := twoOfFour(r, rows*step, inputs)
			for n, walk := range k.Half.Walk {
				width := (n + 1) * k.Lanes
				pairs, _ := halves(r, inputs*width)
				x := make([]float32, sixOf(inputs)*width)
				k.Half.SixPairs(inputs/4, n+1, &x[0], &pairs[0])
				values, wide := halves(r, rows*inputs/2)
				y := normals(r, rows*width)
				want := make([]float64, len(y))
				at := 0
				for i := range rows {
					for c := range width {
						want[i*width+c] = float64(y[i*width+c])
					}
					for j := range inputs {
						if words[step*i]>>j&1 == 0 {
							continue
						}
						for c := range width {
							want[i*width+c] += float64(wide[at]) * float64(half(pairs, (j/2*width+c)*2+j%2))
						}
						at++
					}
				}
				walk(rows, &y[0], &x[0], &words[0], step, &values[0])
				for i := range y {
					if d := math.Abs(float64(y[i]) - want[i]); !(d <= 2e-5) {
						t.Fatalf("%s width %d, %d inputs: element %d is %v, want %v", isa, n+1, inputs, i, y[i], want[i])
					}
				}
			}
		}
	}
}

func TestDotsOfPairsOfTokensAreTheirSums(t *testing.T) {
	for _, isa := range pairISAs(t) {
		r := rand.New(rand.NewPCG(4, 6))
		k := &kernels(isa).Kept
		all, rows, kept := words(r)
		for n, dots := range k.Half.Dots {
			if dots == nil {
				continue
			}
			width := (n + 1) * k.Lanes // pairs of tokens
			rowsX, rowsY := 64, rows+rows%2
			px, _ := halves(r, rowsX*2*width)
			py, _ := halves(r, rowsY*2*width)
			x, y := make([]float32, (rowsX+1)*width), make([]float32, rowsY*width)
			k.Half.PairRows(rowsX/2, n+1, &x[0], &px[0])
			k.Half.PairRows(rowsY/2, n+1, &y[0], &py[0])
			got := normals(r, kept+1)
			want := append([]float32{}, got...)
			at := 0
			for i := range rows {
				for j := range 64 {
					if all[2*i]>>j&1 == 0 {
						continue
					}
					var s float64
					for c := range 2 * width {
						s += float64(half(py, (i/2*2*width+c)*2+i%2)) * float64(half(px, (j/2*2*width+c)*2+j%2))
					}
					want[at] += float32(s)
					at++
				}
			}
			dots(rows, &got[0], &y[0], &x[0], &all[0], 2, 1)
			for i := range want {
				if d := math.Abs(float64(got[i] - want[i])); !(d <= 1e-4) {
					t.Fatalf("%s width %d: element %d is %v, want %v", isa, n+1, i, got[i], want[i])
				}
			}
		}
	}
}

// mergeCase is a packed merge and what it reads.
type mergeCase struct {
	m      simd.KeptMerge
	at     []uint32
	values tensor.Tensor
	dense  []float32
}

// eachMerge gives merges of every format, of rows whose masks are every other word of what of gives; Wide is not set.
func eachMerge(r *rand.Rand, of func(rows int) []uint64, f func(dt tensor.DType, name string, c mergeCase)) {
	for _, dt := range []tensor.DType{tensor.F32, tensor.BF16, tensor.F16} {
		for _, rows := range []int{1, 2, 27} {
			for _, rank := range []int{0, 1, 16, 19} {
				c := mergeCase{at: make([]uint32, rows), values: random(dt, 1, 64*rows), dense: normals(r, 64*rows)}
				for i := range c.at {
					c.at[i] = uint32((rows - 1 - i) * 64)
				}
				c.m = simd.KeptMerge{Rows: rows, Bits: &of(rows)[0], Step: 2, Values: valuesAt(c.values, 0), Coef: &normals(r, rows*rank+1)[0], A: &normals(r, 64*rank+1)[0], R: rank}
				f(dt, fmt.Sprintf("%s, %d rows, rank %d", dt, rows, rank), c)
			}
		}
	}
}

// do runs f into n elements of a type; it gives them and where the values end.
func (c *mergeCase) do(f func(*simd.KeptMerge), to tensor.DType, n int) ([]float32, []uint32) {
	dst, at, m := tensor.New(to, 1, n), append([]uint32{}, c.at...), c.m
	m.Dst, m.At = unsafe.Pointer(&dst.Mem.Host[0]), &at[0]
	f(&m)
	out := make([]float32, n)
	widen(out, dst, 0)
	return out, at
}

// want is a merge row by row, dense, then compressed.
func (c *mergeCase) want() ([]float32, []uint32) {
	packing, w := keptLoops(), &worker{vec: vec{loops()}}
	return c.do(func(m *simd.KeptMerge) { w.keptMerge = *m; w.mergeKeptRows(&packing, c.values) }, tensor.F32, 64*c.m.Rows+16)
}

func near(t *testing.T, what string, got, want []float32, tol float64) {
	t.Helper()
	for i := range want {
		if d := math.Abs(float64(got[i] - want[i])); !(d <= tol*(1+math.Abs(float64(want[i])))) {
			t.Fatalf("%s: element %d is %v, want %v", what, i, got[i], want[i])
		}
	}
}

func TestEveryPackedMergeIsThatOfItsRows(t *testing.T) {
	for _, isa := range ISAs() {
		k := &kernels(isa).Kept
		if k.MergeWide == nil {
			continue
		}
		r := rand.New(rand.NewPCG(4, 7))
		all, _, _ := words(r)
		eachMerge(r, func(int) []uint64 { return all }, func(dt tensor.DType, name string, c mergeCase) {
			want, ends := c.want()
			got, gotEnds := c.do(k.Merge[format(dt)], tensor.F32, len(want))
			near(t, isa+" "+name, got, want, 1e-5)
			if !slices.Equal(gotEnds, ends) {
				t.Fatalf("%s %s: values end at %v, want %v", isa, name, gotEnds, ends)
			}
			c.m.Wide = &c.dense[0]
			want, _ = c.want()
			got, _ = c.do(k.MergeWide, tensor.F32, len(want))
			near(t, isa+" dense "+name, got, want, 1e-5)
		})
	}
}

func TestEveryRoundedMergeIsThatOfItsRows(t *testing.T) {
	for _, isa := range pairISAs(t) {
		k := &kernels(isa).Kept
		for _, inputs := range []int{64, 40} {
			r := rand.New(rand.NewPCG(4, 8))
			eachMerge(r, func(rows int) []uint64 { return twoOfFour(r, 2*rows, inputs) }, func(dt tensor.DType, name string, c mergeCase) {
				want, ends := c.want()
				got, gotEnds := c.do(k.MergeHalf[format(dt)], tensor.BF16, len(want))
				near(t, fmt.Sprintf("%s %s, %d inputs", isa, name, inputs), got, want, 0x1p-8)
				if !slices.Equal(gotEnds, ends) {
					t.Fatalf("%s %s: values end at %v, want %v", isa, name, gotEnds, ends)
				}
			})
		}
	}
}

func TestEveryMergeIntoPanelsIsThatOfItsRows(t *testing.T) {
	const step = amx.Part / 2
	for _, isa := range pairISAs(t) {
		k := &kernels(isa).Kept
		r := rand.New(rand.NewPCG(4, 9))
		all, _, _ := words(r)
		eachMerge(r, func(int) []uint64 { return all }, func(dt tensor.DType, name string, c mergeCase) {
			packed, ends := c.want()
			want := make([]float32, 2*step)
			for i := range c.m.Rows {
				for j := range 64 {
					if all[2*i]>>j&1 != 0 {
						want[j/amx.Rows*step+amx.Index(j%amx.Rows, i, 0, 1, true)] = packed[0]
						packed = packed[1:]
					}
				}
			}
			c.m.Panel = 2 * step
			got, gotEnds := c.do(k.MergePairs[format(dt)], tensor.BF16, len(want))
			near(t, isa+" "+name, got, want, 0x1p-8)
			if !slices.Equal(gotEnds, ends) {
				t.Fatalf("%s %s: values end at %v, want %v", isa, name, gotEnds, ends)
			}
			c.m.Panel = 0
			got, _ = c.do(k.MergePairs[format(dt)], tensor.BF16, len(want))
			near(t, isa+" one panel of "+name, got, append(want[:step:step], make([]float32, step)...), 0x1p-8)
		})
	}
}

func TestTwoOfFourIsWalkedInPairsOnlyWhereFourInputsAreWhole(t *testing.T) {
	for _, isa := range pairISAs(t) {
		b := New(Config{ISA: isa, Threads: 1})
		defer b.Close()
		for _, c := range []struct {
			p    sparse.Pattern
			want bool
		}{{sparse.Pattern{N: 2, M: 4}, true}, {sparse.Pattern{N: 1, M: 4}, false}, {sparse.Pattern{N: 4, M: 8}, false}, {sparse.Pattern{}, false}} {
			if got := b.walksTwoOfFour(&sparse.Weight{Out: 128, In: 128, Pattern: c.p}); got != c.want {
				t.Errorf("%s: %v walks in pairs: %v", isa, c.p, got)
			}
		}
	}
}
