//go:build cuda

package cuda_test

import (
	"testing"

	"github.com/splora/splora/model/compute"
	"github.com/splora/splora/model/compute/cuda"
	"github.com/splora/splora/model/compute/cuda/cudatest"
	"github.com/splora/splora/model/sparse"
	"github.com/splora/splora/model/tensor"
)

func TestTheSparseTensorCoresAreTakenWhereTheyAreAskedForAndFit(t *testing.T) {
	asked, not := cudatest.Open(t, cuda.Config{SparseCores: true}), cudatest.Open(t, cuda.Config{})
	weight := func(in int, p sparse.Pattern, removed float64) *sparse.Weight {
		return sparse.Sketch(40, in, tensor.BF16, p, removed)
	}
	two := sparse.Pattern{N: 2, M: 4}
	for _, c := range []struct {
		w     *sparse.Weight
		x     tensor.DType
		takes bool
	}{
		{weight(128, two, 0), tensor.BF16, true}, {weight(128, two, 0), tensor.F32, false}, {weight(96, two, 0), tensor.BF16, false},
		{weight(128, sparse.Pattern{N: 1, M: 4}, 0), tensor.BF16, false}, {weight(128, sparse.Pattern{}, 0.5), tensor.BF16, false},
	} {
		for _, b := range []compute.SparseLinear{asked, asked.Survey().(compute.SparseLinear), cuda.Planner{SparseCores: true}.Survey().(compute.SparseLinear)} {
			if b.WalksKept(c.w, c.x, 100) != c.takes || b.KeptSlot(c.w, c.x) != c.w.Out*c.w.In {
				t.Errorf("[%d,%d] %+v, %s: taken %v, with a slot of %d", c.w.Out, c.w.In, c.w.Pattern, c.x, !c.takes, b.KeptSlot(c.w, c.x))
			}
		}
		for _, b := range []compute.SparseLinear{not, not.Survey().(compute.SparseLinear), cuda.Planner{}.Survey().(compute.SparseLinear)} {
			if b.WalksKept(c.w, c.x, 100) {
				t.Errorf("[%d,%d] %+v, %s is taken, and nobody asked for it", c.w.Out, c.w.In, c.w.Pattern, c.x)
			}
		}
	}
	if n := asked.KeptSlot(sparse.Sketch(1, 64, tensor.BF16, two, 0), tensor.BF16); 2*n != 1152 {
		t.Errorf("a slot of %d elements for one row, which takes a tile of 1152 bytes", n)
	}
}

// TestASurveyKnowsTheCopiesOfALargeAdapter: ranks beyond 64 are two products with copies of A and B in 16 bits.
func TestASurveyKnowsTheCopiesOfALargeAdapter(t *testing.T) {
	s := cudatest.Open(t, cuda.Config{SparseCores: true}).Survey()
	const out, in, r = 4096, 32768, 65
	w := sparse.Sketch(out, in, tensor.BF16, sparse.Pattern{N: 2, M: 4}, 0)
	of := func(dt tensor.DType, rows, cols int) tensor.Tensor {
		return tensor.Tensor{DType: dt, Rows: rows, Cols: cols, Mem: compute.Nowhere}
	}
	b, a := of(tensor.F32, out, r), of(tensor.F32, r, in)
	s.(compute.SparseLinear).KeptAdapter(a, b, of(tensor.BF16, 3, out), of(tensor.BF16, 3, in), of(tensor.BF16, out, in), w, b, a, 1)
	if want := 2 * r * (out + in); s.Scratch() != want {
		t.Errorf("%d bytes, want %d", s.Scratch(), want)
	}
}
