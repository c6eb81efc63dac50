package cpu

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/splora/splora/model/compute/cpu/internal/simd"
	"github.com/splora/splora/model/tensor"
)

func random(dt tensor.DType, rows, cols int) tensor.Tensor {
	t := tensor.New(dt, rows, cols)
	v := make([]float32, rows*cols)
	for i := range v {
		v[i] = rand.Float32() - 0.5
	}
	narrow(t, 0, v)
	return t
}

func report(b *testing.B, flops float64) {
	b.ReportMetric(flops*float64(b.N)/b.Elapsed().Seconds()/1e9, "GFLOP/s")
}

// BenchmarkPeak is what one core's FMA units can do.
func BenchmarkPeak(b *testing.B) {
	for _, isa := range ISAs()[:len(ISAs())-1] {
		k := simd.For(isa)
		b.Run(isa, func(b *testing.B) {
			for b.Loop() {
				k.Peak(1000_000)
			}
			report(b, 1e6*12*2*float64(k.Lanes))
		})
	}
}

func BenchmarkGemm(b *testing.B) {
	for _, isa := range ISAs() {
		for _, threads := range []int{1, 2} {
			for _, s := range [][3]int{{512, 512, 512}, {1024, 2048, 512}, {2048, 1024, 1024}, {512, 256, 704}, {1024, 16, 2048}, {16, 1024, 2048}, {1024, 2048, 16}, {1, 2048, 2048}} {
				for i, order := range []string{"NN", "NT", "TN"} {
					benchGemm(b, fmt.Sprintf("%s/%d/%dx%dx%d/%s", isa, threads, s[0], s[1], s[2], order), isa, threads, s, tensor.F32, i == 2, i == 1)
				}
			}
			benchGemm(b, fmt.Sprintf("%s/%d/1024x2048x512/NTbf16", isa, threads), isa, threads, [3]int{1024, 2048, 512}, tensor.BF16, false, true)
		}
	}
}

func benchGemm(b *testing.B, name, isa string, threads int, s [3]int, dt tensor.DType, ta, tb bool) {
	b.Run(name, func(b *testing.B) {
		m, n, k := s[0], s[1], s[2]
		dev := New(Config{ISA: isa, Threads: threads})
		defer dev.Close()
		x, y, dst := random(tensor.F32, m, k), random(dt, k, n), tensor.New(tensor.F32, m, n)
		if ta {
			x = x.Reshape(k, m)
		}
		if tb {
			y = y.Reshape(n, k)
		}
		b.ReportAllocs()
		for b.Loop() {
			dev.Gemm(dst, 1, x, ta, y, tb, 0)
		}
		report(b, 2*float64(m)*float64(n)*float64(k))
	})
}
