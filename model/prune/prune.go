// Package prune chooses which weights to keep.
//
//	magnitude   S_ij = |W_ij|
//	Wanda       S_ij = |W_ij|·‖x_j‖₂        x [N,in] the linear's calibration inputs (Sun et al. 2024)
//
// The lowest scores go: of every m consecutive inputs of a row all but n (n:m keeps n), or a fraction of a whole row
// (Wanda) or matrix (magnitude). Among equals the first goes, as in a stable ascending sort.
//
// Blocks are pruned in order, and a block's inputs come from the pruned blocks before it.
package prune

import (
	"cmp"
	"fmt"
	"math"
	"runtime"
	"slices"
	"sync"

	"github.com/splora/splora/model/sparse"
	"github.com/splora/splora/model/tensor"
)

// Method is a pruner.
type Method string

// Methods.
const (
	Magnitude Method = "magnitude"
	Wanda     Method = "wanda"
)

// ParseMethod reads a pruner's name.
func ParseMethod(s string) (Method, error) {
	if m := Method(s); m == Magnitude || m == Wanda {
		return m, nil
	}
	return "", fmt.Errorf("prune: unknown pruner %q; use %s or %s", s, Wanda, Magnitude)
}

// Target is how much goes: a pattern n:m, or with the zero pattern the fraction Sparsity in (0, 1).
type Target struct {
	Pattern  sparse.Pattern
	Sparsity float64
}

// Mask gives the bits of the weights to keep of w F32 [out,in], laid out as sparse.Weight.Bits. norm [in] is ‖x_j‖₂ for
// Wanda, nil for magnitude.
func Mask(w tensor.Tensor, norm []float32, t Target) []uint64 {
	if norm != nil && len(norm) != w.Cols {
		panic(fmt.Sprintf("prune: %d norms for %d inputs", len(norm), w.Cols))
	}
	words := (w.Cols + 63) / 64
	bits := make([]uint64, w.Rows*words)
	if t.Pattern.M == 0 && norm == nil {
		keepMatrix(bits, w, t.Sparsity)
		return bits
	}
	parallel(w.Rows, func(lo, hi int) {
		s, idx := make([]float32, w.Cols), make([]int32, w.Cols)
		for i := lo; i < hi; i++ {
			score(s, w.Float32()[i*w.Cols:(i+1)*w.Cols], norm)
			keepRow(bits[i*words:(i+1)*words], s, idx, t)
		}
	})
	return bits
}

// score sets s_j = |w_j|·norm_j. A NaN counts as 0, so that the sort has an order; loading refuses such weights.
func score(s, w, norm []float32) {
	for j, x := range w {
		s[j] = float32(math.Abs(float64(x)))
		if norm != nil {
			s[j] *= norm[j]
		}
		if s[j] != s[j] {
			s[j] = 0
		}
	}
}

// keepRow sets the bits of one row: group by group, or over the whole row.
func keepRow(bits []uint64, s []float32, idx []int32, t Target) {
	if t.Pattern.M == 0 {
		keepBest(bits, s, idx, 0, len(s)-sparse.Removed(len(s), t.Sparsity))
		return
	}
	for lo := 0; lo < len(s); lo += t.Pattern.M {
		hi := min(lo+t.Pattern.M, len(s))
		keepBest(bits, s[lo:hi], idx, lo, min(t.Pattern.N, hi-lo))
	}
}

// keepBest sets the bits of the n best of s; s[0] is input at. idx is scratch.
func keepBest(bits []uint64, s []float32, idx []int32, at, n int) {
	idx = idx[:len(s)]
	for j := range idx {
		idx[j] = int32(j)
	}
	slices.SortStableFunc(idx, func(a, b int32) int { return cmp.Compare(s[a], s[b]) })
	for _, j := range idx[len(s)-n:] {
		k := at + int(j)
		bits[k/64] |= 1 << (k % 64)
	}
}

// keepMatrix keeps all but the int(out·in·sparsity) smallest magnitudes of the whole matrix.
func keepMatrix(bits []uint64, w tensor.Tensor, sparsity float64) {
	v, words := w.Float32(), (w.Cols+63)/64
	s := make([]float32, len(v))
	score(s, v, nil)
	gone := sparse.Removed(len(v), sparsity)
	sorted := slices.Clone(s)
	slices.Sort(sorted)
	var limit float32
	ties := 0 // how many of the weights equal to limit go
	if gone > 0 {
		limit = sorted[gone-1]
		first, _ := slices.BinarySearch(sorted, limit)
		ties = gone - first
	}
	for k, x := range s {
		if gone > 0 && x < limit {
			continue
		}
		if ties > 0 && x == limit {
			ties--
			continue
		}
		i, j := k/w.Cols, k%w.Cols
		bits[i*words+j/64] |= 1 << (j % 64)
	}
}

// parallel runs f over [0,n) in as many pieces as there are processors. The rows are independent, so the pieces do not matter.
func parallel(n int, f func(lo, hi int)) {
	p := min(runtime.GOMAXPROCS(0), n)
	var wg sync.WaitGroup
	for i := range p {
		wg.Go(func() { f(i*n/p, (i+1)*n/p) })
	}
	wg.Wait()
}
