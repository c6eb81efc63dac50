package cpu

import (
	"math"
	"math/bits"
	"math/rand/v2"
	"testing"
	"unsafe"

	"github.com/splora/splora/model/compute/cpu/internal/simd"
)

// classCase is a part of a 2:4 weight, all its outputs by at most 64 inputs, and its records.
type classCase struct {
	outs, groups int
	layout       classes
	words        []uint64  // by output
	kept         []float32 // [outs, groups], pairs of bfloat16
	records      []byte
}

const behind = "what stands behind the records of a block"

func newClassCase(r *rand.Rand, k *simd.KeptHalf, outs, groups int, words []uint64) *classCase {
	c := &classCase{outs: outs, groups: groups, layout: classes{out: outs, in: 4 * groups}, words: words}
	c.kept, _ = halves(r, 2*outs*groups)
	values, size := c.layout.record(outs)
	c.records = append(make([]byte, groups*size), behind...)
	space := roundUp(outs, 16)
	turned, low := make([]float32, groups*space), make([]uint32, 2*space)
	for i := range outs {
		for g := range groups {
			turned[g*space+i] = c.kept[i*groups+g]
		}
		low[i], low[space+i] = uint32(words[i]), uint32(words[i]>>32)
	}
	for i := range turned {
		if i%space >= outs {
			turned[i] = 7 // there is no such output
		}
	}
	k.ClassPack(&simd.ClassPack{Groups: groups, Slices: space / 16, Words: unsafe.Pointer(&turned[0]), Bits: unsafe.Pointer(&low[0]),
		Dst: unsafe.Pointer(&c.records[0]), Values: values, Size: size})
	return c
}

// weight is what output i keeps of input j, 0 where it keeps nothing.
func (c *classCase) weight(i, j int) float32 {
	if c.words[i]>>j&1 == 0 {
		return 0
	}
	return half(c.kept[i*c.groups+j/4:], bits.OnesCount64(c.words[i]&(1<<j-1)>>(j/4*4)))
}

func eachClassCase(t *testing.T, f func(isa string, r *rand.Rand, c *classCase)) {
	for _, isa := range pairISAs(t) {
		r := rand.New(rand.NewPCG(4, 10))
		for _, outs := range []int{2, 30, 34, 250, classRows} {
			for _, groups := range []int{16, 5} {
				words := twoOfFour(r, outs, 4*groups)
				f(isa, r, newClassCase(r, &kernels(isa).Kept.Half, outs, groups, words))
			}
		}
		same := make([]uint64, classRows) // all of one class, and the others empty
		for i := range same {
			same[i] = 0x6666666666666666
		}
		f(isa, r, newClassCase(r, &kernels(isa).Kept.Half, classRows, 16, same))
	}
}

func TestRecordsOfClassesHoldEachKeptWeightOnce(t *testing.T) {
	eachClassCase(t, func(isa string, _ *rand.Rand, c *classCase) {
		values, size := c.layout.record(c.outs)
		if got := string(c.records[c.groups*size:]); got != behind {
			t.Fatalf("%s, %d outputs: behind the records stands %q", isa, c.outs, got)
		}
		for g := range c.groups {
			rec := c.records[g*size:][:size]
			at, got := 0, make([]float32, 4*c.outs)
			for class, keeps := range [6][2]int{{0, 1}, {2, 3}, {0, 2}, {1, 3}, {0, 3}, {1, 2}} {
				for range 2 * int(rec[class]) {
					for k, input := range keeps {
						weight := fromBF16(*(*uint16)(unsafe.Pointer(&rec[values+at/2*8+4*k+at%2*2])))
						got[int(rec[8+at])*4+input] += weight
					}
					at++
				}
			}
			for i := range got {
				if want := c.weight(i/4, 4*g+i%4); got[i] != want {
					t.Fatalf("%s, %d outputs, group %d: output %d keeps %v of input %d, want %v", isa, c.outs, g, i/4, got[i], i%4, want)
				}
			}
		}
	})
}

func TestAWalkByClassIsItsSum(t *testing.T) {
	eachClassCase(t, func(isa string, r *rand.Rand, c *classCase) {
		k := &kernels(isa).Kept
		values, size := c.layout.record(c.outs)
		for n, walk := range k.Half.ClassWalk {
			tokens := 2 * (n + 1) * k.Lanes
			pairs, _ := halves(r, c.outs*tokens) // [outs/2, tokens], of two outputs
			x, y := make([]float32, c.outs*tokens/2), normals(r, 4*c.groups*tokens)
			k.Half.PairRows(c.outs/2, n+1, &x[0], &pairs[0])
			want := make([]float64, len(y))
			for i := range y {
				want[i] = float64(y[i])
				for o := range c.outs {
					want[i] += float64(c.weight(o, i/tokens)) * float64(half(pairs, (o/2*tokens+i%tokens)*2+o%2))
				}
			}
			walk(c.groups, &y[0], &x[0], unsafe.Pointer(&c.records[0]), values, size)
			for i := range y {
				if d := math.Abs(float64(y[i]) - want[i]); !(d <= 1e-4) {
					t.Fatalf("%s, %d outputs, %d tokens: input %d, token %d is %v, want %v", isa, c.outs, tokens, i/tokens, i%tokens, y[i], want[i])
				}
			}
		}
	})
}

func TestClassesTakeNoMoreOfTheSlotThanTheWeight(t *testing.T) {
	for out := 64; out < 3*classRows; out += 2 { // the least that walksClasses admits
		for _, in := range []int{128, 132, 1024} {
			c := classes{out: out, in: in}
			all := 0
			for k := range c.blocks() {
				_, size := c.record(c.rows(k))
				all += in / 4 * size
			}
			if all > 2*out*in {
				t.Fatalf("[%d,%d]: %d bytes by class, %d dense", out, in, all, 2*out*in)
			}
		}
	}
}
