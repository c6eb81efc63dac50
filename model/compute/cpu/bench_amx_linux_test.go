package cpu

import (
	"fmt"
	"slices"
	"testing"
	"unsafe"

	"github.com/splora/splora/model/compute/cpu/internal/amx"
	"github.com/splora/splora/model/tensor"
)

// unitShapes are m, n, k of LLaMA's layers at 512 tokens, with hidden 512, 1024 and 2048, and of LoRA's products.
var unitShapes = [][3]int{{512, 512, 512}, {512, 1408, 512}, {512, 512, 1408}, {512, 1024, 1024}, {512, 2816, 1024}, {512, 2048, 2048}, {512, 5632, 2048}, {512, 2048, 5632},
	{2048, 2048, 512}, {512, 16, 2048}, {16, 2048, 512}, {512, 2048, 16}, {2048, 2048, 16}, {2048, 16, 2048}}

// BenchmarkUnit is products of bfloat16 and of float32 on one thread, by all instruction sets that have them.
func BenchmarkUnit(b *testing.B) {
	for _, isa := range ISAs() {
		for _, types := range [][3]tensor.DType{{tensor.BF16, tensor.BF16, tensor.BF16}, {tensor.F32, tensor.F32, tensor.F32}, {tensor.F32, tensor.F32, tensor.BF16}} {
			if isa == "go" || slices.Contains(types[:], tensor.BF16) && isa == "avx2" {
				continue
			}
			for _, s := range unitShapes {
				for i, order := range []string{"NT", "NN", "TN"} {
					name := fmt.Sprintf("%s/%s·%s→%s/%dx%dx%d/%s", isa, types[1], types[2], types[0], s[0], s[1], s[2], order)
					b.Run(name, func(b *testing.B) { benchUnit(b, isa, types, s, i == 2, i == 0) })
				}
			}
		}
	}
}

func benchUnit(b *testing.B, isa string, types [3]tensor.DType, s [3]int, ta, tb bool) {
	m, n, k := s[0], s[1], s[2]
	dev := New(Config{ISA: isa, Threads: 1})
	defer dev.Close()
	x, y, dst := random(types[1], m, k), random(types[2], k, n), tensor.New(types[0], m, n)
	if ta {
		x = x.Reshape(k, m)
	}
	if tb {
		y = y.Reshape(n, k)
	}
	measure(b, 1, 2*float64(m)*float64(n)*float64(k), func() { dev.Gemm(dst, 1, x, ta, y, tb, 0) })
}

// BenchmarkUnitParts is what a product consists of, alone: the strips of one panel of 32 columns by 512 rows, its packing, and storing it.
func BenchmarkUnitParts(b *testing.B) {
	u := unitFor("amx")
	if u.Kernels == nil {
		b.Skip("no tiles here")
	}
	for _, parts := range []int{1, 3} {
		kc := map[int]int{1: unitK, 3: unitK3}[parts]
		dt := map[int]tensor.DType{1: tensor.BF16, 3: tensor.F32}[parts]
		var fixed, panel []uint16
		var blocks []float32
		wide := unitSide{side: side{t: random(dt, 512, kc), rows: 512}, parts: parts}
		wide.packed = aligned(fixed, wide.size(kc)*16)
		panel, blocks = aligned(panel, wide.size(kc)), aligned(blocks, 16*amx.Block)
		for p := range 16 {
			wide.pack(&u.Packing, wide.at(p, 0, kc), p, 0, kc)
		}
		copy(panel, wide.packed)
		s := amx.Strip{N: 16, K: kc / 32, A: unsafe.Pointer(&wide.packed[0]), AStep: 2 * wide.size(kc), B: unsafe.Pointer(&panel[0]), C: unsafe.Pointer(&blocks[0])}
		for add := range 2 {
			s.Add = add
			b.Run(fmt.Sprintf("strip/%s/add=%d", dt, add), func(b *testing.B) {
				measure(b, 1, 100*2*512*32*float64(kc), func() {
					for range 100 {
						u.Strip[parts/2][parts/2][0][3](&s)
					}
				})
			})
		}
		for _, c := range []struct {
			name         string
			along, pairs bool
		}{{"a rows", false, false}, {"a along", true, false}, {"b across", false, true}, {"b along", true, true}} {
			x := unitSide{side: side{t: random(dt, 512, 512), rows: 512, along: c.along}, parts: parts, pairs: c.pairs}
			b.Run(fmt.Sprintf("pack/%s/%s (as if multiplied by 512 rows)", dt, c.name), func(b *testing.B) {
				measure(b, 1, 16*2*512*32*float64(kc), func() {
					for p := range 16 {
						x.pack(&u.Packing, panel, p, 0, kc)
					}
				})
			})
		}
		dst := tensor.New(dt, 512, 512)
		t := unitTask{u: &u, dst: dst, alpha: 1, fixed: wide, moving: unitSide{side: side{rows: 512}, pairs: true}}
		b.Run(fmt.Sprintf("store/%s (as if of k=%d)", dt, kc), func(b *testing.B) {
			measure(b, 1, 16*2*512*32*float64(kc), func() {
				for m := range 16 {
					t.store(blocks, 0, 16, m, 0)
				}
			})
		})
	}
}
