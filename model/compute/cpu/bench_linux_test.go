package cpu

import (
	"fmt"
	"math"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/splora/splora/model/tensor"
)

// threadTime is the processor time of this thread, which a busy neighbour does not change.
func threadTime() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t); err != nil {
		panic(err)
	}
	return time.Duration(t.Nano())
}

// measure reports flops per second: of wall time with several threads, of the thread's own time with one.
func measure(b *testing.B, threads int, flops float64, f func()) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	f()
	best := time.Duration(math.MaxInt64)
	var start, own time.Duration
	for b.Loop() {
		start = time.Duration(time.Now().UnixNano())
		own = threadTime()
		f()
		if threads == 1 {
			best = min(best, threadTime()-own)
		} else {
			best = min(best, time.Duration(time.Now().UnixNano())-start)
		}
	}
	b.ReportMetric(flops/best.Seconds()/1e9, "GFLOP/s")
}

// BenchmarkPeak is what one core's FMA units can do.
func BenchmarkPeak(b *testing.B) {
	for _, isa := range ISAs()[:len(ISAs())-1] {
		k := kernels(isa)
		b.Run(isa, func(b *testing.B) {
			measure(b, 1, 1e6*12*2*float64(k.Lanes), func() { k.Peak(1000_000) })
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
			benchGemm(b, fmt.Sprintf("%s/%d/1x2048x2048/NTbf16", isa, threads), isa, threads, [3]int{1, 2048, 2048}, tensor.BF16, false, true)
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
		measure(b, threads, 2*float64(m)*float64(n)*float64(k), func() { dev.Gemm(dst, 1, x, ta, y, tb, 0) })
	})
}

// BenchmarkTile is one micro-kernel call with its panels in the first cache.
func BenchmarkTile(b *testing.B) {
	for _, isa := range ISAs()[:len(ISAs())-1] {
		k := kernels(isa)
		for _, kc := range []int{32, 128, 256} {
			b.Run(fmt.Sprintf("%s/%d", isa, kc), func(b *testing.B) {
				x, y, c := random(tensor.F32, kc, k.MR).Float32(), random(tensor.F32, kc, k.NR).Float32(), make([]float32, 4096)
				measure(b, 1, float64(1000*2*k.MR*k.NR*kc), func() {
					for range 1000 {
						k.Tile[2][1](kc, &x[0], &y[0], &c[0], 128, 1, 1)
					}
				})
			})
		}
	}
}
