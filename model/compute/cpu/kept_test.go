package cpu

import (
	"fmt"
	"math"
	"math/bits"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/splora/splora/model/compute/cpu/internal/simd"
)

// words are mask words of every kind: empty, full, single, and random ones of all densities, every other one of them to be used.
func words(r *rand.Rand) (all []uint64, rows, kept int) {
	use := []uint64{0, ^uint64(0), 1, 1 << 63, 1<<32 - 1, 0x3333333333333333, 0}
	for range 20 {
		m := r.Uint64()
		for range r.IntN(4) {
			m &= r.Uint64()
		}
		use = append(use, m)
	}
	for _, m := range use {
		all = append(all, m, r.Uint64())
		kept += bits.OnesCount64(m)
	}
	return all, len(use), kept
}

func normals(r *rand.Rand, n int) []float32 {
	v := make([]float32, n)
	for i := range v {
		v[i] = float32(r.NormFloat64())
	}
	return v
}

// closeTo compares two results of sums of some dozens of products.
func closeTo(t *testing.T, what string, got, want []float32) {
	t.Helper()
	for i := range want {
		if d := math.Abs(float64(got[i] - want[i])); !(d <= 2e-5) {
			t.Fatalf("%s: element %d is %v, want %v", what, i, got[i], want[i])
		}
	}
}

func TestEveryWidthOfTheKernelsOverKeptWeightsIsItsLoop(t *testing.T) {
	for _, isa := range ISAs() {
		if isa == "go" {
			continue
		}
		r := rand.New(rand.NewPCG(3, 9))
		k := kernels(isa).Kept
		all, rows, kept := words(r)
		values := normals(r, kept)
		for i, walk := range k.Walk {
			n := (i + 1) * k.Lanes
			y, x := normals(r, rows*n), normals(r, 64*n)
			want := append([]float32{}, y...)
			walkGo(n, rows, &want[0], &x[0], &all[0], 2, &values[0])
			walk(rows, &y[0], &x[0], &all[0], 2, &values[0])
			closeTo(t, fmt.Sprintf("%s walk %d", isa, i+1), y, want)
		}
		for i, dots := range k.Dots {
			if dots == nil {
				continue
			}
			n := (i + 1) * k.Lanes
			y, x := normals(r, rows*n), normals(r, 65*n)
			for j := range n {
				x[64*n+j] = float32(math.NaN()) // read, and not used
			}
			for add := range 2 {
				got := append(normals(r, kept), 7)
				want := append([]float32{}, got...)
				dotsGo(n, rows, &want[0], &y[0], &x[0], &all[0], 2, add)
				dots(rows, &got[0], &y[0], &x[0], &all[0], 2, add)
				closeTo(t, fmt.Sprintf("%s dots %d, add %d", isa, i+1, add), got, want)
			}
		}
		for i, reduce := range k.Reduce {
			if reduce == nil {
				continue
			}
			n := (i + 1) * k.Lanes
			db, da, a, b := normals(r, rows*n), normals(r, 64*n), normals(r, 64*n), normals(r, rows*n)
			wantDB, wantDA := append([]float32{}, db...), append([]float32{}, da...)
			reduceGo(n, &simd.KeptReduce{Rows: rows, DB: &wantDB[0], DA: &wantDA[0], A: &a[0], B: &b[0], Bits: &all[0], Step: 2, G: &values[0]})
			reduce(&simd.KeptReduce{Rows: rows, DB: &db[0], DA: &da[0], A: &a[0], B: &b[0], Bits: &all[0], Step: 2, G: &values[0]})
			closeTo(t, fmt.Sprintf("%s reduce %d, db", isa, i+1), db, wantDB)
			closeTo(t, fmt.Sprintf("%s reduce %d, da", isa, i+1), da, wantDA)
		}
		compressed(t, isa, k, r, all)
	}
}

// compressed checks Compress bit by bit.
func compressed(t *testing.T, isa string, k simd.Kept, r *rand.Rand, all []uint64) {
	if k.Compress == nil {
		return
	}
	src := normals(r, 64)
	for _, word := range all {
		n := bits.OnesCount64(word)
		got, want := append(make([]float32, n), 7), make([]float32, 0, 65)
		k.Compress(&got[0], &src[0], word)
		for j, v := range src {
			if word>>j&1 != 0 {
				want = append(want, v)
			}
		}
		if want = append(want, 7); !slices.Equal(got, want) {
			t.Fatalf("%s: of %#x compress keeps %v, want %v", isa, word, got, want)
		}
	}
}

func TestATransposedMaskHasItsBitsAcross(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 5))
	var m, c [64]uint64
	for i := range m {
		m[i] = r.Uint64()
	}
	c = m
	turn64(&c)
	for i := range 64 {
		for j := range 64 {
			if m[i]>>j&1 != c[j]>>i&1 {
				t.Fatalf("bit (%d,%d)", i, j)
			}
		}
	}
}
